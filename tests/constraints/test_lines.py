"""Objects that go on almost straight are put exactly on a line; curves and kept objects are not."""

import numpy as np
import pytest

from beatmaps.osu_file import parse_beatmap
from beatmaps.sequence import Sequence, beatmap_to_sequence
from constraints.bounds import Bounds
from constraints.lines import Directions, Lines, lines_near
from constraints.rounding import Placement
from constraints.shapes import SliderShapes
from constraints.structure import StructureMode
from conventions.arrays import BoolArray, FloatArray
from tests.conftest import beatmap_text


def circles(heads: FloatArray) -> Sequence:
    lines = [f"{x:.0f},{y:.0f},{1000 + 150 * i},1,0" for i, (x, y) in enumerate(heads)]
    return beatmap_to_sequence(parse_beatmap(beatmap_text("\n".join(lines)).encode(), "made up"))


def place(
    sequence: Sequence,
    xy: FloatArray,
    mode: StructureMode = "clean",
    kept: BoolArray | None = None,
) -> FloatArray:
    fixed = np.zeros(len(sequence), dtype=bool) if kept is None else kept
    shapes = SliderShapes(sequence, sequence.topology, sequence.distances(), fixed)
    placement = Placement(sequence, shapes, sequence.distances(), fixed, Bounds(), structure=mode)
    return placement.place(xy)


def turns(xy: FloatArray) -> FloatArray:
    """Signed turns in rad at each inner point of xy (T, 2)."""
    steps = np.diff(xy, axis=0)
    cross = steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]
    return np.arctan2(cross, (steps[:-1] * steps[1:]).sum(axis=1))


def stream(turn: float, count: int = 8) -> FloatArray:
    """Places 40 px apart that turn by so many rad each."""
    angles = 0.4 + turn * np.arange(count - 1)
    steps = 40 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    start = np.array([[100.0, 80.0]])
    return np.concatenate([start, start + np.cumsum(steps, axis=0)])


STREAM = stream(0.0)
SEQUENCE = circles(STREAM)


def crooked(seed: int) -> FloatArray:
    return STREAM + np.random.default_rng(seed).normal(0, 0.7, STREAM.shape)


@pytest.mark.parametrize("seed", range(5))
def test_a_nearly_straight_stream_becomes_straight(seed: int) -> None:
    xy = crooked(seed)
    assert np.abs(turns(np.rint(xy))).max() > 0.03
    placed = place(SEQUENCE, xy)
    assert np.abs(turns(placed)).max() < 0.03  # a pixel in 40
    assert np.median(np.abs(turns(placed))) == 0
    assert np.hypot(*(placed - xy).T).max() < 8


@pytest.mark.parametrize("seed", range(5))
def test_distances_are_still_met(seed: int) -> None:
    placed = place(SEQUENCE, crooked(seed))
    errors = np.abs(np.hypot(*np.diff(placed, axis=0).T) - SEQUENCE.distances()[1:])
    assert np.median(errors) < 0.2 and errors.max() < 0.6


def test_without_structure_it_stays_as_it_is_sampled() -> None:
    placed = place(SEQUENCE, crooked(0), mode="off")
    assert np.median(np.abs(turns(placed))) > 0.01


def test_a_curve_stays_a_curve() -> None:
    """Although no turn of it is large."""
    xy = stream(0.07)
    placed = place(circles(xy), xy)
    assert turns(placed).sum() == pytest.approx(6 * 0.07, abs=0.06)


def test_a_turn_stays_a_turn() -> None:
    xy = np.array([[100.0, 100], [180, 100], [260, 112], [340, 124]])  # 0.15 rad
    placed = place(circles(xy), xy)
    assert turns(placed)[0] == pytest.approx(0.15, abs=0.02)


def test_kept_objects_do_not_move_and_others_come_to_their_line() -> None:
    xy = np.array([[100.0, 100], [160, 102], [220, 100], [280, 100]])
    kept = np.array([True, False, True, True])
    placed = place(circles(xy), xy, kept=kept)
    np.testing.assert_array_equal(placed[kept], xy[kept])
    np.testing.assert_array_equal(placed[1], (160, 100))


@pytest.mark.parametrize("slides", [1, 2])
def test_what_follows_a_slider_lies_where_it_leads(slides: int) -> None:
    """After an odd number of slides; after an even one the player is at its head."""
    text = beatmap_text(f"100,100,1000,2,0,L|240:100,{slides},140\n320,103,2500,1,0")
    sequence = beatmap_to_sequence(parse_beatmap(text.encode(), "made up"))
    placed = place(sequence, sequence.xy)
    lies_on = placed[-1, 1] == placed[0, 1]
    assert lies_on if slides == 1 else not lies_on


def test_what_leads_into_a_slider_lies_before_it() -> None:
    text = beatmap_text("100,103,1000,1,0\n180,100,1500,2,0,L|320:100,1,140")
    sequence = beatmap_to_sequence(parse_beatmap(text.encode(), "made up"))
    assert np.ptp(place(sequence, sequence.xy)[:, 1]) < 0.5


def test_a_line_does_not_go_through_a_spinner() -> None:
    heads = np.array([[100.0, 100], [200, 100], [300, 100]])
    nowhere = np.full((3, 2), np.nan)
    for spinner in range(3):
        placed = np.arange(3) != spinner
        facing = Directions(placed, placed, nowhere, nowhere)
        assert not lines_near(heads, np.zeros((3, 2)), facing).through.any()


def test_straightening_moves_the_middle_most_and_the_mean_not_at_all() -> None:
    heads = np.array([[100.0, 100], [200, 106], [300, 100]])
    lines = Lines(np.array([False, False, True]), np.full((3, 2), np.nan))
    moved = heads.copy()
    lines.straighten(moved, np.zeros((3, 2)), np.ones(3))
    assert turns(moved)[0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(moved.mean(axis=0), heads.mean(axis=0))
    np.testing.assert_allclose(moved - heads, [[0, 2], [0, -4], [0, 2]])
