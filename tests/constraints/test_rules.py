"""Kept points, spacing and playfield: against chains whose answer is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from constraints.bounds import Bounds
from constraints.rules import (
    SPACED_BELOW_PX,
    Chain,
    Rule,
    arranged,
    clamp,
    on_cpu,
    pinned,
    project_spacing,
    spaced,
    with_rules,
    within,
)
from conventions.playfield import PLAYFIELD
from diffusion.parametrisation import EDM, Denoise, LearnedVariance

CENTRE = (256.0, 192.0)
PLAYFIELD_BOUNDS = Bounds()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_it_is(xy: Tensor) -> Tensor:
    """Settles nothing: a chain of points that are objects of their own."""
    return xy


def chain_of(
    distances: Tensor,
    fixed: dict[int, tuple[float, float]] | None = None,
    settle: Callable[[Tensor], Tensor] = as_it_is,
    bounds: Bounds | None = PLAYFIELD_BOUNDS,
) -> Chain:
    """A chain with the given points fixed, on the playfield unless told otherwise."""
    fixed_at = torch.zeros(len(distances), dtype=torch.bool)
    fixed_xy = torch.zeros(len(distances), 2)
    for index, xy in (fixed or {}).items():
        fixed_at[index] = True
        fixed_xy[index] = torch.tensor(xy)
    return Chain(distances, fixed_at, fixed_xy, settle, bounds)


def walk(length: int, fixed: tuple[int, ...] = (), seed: int = 0) -> Tensor:
    """A random walk (1, T, 2) on the playfield, 20 px from its edge, at the centre where fixed."""
    generator = seeded(seed)
    xy = torch.empty(length, 2)
    here = torch.tensor(CENTRE)
    low, high = torch.tensor([20.0, 20.0]), torch.tensor(PLAYFIELD) - 20
    for i in range(length):
        step = torch.randn(2, generator=generator) * 60
        here = torch.tensor(CENTRE) if i in fixed else (here + step).clamp(low, high)
        xy[i] = here
    return xy[None]


def distances_of(xy: Tensor, origin: tuple[float, float] = CENTRE) -> Tensor:
    """(N, T) distances to the previous point, the first one's to the origin."""
    start = xy.new_tensor(origin).expand(len(xy), 1, 2)
    return torch.cat([start, xy], dim=1).diff(dim=1).norm(dim=-1)


def jitter(xy: Tensor, pixels: float) -> Tensor:
    return xy + pixels * torch.randn(xy.shape, generator=seeded(7))


# --- spacing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [(), (0,), (11, 12, 30)])
@pytest.mark.parametrize("bounds", [None, PLAYFIELD_BOUNDS])
def test_feasible_distances_are_met(fixed: tuple[int, ...], bounds: Bounds | None) -> None:
    truth = walk(40, fixed)
    chain = chain_of(distances_of(truth)[0], dict.fromkeys(fixed, CENTRE), bounds=bounds)
    projected = project_spacing(jitter(truth, 25.0), chain, 1000)
    torch.testing.assert_close(distances_of(projected), distances_of(truth), rtol=0, atol=1e-3)
    if bounds is not None:
        assert torch.equal(clamp(projected, bounds), projected)
    for index in fixed:
        assert projected[0, index].tolist() == list(CENTRE)


