"""Bounds by hand, stacking against another implementation."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import slider

from beatmaps.game_rules import circle_radius, stack_heights, stack_shifts
from beatmaps.osu_file import Beatmap, parse_beatmap, read_beatmap
from beatmaps.sequence import beatmap_to_sequence
from constraints.bounds import Bounds, bounds_named
from conventions.playfield import PLAYFIELD
from tests.conftest import beatmap_text, needs_maps, random_objects, real_paths

SPREAD = 4  # px, so that many objects of a made-up map lie on each other


def objects_of(beatmap: Beatmap) -> tuple[np.ndarray, np.ndarray]:
    """Heads and tails of a beatmap's objects."""
    sequence = beatmap_to_sequence(beatmap)
    starts = np.flatnonzero(sequence.object_starts)
    return sequence.xy[starts], sequence.xy[np.append(starts[1:], len(sequence)) - 1]


def heights(text: str) -> list[int]:
    """Places in the stacks of a map's objects."""
    beatmap = parse_beatmap(text.encode(), "stacks")
    found = stack_heights(beatmap, *objects_of(beatmap))
    shifts = stack_shifts(beatmap, *objects_of(beatmap))
    np.testing.assert_allclose(shifts, found * circle_radius(beatmap.circle_size) / 10)
    return found.astype(int).tolist()


def test_circles_on_one_place_rise_towards_the_first() -> None:
    text = beatmap_text("\n".join(f"100,100,{1000 + 100 * k},1,0" for k in range(4)))
    assert heights(text) == [3, 2, 1, 0]


def test_circles_at_a_sliders_end_go_down() -> None:
    circles = "\n".join(f"240,100,{1600 + 100 * k},1,0" for k in range(3))
    text = beatmap_text(f"100,100,1000,2,0,L|240:100,1,140\n{circles}")
    assert heights(text) == [0, -1, -2, -3]
    back = beatmap_text(f"240,100,500,2,0,L|100:100,2,140\n{circles}")
    assert heights(back) == [0, -1, -2, -3]  # it ends where it began


def test_what_lies_apart_in_time_or_place_is_no_stack() -> None:
    assert heights(beatmap_text("100,100,1000,1,0\n103,100,1100,1,0\n103,100,9000,1,0")) == [0] * 3


def stacked_text(seed: int, version: int) -> str:
    """A made-up map on a few places, 30 objects, of a file format version."""
    rng = np.random.default_rng(seed)
    lines, time = [], 1000
    for _ in range(30):
        x, y = 100 + 140 * rng.integers(0, 2), 100 + rng.integers(0, SPREAD)
        curve = f"2,0,L|{x + 140}:{y},1,140" if rng.random() < 0.4 else "1,0"
        lines.append(f"{x},{y},{time},{curve}")
        time += int(rng.integers(1, 4)) * 300
    return beatmap_text("\n".join(lines)).replace("v14", f"v{version}")


def other_shifts(data: bytes) -> np.ndarray:
    """How far the parser's own stacking moves a map's objects to the left, in px.

    It takes the far end of a slider for where it ends, whatever the number of slides.
    """
    text = data.decode().replace("[Difficulty]", "[Difficulty]\nHPDrainRate:5")
    text = text.replace("[General]", "[General]\nStackLeniency:0.7")
    parsed = slider.Beatmap.parse(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stacked = parsed.hit_objects(stacking=True)
    plain = slider.Beatmap.parse(text).hit_objects(stacking=False)
    return np.array([b.position.x - a.position.x for a, b in zip(stacked, plain, strict=True)])


@pytest.mark.parametrize("seed", range(12))
def test_stacks_agree_with_another_implementation(seed: int) -> None:
    text = stacked_text(seed, 14)
    beatmap = parse_beatmap(text.encode(), "stacks")
    shifts = stack_shifts(beatmap, *objects_of(beatmap))
    np.testing.assert_allclose(shifts, other_shifts(text.encode()), atol=1e-4)
    assert np.abs(shifts).max() > 3


def test_a_map_from_before_version_6_stacks_from_the_front() -> None:
    """A stack goes on from each circle; at approach rate 7 it waits 630 ms."""
    times = (1000, 1600, 2200)
    text = beatmap_text("\n".join(f"100,100,{time},1,0" for time in times))
    assert heights(text) == [2, 1, 0]
    assert heights(text.replace("v14", "v5")) == [2, 1, 0]
    at_the_end = beatmap_text(
        "100,100,1000,2,0,L|240:100,1,140\n240,100,1600,1,0\n240,100,1700,1,0"
    )
    assert heights(at_the_end.replace("v14", "v5")) == [0, -1, -2]


def test_bounds_by_name() -> None:
    beatmap = parse_beatmap(beatmap_text("1,1,0,1,0").encode(), "one")  # circle size 4
    assert bounds_named("off", beatmap) is None
    assert bounds_named("playfield", beatmap) == Bounds((0.0, 0.0), PLAYFIELD)
    screen = bounds_named("screen", beatmap)
    radius = 54.4 - 4.48 * 4
    assert screen is not None
    np.testing.assert_allclose(screen.low, (-67 + radius, -60 + radius))
    np.testing.assert_allclose(screen.high, (579 - radius, 428 - radius))
    with pytest.raises(ValueError, match="bounds everywhere: give playfield, screen or off"):
        bounds_named("everywhere", beatmap)


def test_excess_is_how_far_outside() -> None:
    points = np.array([[0.0, 384.0], [-3.0, 100.0], [520.0, 400.0], [100.0, -0.5]])
    assert Bounds().excess(points).tolist() == [0, 3, 16, 0.5]


@needs_maps
@pytest.mark.parametrize("path", real_paths("val")[::10], ids=lambda path: path.name[:8])
def test_stacks_of_real_maps_without_slider_ends(path: Path) -> None:
    """The parser's slider ends are not the game's, so only circles' stacks are compared."""
    beatmap = read_beatmap(path)
    circles = [h for h in beatmap.objects if h.kind == "circle"]
    lines = "\n".join(f"{h.x:.0f},{h.y:.0f},{h.time:.0f},1,0" for h in circles)
    text = beatmap_text(lines)
    again = parse_beatmap(text.encode(), "circles")
    shifts = stack_shifts(again, *objects_of(again))
    np.testing.assert_allclose(shifts, other_shifts(text.encode()), atol=1e-4)


def test_stacking_a_map_of_spinners_does_nothing() -> None:
    text = beatmap_text("256,192,1000,12,0,1500,0\n256,192,1600,12,0,2000,0")
    assert heights(text) == [0, 0]
    assert heights(beatmap_text(random_objects(0, 1))) == [0]
