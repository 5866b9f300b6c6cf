"""Noise levels, parametrisations and solvers: against closed forms, diffusers and the reference.

Most known answers come from Gaussian data x0 ~ N(mu, c^2): the exact denoiser is Bayes' rule,
D(x, s) = (x c^2 + mu s^2) / (c^2 + s^2), and x - mu along the probability flow is proportional to
sqrt(c^2 + s^2) (EDM, appendix B).
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoint import load_model
from diffusion.guidance import guided_by_weak, guided_network
from diffusion.parametrisation import (
    EDM,
    Denoise,
    LearnedVariance,
    Network,
    discretised_log_likelihood,
    normal_kl,
    padded_mean,
    parametrisation_from_dict,
)
from diffusion.samplers import (
    SOLVERS,
    noise_source,
    sample_ancestral,
    sample_ddim,
    sample_dpmpp_2m,
    sample_heun,
)
from diffusion.schedule import (
    DiscreteSchedule,
    cosine_schedule,
    karras_sigmas,
    linear_schedule,
)
from models import Conditions, make_context

FOLDER = os.environ.get("OSU_DIFFUSION_REFERENCE")
needs_reference = pytest.mark.skipif(
    not FOLDER, reason="OSU_DIFFUSION_REFERENCE names no folder with osu_diffusion_tiny.pt"
)

MU, SPREAD = 0.7, 0.5
"""Mean and standard deviation of the Gaussian data."""

UNCLAMPED = LearnedVariance(clamp=None)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def timestep(t: int) -> Tensor:
    return torch.tensor(t)


def gaussian_denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """The posterior mean of N(MU, SPREAD^2) data."""
    return (x * SPREAD**2 + MU * sigma**2) / (SPREAD**2 + sigma**2)


def mixture_denoise(x: Tensor, sigma: Tensor) -> Tensor:
    """The posterior mean of data around -1 and 1 in equal parts: curved, not linear, in x."""
    total = SPREAD**2 + sigma**2
    return (x * SPREAD**2 + (x / total).tanh() * sigma**2) / total


# --- noise levels ---------------------------------------------------------------------------------


def test_karras_levels_follow_the_equation() -> None:
    """EDM, equation 5, term by term."""
    sigmas = karras_sigmas(9, 0.01, 30.0, rho=5.0)
    expected = [
        (30.0 ** (1 / 5) + i / 8 * (0.01 ** (1 / 5) - 30.0 ** (1 / 5))) ** 5 for i in range(9)
    ]
    torch.testing.assert_close(sigmas, torch.tensor([*expected, 0.0], dtype=torch.float64))
    assert sigmas.dtype == torch.float64


@pytest.mark.parametrize("steps", [1, 2, 24, 1000])
def test_karras_levels_fall_from_the_largest_to_zero(steps: int) -> None:
    sigmas = karras_sigmas(steps, 0.005, 20.0)
    assert len(sigmas) == steps + 1
    assert sigmas[0].item() == pytest.approx(20.0)
    assert sigmas[-1].item() == 0
    assert steps == 1 or sigmas[-2].item() == pytest.approx(0.005)
    assert bool((sigmas.diff() < 0).all())


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="0 sampling steps: at least 1"):
        karras_sigmas(0, 0.005, 20.0)
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"{steps} sampling steps: between 1 and 1000"):
            cosine_schedule().spaced(steps)


@pytest.mark.parametrize(
    ("schedule", "name"),
    [(cosine_schedule(), "squaredcos_cap_v2"), (linear_schedule(), "linear")],
)
def test_discrete_schedules_are_those_of_diffusers(schedule: DiscreteSchedule, name: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    oracle = diffusers.DDPMScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule=name
    )
    betas = schedule.betas.float()
    torch.testing.assert_close(betas, oracle.betas, rtol=1e-5, atol=1e-7)
    alphas = schedule.alphas_cumprod.float()
    torch.testing.assert_close(alphas, oracle.alphas_cumprod, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("steps", [250, 1000])
def test_linear_chains_of_any_length_destroy_as_much(steps: int) -> None:
    """The betas add up to 1000 times the mean of 1e-4 and 0.02."""
    assert linear_schedule(steps).betas.sum().item() == pytest.approx(10.05)


@pytest.mark.parametrize("schedule", [cosine_schedule(), linear_schedule()])
def test_timestep_of_inverts_the_levels(schedule: DiscreteSchedule) -> None:
    steps = torch.arange(1000, dtype=torch.float64)
    torch.testing.assert_close(schedule.timestep_of(schedule.sigmas), steps, rtol=0, atol=1e-9)
    between = (schedule.sigmas[:-1] * schedule.sigmas[1:]).sqrt()
    torch.testing.assert_close(schedule.timestep_of(between), steps[:-1] + 0.5, rtol=0, atol=1e-9)


def test_timestep_of_stays_in_the_chain_beyond_its_levels() -> None:
    timesteps = cosine_schedule().timestep_of(torch.tensor([0.0, 1e-9, 1e9]))
    assert timesteps.tolist() == [0, 0, 999]


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [999]), (2, [999, 0]), (4, [999, 666, 333, 0])]
)
def test_spaced_steps_are_even_and_hold_both_ends(steps: int, expected: list[int]) -> None:
    assert cosine_schedule().spaced(steps).tolist() == expected


def test_all_steps_are_the_whole_chain() -> None:
    assert torch.equal(cosine_schedule().spaced(1000), torch.arange(999, -1, -1))


def test_the_levels_of_a_run_are_those_of_its_spaced_timesteps() -> None:
    """sigma^2 = (1 - alpha_bar) / alpha_bar (EDM, appendix C.3)."""
    parametrisation = LearnedVariance()
    sigmas = parametrisation.chain_sigmas(20)
    alphas = parametrisation.schedule.alphas_cumprod[parametrisation.schedule.spaced(20)]
    torch.testing.assert_close(sigmas[:-1], ((1 - alphas) / alphas).sqrt())
    assert sigmas[-1].item() == 0


# --- EDM ------------------------------------------------------------------------------------------


def edm_gaussian_network(x: Tensor, labels: Tensor) -> Tensor:
    """The optimal F for Gaussian data, from EDM's equation 8 with sigma_data = 1.

    It sees c_in x and 250 ln sigma, and is asked for (D - c_skip x) / c_out.
    """
    s = (labels.double() / 250).exp()[:, None, None]
    noisy = x * (s**2 + 1).sqrt()
    return (gaussian_denoise(noisy, s) - noisy / (s**2 + 1)) * (s**2 + 1).sqrt() / s


@pytest.mark.parametrize("scalar", [False, True])
def test_edm_with_the_optimal_network_is_the_posterior_mean(scalar: bool) -> None:
    """Bayes' rule; float32 noise labels limit the precision."""
    levels = torch.tensor([0.005, 0.1, 1.0, 3.0, 20.0], dtype=torch.float64)
    x = normal(5, 8, 2) * (1 + levels[:, None, None])
    sigma = levels[3] if scalar else levels
    expected = gaussian_denoise(x, sigma if scalar else sigma[:, None, None])
    denoised = EDM().denoise(edm_gaussian_network, x, sigma)
    torch.testing.assert_close(denoised, expected, rtol=0, atol=1e-5)


