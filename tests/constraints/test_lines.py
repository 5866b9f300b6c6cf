"""Objects that go on almost straight are put exactly on a line; curves and kept objects are not."""

import numpy as np
import pytest

from beatmaps.osu_file import parse_beatmap
from beatmaps.sequence import Sequence, beatmap_to_sequence
from beatmaps.slider_path import PathSet
from constraints.bodies import ORIGIN
from constraints.bounds import Bounds
from constraints.lines import Directions, Lines, lines_near
from constraints.pixel_search import BEAM, _Search
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


def facing(count: int, **given: FloatArray | BoolArray) -> Directions:
    """Of circles, but for what is given."""
    yes, nowhere = np.ones(count, dtype=bool), np.full((count, 2), np.nan)
    plain = {"circles": yes, "placed": yes, "returns": ~yes, "enters": nowhere, "leaves": nowhere}
    return Directions(**(plain | given))


def lines_of(heads: FloatArray, **given: FloatArray | BoolArray) -> Lines:
    return lines_near(heads, np.zeros(heads.shape), facing(len(heads), **given))


def bent(turn: float, first: float = 80.0, second: float = 80.0) -> FloatArray:
    """Three places with a turn of so many rad at the second."""
    corner = np.array([100.0 + first, 100.0])
    step = second * np.array([np.cos(turn), np.sin(turn)])
    return np.stack([[100.0, 100.0], corner, corner + step])


@pytest.mark.parametrize(
    ("heads", "straight"),
    [
        (bent(0.09), True),
        (bent(-0.09), True),
        (bent(0.11), False),
        (bent(3.1), False),
        (bent(0.0, 4.0, 4.0), False),
        (bent(0.0, 6.0, 6.0), True),
        (bent(0.05, 40.0, 118.0), True),
        (bent(0.05, 40.0, 122.0), False),
        (bent(0.05, 122.0, 40.0), False),
    ],
)
def test_limits_of_a_line(heads: FloatArray, straight: bool) -> None:
    assert lines_of(heads).through.tolist() == [False, False, straight]


def test_a_curve_there_and_back_is_no_line() -> None:
    """Its turns add up to nothing."""
    angles = np.cumsum([0.08] * 6 + [-0.08] * 6)
    steps = 34 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    heads = np.array([100.0, 100.0]) + np.cumsum(steps, axis=0)
    assert not lines_of(heads).through.any()
    crossed = np.cumsum([0.0, 0.08, -0.08, 0.08, -0.08, 0.08])  # jitter, not a curve
    steps = 34 * np.stack([np.cos(crossed), np.sin(crossed)], axis=1)
    heads = np.array([100.0, 100.0]) + np.cumsum(steps, axis=0)
    assert lines_of(heads).through[2:].all()


THREE = np.arange(3)


@pytest.mark.parametrize(
    "given",
    [
        {"circles": THREE != 1},  # a slider has a direction of its own
        {"placed": THREE != 0},  # spinners
        {"placed": THREE != 1},
        {"placed": THREE != 2},
        {"returns": THREE == 0},  # the player does not come from there
    ],
)
def test_a_line_goes_through_circles_from_where_the_player_is(given: dict[str, BoolArray]) -> None:
    heads = bent(0.0)
    assert lines_of(heads).through[2]
    assert not lines_of(heads, **given).through.any()


@pytest.mark.parametrize(("turn", "follows"), [(0.04, True), (0.06, False)])
def test_a_step_follows_where_a_slider_leads_or_is_entered(turn: float, follows: bool) -> None:
    """Where both would do, the slider that is left decides."""
    way = np.array([[np.cos(turn), np.sin(turn)]])
    ahead = np.array([[1.0, 0.0]])
    nowhere = np.full((1, 2), np.nan)
    heads = np.array([[100.0, 100.0], [180.0, 100.0]])
    left = lines_of(heads, leaves=np.concatenate([way, nowhere])).along[1]
    entered = lines_of(heads, enters=np.concatenate([nowhere, way])).along[1]
    for along in (left, entered):
        assert not np.isnan(along).any() if follows else np.isnan(along).all()
    both = lines_of(
        heads,
        leaves=np.concatenate([ahead, nowhere]),
        enters=np.concatenate([nowhere, way]),
    ).along[1]
    np.testing.assert_array_equal(both, ahead[0])


def test_stacks_face_no_way() -> None:
    """Two objects on one place are one body, which is not on a line of single circles."""
    xy = np.array([[100.0, 100], [160, 101], [160, 101], [220, 100]])
    placed = place(circles(xy), xy)
    assert placed[1, 1] != placed[0, 1] or placed[3, 1] != placed[1, 1]


def test_the_ways_of_a_search_differ_on_a_line() -> None:
    """The same way twice would leave the search with one way only."""
    fixed = np.zeros(len(SEQUENCE), dtype=bool)
    shapes = SliderShapes(SEQUENCE, SEQUENCE.topology, SEQUENCE.distances(), fixed)
    placement = Placement(
        SEQUENCE, shapes, SEQUENCE.distances(), fixed, Bounds(), structure="clean"
    )
    xy = crooked(0)
    bodies = placement._bodies(xy, xy, [placement.stacking], whole=True)
    bodies = placement._in_line(bodies, xy)
    assert bodies.lines is not None and bodies.lines.through[2:].all()
    search = _Search(bodies, bodies.heads, ORIGIN)
    search.run()
    ways = np.unique(search.ways.reshape(len(search.ways), -1), axis=0)
    assert len(ways) == BEAM


def test_a_slider_faces_where_its_ends_point_not_along_its_chord() -> None:
    text = "100,100,1000,2,0,P|170:70|240:100,1,155\n292,152,2500,1,0"
    sequence = beatmap_to_sequence(parse_beatmap(beatmap_text(text).encode(), "made up"))
    placed = place(sequence, sequence.xy)
    path = PathSet(sequence.topology.sliders).bodies(placed, 24)[0]
    before, after = path[-1] - path[-2], placed[-1] - path[-1]
    turn = np.arctan2(before[0] * after[1] - before[1] * after[0], before @ after)
    source = PathSet(sequence.topology.sliders).bodies(sequence.xy, 24)[0]
    was, then = source[-1] - source[-2], sequence.xy[-1] - source[-1]
    assert 0.02 < abs(np.arctan2(was[0] * then[1] - was[1] * then[0], was @ then)) < 0.05
    assert abs(turn) < 0.012


def test_lines_move_bodies_that_follow_sliders() -> None:
    heads, ends = np.array([[100.0, 100.0], [300.0, 106.0]]), np.array([[100.0, 0.0], [0.0, 0.0]])
    along = np.array([[np.nan, np.nan], [1.0, 0.0]])
    Lines(np.zeros(2, dtype=bool), along).straighten(heads, ends, np.ones(2))
    np.testing.assert_allclose(heads, [[100, 103], [300, 103]])


def test_straightening_moves_the_middle_most_and_the_mean_not_at_all() -> None:
    heads = np.array([[100.0, 100], [200, 106], [300, 100]])
    lines = Lines(np.array([False, False, True]), np.full((3, 2), np.nan))
    moved = heads.copy()
    lines.straighten(moved, np.zeros((3, 2)), np.ones(3))
    assert turns(moved)[0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(moved.mean(axis=0), heads.mean(axis=0))
    np.testing.assert_allclose(moved - heads, [[0, 2], [0, -4], [0, 2]])
