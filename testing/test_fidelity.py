"""Shapes, stacks and the playfield on maps whose geometry is known.

What a remap must not change is tested with the commands' tables, in test_evaluate.py.
"""

import numpy as np
import pytest
from conftest import beatmap_text, random_objects

from beatmap import Beatmap, parse_beatmap
from fidelity import beyond_playfield, count_shapes, list_off_playfield
from sequence import Sequence, beatmap_to_sequence

STACKED = "100,100,1000,1,0\n100,100,1250,1,0\n{x},100,1500,1,0\n256,192,2000,12,0,3000"
SLIDER = "100,100,1000,2,0,L|{x}:100,1,100\n300,300,2000,1,0"


def read(lines: str) -> tuple[Beatmap, Sequence]:
    beatmap = parse_beatmap(beatmap_text(lines).encode(), "a")
    return beatmap, beatmap_to_sequence(beatmap)


def counts(before: str, after: str) -> dict[str, int]:
    return count_shapes(*read(before), *read(after))


def test_stacks_of_the_source_are_held_against_the_remap() -> None:
    kept = counts(STACKED.format(x=100), STACKED.format(x=100))
    assert (kept["stacks"], kept["stacks_broken"]) == (2, 0)
    broken = counts(STACKED.format(x=100), STACKED.format(x=101))
    assert (broken["stacks"], broken["stacks_broken"]) == (2, 1)
    new = counts(STACKED.format(x=300), STACKED.format(x=100))
    assert (new["stacks"], new["stacks_broken"]) == (1, 0)


@pytest.mark.parametrize(
    ("before", "after", "shortened", "kept"),
    [
        (200, 200, 0, 1),
        (200, 199, 1, 1),  # too short by a pixel, and within 5 %
        (200, 190, 1, 0),
        (190, 180, 0, 0),  # the source's path is too short as well
        (210, 220, 0, 0),
        (210, 215, 0, 1),
    ],
)
def test_paths_are_compared_with_the_length_and_with_the_source(
    before: int, after: int, shortened: int, kept: int
) -> None:
    found = counts(SLIDER.format(x=before), SLIDER.format(x=after))
    assert found["sliders"] == 1
    assert (found["sliders_shortened"], found["sliders_ratio_kept"]) == (shortened, kept)


def test_body_points_off_the_playfield_are_counted() -> None:
    inside = random_objects(2, 40)
    assert counts(inside, inside)["body_points_off_playfield"] == 0
    # 100 px from x = 450: 62 px on it; of 24 points the last 9 are at 62.6 px or more.
    leaving = "450,100,1000,2,0,L|560:100,1,100\n300,300,2000,1,0"
    found = counts(leaving, leaving)
    steps = np.linspace(0, 100, 24)
    assert found["body_points"] == 24
    assert found["body_points_off_playfield"] == int((steps > 62).sum())


def test_a_map_without_sliders_has_no_shapes() -> None:
    found = counts(STACKED.format(x=300), STACKED.format(x=300))
    assert found["sliders"] == found["body_points"] == found["sliders_shortened"] == 0


def test_distance_beyond_the_playfield() -> None:
    xy = np.array([[0, 0], [512, 384], [-3, 10], [600, 400], [256, 385]], dtype=float)
    assert beyond_playfield(xy).tolist() == [0, 0, 3, 88, 1]


def test_what_leaves_the_playfield_is_listed_and_what_cannot_stay_on_it_said() -> None:
    source = (
        "100,100,1000,1,0\n900,100,1250,1,0\n850,100,1500,1,0\n{x},100,1750,1,0\n"
        "450,200,2000,2,0,L|560:200,1,100\n20,50,3000,2,0,L|720:50,1,600"
    )
    before, after = read(source.format(x=256)), read(source.format(x=520))
    found = [tuple(entry.values()) for entry in list_off_playfield(*before, *after)]
    assert found == [
        (1250, "circle", 388, 388, True),  # 800 px reach past the farthest corner
        (1500, "circle", 338, 338, True),  # 50 px from there do not reach the playfield
        (1750, "circle", 8, 0, False),
        (2000, "slider", 38, 38, False),
        (3000, "slider", 108, 108, True),  # 600 px, straight, are wider than the playfield
    ]
    inside = read(random_objects(1, 5))
    assert list_off_playfield(*inside, *inside) == []
