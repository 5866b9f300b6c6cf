"""Objects that share a place or are clear of each other: by hand, and through to the pixels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beatmaps.game_rules import circle_radius, preempt
from beatmaps.osu_file import Beatmap, parse_beatmap
from beatmaps.sequence import Sequence, beatmap_to_sequence
from constraints.bounds import Bounds
from constraints.rounding import Placement
from constraints.shapes import SliderShapes
from constraints.structure import (
    BODY_SAMPLES,
    CLEARANCE,
    NEARBY,
    BodyRelations,
    Structure,
    StructureMode,
    body_relations,
    clean_structure,
    kept_structure,
)
from conventions.arrays import FloatArray
from conventions.point_types import PointType
from tests.conftest import beatmap_text, random_objects

Places = list[tuple[float, float]]
DIAMETER = 2 * circle_radius(4)


def circles(places: Places, gap: int = 200, approach_rate: float = 8) -> Beatmap:
    """A map of circles, one every `gap` ms."""
    lines = [f"{x},{y},{1000 + gap * i},1,0,0:0:0:0:" for i, (x, y) in enumerate(places)]
    return with_rate("\n".join(lines), approach_rate)


def with_rate(objects: str, approach_rate: float) -> Beatmap:
    text = beatmap_text(objects).replace(
        "[Difficulty]", f"[Difficulty]\nApproachRate:{approach_rate}"
    )
    beatmap = parse_beatmap(text.encode(), "made up")
    assert beatmap.approach_rate == approach_rate and beatmap.circle_size == 4
    return beatmap


def structure_of(beatmap: Beatmap, places: Places | None = None, clean: bool = False) -> Structure:
    """Of a map of circles, at other places if given."""
    heads = np.array(places or [(hit.x, hit.y) for hit in beatmap.objects], dtype=np.float64)
    bodies = np.repeat(heads[:, None], BODY_SAMPLES, axis=1)
    return (clean_structure if clean else kept_structure)(beatmap, heads, bodies)


def lying(beatmap: Beatmap) -> tuple[FloatArray, FloatArray]:
    """Heads (O, 2) and bodies (O, samples, 2) of circles and straight sliders."""
    heads = np.array([(hit.x, hit.y) for hit in beatmap.objects], dtype=np.float64)
    ends = [hit.points[-1] if hit.kind == "slider" else (hit.x, hit.y) for hit in beatmap.objects]
    return heads, np.linspace(heads, ends, BODY_SAMPLES, axis=1)


def pairs(structure: Structure) -> set[tuple[int, int]]:
    return set(zip(structure.earlier.tolist(), structure.later.tolist(), strict=True))


# --- the relations of a map -----------------------------------------------------------------------


def test_twins_are_the_latest_objects_at_the_same_place() -> None:
    """Not the one just before: that is a stack, and its distance of 0 is the spacing's."""
    a, b = (100, 100), (300, 100)
    found = structure_of(circles([a, b, a, b, a, a, (101, 100), (100, 100)]))
    assert found.twins.tolist() == [-1, -1, 0, 1, 2, 2, -1, 5]


def test_clear_objects_are_those_a_diameter_apart_while_both_are_seen() -> None:
    """At an approach rate of 8 an object appears 750 ms before its time: 3 gaps of 200 ms."""
    assert preempt(8) == 750
    near, far = 100 + DIAMETER - 1, 100 + DIAMETER + 1
    places: Places = [(100, 100), (300, 300), (near, 100), (far, 100), (500, 300), (400, 100)]
    found = structure_of(circles([(x, y) for x, y in np.rint(places)]), places)
    # (0, 2) overlap; (0, 4) and beyond are never seen together; neighbours are left out.
    assert pairs(found) == {(0, 3), (1, 3), (1, 4), (2, 4), (2, 5), (3, 5)}
    # As far apart as they are, as long as they are near: (0, 3) hardly clear, (1, 3) far away.
    clear = dict(zip(zip(found.earlier, found.later, strict=True), found.clear, strict=True))
    assert clear[0, 3] == pytest.approx(CLEARANCE * (far - 100), abs=1)
    assert clear[1, 3] == pytest.approx(CLEARANCE * NEARBY * DIAMETER)
    assert found.twins.tolist() == [-1] * 6


