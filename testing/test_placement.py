"""From sampled coordinates to pixels: distances, shapes, the playfield, on made-up maps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import beatmap_text, random_objects

from beatmap import Beatmap, parse_beatmap
from placement import (
    FloatArray,
    _choose_pixels,
    _rigid_objects,
    _round_shapes,
    _settle,
    place,
)
from sequence import (
    END,
    PointType,
    Sequence,
    beatmap_to_sequence,
    recompute_ends,
    slider_topology,
)
from slider_path import PathSet

SEEDS = range(5)
KEEP = {"keep_spacing": True, "on_playfield": True}


def made_up(seed: int, *, sliders: bool = True) -> tuple[Beatmap, Sequence]:
    text = beatmap_text(random_objects(seed, 80, sliders=sliders))
    beatmap = parse_beatmap(text.encode(), "made up")
    return beatmap, beatmap_to_sequence(beatmap)


def noisy(sequence: Sequence, seed: int, px: float) -> FloatArray:
    """As a sampler gives it: all but the spinners, which it knows, is moved."""
    noise = np.random.default_rng(seed).normal(0, px, sequence.xy.shape)
    spinner = np.isin(sequence.types, (PointType.SPINNER, PointType.SPINNER_END))
    return sequence.xy + np.where(spinner[:, None], 0, noise)


def run(beatmap: Beatmap, sequence: Sequence, xy: FloatArray, **options: Any) -> FloatArray:
    topology = slider_topology(beatmap, sequence)
    return place(sequence, topology, xy, sequence.distances(), **{**KEEP, **options})


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
    topology = slider_topology(beatmap, sequence)
    xy = noisy(sequence, seed, 10.0)
    objects, _ = _rigid_objects(
        sequence,
        topology,
        PathSet(topology.sliders),
        _round_shapes(sequence, xy),
        sequence.distances(),
        xy,
        sequence.types[sequence.object_starts] == PointType.SPINNER,
    )
    settled = _settle(objects, True)

    def errors(heads: FloatArray) -> FloatArray:
        ends = np.concatenate([[[256.0, 192.0]], (heads + objects.ends)[:-1]])
        return np.abs(np.hypot(*(heads - ends).T) - objects.distances)[~objects.fixed]

    chosen = _choose_pixels(objects, settled, True)
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
    topology = slider_topology(beatmap, sequence)
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


@pytest.mark.parametrize("keep_spacing", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_objects_that_stay_are_left_exactly_where_they_were(seed: int, keep_spacing: bool) -> None:
    """Also where they lie between pixels, off the playfield, or are shorter than they should be."""
    beatmap, sequence = made_up(seed)
    rng = np.random.default_rng(seed)
    kept = rng.random(len(beatmap.objects)) < 0.5
    odd = sequence.xy * (1.4, 1.0) + rng.random(sequence.xy.shape)
    source = replace(sequence, xy=recompute_ends(beatmap, sequence, odd))
    xy = noisy(source, seed, 20.0)
    placed = run(beatmap, source, xy, keep_spacing=keep_spacing, kept=kept)
    stays = kept[source.objects]
    assert (placed[stays] == source.xy[stays]).all()
    assert (placed[~stays] != source.xy[~stays]).any(axis=1).mean() > 0.8


@pytest.mark.parametrize("seed", SEEDS)
def test_distances_are_met_on_both_sides_of_objects_that_stay(seed: int) -> None:
    """Ten in a row are moved, ten stay; the tenth has two distances to meet with one pixel."""
    beatmap, sequence = made_up(seed, sliders=False)
    kept = np.arange(len(beatmap.objects)) // 10 % 2 == 0
    placed = run(beatmap, sequence, noisy(sequence, seed, 25.0), kept=kept)
    errors = spacing_errors(sequence, placed)
    joins = kept[1:] != kept[:-1]
    assert joins.sum() == 7
    assert errors[1:][joins].max() <= 1.5 and np.median(errors[:-1][~kept[:-1]]) < 0.3


@pytest.mark.parametrize("shrink", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("seed", SEEDS)
def test_paths_are_as_long_as_their_sliders(seed: int, shrink: float) -> None:
    """Sliders that came out smaller are widened, where the source's were long enough."""
    beatmap, sequence = made_up(seed)
    topology = slider_topology(beatmap, sequence)
    paths = PathSet(topology.sliders)
    wanted = np.array([length for _, length in topology.sliders])
    assert (paths.evaluate(sequence.xy)[1] >= wanted).all()
    xy = sequence.xy - (1 - shrink) * from_heads(sequence, sequence.xy)
    assert (paths.evaluate(_round_shapes(sequence, xy))[1] < wanted).any()
    placed = run(beatmap, sequence, xy)
    assert (paths.evaluate(placed)[1] >= wanted).all()


def test_a_slider_that_was_too_short_before_is_left_alone() -> None:
    text = beatmap_text("100,100,500,2,0,B|150:110|200:100,1,300")
    beatmap = parse_beatmap(text.encode(), "short")
    sequence = beatmap_to_sequence(beatmap)
    xy = run(beatmap, sequence, sequence.xy, on_playfield=True)
    np.testing.assert_allclose(from_heads(sequence, xy)[:3], [[0, 0], [50, 10], [100, 0]])


@pytest.mark.parametrize("keep_spacing", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_objects_are_on_the_playfield(seed: int, keep_spacing: bool) -> None:
    """Centres and bodies, though the sampled ones were far outside."""
    beatmap, sequence = made_up(seed)
    topology = slider_topology(beatmap, sequence)
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
    placed = run(beatmap, sequence, xy, keep_spacing=False, on_playfield=False)
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
