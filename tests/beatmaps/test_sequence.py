"""Beatmap <-> data points: made-up maps with known answers, properties, and real maps."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatmaps.osu_file import Beatmap, BeatmapError, parse_beatmap, read_beatmap
from beatmaps.sequence import (
    Sequence,
    apply_coordinates,
    beatmap_to_sequence,
    recompute_ends,
    slider_end_type,
)
from beatmaps.slider_path import PathSet
from conventions.point_types import PointType
from tests.conftest import beatmap_text, needs_maps, real_paths


def parse(objects: str, *, version: int = 14) -> Beatmap:
    """A small beatmap of our own: 140 px last 500 ms."""
    text = (
        f"osu file format v{version}\n\n[Difficulty]\nSliderMultiplier:1.4\n\n"
        f"[TimingPoints]\n0,500,4,1,0,100,1,0\n\n[HitObjects]\n{objects}\n"
    )
    return parse_beatmap(text.encode(), "test.osu")


def points(objects: str, *, version: int = 14) -> list[tuple[str, float, list[float], int]]:
    """(type, time, position, anchor) of each data point; positions to 2 decimals."""
    sequence = beatmap_to_sequence(parse(objects, version=version))
    names = [PointType(value).name for value in sequence.types]
    rounded = np.round(sequence.xy, 2).tolist()
    return list(
        zip(names, sequence.times.tolist(), rounded, sequence.anchors.tolist(), strict=True)
    )


def inner(curve: str, *, version: int = 14) -> list[tuple[str, float, int]]:
    """(type, time, anchor) of the data points between head and end of a slider of 600 ms."""
    rows = points(f"0,0,0,2,0,{curve},1,168", version=version)
    return [(name, round(time, 6), anchor) for name, time, _, anchor in rows[1:-1]]


# --- reading --------------------------------------------------------------------------------------


def test_types_are_in_the_order_of_the_model() -> None:
    assert [kind.value for kind in PointType] == list(range(16))
    assert PointType(9).name == "RED_ANCHOR"
    assert PointType(15).name == "SLIDER_END_ODD"


def test_circles_and_spinners() -> None:
    """A spinner is two points in the centre, wherever the file puts it."""
    assert points("10,20,100,1,0\n30,40,200,1,0\n1,2,300,12,0,400\n50,60,500,5,0") == [
        ("CIRCLE_NC", 100, [10, 20], 0),
        ("CIRCLE", 200, [30, 40], 0),
        ("SPINNER", 300, [256, 192], 0),
        ("SPINNER_END", 400, [256, 192], -1),
        ("CIRCLE_NC", 500, [50, 60], 0),
    ]


def test_slider_with_a_red_anchor() -> None:
    """Anchors lie evenly in time by their index, a doubled point counts twice."""
    slider = "0,0,1000,2,0,B|40:0|80:0|80:0|80:50|80:100,2,140"
    assert points(f"9,9,0,1,0\n{slider}")[1:] == [
        ("SLIDER_HEAD", 1000, [0, 0], 0),
        ("BEZIER_ANCHOR", 1100, [40, 0], 1),
        ("RED_ANCHOR", 1200, [80, 0], 2),
        ("BEZIER_ANCHOR", 1400, [80, 50], 4),
        ("LAST_ANCHOR", 1500, [80, 100], 5),
        ("SLIDER_END_2", 2000, [80, 60], -1),
    ]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("L|50:0", [("LAST_ANCHOR", 600, 1)]),
        ("L|50:0|50:50", [("RED_ANCHOR", 300, 1), ("LAST_ANCHOR", 600, 2)]),
        (
            "L|50:0|50:0|50:50",
            [("RED_ANCHOR", 200, 1), ("LAST_ANCHOR", 600, 3)],
        ),
        ("P|50:0|50:50", [("PERFECT_ANCHOR", 300, 1), ("LAST_ANCHOR", 600, 2)]),
        ("P|50:0|100:0", [("PERFECT_ANCHOR", 300, 1), ("LAST_ANCHOR", 600, 2)]),
        (
            "P|50:0|50:50|0:50",
            [("BEZIER_ANCHOR", 200, 1), ("BEZIER_ANCHOR", 400, 2), ("LAST_ANCHOR", 600, 3)],
        ),
        ("C|50:0|50:50", [("CATMULL_ANCHOR", 300, 1), ("LAST_ANCHOR", 600, 2)]),
        ("C|50:0|50:0|50:50", [("CATMULL_ANCHOR", 200, 1), ("LAST_ANCHOR", 600, 3)]),
        ("B|0:0|50:50|99:0", [("BEZIER_ANCHOR", 400, 2), ("LAST_ANCHOR", 600, 3)]),
        ("B|0:0|0:0|99:0", [("LAST_ANCHOR", 600, 3)]),
        ("B|50:0|50:50|50:50", [("BEZIER_ANCHOR", 200, 1), ("LAST_ANCHOR", 600, 3)]),
        (
            "B|50:0|50:0|50:0|99:0",
            [("RED_ANCHOR", 150, 1), ("LAST_ANCHOR", 600, 4)],
        ),
        ("B", []),
        ("L|0:0", []),
        (
            "B|50:0|P|50:50|50:99",
            [("BEZIER_ANCHOR", 200, 1), ("RED_ANCHOR", 400, 2), ("LAST_ANCHOR", 600, 3)],
        ),
    ],
)
def test_anchors(curve: str, expected: list[tuple[str, float, int]]) -> None:
    """Types and times of anchors; doubled heads and last points are one data point."""
    rows = inner(curve)
    assert [(name, anchor) for name, _, anchor in rows] == [(row[0], row[2]) for row in expected]
    # These sliders last 600 ms, except where a doubled last point forbids to extend them.
    duration = rows[-1][1] if rows else 600
    times = [row[1] * duration / 600 for row in expected]
    assert [time for _, time, _ in rows] == pytest.approx(times, abs=1e-5)


def test_doubled_catmull_point_is_a_corner_in_new_files() -> None:
    assert [name for name, _, _ in inner("C|50:0|50:0|50:50", version=128)] == [
        "RED_ANCHOR",
        "LAST_ANCHOR",
    ]


@pytest.mark.parametrize(
    ("slides", "name"),
    [
        (1, "SLIDER_END_1"),
        (2, "SLIDER_END_2"),
        (3, "SLIDER_END_3"),
        (4, "SLIDER_END_EVEN"),
        (5, "SLIDER_END_ODD"),
        (6, "SLIDER_END_EVEN"),
        (101, "SLIDER_END_ODD"),
    ],
)
def test_slider_ends(slides: int, name: str) -> None:
    """The end is at the tail of the path at the end of the last slide."""
    rows = points(f"0,0,1000,6,0,L|70:0,{slides},140")
    assert rows[0][0] == "SLIDER_HEAD_NC"
    assert rows[-2][1] == 1500
    assert rows[-1] == (name, 1000 + 500 * slides, [140, 0], -1)
    assert slider_end_type(slides).name == name


def test_distances_and_starts() -> None:
    sequence = beatmap_to_sequence(parse("256,195,0,1,0\n260,192,100,2,0,L|260:292,1,140"))
    np.testing.assert_allclose(sequence.distances(), [3, 5, 100, 40])
    assert sequence.object_starts.tolist() == [True, True, False, False]
    assert sequence.objects.tolist() == [0, 1, 1, 1]
    assert len(sequence) == 4
    kinds = (sequence.times, sequence.xy, sequence.types, sequence.objects, sequence.anchors)
    assert [str(array.dtype) for array in kinds] == [
        "float64",
        "float64",
        "uint8",
        "int32",
        "int32",
    ]


def test_more_than_a_hundred_anchors_stay_a_slider() -> None:
    curve = "|".join(f"{i}:{i % 7}" for i in range(1, 151))
    assert len(points(f"0,0,0,2,0,B|{curve},1,140")) == 152


# --- topology -------------------------------------------------------------------------------------


def test_topology_of_all_kinds() -> None:
    """Indices count from the first data point of the map; equal points share one."""
    beatmap = parse(
        "5,5,0,1,0\n"
        "0,0,1000,2,0,B|0:0|40:0|80:0|80:0|80:50,1,140\n"
        "0,0,2000,2,0,P|50:0|100:0,1,50\n"
        "0,0,3000,2,0,C|50:0|50:0|90:9,1,50\n"
        "0,0,4000,2,0,B2|50:0|50:20|90:9,1"
    )
    sequence = beatmap_to_sequence(beatmap)
    topology = sequence.topology
    kinds = [
        [(kind, degree, indices.tolist()) for kind, degree, indices in segments]
        for segments, _ in topology.sliders
    ]
    assert kinds == [
        [("B", None, [1, 2, 3]), ("B", None, [3, 4])],
        [("P", None, [6, 7, 8])],  # straight in the file, but an arc when its points move
        [("C", None, [10, 11, 11, 12])],
        [("B", 2, [14, 15, 16, 17])],
    ]
    assert topology.heads.tolist() == [1, 6, 10, 14]
    assert topology.ends.tolist() == [5, 9, 13, 18]
    assert topology.objects.tolist() == [1, 2, 3, 4]
    lengths = [length for _, length in topology.sliders]
    assert lengths == [140, 50, 50, beatmap.objects[4].path().length]


def test_ends_follow_the_anchors() -> None:
    beatmap = parse("0,0,0,1,0\n0,0,1000,2,0,L|100:0,1,140")
    sequence = beatmap_to_sequence(beatmap)
    xy = sequence.xy.copy()
    xy[2] = (0, 100)
    ends = recompute_ends(sequence, xy)
    np.testing.assert_allclose(ends, [[0, 0], [0, 0], [0, 100], [0, 140]])
    assert xy[3].tolist() == [140, 0]


def test_without_sliders() -> None:
    beatmap = parse("0,0,0,1,0")
    sequence = beatmap_to_sequence(beatmap)
    assert len(sequence.topology.ends) == 0
    assert recompute_ends(sequence, sequence.xy).tolist() == [[0, 0]]


# --- writing --------------------------------------------------------------------------------------


def moved(beatmap: Beatmap, xy: object) -> Beatmap:
    sequence = beatmap_to_sequence(beatmap)
    return parse_beatmap(apply_coordinates(sequence, np.array(xy, dtype=float)), "moved")


def test_moved_objects_in_the_file() -> None:
    """Circle, slider with a doubled head and a red anchor, and a spinner that stays."""
    beatmap = parse(
        "1,2,0,1,0\n0,0,1000,2,0,B|0:0|40:0|80:0|80:0|80:50,1,140,2|0\n3,4,3000,12,0,4000"
    )
    sequence = beatmap_to_sequence(beatmap)
    xy = sequence.xy + np.arange(len(sequence))[:, None] + 0.25
    expected = "1,2,0,1,0\n1,1,1000,2,0,B|1:1|42:2|83:3|83:3|84:54,1,140,2|0\n3,4,3000,12,0,4000"
    data = apply_coordinates(sequence, xy)
    assert data == beatmap.raw.split(b"1,2,0,1,0")[0] + expected.encode() + b"\n"


@pytest.mark.parametrize("curve", ["L", "B|0:0", "P|0:0|0:0"])
def test_a_slider_that_stays_at_its_head_keeps_its_length(curve: str) -> None:
    beatmap = parse(f"0,0,1000,2,0,{curve},1,46.875")
    result = moved(beatmap, beatmap_to_sequence(beatmap).xy + 7)
    expected = f"7,7,1000,2,0,{curve.replace('0:0', '7:7')},1,46.875"
    assert result.lines[result.objects[0].line].decode() == expected + "\n"


def test_fractions_are_written_from_version_128_on() -> None:
    beatmap = parse("0,0,0,1,0\n0,0,9,2,0,L|9:9,1,10", version=128)
    result = moved(beatmap, [[0.5, 0], [0.25, 0], [9, 9.125], [0, 0]])
    assert (result.objects[0].x, result.objects[1].points.tolist()) == (
        *(0.5, [[0.25, 0], [9, 9.125]]),
    )


@pytest.mark.parametrize("version", [14, 128])
def test_rounding_makes_no_red_anchor(version: int) -> None:
    """Points that fall together are a pixel apart in the file, as near as can be."""
    beatmap = parse("0,0,0,2,0,B|40:0|80:0|80:50,1,140", version=version)
    result = moved(beatmap, [[10, 10], [10, 10.4], [10, 10.4], [10, 10.4], [0, 0]])
    found = result.objects[0].points
    assert (found[1:] != found[:-1]).any(axis=1).all()
    assert np.abs(found - [10, 10]).max() < 1.5
    assert len(beatmap_to_sequence(result)) == 5


def test_coordinates_out_of_all_bounds_are_limited() -> None:
    result = moved(
        parse("0,0,0,1,0\n0,0,9,2,0,L|9:9,1,10"), [[1e9, -1e9], [1, 1], [-1e9, 5], [0, 0]]
    )
    assert (result.objects[0].x, result.objects[0].y) == (16000, -16000)
    assert result.objects[1].points[1].tolist() == [-16000, 5]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_coordinates_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="data point 0 has coordinates"):
        moved(parse("0,0,0,1,0"), [[value, 0]])
    with pytest.raises(ValueError, match="shape"):
        moved(parse("0,0,0,1,0"), [[0, 0], [0, 0]])


@pytest.mark.parametrize(
    "curve",
    [
        "L|300:0,1",  # no length: the path's own
        "L|300:0,1,0",
        "L|100:0|100:0,1,140",  # too short and not extended
        "L|200:0|200:0,1,140",
        "B|100:0|100:50|100:50|100:50,2",
    ],
)
@pytest.mark.parametrize("factor", [0.1, 0.5, 1.5])
def test_duration_stays_where_the_game_takes_the_length_of_the_path(
    curve: str, factor: float
) -> None:
    beatmap = parse(f"0,0,1000,2,0,{curve}")
    sequence = beatmap_to_sequence(beatmap)
    result = moved(beatmap, sequence.xy * factor)
    assert result.objects[0].end_time == pytest.approx(beatmap.objects[0].end_time, abs=1e-6)


COORDINATE = st.integers(0, 6)  # few values, so that points coincide
POINT = st.tuples(COORDINATE, COORDINATE)


@st.composite
def beatmaps(draw: st.DrawFn) -> Beatmap:
    """Circles, spinners and sliders of all kinds, with plenty of repeated points."""
    lines = []
    for index in range(draw(st.integers(1, 4))):
        x, y = draw(POINT)
        start = f"{x},{y},{1000 * index}"
        kind = draw(st.sampled_from(["circle", "spinner", "slider"]))
        if kind == "circle":
            lines.append(f"{start},{draw(st.sampled_from([1, 5]))},0,0:0:0:0:")
        elif kind == "spinner":
            lines.append(f"{start},12,0,{1000 * index + 500}")
        else:
            letter = draw(st.sampled_from(["B", "P", "L", "C", "B3"]))
            curve = "|".join(f"{x}:{y}" for x, y in draw(st.lists(POINT, min_size=1, max_size=6)))
            length = draw(st.sampled_from(["", ",0", ",3", ",50.5"]))
            lines.append(f"{start},2,0,{letter}|{curve},{draw(st.integers(1, 5))}{length}")
    return parse("\n".join(lines), version=draw(st.sampled_from([5, 14, 128])))


@given(beatmaps())
def test_unchanged_coordinates_give_the_same_bytes(beatmap: Beatmap) -> None:
    sequence = beatmap_to_sequence(beatmap)
    assert apply_coordinates(sequence, sequence.xy) == beatmap.raw
    assert int(sequence.object_starts.sum()) == len(beatmap.objects)
    check_times(sequence)


@given(beatmaps(), st.integers(0, 2**32), st.sampled_from([1.0, 20.0, 300.0]))
def test_any_coordinates_keep_the_rhythm(beatmap: Beatmap, seed: int, spread: float) -> None:
    """Times, slides and combos stay, points go where they are sent, up to a pixel of rounding."""
    sequence = beatmap_to_sequence(beatmap)
    xy = np.random.default_rng(seed).uniform(-spread, spread, sequence.xy.shape)
    result = parse_beatmap(apply_coordinates(sequence, xy), "moved")
    again = beatmap_to_sequence(result)
    for before, after in zip(beatmap.objects, result.objects, strict=True):
        assert (before.kind, before.slides, before.new_combo) == (
            *(after.kind, after.slides, after.new_combo),
        )
        assert after.time == before.time
        assert after.end_time == pytest.approx(before.end_time, abs=1e-6)
    pulled = [
        hit.kind == "slider" and len(hit.points) > 1 and (hit.points[-1] == hit.points[-2]).all()
        for hit in beatmap.objects
    ]
    if not any(pulled):  # else there may be a point more
        assert again.types.tolist() == sequence.types.tolist()
        assert again.anchors.tolist() == sequence.anchors.tolist()
        check_moves(beatmap, sequence, xy, again)


def check_times(sequence: Sequence) -> None:
    """Times do not decrease within an object, and object starts do not at all."""
    within = sequence.objects[1:] == sequence.objects[:-1]
    assert (np.diff(sequence.times)[within] >= 0).all()
    assert (np.diff(sequence.times[sequence.object_starts]) >= 0).all()


def check_moves(beatmap: Beatmap, sequence: Sequence, xy: np.ndarray, again: Sequence) -> None:
    """Every point that the file holds is where it was sent: rounded, or a pixel off at most."""
    free = (sequence.anchors >= 0) & (sequence.types != PointType.SPINNER)
    wanted = xy if beatmap.format_version >= 128 else np.rint(xy)
    assert np.abs(again.xy - wanted)[free].max(initial=0) <= 1 + 1e-4
    spinners = again.types == PointType.SPINNER
    assert (again.xy[spinners] == (256, 192)).all()
    ends = again.anchors == -1
    expected = recompute_ends(sequence, np.where(free[:, None], again.xy, xy))
    sliders = ends & (again.types != PointType.SPINNER_END)
    np.testing.assert_allclose(again.xy[sliders], expected[sliders], atol=1e-6)


# --- real maps ------------------------------------------------------------------------------------


@needs_maps
@pytest.mark.parametrize("part", ["val", "train", "edge", "cases"])
def test_real_maps_survive(part: str) -> None:
    """The same bytes for the same coordinates; for others the same rhythm and nothing else new."""
    generator = np.random.default_rng(0)
    for path in real_paths(part):
        try:
            beatmap = read_beatmap(path)
        except BeatmapError:
            assert part in ("edge", "cases")
            continue
        sequence = beatmap_to_sequence(beatmap)
        assert apply_coordinates(sequence, sequence.xy) == beatmap.raw, path.name
        if part in ("edge", "cases"):
            continue
        xy = np.clip(sequence.xy, 0, 512) + generator.uniform(-40, 40, sequence.xy.shape)
        result = parse_beatmap(apply_coordinates(sequence, xy), path.name)
        check_only_coordinates_differ(beatmap, result)
        again = beatmap_to_sequence(result)
        if len(again) == len(sequence):
            assert (again.types == sequence.types).all(), path.name
            np.testing.assert_allclose(again.times, sequence.times, atol=1e-6, err_msg=path.name)
            check_moves(beatmap, sequence, xy, again)
        ends = [[hit.end_time for hit in one.objects] for one in (beatmap, result)]
        np.testing.assert_allclose(ends[0], ends[1], atol=1e-6, err_msg=path.name)


def check_only_coordinates_differ(beatmap: Beatmap, result: Beatmap) -> None:
    """Fields 0, 1 and a slider's 5; and its 7 where the game took the length of the path."""
    hits = {hit.line: hit for hit in beatmap.objects}
    for index, (old, new) in enumerate(zip(beatmap.lines, result.lines, strict=True)):
        if old == new:
            continue
        hit = hits[index]
        old_fields, new_fields = old.split(b","), new.split(b",")
        allowed = {0, 1}
        if hit.kind == "slider":
            allowed.add(5)
            tail = hit.points[-2:].tolist()
            if hit.length is None or tail[0] == tail[-1]:
                allowed.add(7)
        changed = [
            i
            for i, pair in enumerate(zip(old_fields, new_fields, strict=True))
            if pair[0] != pair[1]
        ]
        assert set(changed) <= allowed, (old, new)