def test_the_first_sweeps_already_bring_the_distances_closer() -> None:
    truth = walk(40)
    chain = chain_of(distances_of(truth)[0])
    start = jitter(truth, 25.0)
    errors = [
        (distances_of(project_spacing(start, chain, n)) - chain.distances).abs().mean()
        for n in (0, 1, 10, 100)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 8 * errors[3]


def test_an_exact_chain_does_not_move() -> None:
    truth = walk(60, fixed=(5, 40)).double()
    chain = chain_of(distances_of(truth)[0], {5: CENTRE, 40: CENTRE})
    projected = project_spacing(truth, chain, 30)
    torch.testing.assert_close(projected, truth, rtol=0, atol=1e-9)


def test_points_off_the_playfield_come_back_and_keep_their_distances() -> None:
    chain = chain_of(torch.tensor([250.0, 30.0, 40.0]))
    start = torch.tensor([[[530.0, 200.0], [560.0, 200.0], [600.0, 200.0]]])
    projected = project_spacing(start, chain, 1000)
    torch.testing.assert_close(distances_of(projected)[0], chain.distances, rtol=0, atol=1e-3)
    assert torch.equal(clamp(projected, PLAYFIELD_BOUNDS), projected)
    unbounded = chain_of(chain.distances, bounds=None)
    free = project_spacing(start, unbounded, 1000)
    torch.testing.assert_close(distances_of(free)[0], chain.distances, rtol=0, atol=1e-3)
    assert free[0, 1:, 0].min() > PLAYFIELD[0]


def test_fixed_points_may_lie_off_the_playfield() -> None:
    chain = chain_of(torch.tensor([100.0, 10.0]), {1: (600.0, -50.0)})
    projected = project_spacing(torch.zeros(1, 2, 2), chain, 5)
    assert projected[0, 1].tolist() == [600.0, -50.0]


def test_the_first_point_moves_straight_to_its_distance_from_the_origin() -> None:
    """The origin cannot move, so the point makes the whole correction."""
    chain = chain_of(torch.tensor([50.0]))
    start = torch.tensor([[[256.0 + 30.0, 192.0 + 40.0]]]) + torch.tensor([30.0, 40.0])
    projected = project_spacing(start, chain, 1)
    torch.testing.assert_close(projected, torch.tensor([[[286.0, 232.0]]]))


def test_two_free_points_share_a_correction() -> None:
    """By hand: the first half sweep meets distances 0 and 2, the second meets distance 1.

    The last two points are 100 px apart and asked for 40, so each moves by 30; the middle one is
    then 80 px from the fixed one and asked for 50, so it moves back by 30.
    """
    chain = chain_of(torch.tensor([0.0, 50.0, 40.0]), {0: CENTRE})
    start = torch.tensor([[[256.0, 192.0], [306.0, 192.0], [406.0, 192.0]]])
    projected = project_spacing(start, chain, 1)
    expected = torch.tensor([[[256.0, 192.0], [306.0, 192.0], [376.0, 192.0]]])
    torch.testing.assert_close(projected, expected)


def test_a_point_beside_a_fixed_one_makes_the_whole_correction() -> None:
    chain = chain_of(torch.tensor([0.0, 40.0]), {0: CENTRE})
    start = torch.tensor([[[256.0, 192.0], [356.0, 192.0]]])
    projected = project_spacing(start, chain, 1)
    torch.testing.assert_close(projected[0, 1], torch.tensor([296.0, 192.0]))


def test_coincident_points_have_no_direction_to_part_in_and_stay() -> None:
    chain = chain_of(torch.tensor([0.0, 80.0, 80.0, 0.0]))
    start = torch.tensor(CENTRE).expand(1, 4, 2)
    assert torch.equal(project_spacing(start, chain, 20), start)


def test_coincident_points_follow_neighbours_that_move() -> None:
    chain = chain_of(torch.tensor([60.0, 0.0, 50.0]))
    start = torch.tensor([[[300.0, 192.0], [300.0, 192.0], [420.0, 192.0]]])
    projected = project_spacing(start, chain, 1000)
    torch.testing.assert_close(distances_of(projected)[0], chain.distances, rtol=0, atol=1e-3)


def test_a_distance_of_zero_is_met() -> None:
    chain = chain_of(torch.tensor([0.0, 80.0, 0.0]))
    projected = project_spacing(jitter(walk(3), 30.0), chain, 2000)
    torch.testing.assert_close(distances_of(projected)[0], chain.distances, rtol=0, atol=1e-3)


def test_samples_of_a_batch_are_projected_alone_and_the_input_is_kept() -> None:
    truth = walk(20)
    chain = chain_of(distances_of(truth)[0])
    start = torch.cat([jitter(truth, 10.0), jitter(truth, 40.0)])
    copy = start.clone()
    both = project_spacing(start, chain, 10)
    alone = project_spacing(start[1:], chain, 10)
    torch.testing.assert_close(both[1:], alone)
    assert torch.equal(start, copy)


def test_the_origin_of_a_chain_can_be_set() -> None:
    base = chain_of(torch.tensor([50.0]))
    chain = Chain(
        base.distances, base.fixed, base.fixed_xy, as_it_is, PLAYFIELD_BOUNDS, (100.0, 100.0)
    )
    projected = project_spacing(torch.tensor([[[100.0, 200.0]]]), chain, 1)
    torch.testing.assert_close(projected, torch.tensor([[[100.0, 150.0]]]))


# --- points that are known, slider ends -----------------------------------------------------------


def test_pin_puts_fixed_points_where_they_belong_and_no_others() -> None:
    chain = chain_of(torch.ones(3), {1: (7.0, 9.0)})
    xy = chain.pin(torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]))
    assert xy.tolist() == [[[1.0, 2.0], [7.0, 9.0], [5.0, 6.0]]]


