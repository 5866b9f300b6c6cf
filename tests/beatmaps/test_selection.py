"""Choosing objects: by time, kind, combos and what the editor copies."""

import numpy as np
import pytest

from beatmaps.game_rules import combo_numbers, format_time
from beatmaps.osu_file import Beatmap, parse_beatmap, read_beatmap
from beatmaps.selection import (
    Selection,
    choose_objects,
    combo_starts,
    editor_selection,
    excerpt,
    hull,
    parse_time,
    selected_objects,
)
from beatmaps.sequence import beatmap_to_sequence
from tests.conftest import beatmap_text, needs_maps, real_paths
from tests.maps_to_show import many_circles

# (time, what): combos are 1 2 3 | 1 2 | spinner | 1 2
OBJECTS = """100,100,1000,5,0
150,100,1250,1,0
200,100,1500,2,0,L|270:100,1,70
300,200,61123,5,0
300,200,61123,1,0
256,192,62000,12,0,63000
80,80,64000,1,0
90,80,64250,1,0"""


@pytest.fixture(scope="module")
def beatmap() -> Beatmap:
    return parse_beatmap(beatmap_text(OBJECTS).encode(), "made up")


def chosen(beatmap: Beatmap, **options: object) -> list[int]:
    selection = Selection(**options)  # type: ignore[arg-type]
    return np.flatnonzero(choose_objects(beatmap, selection)).tolist()


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("00:51:123", 51123),
        ("00:51:123 (1,2,3) -", 51123),
        (" 01:01:123 - ", 61123),
        ("61:01:001", 3661001),
        ("-00:00:500", -500),
        ("00:51.123", 51123),
        ("51123", 51123),
        ("51123.5", 51123.5),
        ("-20", -20),
    ],
)
def test_times_are_read(text: str, ms: float) -> None:
    assert parse_time(text) == ms


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "1:2", "00:61:000", "00:5x:123"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time: give mm:ss:mmm"):
        parse_time(text)


@pytest.mark.parametrize("ms", [0, 7, 999, 61_123, 3_661_001, -500])
def test_times_are_written_as_they_are_read(ms: int) -> None:
    assert parse_time(format_time(ms)) == ms
    assert format_time(ms + 0.9 * (ms >= 0)) == format_time(ms)  # cut, as the editor does


def test_everything_is_chosen_but_spinners(beatmap: Beatmap) -> None:
    assert chosen(beatmap) == [0, 1, 2, 3, 4, 6, 7]
    assert Selection().is_everything and not Selection(only="sliders").is_everything


def test_a_range_includes_both_ends_and_goes_by_starts(beatmap: Beatmap) -> None:
    assert chosen(beatmap, time_start=1250, time_end=1500) == [1, 2]
    assert chosen(beatmap, time_start=1250.5, time_end=1500.9) == [1, 2]
    assert chosen(beatmap, time_start=1251) == [2, 3, 4, 6, 7]
    assert chosen(beatmap, time_end=1499.9) == [0, 1]
    assert chosen(beatmap, time_start=1501, time_end=61123) == [3, 4]  # not the slider before


def test_kinds_are_chosen(beatmap: Beatmap) -> None:
    assert chosen(beatmap, only="sliders") == [2]
    assert chosen(beatmap, only="circles") == [0, 1, 3, 4, 6, 7]


