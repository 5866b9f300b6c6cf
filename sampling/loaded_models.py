"""The models that a request names, loaded."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from checkpoint import LoadedModel, load_model
from conventions.errors import FieldError
from sampling.experts import Expert
from sampling.request import RemapRequest


@dataclass(frozen=True)
class Models:
    """The model that samples, one that refines the result, and the expert for low noise."""

    sampler: LoadedModel
    refiner: LoadedModel | None = None
    expert: LoadedModel | None = None


def load_models(request: RemapRequest, device: torch.device) -> Models:
    """The models that a request names; ValueError where the expert cannot be one, or is missing."""

    def load(path: Path | None) -> LoadedModel | None:
        if path is None:
            return None
        return load_model(path, device, known_steps=request.max_noise_step)

    sampler, expert = load(request.model), load(request.expert)
    assert sampler is not None
    if expert is not None:
        Expert(expert, below_px=request.expert_below)
    elif request.expert_below is not None:
        if sampler.expert is None:
            raise FieldError(
                "{expert_below} says when an expert takes over, and {0} has none beside it: "
                "give {expert}",
                sampler.path.name,
            )
        if request.expert_below == 0:
            sampler = replace(sampler, expert=None)
    return Models(sampler, load(request.refiner), expert)