def zero_network(x: Tensor, labels: Tensor) -> Tensor:
    return torch.zeros_like(x)


def test_edm_loss_of_a_network_that_gives_zero() -> None:
    """D = x / (s^2 + 1), so the weighted square is (eps - s x0)^2 / (s^2 + 1)."""
    x0, eps = normal(3, 5, 2), normal(3, 5, 2, seed=1)
    levels = torch.tensor([0.01, 0.6, 9.0], dtype=torch.float64)
    s = levels[:, None, None]
    expected = ((eps - s * x0) ** 2 / (s**2 + 1)).mean(dim=(1, 2))
    torch.testing.assert_close(EDM().loss(zero_network, x0, levels, eps, None), expected)


def test_edm_loss_starts_at_one_on_unit_data_at_every_level() -> None:
    """EDM, table 1: the weight equalises the initial loss."""
    x0, eps = normal(1, 50_000, 2), normal(1, 50_000, 2, seed=1)
    for level in (0.01, 1.0, 30.0):
        loss = EDM().loss(zero_network, x0, torch.tensor([level]), eps, None)
        assert loss.item() == pytest.approx(1, abs=0.02)


def test_edm_loss_of_the_exact_denoiser_is_the_weighted_posterior_variance() -> None:
    """The posterior variance of Gaussian data is c^2 s^2 / (c^2 + s^2)."""
    x0 = MU + SPREAD * normal(1, 50_000, 2)
    eps, s = normal(1, 50_000, 2, seed=1), 0.8
    loss = EDM().loss(edm_gaussian_network, x0, torch.tensor([s]), eps, None)
    expected = (s**2 + 1) / s**2 * SPREAD**2 * s**2 / (SPREAD**2 + s**2)
    assert loss.item() == pytest.approx(expected, rel=0.02)


def test_edm_levels_are_log_normal_and_repeatable() -> None:
    levels = EDM(log_mean=-0.4, log_std=1.2).draw_levels(40_000, seeded(3))
    assert levels.log().mean().item() == pytest.approx(-0.4, abs=0.03)
    assert levels.log().std().item() == pytest.approx(1.2, abs=0.03)
    assert torch.equal(levels, EDM(log_mean=-0.4, log_std=1.2).draw_levels(40_000, seeded(3)))


@pytest.mark.parametrize("parametrisation", [EDM(), LearnedVariance()])
def test_padding_adds_nothing_to_a_loss_and_counts_in_its_mean(
    parametrisation: EDM | LearnedVariance,
) -> None:
    x0, eps = normal(2, 6, 2), normal(2, 6, 2, seed=1)
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[:, 4:] = False
    levels = torch.tensor([20, 400])

    def network(x: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([x / 3, x.clamp(-1, 1)], dim=-1)

    far = torch.where(valid[..., None], x0, 1e3 + x0)
    padded = parametrisation.loss(network, far, levels, eps, valid)
    alone = parametrisation.loss(network, x0[:, :4], levels, eps[:, :4], None)
    torch.testing.assert_close(padded, alone * 4 / 6)


def test_padded_mean_of_known_values() -> None:
    values = torch.tensor([[[1.0, 2.0], [5.0, 7.0]]])
    assert padded_mean(values, None).item() == 15 / 4
    assert padded_mean(values, torch.tensor([[True, False]])).item() == 3 / 4


@pytest.mark.parametrize(
    ("parametrisation", "pixels", "units"),
    [
        (EDM(), [256.0, 192.0], [0.0, 0.0]),
        (EDM(), [387.0, 61.0], [1.0, -1.0]),
        (LearnedVariance(), [512.0, 384.0], [1.0, 1.0]),
        (LearnedVariance(), [128.0, 0.0], [0.25, 0.0]),
    ],
)
def test_pixels_and_network_units_translate_both_ways(
    parametrisation: EDM | LearnedVariance, pixels: list[float], units: list[float]
) -> None:
    assert parametrisation.from_pixels(torch.tensor(pixels)).tolist() == units
    assert parametrisation.to_pixels(torch.tensor(units)).tolist() == pixels
    x = normal(3, 7, 2)
    torch.testing.assert_close(parametrisation.from_pixels(parametrisation.to_pixels(x)), x)
    moved = parametrisation.to_pixels(x + 1) - parametrisation.to_pixels(x)
    torch.testing.assert_close(moved, torch.tensor(parametrisation.scale).expand_as(x).double())


@pytest.mark.parametrize(
    "parametrisation",
    [
        EDM(),
        EDM(log_mean=-0.5, sigma_max=80.0, pixels=150.0),
        LearnedVariance(),
        LearnedVariance(linear_schedule(), l1=False),
    ],
)
def test_a_parametrisation_survives_json(parametrisation: EDM | LearnedVariance) -> None:
    values = json.loads(json.dumps(parametrisation.to_dict()))
    assert parametrisation_from_dict(values) == parametrisation


@pytest.mark.parametrize(
    "values", [{}, {"name": "flow"}, {"name": "learned-variance", "noise_schedule": "sine"}]
)
def test_an_unknown_parametrisation_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="unknown parametrisation"):
        parametrisation_from_dict(values)


