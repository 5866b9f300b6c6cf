"""Pictures: combos against known answers, and what was drawn read back from the artists."""

from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path as MplPath

from beatmap import Beatmap, parse_beatmap
from plotting import (
    DEFAULT_COLOURS,
    PLAYFIELD,
    before_after,
    circle_radius,
    combo_numbers,
    draw_playfield,
    editor_time,
    objects_between,
    preempt,
    stack_heights,
    time_slices,
)

COLOURS = "Combo1 : 255,0,0\nCombo2 : 0,255,0\nCombo3 : 0,0,255"


def made_up(objects: str, *, colours: str = COLOURS, events: str = "") -> Beatmap:
    """A map with the given hit object lines, CS 4, 500 ms a beat, 140 px a beat."""
    text = f"""osu file format v14

[General]
StackLeniency: 0.7

[Metadata]
Title:Made up

[Difficulty]
CircleSize:4
ApproachRate:9
SliderMultiplier:1.4

[Events]
{events}

[TimingPoints]
0,500,4,2,0,60,1,0

[Colours]
{colours}

[HitObjects]
{objects}
"""
    return parse_beatmap(text.encode("utf-8"), "made up.osu")


def many_circles(count: int, combo: int) -> Beatmap:
    """Circles 200 ms apart, with a new combo every `combo` of them."""
    rows = [
        f"{50 + 37 * i % 400},{50 + 53 * i % 280},{1000 + 200 * i},{1 if i % combo else 5},0"
        for i in range(count)
    ]
    return made_up("\n".join(rows))


def drawn(beatmap: Beatmap, start: float = 0, end: float = 1e6) -> Axes:
    """Axes with a time range of the map, drawn once."""
    figure = Figure(figsize=(6, 4.72), dpi=100)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    draw_playfield(axes, beatmap, start, end)
    figure.draw_without_rendering()
    return axes


def artist(axes: Axes, gid: str) -> Any:
    """The only artist with that gid."""
    (found,) = [child for child in axes.get_children() if child.get_gid() == gid]
    return found


def middle_and_radius(path: MplPath) -> tuple[np.ndarray, float]:
    """Centre (2,) and radius of a drawn disc."""
    box = path.get_extents()
    return np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2, float(box.width) / 2


# Combos


def test_numbers_and_colours_of_a_small_map() -> None:
    beatmap = made_up(
        "100,100,1000,1,0\n"  # the first object starts a combo without a flag
        "200,100,1200,1,0\n"
        "100,200,1400,5,0\n"
        "200,200,1600,1,0\n"
        "300,200,1800,37,0\n"  # new combo, two colours skipped
        "256,192,2000,12,0,3000\n"  # a spinner with a flag counts as no combo
        "100,100,3200,1,0\n"  # after the spinner, no flag
        "200,100,3400,1,0\n"
        "300,100,9000,1,0\n",  # after the break, no flag
        events="2,3600,8400",
    )
    assert combo_numbers(beatmap) == [
        (1, 1),  # the second colour
        (2, 1),
        (1, 2),
        (2, 2),
        (1, 2),  # 2 + 1 + 2 = 5, of three colours
        (0, 2),
        (1, 0),
        (2, 0),
        (1, 1),
    ]


def test_the_default_colours_are_counted_where_the_map_has_none() -> None:
    rows = "\n".join(f"100,100,{1000 + 100 * i},5,0" for i in range(5))
    beatmap = made_up(rows, colours="")
    assert len(DEFAULT_COLOURS) == 4
    assert [colour for _, colour in combo_numbers(beatmap)] == [1, 2, 3, 0, 1]


# Stacks


def test_circles_at_one_place_stack_up_and_left() -> None:
    beatmap = made_up("100,100,1000,1,0\n101,100,1100,1,0\n100,100,1200,1,0\n300,100,1300,1,0")
    assert stack_heights(objects_between(beatmap, 0, 1e6), 400) == [2, 1, 0, 0]
    assert stack_heights(objects_between(beatmap, 0, 1e6), 50) == [0, 0, 0, 0]


def test_circles_at_the_end_of_a_slider_stack_down_and_right() -> None:
    beatmap = made_up("100,100,1000,2,0,L|240:100,1,140\n240,100,1600,1,0\n240,100,1700,1,0")
    assert stack_heights(objects_between(beatmap, 0, 1e6), 400) == [0, -1, -2]


def test_preempt_times_of_the_wiki() -> None:
    assert [preempt(rate) for rate in (0, 5, 10)] == [1800, 1200, 450]


# What is drawn


def test_circles_are_drawn_where_they_are() -> None:
    beatmap = many_circles(12, 4)
    axes = drawn(beatmap)
    for index, hit_object in enumerate(beatmap.objects):
        disc = artist(axes, f"object {index}").get_paths()[0]
        centre, radius = middle_and_radius(disc)
        np.testing.assert_allclose(centre, [hit_object.x, hit_object.y], atol=1e-6)
        assert radius == pytest.approx(circle_radius(4))
    assert circle_radius(4) == pytest.approx(36.48)


