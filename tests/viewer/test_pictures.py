"""Pictures: the pixels that were drawn, against where the map says things are."""

from itertools import pairwise
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from beatmaps.game_rules import circle_radius, combo_numbers, format_time
from beatmaps.osu_file import Beatmap
from tests.maps_to_show import made_up, many_circles, one_of_each
from viewer import pictures
from viewer.marks import Mark
from viewer.pictures import (
    FIELD,
    MARK_RADIUS,
    PICTURE_WIDTH,
    SHEET_CELL,
    SURROUND,
    Playfield,
    contact_sheet,
    passage,
    passages_picture,
    time_slices,
    whole_map,
)
from viewer.scene import PLAYFIELD, make_scene

WIDTH = 2 * (PLAYFIELD[0] + 2 * SURROUND)  # two pixels an osu! pixel


def drawn(beatmap: Beatmap, start: float = 0, end: float = 1e6) -> np.ndarray:
    """Pixels (height, width, 3) of a time range of the map."""
    return np.array(passage(Playfield(make_scene(beatmap), WIDTH), start, end)).astype(int)


def at(pixels: np.ndarray, x: float, y: float) -> np.ndarray:
    """The colour (3,) at a place in osu! pixels."""
    return np.asarray(pixels[round(2 * (y + SURROUND)), round(2 * (x + SURROUND))])


def is_white(colour: np.ndarray) -> bool:
    return bool((colour > 225).all())


def is_field(colour: np.ndarray) -> bool:
    return bool((np.abs(colour - FIELD) < 6).all())


# What is drawn


def test_circles_are_drawn_where_they_are() -> None:
    beatmap = made_up("100,100,1000,1,0\n300,250,2000,1,0")
    pixels, radius = drawn(beatmap), circle_radius(4)
    for hit_object in beatmap.objects:
        for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
            direction = np.array([np.cos(angle), np.sin(angle)])
            place = np.array([hit_object.x, hit_object.y])
            assert is_white(at(pixels, *(place + 0.94 * radius * direction)))
            if angle:  # where the line to the other circle does not begin
                assert not is_white(at(pixels, *(place + 1.04 * radius * direction)))


def test_circles_have_the_colour_of_their_combo() -> None:
    beatmap = many_circles(4, 2)
    pixels = drawn(beatmap)
    for hit_object, channel in zip(beatmap.objects, [1, 1, 2, 2], strict=True):
        # Combo2 is green, Combo3 blue
        fill = at(pixels, hit_object.x - 0.76 * circle_radius(4), hit_object.y)
        assert fill[channel] > 225 and fill.sum() == fill[channel]


def test_only_the_range_is_drawn_and_earlier_objects_lie_on_top() -> None:
    beatmap = made_up("100,100,1000,1,0\n150,100,2000,5,0\n300,250,9000,1,0")
    both = drawn(beatmap, 0, 5000)
    overlap = at(both, 125, 109)
    assert overlap[1] > 180 and overlap[2] == 0  # the first one's green, not the second one's blue
    assert is_field(at(both, 300, 250))
    assert at(drawn(beatmap, 1500, 5000), 125, 109)[2] > 180


def test_a_slider_body_follows_its_path_at_the_right_width() -> None:
    beatmap = made_up("100,100,1000,2,0,L|240:100,2,140\n400,300,2500,1,0")
    pixels, radius = drawn(beatmap), circle_radius(4)
    for x in range(150, 241, 10):
        for side in (-1, 1):
            border = at(pixels, x, 100 + side * 0.94 * radius)
            inner = at(pixels, x, 100 + side * 0.7 * radius)
            assert border[1] > 200 and min(border) > 80  # a light green
            assert inner[1] < 100 and inner[1] > inner[0]  # a dark one
    assert is_field(at(pixels, 240, 100 + 1.1 * radius))
    assert at(pixels, 240 + 0.94 * radius, 100)[1] > 200
    assert is_white(at(pixels, 240 - 0.3 * radius, 100))  # the reverse arrow's tip
    # Two slides: the line to the next object leaves from the head.
    assert at(pixels, 250, 200).min() > 80 and is_field(at(pixels, 330, 205))


def test_the_playfield_is_upright_and_square() -> None:
    pixels = drawn(made_up("40,30,1000,1,0"))
    assert pixels.shape == (2 * (PLAYFIELD[1] + 2 * SURROUND), WIDTH, 3)
    assert not is_field(at(pixels, 40, 30)) and is_field(at(pixels, 40, 350))
    assert is_field(at(pixels, 5, 380)) and not is_field(at(pixels, -5, 380))