# --- learned variance -----------------------------------------------------------------------------


def exact_eps(eps: Tensor, variance: float = -1.0) -> Network:
    """A network that knows the noise and puts the variance at `variance` in [-1, 1]."""
    return lambda x, labels: torch.cat([eps, torch.full_like(eps, variance)], dim=-1)


@pytest.mark.parametrize("scalar", [False, True])
def test_exact_eps_gives_x0(scalar: bool) -> None:
    parametrisation = LearnedVariance(clamp=None)
    x0, eps = normal(3, 6, 2), normal(3, 6, 2, seed=1)
    sigma = parametrisation.schedule.sigmas[torch.tensor([0, 300, 700])]
    level = sigma[1] if scalar else sigma
    noisy = x0 + (level if scalar else level[:, None, None]) * eps
    predicted, values = parametrisation.predict(exact_eps(eps, 0.3), noisy, level)
    torch.testing.assert_close(predicted, x0)
    assert bool((values == 0.3).all())


def test_the_network_sees_the_chain_and_its_timesteps() -> None:
    """x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps (Ho et al. 2020, equation 4)."""
    parametrisation = LearnedVariance()
    steps = torch.tensor([0, 421, 999])
    x0, eps = normal(3, 4, 2), normal(3, 4, 2, seed=1)
    seen: list[Tensor] = []

    def network(x: Tensor, labels: Tensor) -> Tensor:
        seen.extend([x, labels])
        return torch.cat([eps, eps], dim=-1)

    sigma = parametrisation.schedule.sigmas[steps]
    parametrisation.denoise(network, x0 + sigma[:, None, None] * eps, sigma)
    alphas = parametrisation.schedule.alphas_cumprod[steps][:, None, None]
    torch.testing.assert_close(seen[0], alphas.sqrt() * x0 + (1 - alphas).sqrt() * eps)
    torch.testing.assert_close(seen[1], steps.float())


def bayes_step(x0: Tensor, x_t: Tensor, t: int, previous: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_previous | x_t, x0) by multiplying two Gaussians.

    Prior x_s ~ N(sqrt(ab_s) x0, 1 - ab_s), likelihood x_t ~ N(sqrt(a) x_s, 1 - a).
    """
    alphas = cosine_schedule().alphas_cumprod
    before, step = alphas[previous], alphas[t] / alphas[previous]
    precision = 1 / (1 - before) + step / (1 - step)
    mean = (before.sqrt() * x0 / (1 - before) + step.sqrt() * x_t / (1 - step)) / precision
    return mean, 1 / precision


def noisy_chain(t: int) -> tuple[Tensor, Tensor, Tensor]:
    """x0, eps and the chain's x_t."""
    x0, eps = normal(2, 5, 2), normal(2, 5, 2, seed=1)
    alpha = cosine_schedule().alphas_cumprod[t]
    return x0, eps, alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps


