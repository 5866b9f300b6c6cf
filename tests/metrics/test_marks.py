"""Marks on maps with one odd place each; the table of what is usual against counting."""

import json

import numpy as np
import pytest

from beatmaps.osu_file import Beatmap, read_beatmap
from beatmaps.selection import selected_objects
from beatmaps.sequence import beatmap_to_sequence
from metrics import usual
from metrics.marks import MOST_MARKS, UNUSUAL, MarkFinder
from metrics.usual import KINDS, Values, count, judged, shares
from tests.conftest import needs_maps, real_paths
from tests.maps_to_show import made_up
from viewer.marks import Mark


def stream(*places: tuple[float, float], gap: int = 125) -> Beatmap:
    """Circles a quarter of a beat apart, ten to a combo."""
    rows = [
        f"{x:.0f},{y:.0f},{1000 + gap * k},{5 if k % 10 == 0 else 1},0"
        for k, (x, y) in enumerate(places)
    ]
    return made_up("\n".join(rows))


def straight(count: int, step: float = 10) -> list[tuple[float, float]]:
    return [(40 + step * k, 100) for k in range(count)]


def marks(before: Beatmap, after: Beatmap) -> list[Mark]:
    return MarkFinder(beatmap_to_sequence(before)).find(beatmap_to_sequence(after))


def test_a_stream_that_turns_back_is_marked_at_its_turn() -> None:
    places = straight(20)
    # From the 12th circle on back, a pixel lower so that nothing is stacked.
    turned = [*places[:12], *((places[11][0] - 10 * k, 101 + k) for k in range(1, 9))]
    found = [mark for mark in marks(stream(*places), stream(*turned)) if mark.kind == "turn"]
    (mark,) = found
    assert mark.index == 11 and mark.share < UNUSUAL and not mark.in_source
    assert mark.at == "00:02:250 (1,2,3) - "
    assert mark.text == "turns by 169 degrees"
    (again,) = (m for m in marks(stream(*turned), stream(*turned)) if m.kind == "turn")
    assert again.in_source and again.index == 11
    assert not [m for m in marks(stream(*places), stream(*places)) if m.kind == "turn"]


def test_a_new_overlap_is_marked_with_both_objects() -> None:
    before = stream((100, 100), (200, 100), (300, 100), (400, 100), gap=250)
    after = stream((100, 100), (200, 100), (130, 100), (230, 200), gap=250)
    (mark,) = (m for m in marks(before, after) if m.kind == "overlap")
    assert (mark.at, mark.index, mark.in_source) == ("00:01:000 (1,3) - ", 2, False)
    assert mark.text == "30 px from an object that is still seen, clear of it from 73 px on"
    # Real maps overlap like this now and then; the source's own is not worth a mark.
    assert mark.share > UNUSUAL
    assert not [m for m in marks(after, after) if m.kind == "overlap"]


def test_objects_off_the_playfield_and_off_the_screen() -> None:
    before = stream((100, 100), (200, 100), (300, 100), gap=500)
    after = stream((100, 100), (-20, 100), (300, -90), gap=500)
    found = {m.index: m for m in marks(before, after) if m.kind == "off the playfield"}
    assert found[1].text == "by 20.0 px"
    # The screen begins 60 px above the playfield, and a circle has a radius.
    assert found[2].text == "66.5 px off the screen"
    assert found[2].at == "00:02:000 (3) - "
    assert list(found) == [2, 1]


def test_a_jump_far_beyond_the_others_is_marked() -> None:
    places = [(100 + 10 * k, 100) for k in range(10)]
    before, after = stream(*places), stream(*places[:9], (400, 300))
    (mark,) = (m for m in marks(before, after) if m.kind == "spacing")
    times = np.hypot(220, 200) / 10
    assert mark.text == f"{times:.1f} times as far as steps of its rhythm are in this map"
    assert mark.at == "00:02:000 (9,10) - "


def test_the_worst_come_first_bounded_and_once_for_an_object() -> None:
    back_and_forth = [(100 + 30 * (k % 2), 20 + 8 * k) for k in range(40)]
    found = marks(stream(*straight(40)), stream(*back_and_forth))
    assert len(found) == MOST_MARKS == len({mark.index for mark in found})
    keys = [(mark.in_source, mark.share) for mark in found]
    assert keys == sorted(keys)
    for mark in found:
        chosen = selected_objects(stream(*back_and_forth), mark.at)
        assert mark.index in range(chosen[0], chosen[-1] + 1)
    json.dumps([mark.to_dict() for mark in found])


def test_maps_of_other_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="have different objects: give a map and its remap"):
        marks(stream(*straight(3)), stream(*straight(4)))


# --- the table ------------------------------------------------------------------------------------


def test_shares_are_those_of_objects_that_are_as_unusual() -> None:
    counts = np.array([5, 1, 3, 1, 90])
    np.testing.assert_allclose(usual._shares(counts, "low"), [0.05, 0.06, 0.09, 0.1, 1])
    np.testing.assert_allclose(usual._shares(counts, "high"), [1, 0.95, 0.94, 0.91, 0.9])
    np.testing.assert_allclose(usual._shares(counts, "seldom"), [0.1, 0.02, 0.05, 0.02, 1])


def test_the_table_is_whole_and_says_where_it_is_from() -> None:
    table = json.loads(usual.TABLE.read_text(encoding="utf-8"))
    assert "1317 maps" in table["source"] and table["counts"].keys() == KINDS.keys()
    for name, rows in table["counts"].items():
        for row in rows.values():
            assert len(row) == len(KINDS[name].edges) - 1
            assert sum(row) >= usual.FEWEST and min(row) >= 0


def test_counting_adds_maps_up_and_leaves_small_cells_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usual, "FEWEST", 3)
    cells = np.array([0, 0, 7, -1])
    values = np.array([0.1, 3.0, 1.0, 1.0])
    one = {name: Values(np.full(4, np.nan), cells) for name in KINDS}
    one["turning_angle"] = Values(values, cells)
    found = count([one, one])
    assert found["turning_angle"] == {"0": [2, *[0] * 10, 2]}
    assert found["off_playfield"] == {}


def test_what_is_not_known_is_not_unusual() -> None:
    values = np.array([np.nan, 0.1, 0.1])
    found = shares({"turning_angle": Values(values, np.array([0, 399, -1]))})
    assert np.isnan(found["turning_angle"]).all()


@needs_maps
def test_few_objects_of_held_out_maps_are_unusual() -> None:
    """The table is of other maps: about one in a hundred objects may be."""
    found = [judged(beatmap_to_sequence(read_beatmap(path)))[0] for path in real_paths("val")[:12]]
    for name in KINDS:
        rarity = np.concatenate([shares(maps)[name] for maps in found])
        assert np.nanmean(rarity < UNUSUAL) < 0.03, name