def test_coordinates_are_settled_without_their_history() -> None:
    seen: list[Tensor] = []

    def mirrored(xy: Tensor) -> Tensor:
        seen.append(xy)
        return -xy

    xy = torch.arange(8.0, requires_grad=True).reshape(1, 4, 2)
    assert torch.equal(on_cpu(mirrored)(xy), -xy)
    assert torch.equal(seen[0], xy)
    assert not seen[0].requires_grad


# --- rules ----------------------------------------------------------------------------------------


def prediction(xy: Tensor, parametrisation: EDM | LearnedVariance) -> Tensor:
    return parametrisation.from_pixels(xy)


def ruled(xy: Tensor, rules: list[Rule], parametrisation: EDM | LearnedVariance) -> Denoise:
    """A denoiser that always predicts xy (N, T, 2) px, keeping the rules."""
    x0 = prediction(xy, parametrisation)
    return with_rules(lambda x, s: x0, parametrisation, rules)


@pytest.mark.parametrize("parametrisation", [EDM(), LearnedVariance()])
def test_known_points_are_pinned_at_every_level(parametrisation: EDM | LearnedVariance) -> None:
    chain = chain_of(torch.ones(5), {2: CENTRE})
    x0 = prediction(walk(5), parametrisation)
    for level in (3.0, 0.001):
        denoise = ruled(walk(5), [pinned(chain)], parametrisation)
        kept = denoise(x0, torch.tensor(level))
        pixels = parametrisation.to_pixels(kept)
        torch.testing.assert_close(pixels[0, 2], torch.tensor(CENTRE))
        others = [0, 1, 3, 4]
        torch.testing.assert_close(kept[:, others], x0[:, others])


def levels(parametrisation: EDM | LearnedVariance, pixels: float) -> Tensor:
    """The noise level that is `pixels` px on the coarser axis."""
    return torch.tensor(pixels / max(parametrisation.scale), dtype=torch.float64)


def test_rules_do_not_touch_what_they_leave_alone() -> None:
    """Above their levels they give the very same tensor."""
    xy, chain = walk(30), chain_of(torch.full((30,), 50.0))
    rules = [spaced(chain, below_px=60.0), within(PLAYFIELD_BOUNDS, below_px=60.0)]
    for rule in rules:
        assert rule(xy, 60.0) is xy
        assert rule(xy + 1000, 59.9) is not xy
    rule = arranged(lambda xy, heads_alone: xy + 1, below_px=300.0, above_px=60.0)
    for level in (59.9, 300.0):
        assert rule(xy, level) is xy
    for level in (60.0, 299.9):
        assert torch.equal(rule(xy, level), xy + 1)


def test_where_sliders_go_is_looked_at_once_noise_is_low() -> None:
    """If no distances are kept, this rule is the only one that parts objects there."""
    xy = walk(30)
    rule = arranged(lambda xy, heads_alone: xy + heads_alone, below_px=300.0, above_px=0.0)
    assert torch.equal(rule(xy, SPACED_BELOW_PX), xy + 1)
    assert torch.equal(rule(xy, SPACED_BELOW_PX - 0.1), xy)


