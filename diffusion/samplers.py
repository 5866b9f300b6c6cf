"""Solvers: they integrate `denoise(x, sigma) -> x0` from noise to data and know nothing else.

x is (N, T, 2) = x0 + sigma eps; sigmas is (steps + 1,) and falls to 0. `callback(step, x0)` sees
every prediction; whatever it raises ends the run (that is how sampling is cancelled).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion.parametrisation import Denoise, LearnedVariance, Network

Callback = Callable[[int, Tensor], None]


def _ignore(step: int, x0: Tensor) -> None:
    """The callback of runs that nobody watches."""


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

    Multistep: the previous prediction gives the second order at one call a step. The step to
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

    With t = -ln sigma, dx/dt = x0(t) - x (equation 9): x0 is Newton's parabola through the last
    three predictions, for which the step of length h has a closed form. The first two steps and
    the one to sigma = 0 are of lower order.
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

    `earlier` holds one or two before x0, the newest first, and `steps` the steps' lengths so far.
    """
    slope = (x0 - earlier[0]) / steps[-1].to(x0.dtype)
    if len(earlier) == 1:
        return slope, torch.zeros_like(slope)
    slope_before = (earlier[0] - earlier[1]) / steps[-2].to(x0.dtype)
    bend = (slope - slope_before) / (steps[-1] + steps[-2]).to(x0.dtype)
    return slope + bend * steps[-1].to(x0.dtype), 2 * bend


def _noise_like(x: Tensor, generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
    """Normal noise (N, T, 2) on the CPU, from one generator or from one a sample."""
    if isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator)
    assert len(generator) == len(x)
    return torch.stack([torch.randn(x.shape[1:], generator=g) for g in generator])


def sample_ancestral(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    callback: Callback = _ignore,
    *,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Tensor:
    """Ancestral sampling with the posterior's variance (Ho et al. 2020, equations 6 and 7).

    In sigma, q(x_s | x_t, x0) has mean x0 + (s/t)^2 (x - x0) and variance s^2 (t^2 - s^2) / t^2.
    With N generators every sample has its own and is the same whatever their number.
    """
    for i in range(len(sigmas) - 1):
        x0 = denoise(x, sigmas[i])
        callback(i, x0)
        ratio = sigmas[i + 1] / sigmas[i]
        std = sigmas[i + 1] * (1 - ratio**2).sqrt()
        noise = _noise_like(x, generator).to(x)
        x = x0 + (ratio**2).to(x.dtype) * (x - x0) + std.to(x.dtype) * noise
    return x


def sample_learned_variance(
    parametrisation: LearnedVariance,
    network: Network,
    x: Tensor,
    steps: int,
    constrain: Callable[[Tensor, Tensor], Tensor],
    callback: Callback = _ignore,
    *,
    generator: torch.Generator | Sequence[torch.Generator],
    start: float | None = None,
) -> Tensor:
    """Ancestral sampling with the variance that the network has learnt (Improved DDPM).

    x (N, T, 2) is x0 + sigma eps at the first of `steps` spaced timesteps, as for the other
    solvers, the last of the chain or that of the level `start`; `constrain(x0, sigma)` changes
    predictions.
    """
    timesteps = [*parametrisation.schedule.spaced(steps, start), torch.tensor(-1)]
    ab = parametrisation.schedule.alphas_cumprod
    x_t = x * ab[timesteps[0]].sqrt().to(x.dtype)

    def constrain_at(sigma: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x0: constrain(x0, sigma)

    for i in range(len(timesteps) - 1):
        t, previous = timesteps[i], timesteps[i + 1]
        mean, log_variance, x0 = ancestral_step(
            parametrisation, network, x_t, t, previous, constrain_at((1 / ab[t] - 1).sqrt())
        )
        callback(i, x0)
        if previous < 0:
            return x0
        x_t = mean + (log_variance / 2).exp() * _noise_like(x, generator).to(x)
    raise AssertionError("a run has at least one step")


def ancestral_step(
    parametrisation: LearnedVariance,
    network: Network,
    x_t: Tensor,
    t: Tensor,
    previous: Tensor,
    change_x0: Callable[[Tensor], Tensor] = lambda x0: x0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, log variance and x0 of one reverse step t -> previous in the chain's own scale.

    x_t (N, T, 2) is the chain's variable, t and previous are 0-dim timesteps (previous -1: the
    clean end). `change_x0` may clamp or constrain the prediction. Improved DDPM, equations 10, 15.
    """
    ab = parametrisation.schedule.alphas_cumprod
    ab_t = ab[t]
    ab_s = ab[previous] if previous >= 0 else torch.ones_like(ab_t)
    sigma = (1 / ab_t - 1).sqrt()
    x0, values = parametrisation.predict(network, x_t / ab_t.sqrt().to(x_t.dtype), sigma)
    x0 = change_x0(x0)
    alpha = ab_t / ab_s
    to_x0 = ((1 - alpha) * ab_s.sqrt() / (1 - ab_t)).to(x_t.dtype)
    to_xt = ((1 - ab_s) * alpha.sqrt() / (1 - ab_t)).to(x_t.dtype)
    mean = to_x0 * x0 + to_xt * x_t
    return mean, parametrisation.log_variance(values, t, previous), x0


DETERMINISTIC: dict[str, Callable[[Denoise, Tensor, Tensor, Callback], Tensor]] = {
    "dpmpp-2m": sample_dpmpp_2m,
    "dpmpp-3m": sample_dpmpp_3m,
    "ddim": sample_ddim,
    "heun": sample_heun,
}
SAMPLERS = [*DETERMINISTIC, "ancestral"]
"""Solvers by the names that `--sampler` takes; `ancestral` alone draws noise on the way."""
