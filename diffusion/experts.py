"""An expert for low noise: another network that takes over from a certain noise level down."""

import math

import torch
from torch import Tensor

from diffusion.parametrisation import Denoise, Parametrisation, StepStd, posterior_std

Denoiser = tuple[Denoise, StepStd]
"""What `Parametrisation.denoiser` returns."""


def mean_scale(parametrisation: Parametrisation) -> float:
    """Playfield px per network unit, the geometric mean of both axes."""
    return math.prod(parametrisation.scale) ** 0.5


def expert_limit(parametrisation: Parametrisation, below_px: float | None = None) -> float:
    """The noise in px at which an expert takes over: what it was trained at, or less if asked for.

    As everywhere, noise in px is that of the axis with more px per network unit.
    """
    known = parametrisation.limit * max(parametrisation.scale)
    return known if below_px is None else min(known, below_px)


def with_expert(
    base: Denoiser,
    units: Parametrisation,
    expert: Denoiser,
    expert_units: Parametrisation,
    below_px: float | None = None,
) -> Denoiser:
    """`base` above the noise that the expert was trained at, or above `below_px`; below, `expert`.

    The result is in the units of `base`. If the two have other units, positions are converted by
    way of px. Noise that is equal on both axes in the units of one may be off by a sixth, up or
    down, in those of the other; the expert is given the level in between.
    """
    limit = expert_limit(expert_units, below_px) / max(expert_units.scale)
    ratio = mean_scale(units) / mean_scale(expert_units)
    same = units.scale == expert_units.scale
    same_chain = same and torch.equal(units.chain_sigmas(1000), expert_units.chain_sigmas(1000))

    def takes(sigma: Tensor) -> bool:
        return float(sigma) * ratio <= limit * (1 + 1e-9)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        if not takes(sigma):
            return base[0](x, sigma)
        if same:
            return expert[0](x, sigma)
        theirs = expert_units.from_pixels(units.to_pixels(x))
        x0 = expert[0](theirs.to(x.dtype), sigma * ratio)
        return units.from_pixels(expert_units.to_pixels(x0))

    def std(sigma: Tensor, following: Tensor) -> Tensor:
        if not takes(sigma):
            return base[1](sigma, following)
        # A learnt variance fits only the steps of its own chain, which may have other levels.
        return expert[1](sigma, following) if same_chain else posterior_std(sigma, following)

    return denoise, std