def chain_step(
    parametrisation: LearnedVariance,
    network: Network,
    x_t: Tensor,
    steps: tuple[int, int],
    change: Callable[[Denoise], Denoise] = lambda denoise: denoise,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation and x0 of a step of `sample_ancestral`, in the chain's own scale.

    `steps` are the timestep of x_t (N, T, 2) and the one that is gone to, -1 for the clean end.
    The noise is set to 0 for the mean and to 1 for the deviation.
    """
    clean = torch.ones(1, dtype=torch.float64)
    alphas = torch.cat([clean, parametrisation.schedule.alphas_cumprod])
    alpha, alpha_to = alphas[steps[0] + 1], alphas[steps[1] + 1]
    sigmas = torch.stack([(1 / alpha - 1).sqrt(), (1 / alpha_to - 1).sqrt()])
    denoise, std = parametrisation.denoiser(network)
    predictions: list[Tensor] = []

    def step(noise: float) -> Tensor:
        x = sample_ancestral(
            change(denoise),
            x_t / alpha.sqrt().to(x_t.dtype),
            sigmas,
            lambda _, x0: predictions.append(x0),
            noise=lambda x: torch.full_like(x, noise),
            std=std,
        )
        return x * alpha_to.sqrt().to(x.dtype)

    mean = step(0.0)
    return mean, step(1.0) - mean, predictions[0]


@pytest.mark.parametrize(("t", "previous"), [(1, 0), (500, 499), (526, 473), (900, 0)])
def test_the_ancestral_step_is_the_posterior_of_bayes_rule(t: int, previous: int) -> None:
    x0, eps, x_t = noisy_chain(t)
    mean, deviation, predicted = chain_step(UNCLAMPED, exact_eps(eps, -1.0), x_t, (t, previous))
    expected_mean, expected_variance = bayes_step(x0, x_t, t, previous)
    torch.testing.assert_close(predicted, x0)
    torch.testing.assert_close(mean, expected_mean)
    torch.testing.assert_close(deviation**2, expected_variance.expand_as(mean))


def test_variance_values_run_from_the_posterior_to_beta_geometrically() -> None:
    """Improved DDPM, equation 15."""
    _, eps, x_t = noisy_chain(500)
    alphas = cosine_schedule().alphas_cumprod
    low = bayes_step(x_t, x_t, 500, 400)[1].item()
    high = (1 - alphas[500] / alphas[400]).item()
    for value, expected in ((-1.0, low), (0.0, math.sqrt(low * high)), (1.0, high)):
        _, deviation, _ = chain_step(LearnedVariance(), exact_eps(eps, value), x_t, (500, 400))
        torch.testing.assert_close(deviation**2, torch.full_like(x_t, expected))


@pytest.mark.parametrize(("t", "previous"), [(1, 0), (500, 499), (526, 473), (999, 0)])
def test_the_deviation_of_a_step_is_that_of_its_log_variance(t: int, previous: int) -> None:
    """In sigma the chain's scale is divided by sqrt(alpha_bar) of where the step goes to."""
    parametrisation = LearnedVariance()
    values = normal(2, 5, 2).tanh()
    x = normal(2, 5, 2, seed=1)
    denoise, std = parametrisation.denoiser(lambda x, labels: torch.cat([x, values], dim=-1))
    sigmas = parametrisation.schedule.sigmas[torch.tensor([t, previous])]
    denoise(x, sigmas[0])
    log_variance = parametrisation.log_variance(values, timestep(t), timestep(previous))
    alpha = parametrisation.schedule.alphas_cumprod[previous]
    expected = (log_variance / 2).exp() / alpha.sqrt()
    torch.testing.assert_close(std(sigmas[0], sigmas[1]), expected)


def test_the_last_ancestral_step_goes_to_the_prediction() -> None:
    x0, eps, x_t = noisy_chain(40)
    mean, deviation, _ = chain_step(UNCLAMPED, exact_eps(eps), x_t, (40, -1))
    torch.testing.assert_close(mean, x0)
    assert not deviation.any()
    log_variance = UNCLAMPED.log_variance(torch.full_like(x0, 0.3), timestep(40), timestep(-1))
    assert bool(log_variance.isfinite().all())


def test_the_ancestral_step_uses_the_changed_prediction() -> None:
    x0, eps, x_t = noisy_chain(500)
    mean, _, predicted = chain_step(
        UNCLAMPED,
        exact_eps(eps),
        x_t,
        (500, 400),
        lambda denoise: lambda x, sigma: denoise(x, sigma).clamp(-0.5, 0.5),
    )
    assert predicted.abs().max().item() == 0.5
    torch.testing.assert_close(mean, bayes_step(x0.clamp(-0.5, 0.5), x_t, 500, 400)[0])


@pytest.mark.parametrize("limits", [(-1.0, 2.0), (0.0, 3.0)])
def test_predictions_are_clamped_in_network_units(limits: tuple[float, float]) -> None:
    """The reference's -1 to 2 unless told otherwise."""
    x0 = torch.tensor([[[-3.0, 0.5], [3.5, 1.9]]], dtype=torch.float64)
    assert LearnedVariance().clamp == (-1.0, 2.0)
    parametrisation = LearnedVariance(clamp=limits)
    sigma = parametrisation.schedule.sigmas[500]
    # Where x is 0, x0 = -sigma eps.
    network, x = exact_eps(-x0 / sigma, 0.3), torch.zeros_like(x0)
    clamped, values = parametrisation.predict(network, x, sigma)
    low, high = limits
    expected = torch.tensor([[[low, 0.5], [high, 1.9]]], dtype=torch.float64)
    torch.testing.assert_close(clamped, expected)
    assert bool((values == 0.3).all())
    torch.testing.assert_close(UNCLAMPED.denoise(network, x, sigma), x0)


def test_the_losses_of_exact_eps_are_zero() -> None:
    x0, eps, _ = noisy_chain(500)
    steps = torch.tensor([3, 900])
    simple, bound = LearnedVariance().loss_terms(exact_eps(eps), x0, steps, eps)
    torch.testing.assert_close(simple, torch.zeros_like(x0))
    torch.testing.assert_close(bound, torch.zeros_like(x0), rtol=0, atol=1e-9)


def test_the_bound_of_too_wide_a_variance_is_its_kl_in_bits() -> None:
    """KL(N(m, v) || N(m, b)) = (ln(b / v) + v / b - 1) / 2."""
    x0, eps, _ = noisy_chain(500)
    _, bound = LearnedVariance().loss_terms(exact_eps(eps, 1.0), x0, torch.tensor([10, 10]), eps)
    low = bayes_step(x0, x0, 10, 9)[1].item()
    high = cosine_schedule().betas[10].item()
    expected = 0.5 * (math.log(high / low) + low / high - 1) / math.log(2)
    torch.testing.assert_close(bound, torch.full_like(x0, expected))


def test_the_loss_of_wrong_eps_is_absolute_or_square() -> None:
    x0, eps, _ = noisy_chain(500)
    wrong = exact_eps(eps + 0.3)
    for l1, expected in ((True, 0.3), (False, 0.09)):
        simple, bound = LearnedVariance(l1=l1).loss_terms(wrong, x0, torch.tensor([5, 700]), eps)
        torch.testing.assert_close(simple, torch.full_like(x0, expected))
        loss = LearnedVariance(l1=l1).loss(wrong, x0, torch.tensor([5, 700]), eps, None)
        torch.testing.assert_close(loss, (simple + bound).mean(dim=(1, 2)))


def test_the_bound_trains_the_variance_alone() -> None:
    """Improved DDPM, section 3.1: the mean inside the bound is held fixed."""
    x0, eps, _ = noisy_chain(500)
    out = torch.cat([eps + 0.3, torch.full_like(eps, 0.2)], dim=-1).requires_grad_()
    steps = torch.tensor([0, 700])
    _, bound = LearnedVariance().loss_terms(lambda x, labels: out, x0, steps, eps)
    (gradient,) = torch.autograd.grad(bound.sum(), out)
    assert not gradient[..., :2].any()
    assert bool((gradient[..., 2:] != 0).all())


def test_timesteps_are_drawn_evenly_over_the_chain() -> None:
    steps = LearnedVariance().draw_levels(100_000, seeded())
    counts = torch.bincount(steps // 100, minlength=10)
    assert len(counts) == 10
    assert bool(((counts - 10_000).abs() < 500).all())  # 5 standard deviations
    assert {int(steps.min()), int(steps.max())} == {0, 999}


def test_normal_kl_is_that_of_torch() -> None:
    p_mean, p_log, q_mean, q_log = normal(4, 9)
    p = torch.distributions.Normal(p_mean, (p_log / 2).exp())
    q = torch.distributions.Normal(q_mean, (q_log / 2).exp())
    expected = torch.distributions.kl_divergence(p, q)
    torch.testing.assert_close(normal_kl(p_mean, p_log, q_mean, q_log), expected)


@pytest.mark.parametrize(("mean", "std"), [(0.1, 0.03), (-0.9, 0.4), (1.3, 0.5)])
def test_the_discretised_likelihood_sums_to_one_over_all_bins(mean: float, std: float) -> None:
    x = torch.linspace(-1, 1, 256, dtype=torch.float64)
    mass = discretised_log_likelihood(x, torch.tensor(mean), torch.tensor(std).log()).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-6)


def test_the_discretised_likelihood_is_the_mass_of_the_bin() -> None:
    """Against the exact normal distribution; the tanh approximation is good to 4e-4."""
    x = torch.linspace(-1, 1, 52, dtype=torch.float64)[1:-1]
    mass = discretised_log_likelihood(x, torch.tensor(0.2), torch.tensor(0.05).log()).exp()
    normal_distribution = torch.distributions.Normal(0.2, 0.05)
    expected = normal_distribution.cdf(x + 1 / 255) - normal_distribution.cdf(x - 1 / 255)
    torch.testing.assert_close(mass, expected, rtol=0, atol=4e-4)


# --- guidance -------------------------------------------------------------------------------------


def two_styles(x: Tensor, labels: Tensor) -> Tensor:
    """A network of a doubled batch: the first half has a style, the second has none."""
    half = len(x) // 2
    assert torch.equal(x[:half], x[half:])
    assert torch.equal(labels[:half], labels[half:])
    means = torch.cat([x[:half].sin(), x[half:].cos()])
    return torch.cat([means, torch.cat([x[:half] + 5, x[half:] - 5])], dim=-1)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.7, 4.0])
