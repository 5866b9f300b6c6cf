"""Solvers: they integrate `denoise(x, sigma) -> x0` from noise to data and use nothing else.

x is (N, T, 2) = x0 + sigma eps; sigmas is (steps + 1,) and falls to 0. `callback(step, x0)` gets
every prediction; an exception that it raises ends the run (that is how sampling is cancelled).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.parametrisation import Denoise, Parametrisation, StepStd, posterior_std

Callback = Callable[[int, Tensor], None]
NoiseSource = Callable[[Tensor], Tensor]
"""Unit normal noise of the shape, and on the device, of its argument."""


def _ignore(step: int, x0: Tensor) -> None:
    """The callback of runs without one."""


def sample_ddim(
    denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback = _ignore
) -> Tensor:
    """Deterministic DDIM (Song et al. 2021, equation 12): in sigma, Euler's method."""
    for i in range(len(sigmas) - 1):
        x0 = denoise(x, sigmas[i])
        callback(i, x0)
        x = x0 + (sigmas[i + 1] / sigmas[i]).to(x.dtype) * (x - x0)
    return x


def sample_heun(
    denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback = _ignore
) -> Tensor:
    """Heun's second-order method (EDM, algorithm 1, without churn); two calls a step."""
    for i in range(len(sigmas) - 1):
        s, t = sigmas[i].to(x.dtype), sigmas[i + 1].to(x.dtype)
        x0 = denoise(x, sigmas[i])
        callback(i, x0)
        slope = (x - x0) / s
        euler = x + (t - s) * slope
        if t > 0:
            slope = (slope + (euler - denoise(euler, sigmas[i + 1])) / t) / 2
        x = x + (t - s) * slope
    return x


def sample_dpmpp_2m(
    denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback = _ignore
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2).

    Multistep: the previous prediction gives second order with one call a step. The step to
    sigma = 0 is of first order.
    """
    previous: Tensor | None = None
    for i in range(len(sigmas) - 1):
        x0 = denoise(x, sigmas[i])
        callback(i, x0)
        target = x0
        if sigmas[i + 1] > 0 and previous is not None:
            h_last = (sigmas[i - 1] / sigmas[i]).log()
            h = (sigmas[i] / sigmas[i + 1]).log()
            slope = (h / (2 * h_last)).to(x.dtype)
            target = (1 + slope) * x0 - slope * previous
        x = target + (sigmas[i + 1] / sigmas[i]).to(x.dtype) * (x - target)
        previous = x0
    return x


def sample_dpmpp_3m(
    denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback = _ignore
) -> Tensor:
    """DPM-Solver++(3M): the third order from the two previous predictions (Lu et al. 2022).

    With t = -ln sigma, dx/dt = x0(t) - x (equation 9). x0(t) is approximated by Newton's parabola
    through the last three predictions; the step of length h then has a closed form. The first two
    steps and the one to sigma = 0 are of lower order.
    """
    earlier: list[Tensor] = []  # predictions, the newest first
    for i in range(len(sigmas) - 1):
        x0 = denoise(x, sigmas[i])
        callback(i, x0)
        ratio = sigmas[i + 1] / sigmas[i]
        target = x0 + ratio.to(x.dtype) * (x - x0)
        if sigmas[i + 1] > 0 and earlier:
            h = -ratio.log()
            first, second = _derivatives(x0, earlier, (sigmas[:i] / sigmas[1 : i + 1]).log())
            target = target + (h - 1 + ratio).to(x.dtype) * first
            target = target + (h**2 / 2 - h + 1 - ratio).to(x.dtype) * second
        x, earlier = target, [x0, *earlier[:1]]
    return x


def _derivatives(x0: Tensor, earlier: list[Tensor], steps: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative in -ln sigma of the parabola through the last predictions.

    `earlier` holds one or two before x0, the newest first; `steps` are the lengths of all steps.
    """
    slope = (x0 - earlier[0]) / steps[-1].to(x0.dtype)
    if len(earlier) == 1:
        return slope, torch.zeros_like(slope)
    slope_before = (earlier[0] - earlier[1]) / steps[-2].to(x0.dtype)
    bend = (slope - slope_before) / (steps[-1] + steps[-2]).to(x0.dtype)
    return slope + bend * steps[-1].to(x0.dtype), 2 * bend


def noise_source(generators: Sequence[torch.Generator]) -> NoiseSource:
    """Normal noise like x (N, T, 2), drawn on the CPU from one generator per sample.

    So a sample gets the same noise whatever the number of samples.
    """

    def draw(x: Tensor) -> Tensor:
        assert len(generators) == len(x)
        noise = torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators])
        return noise.to(x)

    return draw


def sample_ancestral(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    callback: Callback = _ignore,
    *,
    noise: NoiseSource,
    std: StepStd = posterior_std,
) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, equations 6 and 7).

    In sigma, q(x_s | x_t, x0) has mean x0 + (s/t)^2 (x - x0). `std` gives the std of a step's
    noise: the posterior's, or one that a network has learnt (Improved DDPM, equation 15).
    """
    for i in range(len(sigmas) - 1):
        x0 = denoise(x, sigmas[i])
        callback(i, x0)
        if sigmas[i + 1] == 0:
            return x0
        mean = x0 + ((sigmas[i + 1] / sigmas[i]) ** 2).to(x.dtype) * (x - x0)
        x = mean + std(sigmas[i], sigmas[i + 1]).to(x) * noise(x)
    return x


class Solver(NamedTuple):
    """A solver by name: `run` takes denoise, x, sigmas and callback.

    A solver that draws noise also takes a noise source and the std of the parametrisation's steps,
    and visits the levels of the training chain.
    """

    run: Callable[..., Tensor]
    draws_noise: bool = False

    def levels(
        self, parametrisation: Parametrisation, steps: int, start: float | None = None
    ) -> Tensor:
        """The noise levels (steps + 1,) that it visits, from the highest or `start` to 0."""
        choose = parametrisation.chain_sigmas if self.draws_noise else parametrisation.sigmas
        return choose(steps, start)

    def __call__(
        self,
        denoise: Denoise,
        x: Tensor,
        sigmas: Tensor,
        callback: Callback,
        noise: NoiseSource,
        std: StepStd = posterior_std,
    ) -> Tensor:
        """Runs it from x (N, T, 2) at the first of the sigmas."""
        if self.draws_noise:
            return self.run(denoise, x, sigmas, callback, noise=noise, std=std)
        return self.run(denoise, x, sigmas, callback)


SOLVERS = {
    "dpmpp-2m": Solver(sample_dpmpp_2m),
    "dpmpp-3m": Solver(sample_dpmpp_3m),
    "ddim": Solver(sample_ddim),
    "heun": Solver(sample_heun),
    "ancestral": Solver(sample_ancestral, draws_noise=True),
}
"""Solvers by the names that `--sampler` takes."""
