"""Guidance: wrappers that push predictions away from those of a less informed, or worse, model."""

import torch
from torch import Tensor

from diffusion.parametrisation import Denoise, Network


def guided_network(network: Network, scale: float) -> Network:
    """Classifier-free guidance (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598, equation 6).

    `network` takes a doubled batch whose second half has the null class. Predictions are linear in
    the first two channels for every parametrisation here; the variance is the conditional half's.
    """

    def guided(x: Tensor, labels: Tensor) -> Tensor:
        out = network(torch.cat([x, x]), torch.cat([labels, labels]))
        conditional, null = out.chunk(2)
        mixed = null[..., :2] + scale * (conditional[..., :2] - null[..., :2])
        return torch.cat([mixed, conditional[..., 2:]], dim=-1)

    return guided


def guided_by_weak(
    denoise: Denoise,
    weak: Denoise,
    weight: float,
    interval: tuple[float, float] = (0.0, float("inf")),
) -> Denoise:
    """Autoguidance (Karras et al. 2024, https://arxiv.org/abs/2406.02507, equation 3).

    `weak` makes the errors of `denoise`, only larger: it is a smaller network of the same kind,
    trained for a short time. x0 is moved away from what it predicts. Guidance acts only at sigma
    in `interval`, both ends included (Kynkaanniemi et al. 2024, https://arxiv.org/abs/2404.07724);
    weight 1 is no guidance.
    """
    low, high = interval

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoise(x, sigma)
        if weight == 1 or not low <= float(sigma) <= high:
            return x0
        return x0 + (weight - 1) * (x0 - weak(x, sigma))

    return guided
