"""Slider shapes against the lengths and distances that they had before they were disturbed."""

import numpy as np
import pytest

from beatmaps.osu_file import parse_beatmap
from beatmaps.sequence import END, Sequence, beatmap_to_sequence
from constraints.shapes import SliderShapes
from conventions.arrays import FloatArray
from conventions.point_types import PointType
from tests.conftest import beatmap_text, random_objects

SEEDS = range(4)


def shapes_of(
    objects: str, *, kept: tuple[int, ...] = (), like: FloatArray | None = None
) -> tuple[Sequence, SliderShapes]:
    """The data points of a map and its shapes, objects `kept` fixed."""
    beatmap = parse_beatmap(beatmap_text(objects).encode(), "shapes")
    sequence = beatmap_to_sequence(beatmap)
    topology = sequence.topology
    fixed = np.isin(sequence.objects, kept)
    return sequence, SliderShapes(sequence, topology, sequence.distances(), fixed, like)


def disturbed(sequence: Sequence, seed: int, px: float) -> FloatArray:
    return sequence.xy + np.random.default_rng(seed).normal(0, px, sequence.xy.shape)


def errors(sequence: Sequence, shapes: SliderShapes, xy: FloatArray) -> tuple[FloatArray, ...]:
    """px by which inner distances, and path lengths, are off the source's."""
    steps = np.hypot(*np.diff(xy, axis=0, prepend=np.zeros((1, 2))).T)
    inner = ~sequence.object_starts & (sequence.types != PointType.SPINNER_END)
    away = np.abs(steps - sequence.distances())[inner]
    return away, np.abs(shapes.paths.evaluate(xy)[1] - shapes.natural)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fit_meets_distances_and_lengths(seed: int) -> None:
    sequence, shapes = shapes_of(random_objects(seed, 80))
    before = disturbed(sequence, seed, 8.0)
    fitted = shapes.fit(before, 12)
    for after, start in zip(
        errors(sequence, shapes, fitted),
        errors(sequence, shapes, shapes.with_ends(before)),
        strict=True,
    ):
        assert np.median(start) > 3
        assert np.median(after) < 0.05 and after.max() < 1
    assert np.hypot(*(fitted - before)[sequence.anchors > 0].T).mean() < 20  # and stays near


@pytest.mark.parametrize("seed", SEEDS)
def test_a_slider_that_has_everything_is_left_alone(seed: int) -> None:
    """Paths end half a pixel beyond their sliders here, as rounding may take a little."""
    sequence, shapes = shapes_of(random_objects(seed, 40))
    assert (shapes.natural >= shapes.shortest + 0.5).all()
    np.testing.assert_allclose(shapes.fit(sequence.xy, 3), sequence.xy, atol=1e-6)
    assert (shapes.improve(sequence.xy, sequence.xy) == sequence.xy).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_whole_pixels_are_better_than_plain_rounding(seed: int) -> None:
    sequence, shapes = shapes_of(random_objects(seed, 80))
    fitted = shapes.fit(disturbed(sequence, seed, 8.0), 12)
    rounded = np.rint(fitted)
    better = shapes.improve(rounded, fitted)
    stored = sequence.anchors != END
    assert (better[stored] == np.rint(better[stored])).all()
    assert (better[sequence.object_starts] == rounded[sequence.object_starts]).all()
    plain = [np.mean(e**2) for e in errors(sequence, shapes, shapes.with_ends(rounded))]
    chosen = [np.mean(e**2) for e in errors(sequence, shapes, shapes.with_ends(better))]
    assert sum(chosen) < 0.5 * sum(plain)
    assert (shapes.paths.evaluate(better)[1] >= shapes.shortest - 1e-3).all()


def test_the_best_pixels_of_one_anchor_are_those_of_a_search_of_all() -> None:
    """A slider of one anchor: its distance and length are the same thing."""
    sequence, shapes = shapes_of("100,100,0,2,0,L|150:120,1,50")
    fitted = shapes.fit(sequence.xy + np.array([[0, 0], [0.4, 3.3], [0, 0]]), 12)
    better = shapes.improve(np.rint(fitted), fitted)
    around = np.array([(x, y) for x in range(-3, 4) for y in range(-3, 4)]) + np.rint(fitted[1])
    lengths = np.hypot(*(around - fitted[0]).T)
    wanted = np.hypot(50, 20)
    cost = 2 * (lengths - wanted) ** 2 + (np.abs(lengths - 50) - np.abs(wanted - 50)) ** 2
    cost += 0.02 * ((around - fitted[1]) ** 2).sum(axis=1)
    assert better[1].tolist() == around[np.argmin(cost)].tolist()


def test_a_path_is_not_shorter_than_its_slider_though_distances_ask_for_it() -> None:
    """Of a slider drawn straight its end is bent: distances stay, the curve cuts the corner."""
    sequence, shapes = shapes_of("100,100,0,2,0,B|150:100|200:100,1,100")
    bent = sequence.xy.copy()
    bent[2] = (150, 150)
    assert shapes.paths.evaluate(bent)[1][0] < 90
    fitted = shapes.fit(bent, 12)
    placed = shapes.improve(np.rint(fitted), fitted)
    assert shapes.paths.evaluate(placed)[1][0] >= 100


def test_kept_sliders_do_not_move() -> None:
    sequence, shapes = shapes_of(random_objects(0, 40), kept=tuple(range(20)))
    xy = disturbed(sequence, 0, 8.0)
    fitted = shapes.fit(xy, 3)
    stored = (sequence.anchors != END) & (sequence.objects < 20)
    assert (fitted[stored] == xy[stored]).all()
    assert (fitted != xy)[sequence.anchors > 0].any()


def test_coinciding_points_are_parted() -> None:
    sequence, shapes = shapes_of("100,100,0,2,0,B|150:100|200:120|220:160|250:200,1,150")
    together = np.tile(np.array([[200.0, 200.0]]), (len(sequence), 1))
    parted = shapes.improve(together, sequence.xy)
    assert (np.hypot(*np.diff(parted[:-1], axis=0).T) > 0.5).all()


def test_path_lengths_may_be_those_of_other_coordinates() -> None:
    sequence, _ = shapes_of(random_objects(1, 40))
    heads = sequence.xy[sequence.object_starts][sequence.objects]
    larger = heads + 1.3 * (sequence.xy - heads)
    _, shapes = shapes_of(random_objects(1, 40), like=larger)
    np.testing.assert_allclose(shapes.natural, shapes.paths.evaluate(larger)[1])


def test_a_slider_with_very_many_anchors_is_widened_until_it_is_long_enough() -> None:
    angles = np.linspace(0, 6, 60)
    points = np.rint(np.stack([250 + 100 * np.cos(angles), 200 + 100 * np.sin(angles)], axis=1))
    curve = "|".join(f"{x:.0f}:{y:.0f}" for x, y in points[1:])
    sequence, shapes = shapes_of(f"{points[0, 0]:.0f},{points[0, 1]:.0f},0,2,0,L|{curve},1,500")
    smaller = sequence.xy[0] + 0.7 * (sequence.xy - sequence.xy[0])
    assert shapes.paths.evaluate(smaller)[1][0] < 500
    fitted = shapes.fit(smaller, 2)
    assert shapes.paths.evaluate(fitted)[1][0] >= 500


def test_a_map_without_sliders_has_nothing_to_fit() -> None:
    sequence, shapes = shapes_of("10,20,0,1,0\n30,40,500,1,0")
    assert (shapes.fit(sequence.xy, 2) == sequence.xy).all()
    assert (shapes.improve(sequence.xy, sequence.xy) == sequence.xy).all()
