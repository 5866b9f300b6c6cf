"""From sampled coordinates to pixels: distances, shapes, the playfield, on made-up maps."""

from dataclasses import replace

import numpy as np
import pytest

from beatmaps.game_rules import stack_shifts
from beatmaps.osu_file import Beatmap, parse_beatmap
from beatmaps.sequence import END, Sequence, beatmap_to_sequence
from beatmaps.slider_path import PathSet
from constraints.bodies import Bodies
from constraints.bounds import Bounds
from constraints.pixel_search import NEARNESS, choose_pixels
from constraints.rounding import Placement, _rerouted, _settle
from constraints.shapes import SliderShapes
from conventions.arrays import FloatArray
from conventions.point_types import PointType
from tests.conftest import beatmap_text, random_objects

SEEDS = range(5)
ON_PLAYFIELD = Bounds()


def made_up(seed: int, *, sliders: bool = True) -> tuple[Beatmap, Sequence]:
    text = beatmap_text(random_objects(seed, 80, sliders=sliders))
    beatmap = parse_beatmap(text.encode(), "made up")
    return beatmap, beatmap_to_sequence(beatmap)


def noisy(sequence: Sequence, seed: int, px: float) -> FloatArray:
    """As a sampler gives it: all but the spinners, which it knows, is moved."""
    noise = np.random.default_rng(seed).normal(0, px, sequence.xy.shape)
    spinner = np.isin(sequence.types, (PointType.SPINNER, PointType.SPINNER_END))
    return sequence.xy + np.where(spinner[:, None], 0, noise)


def placement_of(
    beatmap: Beatmap,
    sequence: Sequence,
    *,
    keep_spacing: bool = True,
    bounds: Bounds | None = ON_PLAYFIELD,
    kept: tuple[int, ...] = (),
) -> Placement:
    """With spinners and the objects `kept` fixed."""
    fixed = np.isin(sequence.types, (PointType.SPINNER, PointType.SPINNER_END))
    fixed |= np.isin(sequence.objects, kept)
    distances = sequence.distances()
    shapes = SliderShapes(sequence, sequence.topology, distances, fixed)
    return Placement(sequence, shapes, distances if keep_spacing else None, fixed, bounds)


def run(
    beatmap: Beatmap,
    sequence: Sequence,
    xy: FloatArray,
    *,
    keep_spacing: bool = True,
    bounds: Bounds | None = ON_PLAYFIELD,
    kept: tuple[int, ...] = (),
) -> FloatArray:
    placement = placement_of(beatmap, sequence, keep_spacing=keep_spacing, bounds=bounds, kept=kept)
    return placement.place(xy)


def spacing_errors(sequence: Sequence, xy: FloatArray) -> FloatArray:
    """| distance to the previous object's end - the source's |, of every object."""
    steps = np.diff(xy, axis=0, prepend=np.array([[256.0, 192.0]]))
    return np.abs(np.hypot(*steps.T) - sequence.distances())[sequence.object_starts]


def from_heads(sequence: Sequence, xy: FloatArray) -> FloatArray:
    """Every data point relative to its object's head."""
    return xy - xy[np.flatnonzero(sequence.object_starts)][sequence.objects]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("px", [0.4, 5.0, 100.0])
def test_the_distances_of_circles_are_met_to_the_pixel(seed: int, px: float) -> None:
    """From any point of the playfield a distance up to 300 px can be met on it."""
    beatmap, sequence = made_up(seed, sliders=False)
    assert sequence.distances()[:-2].max() < 250
    errors = spacing_errors(sequence, run(beatmap, sequence, noisy(sequence, seed, px)))
    movable = errors[:-1]  # the last object is a spinner
    assert np.median(movable) < 0.3 and movable.max() <= 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_distances_of_sliders_and_circles_are_met(seed: int) -> None:
    beatmap, sequence = made_up(seed)
    errors = spacing_errors(sequence, run(beatmap, sequence, noisy(sequence, seed, 10.0)))
    assert np.median(errors[:-1]) < 0.4 and np.quantile(errors[:-1], 0.9) < 1.5


