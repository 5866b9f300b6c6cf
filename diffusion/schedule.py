"""Noise levels: which sigmas a solver visits, and the discrete schedules of the reference."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """`steps` falling noise levels and a final 0: (steps + 1,) float64.

    Source: Karras et al. 2022 (EDM, https://arxiv.org/abs/2206.00364), equation 5.
    """
    if steps < 1:
        raise ValueError(f"{steps} sampling steps: at least 1 is needed")
    if steps == 1:
        return torch.tensor([sigma_max, 0.0], dtype=torch.float64)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


@dataclass(frozen=True, eq=False)
class DiscreteSchedule:
    """A variance-preserving chain of K steps, seen as noise levels of x0 + sigma eps.

    betas (K,), alphas_cumprod (K,) and sigmas (K,) are float64; sigmas rise with the timestep.
    sigma^2 = (1 - alpha_bar) / alpha_bar (EDM, appendix C.3).
    """

    betas: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DiscreteSchedule) and torch.equal(self.betas, other.betas)

    def __post_init__(self) -> None:
        assert self.betas.ndim == 1 and bool(((self.betas > 0) & (self.betas <= 1)).all())

    @property
    def alphas_cumprod(self) -> Tensor:
        return (1 - self.betas).cumprod(0)

    @property
    def sigmas(self) -> Tensor:
        return (1 / self.alphas_cumprod - 1).sqrt()

    def timestep_of(self, sigma: Tensor) -> Tensor:
        """The (fractional) timestep whose noise level is sigma, by interpolation in log sigma."""
        log_sigmas = self.sigmas.log().to(sigma.device)
        log_sigma = sigma.double().clamp(min=1e-12).log()
        upper = torch.searchsorted(log_sigmas, log_sigma.contiguous())
        upper = upper.clamp(1, len(log_sigmas) - 1)
        low, high = log_sigmas[upper - 1], log_sigmas[upper]
        fraction = ((log_sigma - low) / (high - low)).clamp(0, 1)
        return upper - 1 + fraction

    def spaced(self, steps: int, start: float | None = None) -> Tensor:
        """`steps` timesteps of the chain, evenly spaced from the last to the first: (steps,) int64.

        With `start` they begin at the timestep of that noise level; there may be fewer then.
        ValueError for more than the chain has.
        """
        last = len(self.betas) - 1
        if start is not None:
            last = round(float(self.timestep_of(torch.tensor(start, dtype=torch.float64))))
            steps = min(steps, last + 1)
        total = last + 1
        if not 1 <= steps <= total:
            raise ValueError(f"{steps} sampling steps: between 1 and {total} are possible")
        if steps == 1:
            return torch.tensor([total - 1])
        return torch.linspace(0, total - 1, steps, dtype=torch.float64).round().long().flip(0)


def cosine_schedule(steps: int = 1000, max_beta: float = 0.999) -> DiscreteSchedule:
    """Squared-cosine alpha_bar (Nichol & Dhariwal 2021, equation 17), betas capped."""

    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [
        min(1 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps), max_beta) for i in range(steps)
    ]
    return DiscreteSchedule(torch.tensor(betas, dtype=torch.float64))


def linear_schedule(steps: int = 1000) -> DiscreteSchedule:
    """Linear betas from 1e-4 to 0.02 for 1000 steps, rescaled for others (Ho et al. 2020)."""
    scale = 1000 / steps
    return DiscreteSchedule(torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64))


SCHEDULES = {"squaredcos_cap_v2": cosine_schedule, "linear": linear_schedule}
"""Schedules by the names that the reference's `--noise-schedule` takes."""