def test_every_kind_of_object_can_be_drawn() -> None:
    empty = np.array(Playfield(make_scene(one_of_each()), WIDTH).image([])).astype(int)
    for hit_object in one_of_each().objects:
        alone = drawn(one_of_each(), hit_object.time, hit_object.time)
        assert (alone != empty).any(axis=2).sum() > 2000


# Before and after


def test_times_as_the_editor_writes_them() -> None:
    assert format_time(0) == "00:00:000"
    assert format_time(83_456.4) == "01:23:456"
    assert format_time(3_600_000) == "60:00:000"
    assert format_time(-250) == "-00:00:250"


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


@pytest.mark.parametrize("count", [100, 6])
def test_the_picture_is_written_in_its_size(tmp_path: Path, count: int) -> None:
    beatmap = many_circles(count, 5)
    target = tmp_path / "before and after.png"
    passages_picture([("before", beatmap), ("after", beatmap)], target)
    with Image.open(target) as picture:
        assert picture.width == PICTURE_WIDTH and 600 < picture.height < 750
        upper, lower = np.array(picture)[: picture.height // 2], np.array(picture)
    if count == 100:  # the same map above itself; only the names differ
        assert (upper[40:] == lower[picture.height // 2 + 40 :]).all()
    assert list(tmp_path.iterdir()) == [target]  # no temporary file is left


def test_a_picture_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "picture.png"
    target.write_bytes(b"old")

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        passages_picture([("before", many_circles(5, 5))], target)
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_pictures_can_be_drawn_in_threads(tmp_path: Path) -> None:
    beatmap = many_circles(12, 4)
    targets = [tmp_path / f"{i}.png" for i in range(3)]
    maps = [("before", beatmap), ("after", beatmap)]
    threads = [Thread(target=passages_picture, args=(maps, path)) for path in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, *others = [path.read_bytes() for path in targets]
    assert all(other == first for other in others)


# Contact sheets


def test_a_contact_sheet_has_every_object_once() -> None:
    for beatmap in (many_circles(100, 5), many_circles(37, 50), one_of_each()):
        passages = whole_map(beatmap)
        shown = [
            thing.index
            for start, end in passages
            for thing in make_scene(beatmap).between(start, end)
        ]
        assert shown == list(range(len(beatmap.objects)))


def test_passages_of_a_long_map_become_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    beatmap = many_circles(500, 5)
    assert len(whole_map(beatmap)) == 50
    monkeypatch.setattr(pictures, "MAX_SHEET_CELLS", 25)
    assert len(whole_map(beatmap)) <= 25


def test_a_contact_sheet_pairs_the_maps(tmp_path: Path) -> None:
    before, after = many_circles(100, 5), made_up("256,192,1000,1,0")
    contact_sheet([("before", before), ("after", after)], tmp_path / "sheet.png", progress=False)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 6 * SHEET_CELL
        pixels = np.array(sheet).astype(int)
    middle = pixels[-100:, SHEET_CELL + SHEET_CELL // 2]  # of the last row's second cell
    assert not (middle > 225).all(axis=1).any()  # the other map has nothing there


def test_marks_are_rings_on_the_second_map_alone(tmp_path: Path) -> None:
    beatmap = made_up("256,192,1000,1,0\n100,100,1500,1,0")
    mark = Mark("00:01:000 (1) - ", 0, "turn", "turns by 170 degrees", 0.001, False)
    for name, marks in (("plain", []), ("marked", [mark])):
        maps = [("before", beatmap), ("after", beatmap)]
        contact_sheet(maps, tmp_path / f"{name}.png", progress=False, marks=marks)
    plain, marked = (
        np.array(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("plain", "marked")
    )
    ys, xs = np.nonzero((plain != marked).any(axis=2))
    assert xs.min() >= SHEET_CELL  # the first map is as it was
    scale = SHEET_CELL / (PLAYFIELD[0] + 2 * SURROUND)
    strip = plain.shape[0] - round(scale * (PLAYFIELD[1] + 2 * SURROUND))
    reach = MARK_RADIUS * circle_radius(4)
    for angle in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        x, y = 256 + reach * np.cos(angle), 192 + reach * np.sin(angle)
        column, row = SHEET_CELL + scale * (x + SURROUND), strip + scale * (y + SURROUND)
        near = np.hypot(xs - column, ys - row) < 2.5
        assert near.any() and (marked[ys[near], xs[near], 0] > 150).any()
