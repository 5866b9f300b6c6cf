"""An expert takes over at low noise: which model sees what, in which units, without a seam."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.experts import expert_limit, with_expert
from diffusion.parametrisation import (
    EDM,
    Denoise,
    LearnedVariance,
    Parametrisation,
    parametrisation_from_dict,
    posterior_std,
)
from diffusion.samplers import SOLVERS, sample_dpmpp_2m

MEAN, STD = torch.tensor([300.0, 150.0]), 90.0
"""Made-up maps: every point is normal about here, in px."""


def exact(units: Parametrisation) -> Denoise:
    """The exact denoiser of the made-up maps, as a model in these units knows it."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        xy = units.to_pixels(x)
        scale = torch.tensor(units.scale, dtype=x.dtype)
        share = STD**2 / (STD**2 + (float(sigma) * scale) ** 2)
        return units.from_pixels(MEAN.to(x.dtype) + share * (xy - MEAN.to(x.dtype)))

    return denoise


def counted(denoise: Denoise, levels: list[float]) -> Denoise:
    """The same, which writes down the levels that it is called at."""

    def counting(x: Tensor, sigma: Tensor) -> Tensor:
        levels.append(float(sigma))
        return denoise(x, sigma)

    return counting


def run(units: Parametrisation, denoise: Denoise, steps: int = 30) -> tuple[Tensor, list[Tensor]]:
    """Coordinates (N, T, 2) px that a denoiser gives from pure noise, and what it predicted."""
    generator = torch.Generator().manual_seed(0)
    sigmas = units.sigmas(steps)
    noise = torch.randn(2, 40, 2, generator=generator, dtype=torch.float64)
    seen: list[Tensor] = []
    x = sample_dpmpp_2m(
        denoise,
        noise * float(sigmas[0]),
        sigmas,
        lambda step, x0: seen.append(units.to_pixels(x0)),
    )
    return units.to_pixels(x), seen


EXPERTS: list[Parametrisation] = [
    EDM().limited(80.0),
    EDM(pixels=100.0).limited(80.0),
    LearnedVariance(centred=True, clamp=None, known_steps=100),
]


@pytest.mark.parametrize("expert_units", EXPERTS)
def test_each_model_sees_the_noise_that_it_knows(expert_units: Parametrisation) -> None:
    units, high, low = EDM(), list[float](), list[float]()
    denoise, _ = with_expert(
        (counted(exact(units), high), posterior_std),
        units,
        (counted(exact(expert_units), low), posterior_std),
        expert_units,
    )
    run(units, denoise)
    assert len(high) + len(low) == 30  # as many calls as steps: none twice
    assert max(low) <= expert_units.limit
    ratio = math.sqrt(math.prod(units.scale) / math.prod(expert_units.scale))
    assert min(high) * ratio > expert_units.limit
    assert len(high) > 3 and len(low) > 3


@pytest.mark.parametrize("expert_units", EXPERTS[:2])
def test_two_models_that_know_the_same_do_as_one(expert_units: Parametrisation) -> None:
    """In whatever units: the hand-over leaves no seam."""
    units = EDM()
    both, _ = with_expert(
        (exact(units), posterior_std), units, (exact(expert_units), posterior_std), expert_units
    )
    (alone, seen_alone), (together, seen_together) = run(units, exact(units)), run(units, both)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    for one, two in zip(seen_alone, seen_together, strict=True):
        torch.testing.assert_close(two, one, rtol=0, atol=1e-6)


def test_noise_that_differs_by_axis_leaves_a_seam_of_a_few_pixels() -> None:
    """What is as much on both axes in px is 4 : 3 in the units of osu-diffusion v2."""
    units, expert_units = EDM(), EXPERTS[2]
    both, _ = with_expert(
        (exact(units), posterior_std), units, (exact(expert_units), posterior_std), expert_units
    )
    _, seen_alone = run(units, exact(units))
    _, seen_together = run(units, both)
    for one, two in zip(seen_alone, seen_together, strict=True):
        assert (two - one).abs().max() < 20
        assert (two - one).abs().mean() < 4