@pytest.mark.parametrize(("approach_rate", "reach"), [(10, 2), (8, 3), (5, 5), (0, 8)])
def test_how_far_back_objects_are_seen_is_a_matter_of_the_approach_rate(
    approach_rate: float, reach: int
) -> None:
    """450, 750, 1200 and 1800 ms, in gaps of 200 ms."""
    places: Places = [(20 + 100 * (i % 5), 20 + 110 * (i // 5 % 3)) for i in range(15)]
    found = structure_of(circles(places, approach_rate=approach_rate))
    expected = {(a, b) for b in range(15) for a in range(b) if 2 <= b - a <= reach}
    assert pairs(found) == expected


def test_a_slider_is_seen_until_it_ends_and_in_the_way_all_along_its_body() -> None:
    """Its head is 140 px away, its end is under the circle; it lasts 500 ms.

    To the one just after it counts as well, for that is a diameter or more from its end.
    """
    lines = "300,200,1000,2,0,L|160:200,1,140\n400,50,1900,1,0\n160,200,2000,1,0\n160,290,2200,1,0"
    beatmap = with_rate(lines, 8)
    heads, bodies = lying(beatmap)
    found = kept_structure(beatmap, heads, bodies)
    # It ends at 1500, 700 ms before the last one; that is 90 px below it. (0, 2) overlap.
    assert pairs(found) == {(0, 1), (0, 3), (1, 3)}
    as_circles = kept_structure(beatmap, heads, np.repeat(heads[:, None], BODY_SAMPLES, axis=1))
    assert (0, 2) in pairs(as_circles)


def test_a_slider_that_comes_later_is_clear_with_all_of_its_body_or_with_its_head_alone() -> None:
    """It appears beside a circle, 100 px away; to the left it leads under that, not downwards."""
    lines = "160,200,1000,1,0\n400,50,1200,1,0\n260,200,1400,2,0,L|{}:{},1,140"
    for (x, y), points in (((120, 200), [0]), ((260, 340), [0, 1, 2, 3, 4])):
        beatmap = with_rate(lines.format(x, y), 8)
        heads, bodies = lying(beatmap)
        found = kept_structure(beatmap, heads, bodies)
        assert pairs(found) == {(0, 2), (1, 2)}
        assert found.points[found.earlier == 0].tolist() == points
        # All along its body there need be no more room than one diameter.
        np.testing.assert_allclose(found.clear[found.points > 0], CLEARANCE * DIAMETER)
    samples = bodies - heads[:, None]
    heads[2] = (220, 30)  # its end is 67 px away now, the rest of it more
    relations_of(found.of_heads(), 3, (0, 1), samples).part_pairs(heads, np.array([0.0, 0, 1]))
    assert heads[2].tolist() == [220, 30]
    relations_of(found, 3, (0, 1), samples).part_pairs(heads, np.array([0.0, 0, 1]))
    end = heads[2] + (0, 140) - heads[0]
    np.testing.assert_allclose(end, np.array([60, -30]) / np.hypot(60, 30) * CLEARANCE * DIAMETER)


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("250,100,1000,2,0,L|110:100,1,140\n110,240,1500,1,0", [0]),
        ("250,100,1000,2,0,L|110:100,1,140\n110,160,1500,1,0", []),  # nearer, by its spacing
        ("110,240,1000,1,0\n250,100,1200,2,0,L|110:100,1,140", [0, 1, 2, 3, 4]),
        ("110,240,1000,1,0\n250,240,1200,1,0", []),  # circles are as far apart as their spacing
    ],
)
def test_neighbours_count_where_a_slider_may_come_back(
    lines: str, expected: list[int], clean: bool
) -> None:
    beatmap = with_rate(lines, 8)
    found = (clean_structure if clean else kept_structure)(beatmap, *lying(beatmap))
    assert found.points.tolist() == expected


def row_of_neighbours() -> tuple[Beatmap, FloatArray, FloatArray]:
    """A circle, a slider and a circle in a row, from each to the next 80 px, 1.1 diameters."""
    lines = "100,192,1000,1,0\n180,192,1200,2,0,L|320:192,1,140\n400,192,1800,1,0"
    beatmap = with_rate(lines, 8)
    return beatmap, *lying(beatmap)


def test_neighbours_are_asked_for_no_more_room_than_their_spacing() -> None:
    beatmap, heads, bodies = row_of_neighbours()
    found = kept_structure(beatmap, heads, bodies)
    neighbours = found.later - found.earlier == 1
    assert neighbours.sum() == BODY_SAMPLES + 1
    assert found.clear[neighbours].max() <= 80 < CLEARANCE * 80
    relations = relations_of(found, 3, bodies=bodies - heads[:, None])
    moved = heads.copy()
    relations.part_pairs(moved, np.ones(3))
    assert (moved == heads).all()


@pytest.mark.parametrize(("spacing", "expected"), [(70.0, 0), (75.0, BODY_SAMPLES + 1)])
def test_neighbours_that_shall_be_nearer_than_a_diameter_are_the_spacings(
    spacing: float, expected: int
) -> None:
    """As with `--spacing scale`, which asks for less than the source has."""
    found = kept_structure(*row_of_neighbours(), np.full(3, spacing))
    neighbours = found.later - found.earlier == 1
    assert neighbours.sum() == expected
    assert (found.clear[neighbours] <= spacing).all()


def test_cleaning_leaves_a_slider_on_the_end_of_another() -> None:
    lines = "100,100,1000,2,0,L|240:100,1,140\n400,300,1500,1,0\n240,100,1800,2,0,L|340:100,1,100"
    beatmap = with_rate(lines, 5)
    heads, bodies = lying(beatmap)
    found = clean_structure(beatmap, heads, bodies)
    assert (0, 2) not in pairs(found)
    # From 40 px above it on, all of its body is to be clear.
    heads[2, 1], bodies[2, :, 1] = 60, 60
    found = clean_structure(beatmap, heads, bodies)
    assert (0, 2) in pairs(found)
    assert found.points[(found.earlier == 0) & (found.later == 2)].tolist() == [0, 1, 2, 3, 4]


def test_of_points_of_one_slider_the_one_furthest_in_counts_alone() -> None:
    """Its end lies 50 px from a circle that stays, the rest is further away: 25 px are wanted."""
    bodies = np.zeros((2, BODY_SAMPLES, 2))
    bodies[1, :, 0] = np.linspace(0, -40, BODY_SAMPLES)
    one = np.ones(BODY_SAMPLES, dtype=np.intp)
    structure = Structure(
        np.array([-1, -1]), 0 * one, one, np.arange(BODY_SAMPLES), np.full(BODY_SAMPLES, 75.0)
    )
    heads = np.array([[100.0, 100], [190, 100]])
    relations_of(structure, 2, (0,), bodies).part_pairs(heads, np.array([0.0, 1]))
    np.testing.assert_allclose(heads, [[100, 100], [215, 100]])


def test_spinners_are_neither_twins_nor_in_the_way() -> None:
    lines = "256,192,1000,12,0,1100,0:0:0:0:\n100,100,1200,1,0\n256,192,1400,1,0\n400,300,1600,1,0"
    found = structure_of(with_rate(lines, 5))
    assert found.twins.tolist() == [-1] * 4 and pairs(found) == {(1, 3)}


def test_cleaning_puts_what_nearly_meets_together_and_parts_all_else() -> None:
    """Nearer than 0.3 diameters is meant to be one place."""
    places: Places = [(100, 100), (300, 300), (100 + 0.29 * DIAMETER, 100), (330, 300)]
    beatmap = circles([(100, 100), (300, 300), (121, 100), (330, 300)])
    found = structure_of(beatmap, places, clean=True)
    assert found.twins.tolist() == [-1, -1, 0, -1]
    assert pairs(found) == {(0, 3), (1, 3)}
    kept = structure_of(beatmap, places)
    assert kept.twins.tolist() == [-1] * 4 and pairs(kept) == {(0, 3)}


@pytest.mark.parametrize("count", [1, 2])
def test_maps_of_one_or_two_objects_have_no_relations(count: int) -> None:
    found = structure_of(circles([(100, 100)] * count))
    assert found.twins.tolist() == [-1] * count and pairs(found) == set()


# --- moving bodies --------------------------------------------------------------------------------


def relations_of(
    structure: Structure, count: int, fixed: tuple[int, ...] = (), bodies: FloatArray | None = None
) -> BodyRelations:
    """Every object is a body of its own, a circle unless told otherwise."""
    stays = np.isin(np.arange(count), fixed)
    nowhere = np.zeros((count, 2))
    samples = np.zeros((count, BODY_SAMPLES, 2)) if bodies is None else bodies
    return body_relations(structure, np.arange(count), nowhere, samples, stays)


def twins_only(twins: list[int]) -> Structure:
    nothing = np.empty(0, dtype=np.intp)
    return Structure(np.array(twins), nothing, nothing, nothing, np.empty(0))


def pair_only(clear: float = 75.0) -> Structure:
    one = np.array([0])
    return Structure(np.array([-1, -1]), one, np.array([1]), one, np.array([clear]))


def test_twins_meet_where_they_are_on_average() -> None:
    heads = np.array([[100.0, 100], [300, 100], [130, 100], [300, 160], [70, 130]])
    relations_of(twins_only([-1, -1, 0, 1, 2]), 5).meet(heads, np.ones(5))
    a, b = [100, 110], [300, 130]
    np.testing.assert_allclose(heads, [a, b, a, b, a])


@pytest.mark.parametrize("fixed", [(0,), (2,), (0, 2)])
def test_twins_that_stay_decide_where_the_others_meet(fixed: tuple[int, ...]) -> None:
    heads = np.array([[100.0, 100], [300, 100], [100, 100], [200, 160], [70, 130]])
    mobile = (~np.isin(np.arange(5), fixed)).astype(np.float64)
    if fixed == (2,):
        heads[0] = (10, 20)
    elif fixed == (0,):
        heads[2] = (10, 20)
    relations_of(twins_only([-1, -1, 0, -1, 2]), 5, fixed).meet(heads, mobile)
    expected = [[100, 100], [300, 100], [100, 100], [200, 160], [100, 100]]
    np.testing.assert_allclose(heads, expected)


def test_twins_within_bodies_meet_at_their_offsets() -> None:
    """The second object of one stack over a single circle: 10 px right of the stack's head."""
    structure = twins_only([-1, -1, -1, 1])
    offsets = np.array([[0.0, 0], [10, 0], [0, 0], [0, 0]])
    samples = np.zeros((4, BODY_SAMPLES, 2))
    fixed = np.array([True, False, False])
    relations = body_relations(structure, np.array([0, 0, 1, 2]), offsets, samples, fixed)
    heads = np.array([[100.0, 100], [300, 300], [200, 200]])
    relations.meet(heads, np.array([0.0, 1, 1]))
    np.testing.assert_allclose(heads, [[100, 100], [300, 300], [110, 100]])


@pytest.mark.parametrize(
    ("mobile", "expected"),
    [
        ((1, 1), [[72.5, 100], [147.5, 100]]),
        ((0, 1), [[100, 100], [175, 100]]),
        ((1, 0), [[45, 100], [120, 100]]),
    ],
)
def test_a_pair_is_parted_by_what_may_move(
    mobile: tuple[int, int], expected: list[list[float]]
) -> None:
    heads = np.array([[100.0, 100], [120, 100]])
    fixed = tuple(i for i in (0, 1) if not mobile[i])
    relations_of(pair_only(), 2, fixed).part_pairs(heads, np.array(mobile, dtype=np.float64))
    np.testing.assert_allclose(heads, expected)


def test_a_pair_that_is_clear_stays_and_one_on_a_point_is_parted() -> None:
    heads = np.array([[100.0, 100], [176, 100]])
    relations_of(pair_only(), 2).part_pairs(heads, np.ones(2))
    assert heads.tolist() == [[100, 100], [176, 100]]
    heads[1] = heads[0]
    relations_of(pair_only(), 2).part_pairs(heads, np.ones(2))
    assert np.hypot(*(heads[1] - heads[0])) == pytest.approx(75)


@pytest.mark.parametrize("rounded", [-1e-12, 0, 1e-12])
def test_how_a_distance_is_rounded_does_not_hold_others_back(rounded: float) -> None:
    """The first two are as far apart as they shall be, the last two 15 px too near."""
    structure = Structure(
        np.full(3, -1),
        np.array([0, 1]),
        np.array([1, 2]),
        np.array([0, 0]),
        np.array([75.0, 75.0]),
    )
    heads = np.array([[100.0, 100], [175 + rounded, 100], [235, 100]])
    relations_of(structure, 3, (2,)).part_pairs(heads, np.array([1.0, 1, 0]))
    np.testing.assert_allclose(heads, [[100, 100], [160, 100], [235, 100]], atol=1e-9)


def test_a_circle_is_moved_away_from_the_nearest_of_a_body() -> None:
    """A body 200 px to the right; the circle is 10 px below its middle."""
    bodies = np.zeros((2, BODY_SAMPLES, 2))
    bodies[0, :, 0] = np.linspace(0, 200, BODY_SAMPLES)
    heads = np.array([[100.0, 100], [200, 110]])
    relations_of(pair_only(), 2, (0,), bodies).part_pairs(heads, np.array([0.0, 1]))
    np.testing.assert_allclose(heads, [[100, 100], [200, 175]])


def test_what_cannot_move_or_hangs_together_is_not_parted() -> None:
    """Two that stay; an object and one whose twin's twin it is."""
    assert len(relations_of(pair_only(), 2, (0, 1)).earlier) == 0
    structure = replace(
        twins_only([-1, 0, 1]),
        earlier=np.array([0]),
        later=np.array([2]),
        points=np.array([0]),
        clear=np.array([75.0]),
    )
    assert len(relations_of(structure, 3).earlier) == 0


# --- through to the pixels ------------------------------------------------------------------------


def placement_of(
    beatmap: Beatmap, mode: StructureMode, *, keep_spacing: bool = True, kept: tuple[int, ...] = ()
) -> tuple[Placement, Sequence]:
    """With spinners and the objects `kept` fixed."""
    sequence = beatmap_to_sequence(beatmap)
    fixed = np.isin(sequence.types, (PointType.SPINNER, PointType.SPINNER_END))
    fixed |= np.isin(sequence.objects, kept)
    distances = sequence.distances()
    shapes = SliderShapes(sequence, sequence.topology, distances, fixed)
    wanted = distances if keep_spacing else None
    return Placement(sequence, shapes, wanted, fixed, Bounds(), structure=mode), sequence


def errors(sequence: Sequence, xy: FloatArray) -> FloatArray:
    return np.abs(np.hypot(*np.diff(xy, axis=0).T) - sequence.distances()[1:])


@pytest.mark.parametrize("seed", range(5))
def test_a_square_comes_back_to_its_pixels_with_its_distances(seed: int) -> None:
    """A B A' B', then the other diagonal: sampled 12 px off, both are places again."""
    a, b, c, d = (160, 110), (352, 110), (352, 280), (160, 280)
    beatmap = circles([a, b, a, b, c, d, c, d], gap=300)
    placement, sequence = placement_of(beatmap, "keep")
    noise = np.random.default_rng(seed).normal(0, 12, sequence.xy.shape)
    placed = placement.place(sequence.xy + noise)
    assert (placed == np.rint(placed)).all()
    for first in (0, 1, 4, 5):
        assert placed[first].tolist() == placed[first + 2].tolist()
    assert errors(sequence, placed).max() < 1
    loose, _ = placement_of(beatmap, "off")
    off = loose.place(sequence.xy + noise)
    assert loose.structure is None and (off[[0, 1, 4, 5]] != off[[2, 3, 6, 7]]).any()


@pytest.mark.parametrize("kept", [(0,), (3,), (0, 1)])
def test_twins_of_objects_that_stay_join_them(kept: tuple[int, ...]) -> None:
    a, b = (160, 110), (352, 110)
    placement, sequence = placement_of(circles([a, b, a, b], gap=300), "keep", kept=kept)
    noise = np.random.default_rng(1).normal(0, 12, sequence.xy.shape)
    placed = placement.place(sequence.xy + noise)
    assert (placed[list(kept)] == sequence.xy[list(kept)]).all()
    assert (placed[0] == placed[2]).all() and (placed[1] == placed[3]).all()
    assert errors(sequence, placed).max() < 1


def folded(sequence: Sequence, angle: float) -> FloatArray:
    """Circles in a row, bent at the second by so many degrees: 180 lays the third on the first."""
    turn = np.pi - np.radians(180 - angle)
    c, s = np.cos(turn), np.sin(turn)
    xy = sequence.xy.copy()
    xy[2:] = xy[1] + (xy[2:] - xy[1]) @ np.array([[c, s], [-s, c]])
    return xy


@pytest.mark.parametrize("angle", [150, 170, 180])
def test_objects_that_cross_while_they_are_seen_are_clear_again(angle: float) -> None:
    """In a row in the source; sampled so that the third lies on the first."""
    beatmap = circles([(150, 192), (270, 192), (390, 192)])
    placement, sequence = placement_of(beatmap, "keep")
    sampled = folded(sequence, angle)
    assert np.hypot(*(sampled[2] - sampled[0])) < DIAMETER
    placed = placement.place(sampled)
    assert np.hypot(*(placed[2] - placed[0])) >= DIAMETER
    assert errors(sequence, placed).max() < 1
    plain = placement_of(beatmap, "off")[0].place(sampled)
    assert np.hypot(*(plain[2] - plain[0])) < DIAMETER


@pytest.mark.parametrize("neighbour", [False, True])
def test_sliders_that_cross_what_is_seen_are_clear_again(neighbour: bool) -> None:
    """They lead away from the circle in the source, and over it where they were sampled."""
    far = "" if neighbour else "256,340,1150,1,0\n"
    lines = f"160,192,1000,1,0\n{far}300,192,1300,2,0,L|440:192,1,140"
    placement, sequence = placement_of(with_rate(lines, 8), "keep")
    sampled = sequence.xy.copy()
    sampled[-2:] = (170, 200)  # its last anchor and its end
    for _ in range(12):  # as often as in sampling
        sampled = placement.settle(sampled, 2, 10)
    placed = placement.place(sampled)
    along = np.linspace(placed[-3], placed[-1], 50)
    # Up to what five samples of the body and whole pixels leave open.
    assert np.hypot(*(along - placed[0]).T).min() > DIAMETER - 2
    assert errors(sequence, placed).max() < 1


def test_cleaning_decides_by_what_was_sampled() -> None:
    """10 px apart is one place, 40 px is cleared; whatever the source has."""
    beatmap = circles([(150, 192), (270, 192), (390, 192)])
    placement, sequence = placement_of(beatmap, "clean")
    placed = placement.place(folded(sequence, 178))
    assert (placed[0] == placed[2]).all()
    placed = placement.place(folded(sequence, 160))
    assert np.hypot(*(placed[2] - placed[0])) >= DIAMETER
    assert errors(sequence, placed).max() < 1


def test_arranging_moves_objects_whatever_their_distances() -> None:
    a, b = (160, 110), (352, 110)
    placement, sequence = placement_of(circles([a, b, a, b], gap=300), "keep")
    noise = np.random.default_rng(1).normal(0, 30, sequence.xy.shape)
    arranged = placement.arrange(sequence.xy + noise, 4, heads_alone=True)
    np.testing.assert_allclose(arranged[:2], arranged[2:])
    np.testing.assert_allclose(arranged[:2], (sequence.xy + noise).reshape(2, 2, 2).mean(axis=0))


def test_arranging_clears_bodies_unless_heads_are_looked_at_alone() -> None:
    """A slider that was sampled to lead back over the circle before it."""
    lines = "160,192,1000,1,0\n300,192,1300,2,0,L|440:192,1,140"
    placement, sequence = placement_of(with_rate(lines, 8), "clean", keep_spacing=False)
    sampled = sequence.xy.copy()
    sampled[-2:] = (190, 192)  # its last anchor and its end
    before = np.abs(sampled[-1] - sampled[0]).max()
    assert (placement.arrange(sampled, 4, heads_alone=True) == sampled).all()
    arranged = placement.arrange(sampled, 4, heads_alone=False)
    assert np.hypot(*(arranged[-1] - arranged[0])) > DIAMETER > before
    np.testing.assert_allclose(np.diff(arranged[1:], axis=0), np.diff(sampled[1:], axis=0))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 14),
    mode=st.sampled_from(["keep", "clean", "off"]),
    px=st.sampled_from([0.0, 5.0, 300.0]),
    keep_spacing=st.booleans(),
    data=st.data(),
)
def test_any_small_map_is_placed(
    seed: int, count: int, mode: StructureMode, px: float, keep_spacing: bool, data: st.DataObject
) -> None:
    """Whatever is kept: finite, in place where it stays, heads on the playfield."""
    beatmap = with_rate(random_objects(seed, count), 5)
    kept = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    placement, sequence = placement_of(
        beatmap, mode, keep_spacing=keep_spacing, kept=tuple(sorted(kept))
    )
    noise = np.random.default_rng(seed).normal(0, px, sequence.xy.shape)
    sampled = np.where(placement.kept[:, None], sequence.xy, sequence.xy + noise)
    placed = placement.place(sampled)
    assert np.isfinite(placed).all() and np.isfinite(placement.settle(sampled, 2, 10)).all()
    assert (placed[placement.kept] == sequence.xy[placement.kept]).all()
    heads = placed[sequence.object_starts]
    assert ((heads >= 0) & (heads <= (512, 384))).all()
    if mode != "off":
        for alone in (False, True):
            assert np.isfinite(placement.arrange(sampled, 4, heads_alone=alone)).all()
