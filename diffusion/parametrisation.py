"""What the network predicts and how it is trained: two parametrisations behind one `denoise`.

Both describe noisy coordinates as x0 + sigma eps in units in which the noise is isotropic;
`to_pixels` and `from_pixels` translate. Shapes: x (N, T, 2), sigma (N,) or a number.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from conventions.playfield import PLAYFIELD, PLAYFIELD_CENTRE
from diffusion.schedule import SCHEDULES, DiscreteSchedule, cosine_schedule, karras_sigmas

SOLVER_PX = (10.24, 2560.0)
"""Lowest and highest noise of few-step runs of a `LearnedVariance` model."""

Network = Callable[[Tensor, Tensor], Tensor]
"""(x (N, T, 2), noise labels (N,)) -> (N, T, C): a model whose context is bound already."""

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x (N, T, 2), sigma, a 0-dim tensor) -> x0 (N, T, 2)."""

StepStd = Callable[[Tensor, Tensor], Tensor]
"""(sigma, next sigma), 0-dim -> std () or (N, T, 2) of the noise that an ancestral step adds."""


def posterior_std(sigma: Tensor, following: Tensor) -> Tensor:
    """Std of q(x_s | x_t, x0), variance s^2 (t^2 - s^2) / t^2 (Ho et al. 2020, eq. 7, in sigma)."""
    return following * (1 - (following / sigma) ** 2).sqrt()


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    """(N,) or () -> broadcastable against x (N, T, 2), in its dtype."""
    return values.to(x.device, x.dtype).reshape(-1, 1, 1)


def padded_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean (N,) of values (N, T, 2) with padding, marked False in valid (N, T), counted as zero.

    Dividing by all elements, not by the valid ones, gives every data point the same weight in
    every batch, and makes the mean over ranks equal to the mean over the whole batch.
    """
    return (values if valid is None else values * valid[..., None]).mean(dim=(1, 2))


class Parametrisation(Protocol):
    """What samplers and the training loop need to know of a parametrisation."""

    @property
    def scale(self) -> tuple[float, float]:
        """Playfield px per network unit, by axis."""
        ...

    def to_pixels(self, x: Tensor) -> Tensor:
        """Network units -> playfield px."""
        ...

    def from_pixels(self, xy: Tensor) -> Tensor:
        """Playfield px -> network units."""
        ...

    @property
    def sigma_min(self) -> float:
        """The lowest noise level above 0 that sampling visits."""
        ...

    @property
    def limit(self) -> float:
        """The highest noise level that the network was trained at; infinite if at all levels."""
        ...

    def limited(self, px: float) -> "Parametrisation":
        """A copy for training only at noise up to `px`, on the axis with more px per unit."""
        ...

    @property
    def best_solver(self) -> str:
        """The solver that measured best at few steps, by its name in `samplers.SOLVERS`."""
        ...

    def sigmas(self, steps: int, start: float | None = None) -> Tensor:
        """Noise levels of deterministic solvers: (steps + 1,) float64, falling, the last one 0.

        They begin at the highest level, or at `start`.
        """
        ...

    def chain_sigmas(self, steps: int, start: float | None = None) -> Tensor:
        """The same for ancestral sampling, whose levels are those of the training chain."""
        ...

    def denoiser(self, network: Network) -> tuple[Denoise, StepStd]:
        """`denoise`, and the std of ancestral steps, of a network whose context is bound."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values to save with the weights, for `parametrisation_from_dict`."""
        ...

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        """n training noise levels (n,), as `loss` takes them."""
        ...

    def level_sigmas(self, levels: Tensor) -> Tensor:
        """Standard deviation (n,) in network units of the noise at `levels` (n,)."""
        ...

    def loss(
        self, network: Network, x0: Tensor, levels: Tensor, eps: Tensor, valid: Tensor | None
    ) -> Tensor:
        """Training losses (N,) of windows x0 (N, T, 2) at levels (N,) with noise eps (N, T, 2)."""
        ...