@pytest.mark.parametrize("seed", SEEDS)
def test_choosing_pixels_is_no_worse_than_rounding(seed: int) -> None:
    """Of the same settled heads."""
    beatmap, sequence = made_up(seed)
    placement = placement_of(beatmap, sequence)
    xy = noisy(sequence, seed, 10.0)
    shaped = placement._whole_shapes(xy)
    bodies = placement._bodies(shaped, xy[placement.starts], [placement.stacking], whole=True)
    settled = _settle(bodies, 60)

    def errors(heads: FloatArray) -> FloatArray:
        ends = np.concatenate([[[256.0, 192.0]], (heads + bodies.ends)[:-1]])
        return np.abs(np.hypot(*(heads - ends).T) - bodies.distances)[~bodies.fixed]

    chosen = choose_pixels(bodies, settled)
    assert (chosen == np.rint(chosen)).all()
    assert errors(chosen).mean() <= errors(np.rint(settled)).mean()
    assert np.median(errors(chosen)) <= np.median(errors(np.rint(settled)))
    assert np.hypot(*(chosen - settled).T).mean() < 5  # and it stays near


@pytest.mark.parametrize("keep_spacing", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_coordinates_are_whole_pixels(seed: int, keep_spacing: bool) -> None:
    """All that a file holds: slider ends are computed by the game."""
    beatmap, sequence = made_up(seed)
    xy = run(beatmap, sequence, noisy(sequence, seed, 10.0), keep_spacing=keep_spacing)
    stored = (sequence.anchors != END)[:, None]
    np.testing.assert_allclose(np.where(stored, xy - np.rint(xy), 0), 0, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_sliders_move_as_a_whole(seed: int) -> None:
    """Where only heads are moved, by fractions, every shape is the source's to the pixel."""
    beatmap, sequence = made_up(seed)
    moved = np.random.default_rng(seed).normal(0, 8, (len(beatmap.objects), 2))
    xy = run(beatmap, sequence, sequence.xy + moved[sequence.objects])
    np.testing.assert_allclose(
        from_heads(sequence, xy), from_heads(sequence, sequence.xy), atol=1e-9
    )
    assert np.hypot(*(xy - sequence.xy).T).max() > 5


@pytest.mark.parametrize("seed", SEEDS)
def test_slider_ends_are_where_the_game_has_them(seed: int) -> None:
    beatmap, sequence = made_up(seed)
    topology = sequence.topology
    assert len(topology.ends) > 5
    for keep_spacing in (True, False):
        xy = run(beatmap, sequence, noisy(sequence, seed, 9.0), keep_spacing=keep_spacing)
        expected, _ = PathSet(topology.sliders).evaluate(xy)
        np.testing.assert_allclose(xy[topology.ends], expected, atol=1e-6)


@pytest.mark.parametrize("keep_spacing", [True, False])
def test_spinners_stay_in_the_middle(keep_spacing: bool) -> None:
    beatmap, sequence = made_up(3)
    xy = run(beatmap, sequence, noisy(sequence, 0, 30.0), keep_spacing=keep_spacing)
    assert np.hypot(*(xy - sequence.xy).T).mean() > 10
    spinner = np.isin(sequence.types, (PointType.SPINNER, PointType.SPINNER_END))
    assert spinner.sum() == 2
    assert xy[spinner].tolist() == [[256, 192], [256, 192]]


@pytest.mark.parametrize("shrink", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("seed", SEEDS)
def test_paths_are_as_long_as_their_sliders(seed: int, shrink: float) -> None:
    """Sliders that came out smaller are widened, where the source's were long enough."""
    beatmap, sequence = made_up(seed)
    topology = sequence.topology
    paths = PathSet(topology.sliders)
    wanted = np.array([length for _, length in topology.sliders])
    assert (paths.evaluate(sequence.xy)[1] >= wanted).all()
    xy = sequence.xy - (1 - shrink) * from_heads(sequence, sequence.xy)
    assert (paths.evaluate(np.rint(xy))[1] < wanted).any()
    placed = run(beatmap, sequence, xy)
    assert (paths.evaluate(placed)[1] >= wanted).all()


def test_a_slider_that_was_too_short_before_is_left_alone() -> None:
    text = beatmap_text("100,100,500,2,0,B|150:110|200:100,1,300")
    beatmap = parse_beatmap(text.encode(), "short")
    sequence = beatmap_to_sequence(beatmap)
    xy = run(beatmap, sequence, sequence.xy)
    np.testing.assert_allclose(from_heads(sequence, xy)[:3], [[0, 0], [50, 10], [100, 0]])


@pytest.mark.parametrize("keep_spacing", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_objects_are_on_the_playfield(seed: int, keep_spacing: bool) -> None:
    """Centres and bodies, though the sampled ones were far outside."""
    beatmap, sequence = made_up(seed)
    topology = sequence.topology
    xy = 192 + 2.5 * (sequence.xy - 192)  # larger sliders, too
    xy = from_heads(sequence, sequence.xy) + xy[sequence.object_starts][sequence.objects]
    assert (np.any((xy < 0) | (xy > (512, 384)), axis=1)).mean() > 0.2
    placed = run(beatmap, sequence, xy, keep_spacing=keep_spacing)
    heads = placed[sequence.object_starts]
    assert np.all((heads >= 0) & (heads <= (512, 384)))
    bodies = PathSet(topology.sliders).bodies(placed, 16)
    assert np.all((bodies >= -1e-6) & (bodies <= np.array([512, 384]) + 1e-6))


def test_bounds_can_be_off() -> None:
    beatmap, sequence = made_up(0, sliders=False)
    xy = sequence.xy + np.array([400.0, 0.0])
    placed = run(beatmap, sequence, xy, keep_spacing=False, bounds=None)
    assert (placed[:-2] == xy[:-2]).all()
    assert placed[:, 0].max() > 700


@pytest.mark.parametrize("objects", ["10,10,0,1,0", "256,192,0,1,0\n256,192,9,1,0"])
def test_maps_of_one_or_two_objects_are_placed(objects: str) -> None:
    beatmap = parse_beatmap(beatmap_text(objects).encode(), "tiny")
    sequence = beatmap_to_sequence(beatmap)
    placed = run(beatmap, sequence, sequence.xy + 0.3)
    assert spacing_errors(sequence, placed).max() <= 0.5


def test_coinciding_anchors_are_parted() -> None:
    """Two equal points in a row would cut a slider in two."""
    beatmap, sequence = made_up(1)
    heads = sequence.xy[sequence.object_starts][sequence.objects]
    collapsed = np.where((sequence.anchors == END)[:, None], sequence.xy, heads)
    for keep_spacing in (True, False):
        placed = run(beatmap, sequence, collapsed, keep_spacing=keep_spacing)
        inner = sequence.anchors[1:] > 0
        assert inner.sum() > 10
        assert not (placed[1:] == placed[:-1]).all(axis=1)[inner].any()


def stacks(seed: int) -> tuple[Beatmap, Sequence]:
    """A map of stacks of one to four circles, some topped by a slider."""
    rng = np.random.default_rng(seed)
    lines, time = [], 500
    for _ in range(12):
        x, y = rng.integers(100, 400), rng.integers(100, 300)
        for _ in range(rng.integers(1, 5)):
            lines.append(f"{x},{y},{time},1,0,0:0:0:0:")
            time += 100
        if rng.random() < 0.5:
            curve = f"B|{x + 30}:{y + 20}|{x + 60}:{y}"
            lines.append(f"{x},{y},{time},2,0,{curve},1,60")
        time += 1000
    beatmap = parse_beatmap(beatmap_text("\n".join(lines)).encode(), "stacks")
    return beatmap, beatmap_to_sequence(beatmap)


def drawn_at(beatmap: Beatmap, sequence: Sequence, xy: FloatArray) -> FloatArray:
    """All data points but inactive control points where the game draws them, after stacking."""
    starts = np.flatnonzero(sequence.object_starts)
    tails = np.append(starts[1:], len(sequence)) - 1
    shift = stack_shifts(beatmap, xy[starts], xy[tails])[:, None]
    bodies = PathSet(sequence.topology.sliders).extents(xy)
    objects = sequence.objects[sequence.topology.heads]
    return np.concatenate([xy[starts] - shift, *(corner - shift[objects] for corner in bodies)])


@pytest.mark.parametrize("px", [1.0, 20.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_stacks_stay_on_one_pixel(seed: int, px: float) -> None:
    beatmap, sequence = stacks(seed)
    stacked = sequence.object_starts & (sequence.distances() == 0)
    assert stacked.sum() > 10
    xy = run(beatmap, sequence, noisy(sequence, seed, px))
    assert (xy[1:] == xy[:-1]).all(axis=1)[stacked[1:]].all()


@pytest.mark.parametrize("seed", SEEDS)
def test_stacks_are_drawn_within_bounds(seed: int) -> None:
    """The game moves all but the last circle of a stack up and to the left."""
    beatmap, sequence = stacks(seed)
    corner = noisy(sequence, seed, 1.0) - sequence.xy[sequence.object_starts][sequence.objects]
    for keep_spacing in (True, False):
        xy = run(beatmap, sequence, corner, keep_spacing=keep_spacing)
        assert ON_PLAYFIELD.excess(drawn_at(beatmap, sequence, xy)).max() <= 1e-6
    unbounded = run(beatmap, sequence, corner, keep_spacing=False, bounds=None)
    assert ON_PLAYFIELD.excess(drawn_at(beatmap, sequence, unbounded)).max() > 5


@pytest.mark.parametrize("angle", [0.8, 1.57, 4.0])
def test_a_slider_too_high_for_the_playfield_is_turned(angle: float) -> None:
    """It is 460 px long: it fits lying, though it was sampled steep."""
    text = beatmap_text("20,200,500,2,0,B|250:100|480:200,1,460\n256,192,3000,1,0")
    beatmap = parse_beatmap(text.encode(), "long")
    sequence = beatmap_to_sequence(beatmap)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    xy = run(beatmap, sequence, (sequence.xy - sequence.xy[0]) @ turn + sequence.xy[0])
    assert ON_PLAYFIELD.excess(drawn_at(beatmap, sequence, xy)).max() <= 1e-6
    lengths = np.hypot(*np.diff(xy[:3], axis=0).T)
    np.testing.assert_allclose(lengths, np.hypot(230, 100), atol=1)


def test_other_bounds_hold_too() -> None:
    beatmap, sequence = made_up(2)
    narrow = Bounds((100.0, 50.0), (420.0, 300.0))
    placed = run(beatmap, sequence, noisy(sequence, 0, 30.0), bounds=narrow)
    drawn = drawn_at(beatmap, sequence, placed)
    movable = np.delete(drawn, len(beatmap.objects) - 1, axis=0)  # all but the spinner
    assert narrow.excess(movable).max() <= 1e-6
    assert ON_PLAYFIELD.excess(movable).max() == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_kept_objects_stay_and_the_others_join_them(seed: int) -> None:
    beatmap, sequence = made_up(seed)
    kept = tuple(range(20, 40))
    xy = run(beatmap, sequence, noisy(sequence, seed, 10.0), kept=kept)
    mine = np.isin(sequence.objects, kept)
    assert (xy == sequence.xy)[mine].all()
    assert (xy != sequence.xy)[~mine].any()
    first = int(np.flatnonzero(mine)[0])
    joint = spacing_errors(sequence, xy)[sequence.objects[first]]
    assert joint < 2


def test_sampled_objects_are_settled_unrounded() -> None:
    """Distances, path lengths and bounds, as the sampling loop needs them."""
    beatmap, sequence = made_up(0)
    placement = placement_of(beatmap, sequence)
    before = noisy(sequence, 0, 6.0)
    settled = placement.settle(before, 6, 300)
    assert np.quantile(spacing_errors(sequence, settled)[:-1], 0.9) < 0.1
    assert (settled[:-1] != np.rint(settled[:-1])).mean() > 0.9
    assert ON_PLAYFIELD.excess(drawn_at(beatmap, sequence, settled)).max() <= 1e-6


def chain(heads: list[tuple[int, int]], distances: list[float], fixed: list[int]) -> Bodies:
    """Circles at `heads`, those numbered in `fixed` staying."""
    count = len(heads)
    low, high = np.zeros((count, 2)), np.tile([512.0, 384.0], (count, 1))
    stays = np.isin(np.arange(count), fixed)
    points, nowhere = np.array(heads, dtype=np.float64), np.zeros((count, 2))
    return Bodies(points, nowhere, low, high, stays, np.array(distances), np.arange(count), nowhere)


def test_bodies_before_one_that_stays_go_another_way_round() -> None:
    """300, 20 and 300 px from one corner to the one below: only half a playfield to the right."""
    bodies = chain([(10, 10), (310, 10), (310, 30), (10, 374)], [306.0, 300, 20, 300], [0, 3])
    origin = np.array([256.0, 192.0])
    assert bodies.errors(bodies.heads, origin).max() > 100
    heads = _rerouted(bodies, bodies.heads)
    assert bodies.errors(heads, origin).max() < 1.5
    assert (heads[[0, 3]] == bodies.heads[[0, 3]]).all() and (heads == np.rint(heads)).all()


def test_a_jump_that_only_the_corners_allow_is_prepared() -> None:
    """600 px fit across the playfield; the body before must go into a corner first."""
    bodies = chain([(256, 192), (256, 292), (256, 384)], [0.0, 300, 600], [0])
    origin = np.array([256.0, 192.0])
    heads = _rerouted(bodies, bodies.heads)
    assert bodies.errors(heads, origin).max() < 2
    assert np.abs(heads[1:] - [256, 192]).min() > 100


def test_what_is_met_is_not_rerouted() -> None:
    bodies = chain([(100, 100), (200, 100), (200, 250)], [181, 100, 150], [])
    assert (_rerouted(bodies, bodies.heads) == bodies.heads).all()


# --- the search for pixels ------------------------------------------------------------------------

AROUND = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), axis=-1).reshape(-1, 2)
ANGLES = np.linspace(0, 2 * np.pi, 96, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
ORIGIN = np.array([256.0, 192.0])


def chosen_greedily(bodies: Bodies, targets: FloatArray) -> FloatArray:
    """One head after the other, at the pixel near the target whose distances are met best.

    To the last end, and to the next head where that stays; a px of nearness to the target is worth
    a tenth of a px of distance. All around the last end is looked at where nothing near is good.
    """
    heads, end, low, high = targets.copy(), ORIGIN, bodies.low, bodies.high
    for i, target in enumerate(targets):
        if not bodies.fixed[i]:
            centres, radii = [end], [bodies.distances[i]]
            if i + 1 < len(targets) and bodies.fixed[i + 1]:
                centres.append(heads[i + 1] - bodies.ends[i])
                radii.append(bodies.distances[i + 1])

            def off(pixels: FloatArray, centres: list = centres, radii: list = radii) -> FloatArray:
                ways = [np.hypot(*(pixels - centre).T) for centre in centres]
                return sum(np.abs(way - radius) for way, radius in zip(ways, radii, strict=True))

            way = target - end
            middle = np.rint(end + way / max(float(np.hypot(*way)), 1e-6) * radii[0])
            pixels = np.clip(middle + AROUND, low[i], high[i])
            if off(pixels).min() > len(radii):
                circle = np.clip(np.rint(end + CIRCLE * radii[0]), low[i], high[i])
                pixels = np.concatenate([pixels, circle])
            away = np.hypot(*(pixels - target).T)
            heads[i] = pixels[np.argmin(off(pixels) + 0.1 * away)]
        end = heads[i] + bodies.ends[i]
    return heads


def made_up_chain(seed: int, count: int = 30) -> tuple[Bodies, FloatArray]:
    """Bodies with ends of their own, some of which stay; distances and targets 6 px off."""
    rng = np.random.default_rng(seed)
    heads = np.rint(rng.uniform((60, 60), (452, 324), (count, 2)))
    fixed = (rng.random(count) < 0.15).nonzero()[0].tolist()
    bodies = chain([(int(x), int(y)) for x, y in heads], [0.0] * count, fixed)
    ends = np.rint(rng.normal(0, 20, (count, 2))) * (rng.random((count, 1)) < 0.4)
    before = np.concatenate([ORIGIN[None], (heads + ends)[:-1]])
    distances = np.hypot(*(heads - before).T)
    low, high = np.maximum(-ends, 0), np.minimum((512, 384) - ends, (512, 384))
    bodies = replace(bodies, ends=ends, distances=distances, low=low, high=high)
    noise = rng.normal(0, 6, (count, 2)) * ~bodies.fixed[:, None]
    return bodies, heads + noise


def test_a_search_is_no_worse_than_one_choice_after_the_other() -> None:
    """On no chain by what it weighs, and in all by distances alone, by half.

    Single chains may lose a tenth of a px^2 of distance for targets that are nearer.
    """
    squares, costs = [], []
    for seed in range(12):
        bodies, noisy_heads = made_up_chain(seed)
        settled = _settle(replace(bodies, heads=noisy_heads), 60)
        ways = (choose_pixels(bodies, settled), chosen_greedily(bodies, settled))
        for heads in ways:
            assert (heads == np.rint(heads)).all()
            assert ((heads >= bodies.low) & (heads <= bodies.high)).all()
            assert (heads[bodies.fixed] == bodies.heads[bodies.fixed]).all()
        squares.append([float((bodies.errors(heads, ORIGIN) ** 2).sum()) for heads in ways])
        away = [NEARNESS * float(((heads - settled) ** 2).sum()) for heads in ways]
        costs.append(np.add(squares[-1], away))
    searched, greedy = np.transpose(costs)
    assert (searched <= greedy).all()
    searched, greedy = np.transpose(squares)
    assert searched.sum() < 0.5 * greedy.sum() and (searched <= greedy + 0.1).all()


def test_a_search_sees_what_one_choice_after_the_other_does_not() -> None:
    """From whole pixels 5.5 px cannot be met; 5.5 and again 5.5 to one that stays can be shared."""
    bodies = chain([(256, 192), (262, 192), (267, 192)], [0.0, 5.5, 5.5], [0, 2])
    heads = choose_pixels(bodies, bodies.heads)
    best = min(
        (np.hypot(x, y) - 5.5) ** 2 + (np.hypot(11 - x, y) - 5.5) ** 2
        for x in range(-8, 20)
        for y in range(-12, 13)
    )
    assert float((bodies.errors(heads, ORIGIN) ** 2).sum()) == pytest.approx(best)


def test_a_search_keeps_to_narrow_bounds() -> None:
    """Where no distance can be met all the same."""
    bodies, noisy_heads = made_up_chain(3)
    stays = np.zeros(len(noisy_heads), dtype=bool)
    narrow = replace(
        bodies,
        low=np.full_like(bodies.low, 200.0),
        high=np.full_like(bodies.high, 220.0),
        fixed=stays,
    )
    heads = choose_pixels(narrow, noisy_heads)
    assert ((heads >= 200) & (heads <= 220)).all() and (heads == np.rint(heads)).all()
