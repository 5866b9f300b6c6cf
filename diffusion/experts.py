"""An expert for low noise: another network that takes over from a certain noise level down."""

import math

import torch
from torch import Tensor

from diffusion.parametrisation import Denoise, Parametrisation, StepStd, posterior_std

Denoiser = tuple[Denoise, StepStd]
"""What `Parametrisation.denoiser` gives."""


def mean_scale(parametrisation: Parametrisation) -> float:
    """Playfield px per network unit, the geometric mean of both axes."""
    return math.prod(parametrisation.scale) ** 0.5


def expert_limit(parametrisation: Parametrisation, below_px: float | None = None) -> float:
    """The noise in px at which an expert takes over: what it was trained at, or less if wanted.

    As everywhere, noise in px is that of the axis that has more of it.
    """
    known = parametrisation.limit * max(parametrisation.scale)
    return known if below_px is None else min(known, below_px)


def taking_over(
    base: Denoiser,
    units: Parametrisation,
    expert: Denoiser,
    expert_units: Parametrisation,
    below_px: float | None = None,
) -> Denoiser:
    """`base` above the noise that the expert knows, or above `below_px`, and `expert` from there.

    The result is in the units of `base`. Where those of the two differ, positions go through px.
    Noise that is as much on both axes in one's may not be so in the other's, by a sixth either
    way; the expert is told the level in between.
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
        # A learnt variance belongs to the steps of its own chain, which may lie elsewhere.
        return expert[1](sigma, following) if same_chain else posterior_std(sigma, following)

    return denoise, std
