"""The folder of an osu-diffusion v2: `model_ema.pkl`, a state dict, and `tokenizer.pkl`.

A DiT like that of osu-diffusion, but with a vector of conditions instead of one class, and
with coordinates relative to the playfield's centre. Nothing in the files says at which noise levels
it was trained: the published configuration trains only the first 100 of 1,000 timesteps.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from conditions.vocabulary import Vocabulary
from conventions.errors import FieldError
from models import REFERENCE_ARCHITECTURE, SIZES, DiTConfig

WEIGHTS, TOKENIZER = "model_ema.pkl", "tokenizer.pkl"
KNOWN_STEPS, STEPS = 100, 1000
ARCHITECTURE = {**REFERENCE_ARCHITECTURE, "coordinate_scale": (512.0, 512.0)}
FIRST_LAYER, CLASS_LAYER = "context_embedder.mlp.0.weight", "y_embedder.class_embedding.0.weight"
RENAMED = "context_embedder.", "xoc_embedder."


def weights_of(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by the names that our DiT gives them; ValueError if they are not of a v2."""
    if not all(isinstance(name, str) and isinstance(v, Tensor) for name, v in state.items()):
        raise ValueError("it holds more than tensors by name")
    if FIRST_LAYER not in state or CLASS_LAYER not in state:
        raise ValueError("it holds the weights of another program")
    old, new = RENAMED
    return {
        new + name.removeprefix(old) if name.startswith(old) else name: value
        for name, value in state.items()
    }


def config_of(
    weights: Mapping[str, Tensor], vocabulary: Vocabulary, heads: int | None = None
) -> DiTConfig:
    """The configuration, by the tensors' shapes; `heads` is needed for sizes not in `SIZES`."""
    width, places = weights[CLASS_LAYER].shape
    if places != sum(vocabulary.groups):
        raise ValueError(
            f"the model is told of a map by {places} numbers, {TOKENIZER} has "
            f"{sum(vocabulary.groups)}: they are not of one model"
        )
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    if heads is None:
        named = [s["heads"] for s in SIZES.values() if (s["width"], s["depth"]) == (width, depth)]
        if not named:
            raise ValueError(
                f"width {width} and depth {depth} are no size that it was published in: "
                "its number of attention heads must be given"
            )
        heads = named[0]
    return DiTConfig(
        **{
            **ARCHITECTURE,
            "width": width,
            "depth": depth,
            "heads": heads,
            "class_groups": vocabulary.groups,
        }
    )


def parametrisation_of(known_steps: int | None = None) -> dict[str, Any]:
    """How it was trained, as `parametrisation_from_dict` takes it.

    Only the first `known_steps` timesteps count as trained: None means as many as are published.
    """
    steps = KNOWN_STEPS if known_steps is None else known_steps
    if not 1 <= steps <= STEPS:
        raise FieldError("{max_noise_step} {0}: give a number from 1 to {1}", steps, STEPS)
    known = None if steps == STEPS else steps
    return {
        "name": "learned-variance",
        "noise_schedule": "squaredcos_cap_v2",
        "l1": False,
        "centred": True,
        "known_steps": known,
    }
