"""The files that come with the program; commands use them unless others are named."""

from pathlib import Path

HERE = Path(__file__).parent.parent
EXAMPLE = HERE / "example" / "osu-diffusion - First Steps (osu-diffusion) [Original].osu"
DEFAULT_MODEL = HERE / "checkpoints" / "osu-diffusion-xs.safetensors"
