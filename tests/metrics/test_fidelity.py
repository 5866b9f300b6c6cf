"""Counts of what a remap spoils, on maps spoilt by hand."""

import numpy as np
import pandas as pd

from beatmaps.osu_file import Beatmap, parse_beatmap
from beatmaps.sequence import Sequence, beatmap_to_sequence
from constraints.bounds import Bounds
from metrics.fidelity import Crossings, count_faults, list_out_of_bounds
from metrics.metric import Pair
from metrics.objects import out_of_bounds
from tests.conftest import beatmap_text

# Two stacked circles, a slider 10 px longer than its length, one that is too short, a spinner.
OBJECTS = (
    "100,100,1000,1,0\n100,100,1100,1,0\n200,100,1500,2,0,L|300:100,1,90\n"
    "200,300,3500,2,0,L|300:300,1,120\n256,192,6000,12,0,7000,0:0:0:0:"
)


def example() -> tuple[Beatmap, Sequence]:
    beatmap = parse_beatmap(beatmap_text(OBJECTS).encode(), "four")
    return beatmap, beatmap_to_sequence(beatmap)


def test_the_source_has_no_faults() -> None:
    _, sequence = example()
    assert count_faults(sequence, sequence.xy) == {
        "stacks": 1,
        "stacks_broken": 0,
        "sliders": 2,
        "sliders_long_enough": 1,
        "paths_too_short": 0,
        "paths_of_other_length": 0,
    }


def test_faults_are_counted() -> None:
    _, sequence = example()
    xy = sequence.xy.copy()
    xy[1] += (1, 0)  # off the stack
    xy[3] = (286, 100)  # 86 px of path for 90, and 14 % less than it was
    xy[6] = (304, 300)  # 4 % more
    faults = count_faults(sequence, xy)
    assert faults["stacks_broken"] == 1
    assert faults["paths_too_short"] == 1
    assert faults["paths_of_other_length"] == 1


def test_a_stack_on_a_sliders_end_is_on_the_nearest_pixel() -> None:
    text = beatmap_text("200,100,1500,2,0,L|300:100,1,90\n290,100,3000,1,0")
    beatmap = parse_beatmap(text.encode(), "stack")
    sequence = beatmap_to_sequence(beatmap)
    xy = sequence.xy.copy()
    for offset, broken in ((0.0, 0), (0.4, 0), (0.6, 1)):
        xy[2] = sequence.xy[2] + (offset, 0.5)
        faults = count_faults(sequence, xy)
        assert (faults["stacks"], faults["stacks_broken"]) == (1, broken)


def test_bodies_and_stacks_count_where_they_are_drawn() -> None:
    _, sequence = example()
    xy = sequence.xy.copy()
    xy[:2] = (1, 100)  # the first of the stack is drawn 3.648 px up and left
    xy[2:5] += (215, 0)  # the body, without what is beyond the length, ends at 505
    xy[5:8] += (100, 80)  # it is extended to 420, on y 380
    plain, drawn = out_of_bounds(sequence, xy, Bounds())
    np.testing.assert_allclose(plain, 0, atol=1e-9)
    np.testing.assert_allclose(drawn, [2.648, 0, 0, 0, 0], atol=1e-9)
    plain, _ = out_of_bounds(sequence, xy, Bounds((0.0, 0.0), (400.0, 370.0)))
    np.testing.assert_allclose(plain, [0, 0, 105, 20, 0], atol=1e-9)


def test_maps_without_sliders_or_of_one_object() -> None:
    beatmap = parse_beatmap(beatmap_text("256,192,0,1,0").encode(), "one")
    sequence = beatmap_to_sequence(beatmap)
    faults = count_faults(sequence, sequence.xy)
    assert not any(faults.values())
    assert out_of_bounds(sequence, sequence.xy, Bounds())[0].tolist() == [0]


def test_objects_that_cross_others_are_counted_in_the_map_and_in_its_remap() -> None:
    """A slider that leads away from a circle is turned over it; a second map has none to cross."""
    text = "100,200,1000,1,0\n250,200,1300,2,0,L|390:200,1,140"
    before = beatmap_to_sequence(parse_beatmap(beatmap_text(text).encode(), "a"))
    xy = before.xy.copy()
    xy[-2:] = (110, 200)
    rows = []
    for after in (before.moved(xy), before):
        rows.append(Crossings().measure(Pair(before, after, before.distances(), Bounds())))
    assert rows[0] == {"objects": 2, "source_objects_crossing": 0, "objects_crossing": 1}
    found = Crossings().summarise(pd.DataFrame(rows))
    assert found == {"source_objects_crossing_share": 0, "objects_crossing_share": 0.25}


def test_what_is_out_of_bounds_is_listed_and_what_cannot_stay_in_them_said() -> None:
    objects = (
        "100,100,1000,1,0\n900,100,1250,1,0\n850,100,1500,1,0\n256,100,1750,1,0\n"
        "450,200,2000,2,0,L|560:200,1,100\n20,50,3000,2,0,L|720:50,1,600"
    )
    beatmap = parse_beatmap(beatmap_text(objects).encode(), "out")
    sequence = beatmap_to_sequence(beatmap)
    xy = sequence.xy.copy()
    xy[3] = (520, 100)
    found = list_out_of_bounds(sequence, xy, sequence.distances(), Bounds())
    assert [tuple(entry.values()) for entry in found] == [
        (1250, "circle", 388, 388, 388, True),  # 800 px reach past the farthest corner
        (1500, "circle", 338, 338, 338, True),  # 50 px from there do not reach the playfield
        (1750, "circle", 8, 8, 0, False),
        (2000, "slider", 38, 38, 38, False),
        (3000, "slider", 108, 108, 108, True),  # 600 px, straight, are wider than the playfield
    ]
    inside = beatmap_to_sequence(beatmap)
    wide = Bounds((-1000.0, -1000.0), (2000.0, 2000.0))
    assert list_out_of_bounds(inside, inside.xy, inside.distances(), wide) == []