def test_circles_have_the_colour_of_their_combo() -> None:
    axes = drawn(many_circles(4, 2))
    for index, channel in enumerate([1, 1, 2, 2]):  # Combo2 is green, Combo3 blue
        fill = artist(axes, f"object {index}").get_facecolors()[1]
        assert fill[channel] > 0.9 and sum(fill[:3]) == pytest.approx(fill[channel])


def test_only_the_range_is_drawn_and_earlier_objects_lie_on_top() -> None:
    axes = drawn(many_circles(12, 4), 1400, 2000)
    gids = [child.get_gid() for child in axes.get_children() if child.get_gid()]
    assert gids == ["follow lines", "object 5", "object 4", "object 3", "object 2"]


def test_a_slider_body_follows_its_path_at_the_right_width() -> None:
    beatmap = made_up("100,100,1000,2,0,L|240:100,2,140\n400,300,2500,1,0")
    axes = drawn(beatmap)
    body = artist(axes, "body 0")
    line = body.get_segments()[0]
    np.testing.assert_allclose([line[0], line[-1]], [[100, 100], [240, 100]], atol=1e-9)
    corners = axes.transData.transform([(0, 0), (2 * circle_radius(4), 0)])
    width_px = body.get_linewidth()[0] / 72 * axes.figure.dpi
    assert width_px == pytest.approx(corners[1, 0] - corners[0, 0])
    # Two slides: the follow line leaves from the head again.
    (follow,) = artist(axes, "follow lines").get_segments()
    np.testing.assert_allclose(follow, [[100, 100], [400, 300]])


def test_the_playfield_is_upright_and_square() -> None:
    axes = drawn(many_circles(4, 4))
    top_left, bottom_right = axes.transData.transform([(0, 0), PLAYFIELD])
    assert top_left[1] > bottom_right[1]
    across, down = abs(bottom_right - top_left)
    assert across / down == pytest.approx(PLAYFIELD[0] / PLAYFIELD[1])


def test_every_kind_of_object_can_be_drawn() -> None:
    axes = drawn(
        made_up(
            "100,100,1000,6,0,P|150:150|200:100,3,140\n"
            "100,100,3000,2,0,B|200:200|200:200|300:100,1,200\n"
            "100,100,5000,2,0,C|200:200|300:100,4,100\n"
            "256,192,8000,12,0,9000\n"
            "100,100,9500,2,0,L|100:100,1,50\n"  # a path without extent
        )
    )
    assert len(axes.collections) == 2 + 5 + 4  # grid and follow lines, objects, slider bodies


# Before and after


def test_times_as_the_editor_writes_them() -> None:
    assert editor_time(0) == "00:00:000"
    assert editor_time(83_456.4) == "01:23:456"
    assert editor_time(3_600_000) == "60:00:000"
    assert editor_time(-250) == "-00:00:250"


def test_slices_begin_at_new_combos_and_do_not_overlap() -> None:
    beatmap = many_circles(100, 5)
    slices = time_slices(beatmap)
    assert len(slices) == 4
    numbers = [number for number, _ in combo_numbers(beatmap)]
    for start, end in slices:
        assert numbers[round(start - 1000) // 200] == 1 and numbers[round(end - 1000) // 200] == 5
        assert 8 <= (end - start) / 200 + 1 <= 12
    assert all(a[1] < b[0] for a, b in pairwise(slices))


def test_slices_stay_in_the_range() -> None:
    slices = time_slices(many_circles(100, 5), 5000, 8000)
    assert slices[0][0] >= 5000 and slices[-1][1] <= 8000


def test_a_range_without_objects_is_an_error() -> None:
    with pytest.raises(ValueError, match="no object between 90000 and 95000 ms"):
        time_slices(many_circles(5, 5), 90_000, 95_000)


@pytest.mark.parametrize(("count", "pixels"), [(100, (1600, 630)), (6, (1600, 630))])
def test_the_picture_is_written_in_its_size(
    tmp_path: Path, count: int, pixels: tuple[int, int]
) -> None:
    beatmap = many_circles(count, 5)
    target = tmp_path / "before and after.png"
    before_after(beatmap, beatmap, target)
    assert png_size(target) == pixels
    assert list(tmp_path.iterdir()) == [target]  # no temporary file is left


def test_a_picture_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "picture.png"
    target.write_bytes(b"old")

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        before_after(many_circles(5, 5), many_circles(5, 5), target)
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_pictures_can_be_drawn_in_threads(tmp_path: Path) -> None:
    beatmap = many_circles(12, 4)
    targets = [tmp_path / f"{i}.png" for i in range(3)]
    threads = [Thread(target=before_after, args=(beatmap, beatmap, path)) for path in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, *others = [path.read_bytes() for path in targets]
    assert all(other == first for other in others)


def png_size(path: Path) -> tuple[int, int]:
    """Width and height from the header of a PNG file."""
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
