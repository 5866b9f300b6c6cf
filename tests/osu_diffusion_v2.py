"""A made-up osu-diffusion v2 folder for tests."""

from pathlib import Path
from typing import Any

import torch

from conditions import osu_diffusion_v2
from conditions.vocabulary import vocabulary_of
from models import SIZES, DiT, DiTConfig


def tokenizer(**changes: Any) -> dict[str, Any]:
    """What a `tokenizer.pkl` holds: of two mappers, three descriptors and three beatmaps."""
    return {
        "beatmap_idx": {},
        "num_classes": 0,
        "num_diff_classes": 26,
        "max_difficulty": 12,
        "beatmap_mapper": {101: 7, 102: 8, 303335: 8},
        "mapper_idx": {7: 0, 8: 1},
        "num_mapper_classes": 3,
        "beatmap_descriptors": {101: [0, 1], 102: [2]},
        "descriptor_idx": {"style/clean": 0, "skillset/jumps": 1, "skillset/streams": 2},
        "num_descriptor_classes": 4,
        "num_cs_classes": 22,
        **changes,
    }


def write_folder(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Writes a v2 of the smallest size with a name, of random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    values = tokenizer(**changes)
    config = DiTConfig(
        **{
            **osu_diffusion_v2.ARCHITECTURE,
            **SIZES["DiT-nano"],
            "class_groups": vocabulary_of(values).groups,
        }
    )
    model = DiT(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1, generator=generator)
    old, new = osu_diffusion_v2.RENAMED
    state = {name.replace(new, old): weight for name, weight in model.state_dict().items()}
    torch.save(state, folder / osu_diffusion_v2.WEIGHTS)
    torch.save(values, folder / osu_diffusion_v2.TOKENIZER)
    return folder