@needs_maps
def test_paths_together_match_paths_one_by_one() -> None:
    """The topology describes the same curves as the hit objects."""
    for path in real_paths("val")[::4]:
        beatmap = read_beatmap(path)
        sequence = beatmap_to_sequence(beatmap)
        topology = sequence.topology
        ends, lengths = PathSet(topology.sliders).evaluate(sequence.xy)
        paths = [beatmap.objects[index].path() for index in topology.objects]
        natural = np.array([one.natural_length for one in paths])
        assert np.abs(lengths / np.maximum(natural, 1) - 1).max(initial=0) < 0.02, path.name
        singly = np.array([one.end for one in paths]).reshape(-1, 2)
        assert np.median(np.abs(ends - singly)) < 0.01
        np.testing.assert_allclose(sequence.xy[topology.ends], singly, atol=0.3, err_msg=path.name)


def test_heads_and_ends_frame_every_slider() -> None:
    beatmap = parse("0,0,0,2,0,L|9:9,1,10\n5,5,500,1,0\n0,0,900,2,0,L|9:9|3:3,1,10")
    sequence = beatmap_to_sequence(beatmap)
    topology = sequence.topology
    for head, end in zip(topology.heads, topology.ends, strict=True):
        assert sequence.objects[head] == sequence.objects[end]
    assert all(a < b for a, b in pairwise(np.ravel([topology.heads, topology.ends], order="F")))


def test_a_slider_whose_length_no_file_can_hold_stays_where_it_is() -> None:
    """131,073 px without a length in the file: the game takes the path's, and reads no such one."""
    lines = "0,-1,1000,2,0,B|0:131072,1,0\n100,100,900000,1,0"
    beatmap = parse_beatmap(beatmap_text(lines).encode(), "long")
    sequence = beatmap_to_sequence(beatmap)
    data = apply_coordinates(sequence, sequence.xy + 5)
    after = parse_beatmap(data, "moved")
    assert after.lines[beatmap.objects[0].line] == beatmap.lines[beatmap.objects[0].line]
    assert [hit.end_time for hit in after.objects] == [hit.end_time for hit in beatmap.objects]
    assert after.objects[1].x == 105