@pytest.mark.parametrize("parametrisation", [EDM(), LearnedVariance()])
def test_spacing_is_kept_below_its_level_only(parametrisation: EDM | LearnedVariance) -> None:
    truth = walk(30)
    chain = chain_of(distances_of(truth)[0])
    start = jitter(truth, 20.0)
    x0 = prediction(start, parametrisation)
    denoise = ruled(start, [spaced(chain, below_px=60.0, sweeps=1000)], parametrisation)
    torch.testing.assert_close(denoise(x0, levels(parametrisation, 60.1)), x0)
    pixels = parametrisation.to_pixels(denoise(x0, levels(parametrisation, 59.9)))
    torch.testing.assert_close(distances_of(pixels)[0], chain.distances, rtol=0, atol=1e-3)


def test_the_projected_points_are_settled() -> None:
    def beside_the_head(xy: Tensor) -> Tensor:
        torch.testing.assert_close(distances_of(xy)[0, 0], torch.tensor(50.0))
        return torch.cat([xy[:, :1], xy[:, :1] + torch.tensor([3.0, 4.0])], dim=1)

    parametrisation = EDM()
    chain = chain_of(torch.tensor([50.0, 5.0]), settle=beside_the_head)
    denoise = ruled(walk(2), [spaced(chain, sweeps=1000)], parametrisation)
    head, end = parametrisation.to_pixels(denoise(walk(2), torch.tensor(0.01)))[0]
    torch.testing.assert_close(end - head, torch.tensor([3.0, 4.0]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("parametrisation", [EDM(), LearnedVariance()])
def test_bounds_are_kept_below_their_level_only(
    parametrisation: EDM | LearnedVariance,
) -> None:
    outside = torch.tensor([[[-30.0, 500.0], [100.0, 100.0], [700.0, -1.0]]])
    x0 = prediction(outside, parametrisation)
    denoise = ruled(outside, [within(PLAYFIELD_BOUNDS, below_px=60.0)], parametrisation)
    torch.testing.assert_close(denoise(x0, levels(parametrisation, 60.1)), x0)
    pixels = parametrisation.to_pixels(denoise(x0, levels(parametrisation, 59.9)))
    expected = torch.tensor([[[0.0, 384.0], [100.0, 100.0], [512.0, 0.0]]])
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-4)


def test_rules_are_kept_one_after_the_other() -> None:
    """Each sees what the one before made, in px, and the noise in px of the coarser axis."""
    seen: list[float] = []

    def doubled(xy: Tensor, sigma: float) -> Tensor:
        seen.append(sigma)
        return 2 * xy

    xy = torch.tensor([[[10.0, 20.0], [30.0, 40.0]]])
    denoise = ruled(xy, [doubled, lambda xy, sigma: xy + 1], LearnedVariance())
    pixels = LearnedVariance().to_pixels(denoise(xy, torch.tensor(0.25)))
    torch.testing.assert_close(pixels, 2 * xy + 1)
    assert seen == [128.0]


def test_clamp_moves_points_within_the_bounds() -> None:
    xy = torch.tensor([[-1.0, -1.0], [0.0, 384.0], [512.5, 384.5], [3.0, 4.0]])
    assert clamp(xy, Bounds()).tolist() == [[0.0, 0.0], [0.0, 384.0], [512.0, 384.0], [3.0, 4.0]]
    narrow = clamp(xy, Bounds((1.0, 2.0), (300.0, 200.0)))
    assert narrow.tolist() == [[1.0, 2.0], [1.0, 200.0], [300.0, 200.0], [3.0, 4.0]]


def test_a_chain_made_on_the_cpu_serves_coordinates_on_another_device() -> None:
    chain = chain_of(torch.ones(4), {1: CENTRE})
    assert chain.pin(torch.zeros(1, 4, 2, device="meta")).device.type == "meta"