@dataclass(frozen=True)
class EDM:
    """EDM preconditioning (Karras et al. 2022, table 1) on centred coordinates / 131 px.

    Training noise is log-normal: ln sigma ~ N(log_mean, log_std^2), in units of 131 px; with
    `trained_below` that distribution is cut there, for a network that sees only low noise.
    """

    log_mean: float = -1.0
    log_std: float = 1.4
    sigma_min: float = 0.01
    sigma_max: float = 5.0
    rho: float = 7.0
    pixels: float = 131.0
    trained_below: float | None = None

    best_solver: ClassVar[str] = "dpmpp-2m"

    def __post_init__(self) -> None:
        if self.trained_below is not None and not self.trained_below > self.sigma_min:
            raise ValueError(f"noise below {self.trained_below:g} only is none: give more")

    def to_dict(self) -> dict[str, Any]:
        """Plain values to save with the weights."""
        values = {"name": "edm", **asdict(self)}
        # A missing limit is not written, so that older versions can read models without one.
        return {name: value for name, value in values.items() if value is not None}

    @property
    def limit(self) -> float:
        return math.inf if self.trained_below is None else self.trained_below

    def limited(self, px: float) -> "EDM":
        """A copy for training only at noise up to `px`."""
        return replace(self, trained_below=px / self.pixels)

    @property
    def scale(self) -> tuple[float, float]:
        return self.pixels, self.pixels

    def to_pixels(self, x: Tensor) -> Tensor:
        """Network units -> playfield px."""
        return x * self.pixels + x.new_tensor(PLAYFIELD_CENTRE)

    def from_pixels(self, xy: Tensor) -> Tensor:
        """Playfield px -> network units: 0 at the centre, variance 0.76 in real maps (114 px)."""
        return (xy - xy.new_tensor(PLAYFIELD_CENTRE)) / self.pixels

    def denoise(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        """x0 from x (N, T, 2) at sigma (N,) or () (EDM, equation 7, with sigma_data = 1)."""
        sigma = sigma.expand(len(x)) if sigma.ndim == 0 else sigma
        s = _per_sample(sigma, x)
        norm = (s**2 + 1).sqrt()
        noise = (250 * sigma.log()).to(x.device, torch.float32)
        out = network(x / norm, noise)[..., :2]
        return x / norm**2 + s / norm * out

    def sigmas(self, steps: int, start: float | None = None) -> Tensor:
        """Noise levels of a sampling run: (steps + 1,) float64, the last one 0."""
        high = self.sigma_max if start is None else start
        return karras_sigmas(steps, min(self.sigma_min, high), high, self.rho)

    def chain_sigmas(self, steps: int, start: float | None = None) -> Tensor:
        """EDM has no chain: the levels of all solvers are the same."""
        return self.sigmas(steps, start)

    def denoiser(self, network: Network) -> tuple[Denoise, StepStd]:
        """`denoise`, and the posterior's std for ancestral steps."""
        return lambda x, sigma: self.denoise(network, x, sigma), posterior_std

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        """n log-normal sigmas (n,) (EDM, table 1)."""
        if self.trained_below is None:
            normal = torch.randn(n, generator=generator)
        else:
            end = (math.log(self.trained_below) - self.log_mean) / self.log_std
            share = torch.special.ndtr(torch.tensor(end, dtype=torch.float64))
            uniform = torch.rand(n, generator=generator, dtype=torch.float64)
            normal = torch.special.ndtri((uniform * share).clamp(min=1e-12)).float()
        return (normal * self.log_std + self.log_mean).exp()

    def level_sigmas(self, levels: Tensor) -> Tensor:
        """EDM's levels are sigmas."""
        return levels

    def loss(
        self, network: Network, x0: Tensor, levels: Tensor, eps: Tensor, valid: Tensor | None
    ) -> Tensor:
        """(sigma^2 + 1) / sigma^2 |D(x) - x0|^2 of each window (EDM, equation 2): (N,)."""
        s = _per_sample(levels, x0)
        error = self.denoise(network, x0 + s * eps, levels) - x0
        return padded_mean((s**2 + 1) / s**2 * error**2, valid)


@dataclass(frozen=True)
class LearnedVariance:
    """The reference's parametrisation: eps and the step's variance are learnt, on x / 512, y / 384.

    Improved DDPM (Nichol & Dhariwal 2021, https://arxiv.org/abs/2102.09672), re-expressed in sigma:
    the chain's x_t is sqrt(alpha_bar) (x0 + sigma eps). Like the reference, sampling clamps x0 to
    `clamp`, in network units. `centred` coordinates, those of osu-diffusion v2, are
    x / 256 - 1, y / 192 - 1. With `known_steps` the network was trained only at that many first
    timesteps of the chain.
    """

    schedule: DiscreteSchedule = field(default_factory=cosine_schedule)
    l1: bool = True
    clamp: tuple[float, float] | None = (-1.0, 2.0)
    centred: bool = False
    known_steps: int | None = None

    # Such models predict badly at high noise; the new noise of each ancestral step lets later
    # steps correct what was decided wrongly there.
    best_solver: ClassVar[str] = "ancestral"

    def to_dict(self) -> dict[str, Any]:
        """Plain values to save with the weights."""
        name = next(n for n, make in SCHEDULES.items() if make() == self.schedule)
        values = {"name": "learned-variance", "noise_schedule": name, "l1": self.l1}
        values |= {"centred": True} if self.centred else {}
        return values | ({} if self.known_steps is None else {"known_steps": self.known_steps})

    def __post_init__(self) -> None:
        steps = len(self.schedule.betas)
        if self.known_steps is not None and not 1 <= self.known_steps <= steps:
            raise ValueError(f"{self.known_steps} timesteps known: expected 1 to {steps}")

    @property
    def limit(self) -> float:
        if self.known_steps in (None, len(self.schedule.betas)):
            return math.inf
        return float(self.schedule.sigmas[self.known_steps - 1])

    def limited(self, px: float) -> "LearnedVariance":
        """A copy for training only at timesteps with noise up to `px`; ValueError if none has."""
        known = int((self.schedule.sigmas * max(self.scale) <= px).sum())
        if not known:
            raise ValueError(f"noise up to {px:g} px: the chain begins above that")
        return replace(self, known_steps=known)

    @property
    def sigma_min(self) -> float:
        """The noise of timestep 0."""
        return float(self.schedule.sigmas[0])

    @property
    def scale(self) -> tuple[float, float]:
        return PLAYFIELD_CENTRE if self.centred else PLAYFIELD

    def to_pixels(self, x: Tensor) -> Tensor:
        """Network units -> playfield px."""
        return (x + 1 if self.centred else x) * x.new_tensor(self.scale)

    def from_pixels(self, xy: Tensor) -> Tensor:
        """Playfield px -> network units, the playfield being [0, 1]^2, or [-1, 1]^2."""
        scaled = xy / xy.new_tensor(self.scale)
        return scaled - 1 if self.centred else scaled

    def predict(self, network: Network, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x0 (N, T, 2) and the network's variance outputs (N, T, 2), about -1 to 1."""
        sigma = sigma.expand(len(x)) if sigma.ndim == 0 else sigma
        s = _per_sample(sigma, x)
        timestep = self.schedule.timestep_of(sigma).to(x.device, torch.float32)
        out = network(x / (s**2 + 1).sqrt(), timestep)
        x0 = x - s * out[..., :2]
        return x0 if self.clamp is None else x0.clamp(*self.clamp), out[..., 2:]

    def denoise(self, network: Network, x: Tensor, sigma: Tensor) -> Tensor:
        """x0 from x (N, T, 2) = x0 + sigma eps at sigma (N,) or ()."""
        return self.predict(network, x, sigma)[0]

    def log_variance(self, values: Tensor, t: Tensor, previous: Tensor) -> Tensor:
        """Log variance of the ancestral step t -> previous, in the scale of the chain.

        values (N, T, 2) from `predict`; t, previous are 0-dim timesteps (previous may be -1, the
        clean end). Result: between posterior variance and beta (Improved DDPM, equation 15).
        """
        low, high = self._log_variance_bounds(t, previous)
        fraction = (values + 1) / 2
        return fraction * high.to(values) + (1 - fraction) * low.to(values)

    def _log_variance_bounds(self, t: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """ln of the posterior variance and of beta of the steps t -> previous, float64."""
        ab = torch.cat([torch.ones(1, dtype=torch.float64), self.schedule.alphas_cumprod])
        # A step to the clean end has posterior variance 0; that of step t + 1 -> t replaces it.
        clean = previous < 0
        s, u = torch.where(clean, t, previous) + 1, torch.where(clean, t + 1, t) + 1
        posterior = (1 - ab[u] / ab[s]) * (1 - ab[s]) / (1 - ab[u])
        return posterior.log(), (1 - ab[t + 1] / ab[previous + 1]).log()

    def denoiser(self, network: Network) -> tuple[Denoise, StepStd]:
        """`denoise`, and the std of the next step, from the network's latest prediction."""
        latest: dict[str, Tensor] = {}

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            x0, latest["values"] = self.predict(network, x, sigma)
            return x0

        def std(sigma: Tensor, following: Tensor) -> Tensor:
            t = self.schedule.timestep_of(sigma).round().long()
            s = self.schedule.timestep_of(following).round().long()
            # From the scale of the chain to the scale of x0 + sigma eps.
            values, scale = latest["values"], (following**2 + 1).sqrt()
            return (self.log_variance(values, t, s) / 2).exp() * scale.to(values.dtype)

        return denoise, std

    def chain_sigmas(self, steps: int, start: float | None = None) -> Tensor:
        """Noise levels at `steps` evenly spaced timesteps of the chain and a final 0, float64."""
        levels = self.schedule.sigmas[self.schedule.spaced(steps, start)]
        return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])

    def sigmas(self, steps: int, start: float | None = None) -> Tensor:
        """Noise levels (steps + 1,) for deterministic solvers, float64, the last one 0.

        At evenly spaced timesteps, most of a few levels have more noise than the playfield has px,
        and the last step would jump from about 80 px to 0: levels as for EDM lose much less.
        """
        low, high = (px / max(self.scale) for px in SOLVER_PX)
        high = high if start is None else start
        return karras_sigmas(steps, min(low, high), high)

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        """n timesteps (n,) int64, uniform over those of the chain that are trained."""
        steps = self.known_steps or len(self.schedule.betas)
        return torch.randint(0, steps, (n,), generator=generator)

    def level_sigmas(self, levels: Tensor) -> Tensor:
        """The sigmas of timesteps (n,), float64."""
        return self.schedule.sigmas[levels]

    def loss(
        self, network: Network, x0: Tensor, levels: Tensor, eps: Tensor, valid: Tensor | None
    ) -> Tensor:
        """Error of eps plus the variational bound for the variance, at timesteps (N,): (N,)."""
        simple, bound = self.loss_terms(network, x0, levels, eps)
        return padded_mean(simple, valid) + padded_mean(bound, valid)

    def loss_terms(
        self, network: Network, x0: Tensor, t: Tensor, eps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Error of eps and the variational term in bits, each (N, T, 2), at timesteps t (N,).

        The predicted eps is detached in the variational term, which thus trains only the variance
        (Improved DDPM, section 3.1).
        """
        ab = self.schedule.alphas_cumprod[t]
        x_t = _per_sample(ab.sqrt(), x0) * x0 + _per_sample((1 - ab).sqrt(), x0) * eps
        out = network(x_t, t.to(x0.device, torch.float32))
        eps_hat, values = out[..., :2], out[..., 2:]
        error = eps - eps_hat
        simple = error.abs() if self.l1 else error**2
        return simple, self._variational_bound(x0, x_t, t, eps_hat.detach(), values)

    def _variational_bound(
        self, x0: Tensor, x_t: Tensor, t: Tensor, eps_hat: Tensor, values: Tensor
    ) -> Tensor:
        """KL of the posterior to the model's step, in bits; at t = 0 the decoder's likelihood."""
        # Coefficients in float64: 1 - alpha_bar of the first steps has few digits in float32.
        ab_all = torch.cat([torch.ones(1, dtype=torch.float64), self.schedule.alphas_cumprod])
        ab, ab_s, beta = ab_all[t + 1], ab_all[t], self.schedule.betas[t]
        x0_hat = (x_t - _per_sample((1 - ab).sqrt(), x0) * eps_hat) / _per_sample(ab.sqrt(), x0)
        to_x0 = _per_sample(beta * ab_s.sqrt() / (1 - ab), x0)
        to_xt = _per_sample((1 - ab_s) * (1 - beta).sqrt() / (1 - ab), x0)
        mean, mean_hat = to_x0 * x0 + to_xt * x_t, to_x0 * x0_hat + to_xt * x_t
        low, high = (_per_sample(b, x0) for b in self._log_variance_bounds(t, t - 1))
        fraction = (values + 1) / 2
        log_var = fraction * high + (1 - fraction) * low
        kl = normal_kl(mean, low, mean_hat, log_var)
        likelihood = -discretised_log_likelihood(x0, mean_hat, 0.5 * log_var)
        first = (t == 0).to(x0.device)[:, None, None]
        return torch.where(first, likelihood, kl) / math.log(2)


def normal_kl(mean_p: Tensor, log_var_p: Tensor, mean_q: Tensor, log_var_q: Tensor) -> Tensor:
    """KL divergence in nats between two Gaussians, elementwise."""
    ratio = (log_var_p - log_var_q).exp()
    distance = (mean_p - mean_q) ** 2 * (-log_var_q).exp()
    return 0.5 * (log_var_q - log_var_p + ratio + distance - 1)


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log of a Gaussian's mass in the bin of width 2/255 around x (Ho et al. 2020, equation 13)."""
    inverse = (-log_std).exp()

    def cdf(value: Tensor) -> Tensor:
        # The tanh approximation of the error function, for losses as in Improved DDPM's paper.
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))

    upper = cdf(inverse * (x - mean + 1 / 255))
    lower = cdf(inverse * (x - mean - 1 / 255))
    tail_low = upper.clamp(min=1e-12).log()
    tail_high = (1 - lower).clamp(min=1e-12).log()
    inner = (upper - lower).clamp(min=1e-12).log()
    return torch.where(x < -0.999, tail_low, torch.where(x > 0.999, tail_high, inner))


def learned_variance(schedule: DiscreteSchedule, **options: Any) -> LearnedVariance:
    """A `LearnedVariance` with the clamp that fits its coordinates."""
    clamp = (-2.0, 2.0) if options.get("centred") else (-1.0, 2.0)
    return LearnedVariance(schedule, clamp=clamp, **options)


def parametrisation_from_dict(values: dict[str, Any]) -> Parametrisation:
    """Inverse of `to_dict`; ValueError for names it does not know."""
    options = dict(values)
    name = options.pop("name", None)
    if name == "edm":
        if not all(type(value) in (int, float) for value in options.values()):
            raise ValueError(f"noise levels must be numbers, they are {options}")
        return EDM(**options)
    if name == "learned-variance" and options.get("noise_schedule") in SCHEDULES:
        return learned_variance(
            SCHEDULES[options["noise_schedule"]](),
            l1=options["l1"],
            centred=options.get("centred", False),
            known_steps=options.get("known_steps"),
        )
    raise ValueError(f"unknown parametrisation {values}: the checkpoint is of a newer version")