def test_ranges_are_aligned_to_combos(beatmap: Beatmap) -> None:
    assert combo_starts(beatmap).tolist() == [0, 3, 6]
    part = {"time_start": 1250, "time_end": 61123}
    assert chosen(beatmap, **part, align="grow") == [0, 1, 2, 3, 4]
    assert chosen(beatmap, time_start=1000, time_end=64000, align="shrink") == [0, 1, 2, 3, 4]
    assert chosen(beatmap, time_start=64250, align="grow") == [6, 7]
    with pytest.raises(ValueError, match="nothing to remap from 00:01:250 to 01:01:000"):
        chosen(beatmap, time_start=1250, time_end=61000, align="shrink")
    with pytest.raises(ValueError, match=r"align combos grow .* give time start"):
        Selection(align="grow")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00:01:000 (1) - ", [0]),
        ("00:01:000 (1,2,3) - too close", [0, 1, 2]),
        ("00:01:250 (2,1,2)", [1, 3, 4]),
        ("01:01:123 (2,1) - ", [4, 6]),
        ("01:01:123 (1,2) - ", [3, 4]),
        ("01:01:123 -", [3, 4]),
        ("01:02:000 (3,1) -", [5, 6]),  # the spinner's number is the next one
        ("00:01:000 (1) - 00:01:500 (3) -", [0, 2]),
    ],
)
def test_editor_selections_are_found(beatmap: Beatmap, text: str, expected: list[int]) -> None:
    assert selected_objects(beatmap, text) == expected
    kept = chosen(beatmap, keep=(text,))
    movable = (0, 1, 2, 3, 4, 6, 7)
    assert kept == [i for i in movable if i not in expected]
    if movable_ones := [i for i in movable if i in expected]:
        assert chosen(beatmap, objects=(text,)) == movable_ones


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "00:01:250 (1) -",
            r"no object 1 is there; near it are 00:01:000 \(1\), 00:01:250 \(2\), 00:01:500 \(3\)",
        ),
        ("00:01:251 (2) -", "no object 2 is there"),
        ("00:02:000 -", "no object is there; near it are .*01:02:000 .3."),
        ("01:04:000 (1,3) -", "no object 3 follows"),
        ("(1,2,3)", "give what osu!'s editor copies"),
        ("00:01:000 (1000|2) -", "osu!mania"),
        ("00:01:000 (a) -", "give combo numbers such as"),
    ],
)
def test_selections_that_fit_nothing_are_refused(beatmap: Beatmap, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(beatmap, keep=(text,))
    with pytest.raises(ValueError, match="^objects .*" + message):
        chosen(beatmap, objects=(text,))


def test_chosen_objects_are_those_of_the_range_and_not_kept(beatmap: Beatmap) -> None:
    mine = ("00:01:000 (1,2) -", "00:01:500 (3) -")
    assert chosen(beatmap, objects=mine) == [0, 1, 2]
    assert chosen(beatmap, objects=mine, time_start=1250, keep=("00:01:500 -",)) == [1]
    assert Selection(objects=mine).describe() == "objects 00:01:000 (1,2) - 00:01:500 (3) -"
    with pytest.raises(ValueError, match="nothing to remap from 01:04:000 objects 00:01:000"):
        chosen(beatmap, objects=mine, time_start=64_000)


def test_ranges_that_fit_nothing_are_refused(beatmap: Beatmap) -> None:
    with pytest.raises(ValueError, match="has 8 objects from 00:01:000 to 01:04:250"):
        chosen(beatmap, time_start=90_000)
    with pytest.raises(ValueError, match="nothing to remap sliders from 01:04:000"):
        chosen(beatmap, time_start=64_000, only="sliders")
    with pytest.raises(ValueError, match="00:02:000 is after time end 00:01:000"):
        Selection(2000, 1000)


def test_an_excerpt_is_a_map_of_its_own(beatmap: Beatmap) -> None:
    sequence = beatmap_to_sequence(beatmap)
    part, points = excerpt(sequence, 1, 4)
    assert points == slice(1, 6) and len(part) == 5  # circle; head, anchor, end; circle
    assert part.objects.tolist() == [0, 1, 1, 1, 2]
    assert (part.xy == sequence.xy[points]).all()
    topology = part.topology
    assert (topology.heads.tolist(), topology.ends.tolist()) == ([1], [3])
    assert topology.objects.tolist() == [1]


def test_the_hull_counts_data_points_in_whole_objects(beatmap: Beatmap) -> None:
    objects = beatmap_to_sequence(beatmap).objects  # 0 1 2 2 2 3 4 5 5 6 7
    mask = np.zeros(8, dtype=bool)
    mask[3] = True
    assert hull(mask, 0, objects) == (3, 4)
    assert hull(mask, 1, objects) == (2, 5)
    assert hull(mask, 100, objects) == (0, 8)


@needs_maps
def test_every_object_is_found_by_what_the_editor_would_copy() -> None:
    """Its time and combo number, alone and with the next five objects."""
    for path in real_paths("val")[::10]:
        beatmap = read_beatmap(path)
        numbers = [number for number, _ in combo_numbers(beatmap)]
        times = [np.floor(hit.time) for hit in beatmap.objects]
        for first in range(0, len(numbers) - 6, 7):
            if not all(numbers[first : first + 6]) or len(set(times[first : first + 6])) < 6:
                continue
            listed = ",".join(map(str, numbers[first : first + 6]))
            text = f"{format_time(times[first])} ({listed}) - "
            assert selected_objects(beatmap, text) == list(range(first, first + 6))


def test_selections_are_written_as_they_are_read() -> None:
    beatmap = many_circles(12, 4)
    assert editor_selection(beatmap, [1, 2]) == "00:01:200 (2,3) - "
    for indices in ([0], [3, 4], [2, 3, 4], [5, 7]):
        assert selected_objects(beatmap, editor_selection(beatmap, indices)) == indices
    # The second object has the tenth's number and would be selected: the tenth alone is named.
    assert editor_selection(beatmap, [0, 9]) == "00:02:800 (2) - "
