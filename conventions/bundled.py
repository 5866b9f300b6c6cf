"""The files that come with the program and that commands take where they are told no others."""

from pathlib import Path

HERE = Path(__file__).parent.parent
EXAMPLE = HERE / "example" / "osu-diffusion - First Steps (osu-diffusion) [Original].osu"
DEFAULT_MODEL = HERE / "checkpoints" / "osu-diffusion-xs.safetensors"
