"""The conditions of a part of a map, and `denoise` of a model under these conditions."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from beatmaps.selection import Mask
from beatmaps.sequence import Sequence
from checkpoint import LoadedModel
from conventions.arrays import FloatArray
from conventions.precision import has_bf16
from data_loading import conditions_of, near_playfield
from diffusion.experts import with_expert
from diffusion.guidance import guided_by_weak, guided_network
from diffusion.parametrisation import Denoise, Network, StepStd
from models import Conditions, bind
from sampling.experts import Expert
from sampling.options import (
    EXAGGERATED_FROM_PX,
    GUIDED_FROM_PX,
    SampleOptions,
    guidance_weight,
)
from sampling.style import Style


@dataclass(frozen=True)
class Part:
    """The part of a map that one run works on: its T data points and their conditions.

    times (T,) are ms since the map's first data point; distances (T,) px are wanted to the previous
    point, -1 for none; kept (T,) marks points that stay.
    """

    sequence: Sequence
    times: FloatArray
    distances: FloatArray
    kept: Mask


def make_denoiser(
    loaded: LoadedModel,
    part: Part,
    options: SampleOptions,
    style: Style,
    expert: Expert | None = None,
) -> tuple[Denoise, StepStd]:
    """`denoise` of a part in a style, and the std of ancestral steps.

    Guidance by the weak model leads away from what that model predicts without a style. An expert
    takes over at low noise.
    """
    if expert is not None:
        # A given weight of guidance is for the model that has a weak one.
        theirs = options if expert.loaded.weak is not None else replace(options, guidance=None)
        return with_expert(
            make_denoiser(loaded, part, options, style),
            loaded.parametrisation,
            make_denoiser(expert.loaded, part, theirs, expert.style),
            expert.loaded.parametrisation,
            expert.below_px,
        )
    denoise, std = _styled(loaded, part, options, style)
    weight = guidance_weight(loaded, options)
    if loaded.weak is not None and weight != 1:
        weak, _ = _styled(loaded.weak, part, options, Style())
        lowest = GUIDED_FROM_PX / max(loaded.parametrisation.scale)
        denoise = guided_by_weak(denoise, weak, weight, (lowest, float("inf")))
    return denoise, std


def _styled(
    loaded: LoadedModel, part: Part, options: SampleOptions, style: Style
) -> tuple[Denoise, StepStd]:
    """The same for one model, with classifier-free guidance where the style asks for it."""
    device, parametrisation = loaded.device, loaded.parametrisation
    null = loaded.model.class_table()[-1]

    def repeated(embedding: Tensor | None) -> Tensor:
        """(N, D), for every variant; that of no style for None."""
        return (null if embedding is None else embedding.to(device)).expand(options.variants, -1)

    wanted, unwanted = repeated(style.embedding), repeated(style.negative)
    use_amp = has_bf16(device) if options.use_amp is None else options.use_amp
    told = part_conditions(loaded, part)

    def network(classes: Tensor) -> Network:
        conditions = told.repeat(len(classes))._replace(classes=classes)
        return bind(loaded.model, conditions, options.half_window, use_amp=use_amp)

    as_told = parametrisation.denoiser(network(wanted))
    if options.cfg_scale == 1 or torch.equal(wanted, unwanted):
        return as_told
    both = network(torch.cat([wanted, unwanted]))
    exaggerated = parametrisation.denoiser(guided_network(both, options.cfg_scale))
    # Edits, and models of low noise, have no other levels at which the style could arrive.
    whole = options.strength == 1 and math.isinf(parametrisation.limit)
    from_px = EXAGGERATED_FROM_PX if whole else 0.0
    return with_expert(exaggerated, parametrisation, as_told, parametrisation, from_px)


def part_conditions(loaded: LoadedModel, part: Part) -> Conditions:
    """The conditions (1, T) of a part, without a style."""
    null = loaded.model.null_classes()
    conditions = conditions_of(part.sequence, null, times=part.times, distances=part.distances)
    if not loaded.model.config.known_points or not part.kept.any():
        return conditions
    xy = part.sequence.xy
    told = np.where((part.kept & near_playfield(xy))[:, None], xy, np.nan)
    return conditions._replace(known=in_network_units(loaded, told)[None])


def in_network_units(loaded: LoadedModel, xy: FloatArray) -> Tensor:
    """xy (..., 2) px as the model's coordinates, on its device."""
    return loaded.parametrisation.from_pixels(torch.from_numpy(xy).float().to(loaded.device))