def test_an_expert_may_take_over_later() -> None:
    units, low = EDM(), list[float]()
    expert = counted(exact(units), low), posterior_std
    denoise, _ = with_expert((exact(units), posterior_std), units, expert, units, 20.0)
    run(units, denoise)
    assert 0 < max(low) * 131 <= 20
    assert expert_limit(EDM()) == math.inf
    assert expert_limit(EDM().limited(80.0), 200.0) == pytest.approx(80)


def test_noise_of_ancestral_steps_is_that_of_the_model_at_work() -> None:
    units, low = LearnedVariance(), LearnedVariance(known_steps=100)

    def std(value: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda sigma, following: torch.tensor(value)

    denoise = exact(units)
    _, joined = with_expert((denoise, std(1.0)), units, (denoise, std(2.0)), low)
    one, two = torch.tensor(0.5), torch.tensor(0.1)
    assert float(joined(one, two)) == 1.0
    assert float(joined(two, two / 2)) == 2.0
    # A learnt variance is that of steps of its own chain.
    _, joined = with_expert((denoise, std(1.0)), EDM(), (denoise, std(2.0)), low)
    assert joined(two, two / 2) == posterior_std(two, two / 2)


def test_ancestral_sampling_runs_across_the_hand_over() -> None:
    units, expert_units = LearnedVariance(), EXPERTS[2]
    network = lambda x, labels: torch.zeros(*x.shape[:2], 4, dtype=x.dtype)  # noqa: E731
    denoise, std = with_expert(
        units.denoiser(network), units, expert_units.denoiser(network), expert_units
    )
    sigmas = units.chain_sigmas(100)
    x = torch.randn(1, 10, 2) * float(sigmas[0])
    found = SOLVERS["ancestral"](
        denoise, x, sigmas, lambda step, x0: None, lambda x: torch.ones_like(x), std
    )
    assert found.isfinite().all()


# --- parametrisations that know low noise alone ---------------------------------------------------


@pytest.mark.parametrize("whole", [EDM(), LearnedVariance(), LearnedVariance(centred=True)])
def test_an_expert_is_trained_at_low_noise_alone(whole: Parametrisation) -> None:
    low = whole.limited(80.0)
    levels = low.draw_levels(2000, torch.Generator().manual_seed(0))
    px = low.level_sigmas(levels) * max(low.scale)
    assert 60 < float(px.max()) <= 80.0001
    assert whole.limit == math.inf
    assert low.limit * max(low.scale) == pytest.approx(80, rel=0.02)
    with pytest.raises(ValueError, match="noise"):
        whole.limited(0.5)


def test_low_noise_is_drawn_as_often_as_in_a_whole_model() -> None:
    """The log-normal distribution, cut: its shares below the limit stay in proportion."""
    whole, low = EDM(), EDM().limited(80.0)
    drawn = [p.draw_levels(20_000, torch.Generator().manual_seed(1)) * 131 for p in (whole, low)]
    expected, found = drawn[0][drawn[0] <= 80], drawn[1]
    for px in (5.0, 20.0, 50.0):
        shares = [(levels < px).float().mean() for levels in (expected, found)]
        assert float(shares[0]) == pytest.approx(float(shares[1]), abs=0.02)


@pytest.mark.parametrize("whole", [EDM(), LearnedVariance()])
def test_the_limit_is_saved_only_where_there_is_one(whole: Parametrisation) -> None:
    low = whole.limited(80.0)
    assert parametrisation_from_dict(low.to_dict()) == low != whole
    assert not {"trained_below", "known_steps", "centred"} & whole.to_dict().keys()


@pytest.mark.parametrize(
    "values",
    [
        {"name": "edm", "trained_below": "1"},
        {"name": "edm", "trained_below": -1.0},
        {"name": "learned-variance", "noise_schedule": "linear", "l1": True, "known_steps": 0},
    ],
)
def test_limits_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"noise|timesteps"):
        parametrisation_from_dict(values)


def test_deterministic_levels_fall_from_wherever_they_begin() -> None:
    """Also from below the lowest level of a whole run."""
    for start in (0.005, 0.1, 3.0):
        sigmas = LearnedVariance().sigmas(6, start)
        assert (sigmas.diff() <= 0).all() and float(sigmas[0]) == pytest.approx(start)