def test_guidance_is_linear_from_no_style_to_style_and_beyond(scale: float) -> None:
    """Ho & Salimans 2022, equation 6: null at 0, conditional at 1; the variance is conditional."""
    x = normal(3, 5, 2)
    out = guided_network(two_styles, scale)(x, torch.arange(3))
    torch.testing.assert_close(out[..., :2], (1 - scale) * x.cos() + scale * x.sin())
    assert torch.equal(out[..., 2:], x + 5)


def test_guidance_takes_networks_without_variance() -> None:
    x = normal(3, 5, 2)
    out = guided_network(lambda x, labels: two_styles(x, labels)[..., :2], 2.0)(x, torch.arange(3))
    torch.testing.assert_close(out, 2 * x.sin() - x.cos())


@pytest.mark.parametrize("weight", [0.0, 1.5, 3.0])
def test_guidance_by_a_weak_model_leads_away_from_it(weight: float) -> None:
    """Karras et al. 2024, equation 3: D_weak + w (D - D_weak)."""
    x, sigma = normal(3, 5, 2), torch.tensor(0.7)
    guided = guided_by_weak(lambda x, s: x.sin() * s, lambda x, s: x.cos() / s, weight)
    expected = x.cos() / 0.7 + weight * (x.sin() * 0.7 - x.cos() / 0.7)
    torch.testing.assert_close(guided(x, sigma), expected)


@pytest.mark.parametrize(
    ("level", "inside"), [(0.25, False), (0.5, True), (1.0, True), (2.0, True), (2.25, False)]
)
def test_guidance_by_a_weak_model_acts_within_its_interval(level: float, inside: bool) -> None:
    """Both ends included; outside, the weak model is not asked."""
    x, asked = normal(3, 5, 2), []

    def weak(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma))
        return torch.zeros_like(x)

    guided = guided_by_weak(lambda x, s: x, weak, 3.0, (0.5, 2.0))
    torch.testing.assert_close(guided(x, torch.tensor(level)), 3 * x if inside else x)
    assert asked == ([level] if inside else [])


def test_guidance_of_weight_one_is_none() -> None:
    """The weak model is never asked."""

    def weak(x: Tensor, sigma: Tensor) -> Tensor:
        raise AssertionError

    x = normal(3, 5, 2)
    guided = guided_by_weak(lambda x, s: x.sin(), weak, 1.0)
    assert torch.equal(guided(x, torch.tensor(1.0)), x.sin())


# --- solvers --------------------------------------------------------------------------------------

DETERMINISTIC = [name for name, solver in SOLVERS.items() if not solver.draws_noise]


def solver_error(solver: str, steps: int) -> float:
    """Error on Gaussian data between sigma 5 and 0.1, whose flow is known in closed form.

    The first two steps, in which multistep solvers gather predictions, are as short as the square
    of the others: their lower order must not show.
    """
    places = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    places = torch.cat([torch.tensor([0, 1, 2], dtype=torch.float64) / steps**2, places[1:]])
    sigmas = (math.log(5.0) + places * math.log(0.1 / 5.0)).exp()
    x = normal(1, 6, 2) * 5 + MU
    solved = SOLVERS[solver].run(gaussian_denoise, x, sigmas, lambda step, x0: None)
    shrink = math.sqrt((SPREAD**2 + 0.1**2) / (SPREAD**2 + 5.0**2))
    return (solved - (MU + (x - MU) * shrink)).abs().max().item()


@pytest.mark.parametrize(
    ("solver", "order"), [("ddim", 1), ("heun", 2), ("dpmpp-2m", 2), ("dpmpp-3m", 3)]
)
def test_solvers_converge_with_their_order(solver: str, order: int) -> None:
    steps = [40, 80, 160, 320]
    errors = [solver_error(solver, n) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_solvers_meet_data_of_one_point_exactly(solver: str) -> None:
    x = normal(2, 4, 2) * 20
    target = normal(2, 4, 2, seed=1)
    sigmas = karras_sigmas(7, 0.005, 20.0)
    solved = SOLVERS[solver].run(lambda x, s: target, x, sigmas, lambda step, x0: None)
    torch.testing.assert_close(solved, target, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_solvers_carry_noise_to_the_data_distribution(solver: str) -> None:
    """From sigma 20 to 0 in 60 steps: each quantile goes to the same quantile of the data."""
    z = normal(1, 200, 2)
    sigmas = karras_sigmas(60, 0.005, 20.0)
    start = MU + z * math.sqrt(SPREAD**2 + 20.0**2)
    solved = SOLVERS[solver].run(gaussian_denoise, start, sigmas, lambda step, x0: None)
    torch.testing.assert_close(solved, MU + SPREAD * z, rtol=0, atol=0.1)


def test_one_ddim_step_by_hand() -> None:
    """Song et al. 2021, equation 12: x0 + (s' / s) (x - x0)."""
    sigmas = torch.tensor([4.0, 1.0])
    solved = sample_ddim(lambda x, s: x / 2, torch.full((1, 1, 2), 8.0), sigmas)
    assert solved.flatten().tolist() == [5.0, 5.0]


def test_one_heun_step_by_hand() -> None:
    """Slopes (8 - 4) / 4 = 1 and (5 - 2.5) / 1 = 2.5 average to 1.75 over a step of -3."""
    sigmas = torch.tensor([4.0, 1.0])
    solved = sample_heun(lambda x, s: x / 2, torch.full((1, 1, 2), 8.0), sigmas)
    assert solved.flatten().tolist() == [2.75, 2.75]


def test_dpmpp_3m_is_exact_for_predictions_that_are_a_parabola() -> None:
    """With t = -ln sigma and x0 = t^2, dx/dt = x0 - x has the solution t^2 - 2 t + 2 + c sigma.

    The first two steps are of lower order, so the run begins with the exact solution behind it.
    """
    sigmas = torch.tensor([1.0, 0.7, 0.4, 0.25, 0.1], dtype=torch.float64)
    times = -sigmas.log()
    exact = times**2 - 2 * times + 2 + 3 * sigmas
    calls = iter(range(4))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        i = next(calls)
        if i <= 2:
            x.fill_(exact[i])  # where the solver goes on from
        return torch.full_like(x, float(times[i] ** 2))

    start = torch.zeros(1, 1, 2, dtype=torch.float64)
    solved = SOLVERS["dpmpp-3m"].run(denoise, start, sigmas, lambda step, x0: None)
    torch.testing.assert_close(solved, torch.full_like(solved, float(exact[4])))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' own
def test_dpmpp_2m_is_that_of_diffusers() -> None:
    """Its variable is x / sqrt(1 + sigma^2); curved data, so that the order matters."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2",
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        prediction_type="sample",
        final_sigmas_type="zero",
        timestep_spacing="linspace",
    )
    scheduler.set_timesteps(12)
    sigmas = scheduler.sigmas.double()
    start = normal(2, 9, 2) * (1 + sigmas[0] ** 2).sqrt()
    ours = sample_dpmpp_2m(mixture_denoise, start, sigmas)

    scaled = start / (1 + sigmas[0] ** 2).sqrt()
    for i, t in enumerate(scheduler.timesteps):
        prediction = mixture_denoise(scaled * (1 + sigmas[i] ** 2).sqrt(), sigmas[i])
        scaled = scheduler.step(prediction, t, scaled).prev_sample.double()
    torch.testing.assert_close(ours, scaled, rtol=0, atol=2e-4)
    first_order = sample_ddim(mixture_denoise, start, sigmas)
    assert (first_order - ours).abs().max().item() > 1e-2


def test_an_ancestral_step_draws_from_the_posterior() -> None:
    """x_s | x_t, x0 by Bayes' rule: prior N(x0, s^2), likelihood N(x_s, t^2 - s^2)."""
    t, s = 3.0, 1.2
    precision = 1 / s**2 + 1 / (t**2 - s**2)
    mean = (0.4 / s**2 + 2.5 / (t**2 - s**2)) / precision
    sigmas = torch.tensor([t, s], dtype=torch.float64)
    start = torch.full((1, 20_000, 2), 2.5, dtype=torch.float64)
    drawn = sample_ancestral(
        lambda x, sigma: torch.full_like(x, 0.4), start, sigmas, noise=noise_source([seeded()])
    )
    assert drawn.mean().item() == pytest.approx(mean, abs=0.03)
    assert drawn.var().item() == pytest.approx(1 / precision, rel=0.03)


def test_ancestral_sampling_gives_the_data_distribution() -> None:
    sigmas = karras_sigmas(300, 0.005, 20.0)
    drawn = sample_ancestral(
        gaussian_denoise, normal(1, 15_000, 2) * 20, sigmas, noise=noise_source([seeded()])
    )
    assert drawn.mean().item() == pytest.approx(MU, abs=0.015)
    assert drawn.std().item() == pytest.approx(SPREAD, rel=0.02)


def test_ancestral_sampling_depends_on_its_generator_alone() -> None:
    sigmas, start = karras_sigmas(5, 0.005, 20.0), normal(1, 4, 2)

    def draw(seed: int) -> Tensor:
        noise = noise_source([seeded(seed)])
        return sample_ancestral(gaussian_denoise, start, sigmas, noise=noise)

    torch.manual_seed(1)
    first = draw(8)
    torch.manual_seed(2)
    assert torch.equal(first, draw(8))
    assert not torch.equal(first, draw(9))


def test_a_sample_with_its_own_generator_does_not_depend_on_the_others() -> None:
    sigmas, start = karras_sigmas(5, 0.005, 20.0), normal(2, 4, 2)
    generators = [seeded(3), seeded(4)]
    both = sample_ancestral(gaussian_denoise, start, sigmas, noise=noise_source(generators))
    alone = sample_ancestral(gaussian_denoise, start[1:], sigmas, noise=noise_source([seeded(4)]))
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[:1], alone)


def test_the_chain_and_the_sigma_form_of_the_ancestral_step_have_one_mean() -> None:
    """Of Ho et al. 2020, equation 7; x_t / sqrt(alpha_bar) turns one into the other."""
    _, eps, x_t = noisy_chain(500)
    parametrisation = LearnedVariance()
    sigmas = parametrisation.schedule.sigmas[torch.tensor([500, 400])]
    alpha, alpha_to = parametrisation.schedule.alphas_cumprod[torch.tensor([500, 400])]
    network = exact_eps(eps + 0.2)
    x0 = parametrisation.denoise(network, x_t / alpha.sqrt(), sigmas[0])
    ratio = alpha / alpha_to
    mean = (1 - ratio) * alpha_to.sqrt() / (1 - alpha) * x0
    mean = mean + (1 - alpha_to) * ratio.sqrt() / (1 - alpha) * x_t
    torch.testing.assert_close(chain_step(parametrisation, network, x_t, (500, 400))[0], mean)


def run_solver(
    name: str, denoise: Callable[[Tensor, Tensor], Tensor], callback: Callable[[int, Tensor], None]
) -> Tensor:
    sigmas = karras_sigmas(6, 0.005, 20.0)
    noise = noise_source([seeded()])
    return SOLVERS[name](denoise, normal(1, 4, 2) * 20, sigmas, callback, noise)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_callback_sees_every_prediction_in_order(solver: str) -> None:
    seen: list[tuple[int, Tensor]] = []
    predictions: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.ndim == 0
        predictions.append(gaussian_denoise(x, sigma))
        return predictions[-1]

    final = run_solver(solver, denoise, lambda step, x0: seen.append((step, x0)))
    assert [step for step, _ in seen] == list(range(6))
    first_calls = predictions[::2] if solver == "heun" else predictions
    assert all(a is b for (_, a), b in zip(seen, first_calls, strict=True))
    torch.testing.assert_close(final, seen[-1][1])  # the step to sigma 0 ends at the prediction


class Cancelled(Exception):
    """What a callback raises to end a run."""


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_exception_of_the_callback_ends_the_run_at_once(solver: str) -> None:
    calls: list[int] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(1)
        return x

    def cancel(step: int, x0: Tensor) -> None:
        if step == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_solver(solver, denoise, cancel)
    assert len(calls) == (5 if solver == "heun" else 3)


@pytest.mark.parametrize("steps", [1, 4, 12, 1000])
def test_levels_for_solvers_of_the_reference_chain_lie_within_it(steps: int) -> None:
    """Where the network was trained, and with most steps below the playfield's size."""
    parametrisation = LearnedVariance()
    sigmas = parametrisation.sigmas(steps)
    assert len(sigmas) == steps + 1 and sigmas[-1] == 0
    assert bool((sigmas.diff() < 0).all())
    chain = parametrisation.schedule.sigmas
    assert bool((sigmas[:-1] <= chain[-1]).all() and (sigmas[:-1] >= chain[0]).all())
    if steps >= 12:
        below = (sigmas * 512 < 384).double().mean()
        even = (parametrisation.chain_sigmas(steps) * 512 < 384).double().mean()
        assert below > 0.5 > even


# --- the public osu-diffusion ---------------------------------------------------------------------


def reference_arrays() -> dict[str, Tensor]:
    """What the reference computed with its tiny checkpoint; sequences as (N, T, C)."""
    assert FOLDER is not None
    with np.load(Path(FOLDER) / "osu_diffusion_tiny_outputs.npz") as file:
        arrays = {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
    return {name: x.transpose(1, 2) if x.ndim == 3 else x for name, x in arrays.items()}


def reference_network(arrays: dict[str, Tensor], guided: bool) -> tuple[LearnedVariance, Network]:
    """The tiny model on the three sequences, or guided on the first one as the reference does.

    Its guided run and sampling use the narrow band, its losses no band (90 points, W = 128).
    """
    assert FOLDER is not None
    loaded = load_model(Path(FOLDER) / "osu_diffusion_tiny.pt", heads=3)
    assert isinstance(loaded.parametrisation, LearnedVariance)
    model, n = loaded.model, 1 if guided else 3
    conditions = Conditions(
        arrays["o"][:n].double(), arrays["distance"][:n], arrays["type"][:n], arrays["y"][:n]
    )
    if not guided:
        context = make_context(model.config, conditions)
        return loaded.parametrisation, lambda x, labels: model(x, labels, context, 128)
    conditions = conditions.repeat(2)._replace(classes=arrays["cfg_y"])
    doubled, half_window = make_context(model.config, conditions), int(arrays["half_window"])
    return loaded.parametrisation, guided_network(
        lambda x, labels: model(x, labels, doubled, half_window), float(arrays["cfg_scale"])
    )


def relative(ours: Tensor, expected: Tensor) -> float:
    """Largest deviation, as a part of the largest expected value."""
    return ((ours - expected).abs().max() / expected.abs().max()).item()


@needs_reference
def test_the_alphas_are_those_of_the_reference() -> None:
    expected = reference_arrays()["alphas_cumprod"]
    torch.testing.assert_close(cosine_schedule().alphas_cumprod, expected, rtol=1e-12, atol=0)


@needs_reference
def test_the_spaced_timesteps_are_those_of_the_reference() -> None:
    expected = reference_arrays()["ddim_timesteps"]
    assert torch.equal(cosine_schedule().spaced(20).flip(0), expected)


@needs_reference
def test_the_losses_are_those_of_the_reference() -> None:
    arrays = reference_arrays()
    parametrisation, network = reference_network(arrays, guided=False)
    terms = parametrisation.loss_terms(network, arrays["x"], arrays["loss_t"], arrays["loss_noise"])
    simple, bound = (term.mean((1, 2)) for term in terms)
    torch.testing.assert_close(simple, arrays["loss_l1"], rtol=1e-4, atol=0)
    torch.testing.assert_close(bound, arrays["loss_vb"], rtol=1e-4, atol=0)
    torch.testing.assert_close(simple + bound, arrays["loss_loss"], rtol=1e-4, atol=0)
    loss = parametrisation.loss(network, arrays["x"], arrays["loss_t"], arrays["loss_noise"], None)
    torch.testing.assert_close(loss, arrays["loss_loss"], rtol=1e-4, atol=0)


@needs_reference
@pytest.mark.parametrize(("prefix", "clamped"), [("p_", True), ("p_unclipped_", False)])
def test_the_ancestral_step_is_that_of_the_reference(prefix: str, clamped: bool) -> None:
    arrays = reference_arrays()
    parametrisation, network = reference_network(arrays, guided=True)
    index = int(arrays[f"{prefix}index"])
    previous, t = arrays["ddim_timesteps"][index - 1], arrays["ddim_timesteps"][index]
    if not clamped:
        parametrisation = replace(parametrisation, clamp=None)
    x_t, sigma = arrays["cfg_x"][:1], parametrisation.schedule.sigmas[t]
    with torch.no_grad():
        steps = (int(t), int(previous))
        mean, deviation, x0 = chain_step(parametrisation, network, x_t, steps)
        noisy = x_t * (1 + sigma**2).sqrt().float()
        _, values = parametrisation.predict(network, noisy, sigma)
        log_variance = parametrisation.log_variance(values, t, previous)
    assert relative(mean, arrays[f"{prefix}mean"][:1]) < 1e-4
    assert relative(log_variance, arrays[f"{prefix}log_variance"][:1]) < 1e-4
    assert relative(deviation.log() * 2, arrays[f"{prefix}log_variance"][:1]) < 1e-4
    assert relative(deviation**2, arrays[f"{prefix}variance"][:1]) < 1e-4
    assert relative(x0, arrays[f"{prefix}pred_xstart"][:1]) < 1e-4


def reference_ddim(clamped: bool) -> tuple[Tensor, Tensor]:
    """Our 20 guided DDIM steps from the reference's start noise, and the reference's sample."""
    arrays = reference_arrays()
    parametrisation, network = reference_network(arrays, guided=True)
    if not clamped:
        parametrisation = replace(parametrisation, clamp=None)
    sigmas = parametrisation.chain_sigmas(20)
    # The chain starts at the noise itself; x0 + sigma eps is that over sqrt(alpha_bar).
    start = arrays["cfg_x"][:1] * (1 + sigmas[0] ** 2).sqrt().float()
    denoise, _ = parametrisation.denoiser(network)
    with torch.no_grad():
        solved = sample_ddim(denoise, start, sigmas)
    return solved, arrays["ddim_sample" if clamped else "ddim_sample_unclipped"][:1]


@needs_reference
def test_ddim_without_the_clamp_is_that_of_the_reference() -> None:
    assert relative(*reference_ddim(clamped=False)) < 1e-4


@needs_reference
def test_ddim_with_the_clamp_is_that_of_the_reference() -> None:
    """95 % of the coordinates to 1e-4 of the range, the others to what rounding leaves of them.

    With random weights the sample is chaotic: a change of the start noise by half a unit in the
    last place of float32 moves single coordinates by 0.06, and most by nothing.
    """
    solved, expected = reference_ddim(clamped=True)
    deviation = (solved - expected).abs()
    assert (deviation < 3e-4).double().mean().item() > 0.95
    assert deviation.mean().item() < 1e-3
