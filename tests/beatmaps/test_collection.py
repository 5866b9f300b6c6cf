"""The codec on real and odd maps, against two independent implementations of the game's client.

`fosu` follows osu!lazer's decoder and paths, `rosu-pp-py` its difficulty calculation. Exceptions
are listed here with their reasons; there are no others.
"""

import csv
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beatmaps.osu_file import (
    Beatmap,
    BeatmapError,
    Change,
    parse_beatmap,
    patch_objects,
    read_beatmap,
)
from beatmaps.sequence import (
    COORDINATE_LIMIT,
    Sequence,
    apply_coordinates,
    beatmap_to_sequence,
)
from beatmaps.star_rating import star_rating
from tests.conftest import FOLDER, needs_maps, real_paths

PARTS = pytest.mark.parametrize("part", ["val", "train", "edge", "cases"])
STACK_DISTANCE = 3  # px; closer objects are stacked, or have a direction of plus or minus zero
NEIGHBOURS = 500  # objects after one that difficulty or stacking may relate to it, at most

# Files of which the table of cases says less than the game's own format allows.
CASES_READ_BETTER = {
    "02-b-spline-b3.osu": "the decoder of the table drops a curve of letter and degree, B3, which "
    "the format has from version 128 on",
    "74-utf-16-file.osu": "the decoder of the table does not know UTF-16; the game does",
}


@pytest.fixture(scope="module")
def parser() -> Any:
    return pytest.importorskip("fosu").Parser()


def fosu_ends(parser: Any, data: bytes) -> list[float]:
    """End times of the hit objects as fosu has them."""
    objects = parser.parse(data, client="lazer", calculate_slider_end_times=True).hit_objects
    return [hit.end_time for hit in objects]


def readable(part: str, every: int = 1) -> list[Beatmap]:
    """The maps of a part that are read.

    Unless all are asked for, one in `every`, few of val and no huge ones.
    """
    paths = real_paths(part)
    everything = os.environ.get("OSU_DIFFUSION_ALL") == "1"
    maps = []
    step = 1 if everything or part == "cases" else every * (10 if part == "val" else 1)
    for path in paths[::step]:
        try:
            beatmap = read_beatmap(path)
        except BeatmapError:
            assert part in ("edge", "cases")
            continue
        if everything or sum(len(hit.points) for hit in beatmap.objects) <= 20_000:
            maps.append(beatmap)
    return maps


def is_utf16(beatmap: Beatmap) -> bool:
    """What fosu takes for an empty file."""
    return beatmap.encoding.startswith("utf-16")


@needs_maps
def test_the_table_of_cases() -> None:
    """Each file of one quirk: as many objects as the table says, the slider's end and tail."""
    folder = Path(FOLDER or "", "cases")
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 76
    for row in rows:
        name = row["file"]
        refused = row["objects_rosu"] == row["objects_lazer"] == "0"
        try:
            beatmap = read_beatmap(folder / name)
        except BeatmapError as error:
            assert refused, error
            continue
        assert not refused, name
        column = "objects_rosu" if name in CASES_READ_BETTER else "objects_lazer"
        assert len(beatmap.objects) == int(row[column]), name
        sliders = [hit for hit in beatmap.objects if hit.kind == "slider"]
        if name not in CASES_READ_BETTER:
            assert len(sliders) == (row["slider_type_lazer"] != ""), name
        if not row["slider_type_lazer"]:
            continue
        assert sliders[0].end_time == pytest.approx(float(row["slider_end_ms_lazer"]), abs=1), name
        x, y = sliders[0].path().end
        tail = (float(row["slider_tail_x_lazer"]), float(row["slider_tail_y_lazer"]))
        assert np.hypot(x - tail[0], y - tail[1]) <= 1, name


@needs_maps
def test_cases_read_better_than_the_table() -> None:
    """The slider of each is that of the first case, but for the B-spline's tail."""
    for name in CASES_READ_BETTER:
        slider = read_beatmap(Path(FOLDER or "", "cases", name)).objects[1]
        assert (slider.kind, slider.end_time) == ("slider", 1250)


@needs_maps
@PARTS
def test_other_implementations_agree(part: str, parser: Any) -> None:
    """Objects, combos, breaks and metadata; slider ends within 1 ms and 1 px, without exception."""
    rosu = pytest.importorskip("rosu_pp_py")
    for beatmap in readable(part):
        name = beatmap.name
        assert rosu.Beatmap(bytes=beatmap.raw).n_objects == len(beatmap.objects), name
        if is_utf16(beatmap) or Path(name).name in CASES_READ_BETTER:
            continue
        theirs = parser.parse(
            beatmap.raw,
            client="lazer",
            calculate_slider_end_times=True,
            calculate_slider_paths=True,
        )
        check_objects(beatmap, theirs.hit_objects)
        assert beatmap.breaks == [(pause.start, pause.end) for pause in theirs.breaks], name
        if part in ("val", "train"):
            names = (theirs.artist, theirs.title, theirs.version)
            assert (beatmap.artist, beatmap.title, beatmap.version) == names, name


def check_objects(beatmap: Beatmap, theirs: Any) -> None:
    """Every object is that of fosu."""
    ours, name = beatmap.objects, beatmap.name
    assert len(ours) == len(theirs), name
    assert [hit.new_combo for hit in ours] == [hit.new_combo for hit in theirs], name
    pairs = [(own, hit) for own, hit in zip(ours, theirs, strict=True) if own.kind != "spinner"]
    places = np.array([[(hit.time, hit.x, hit.y) for hit in pair] for pair in pairs])
    places = places.reshape(-1, 2, 3)
    places[:, :, 1:] = np.clip(places[:, :, 1:], 0, (512, 384))  # fosu does so with circles
    np.testing.assert_allclose(places[:, 0], places[:, 1], rtol=0, atol=0.01, err_msg=name)
    slides = [hit.slides for hit in ours if hit.kind == "slider"]
    assert slides == [hit.slides for hit in theirs if hit.is_slider], name
    sequence = beatmap_to_sequence(beatmap)
    topology = sequence.topology
    for index, end in zip(topology.objects, topology.ends, strict=True):
        hit = theirs[index]
        tail = hit.path.points[-1]
        x, y = sequence.xy[end] - (hit.x + tail.x, hit.y + tail.y)
        assert np.hypot(x, y) <= 1, (name, ours[index].line + 1)
        assert abs(sequence.times[end] - hit.end_time) <= 1, (name, ours[index].line + 1)


@needs_maps
def test_what_is_refused_has_nothing_to_play(parser: Any) -> None:
    """Another game mode, or no object in the eyes of either implementation."""
    rosu = pytest.importorskip("rosu_pp_py")
    for path in real_paths("edge") + real_paths("cases"):
        try:
            read_beatmap(path)
        except BeatmapError as error:
            data = path.read_bytes()
            assert "\n" not in str(error)
            if " is an osu!" in str(error):
                assert rosu.Beatmap(bytes=data).mode != rosu.GameMode.Osu, path.name
            else:
                assert rosu.Beatmap(bytes=data).n_objects == 0, path.name
                assert fosu_ends(parser, data) == [], path.name


@needs_maps
@PARTS
def test_the_same_coordinates_give_the_same_bytes(part: str) -> None:
    for beatmap in readable(part):
        sequence = beatmap_to_sequence(beatmap)
        assert apply_coordinates(sequence, sequence.xy) == beatmap.raw, beatmap.name
        assert apply_coordinates(sequence, sequence.xy, "fit") == beatmap.raw, beatmap.name
        everything = {
            index: Change((hit.x, hit.y), hit.points if hit.kind == "slider" else None)
            for index, hit in enumerate(beatmap.objects)
        }
        assert patch_objects(beatmap, everything) == beatmap.raw, beatmap.name


def timing_bytes(beatmap: Beatmap) -> list[bytes]:
    return [beatmap.lines[line.line] for line in beatmap.timing_lines]


def has_neighbours(sequence: Sequence) -> bool:
    """Whether an object starts where one shortly before it starts or ends."""
    starts = np.flatnonzero(sequence.object_starts)
    ends = np.append(starts[1:], len(sequence)) - 1
    heads = sequence.xy[starts]
    for places in (heads, sequence.xy[ends]):
        for later in range(1, min(NEIGHBOURS, len(heads))):
            away = heads[later:] - places[:-later]
            if (np.hypot(away[:, 0], away[:, 1]) <= STACK_DISTANCE).any():
                return True
    return False


@needs_maps
@PARTS
def test_mirrored_maps(part: str) -> None:
    """Lengths and timing points stay in both modes, back again gives the same text, and the stars.

    The game moves stacked objects up and to the left, and takes the angle at a jump of no distance
    from the signs of its zeros. Both change when left and right do, not when x and y change places:
    so the stars are compared for every map with x and y exchanged, and for mirrored ones where no
    object starts at another one's place.
    """
    pytest.importorskip("rosu_pp_py")
    for beatmap in readable(part, every=4):
        sequence, name = beatmap_to_sequence(beatmap), beatmap.name
        data = apply_coordinates(sequence, mirrored(sequence))
        if np.abs(sequence.xy).max() > COORDINATE_LIMIT / 2:
            continue  # gimmicks: coordinates are limited, or too large for the game's precision
        assert apply_coordinates(sequence, mirrored(sequence), "fit") == data, name
        result = parse_beatmap(data, name)
        assert timing_bytes(result) == timing_bytes(beatmap), name
        again = beatmap_to_sequence(result)
        back = parse_beatmap(apply_coordinates(again, mirrored(again)), name)
        back_xy = beatmap_to_sequence(back).xy
        np.testing.assert_allclose(back_xy, sequence.xy, atol=1e-3, err_msg=name)
        stars = star_rating(beatmap.raw)
        if stars is None:  # a map that would take the calculation too long
            continue
        exchanged = apply_coordinates(sequence, sequence.xy[:, ::-1])
        assert star_rating(exchanged) == pytest.approx(stars, abs=1e-3), name
        if not has_neighbours(sequence):
            assert star_rating(data) == pytest.approx(stars, abs=1e-3), name


def mirrored(sequence: Sequence) -> Any:
    """Left and right exchanged, (T, 2) px."""
    return sequence.xy * (-1, 1) + (512, 0)


@needs_maps
@PARTS
def test_jittered_maps_keep_their_durations(part: str, parser: Any) -> None:
    """All points up to 40 px off, with fitting velocities: within 1 ms here and in fosu.

    Heads stay on the playfield: fosu, unlike the game, puts them there, which changes the length
    of a slider that has none in the file.
    """
    generator = np.random.default_rng(0)
    for beatmap in readable(part, every=4):
        sequence, name = beatmap_to_sequence(beatmap), beatmap.name
        xy = sequence.xy + generator.uniform(-40, 40, sequence.xy.shape)
        heads = sequence.object_starts
        xy[heads] = xy[heads].clip(0, (512, 384))
        result = parse_beatmap(apply_coordinates(sequence, xy, "fit"), name)
        ends = [[hit.end_time for hit in one.objects] for one in (beatmap, result)]
        np.testing.assert_allclose(ends[1], ends[0], rtol=0, atol=1 + 1e-6, err_msg=name)
        times = [[line.time for line in one.timing_lines] for one in (beatmap, result)]
        if all(first <= second for first, second in pairwise(times[0])):
            assert times[1] == sorted(times[1]), name
        if is_utf16(beatmap) or Path(name).name in CASES_READ_BETTER:
            continue
        theirs = [fosu_ends(parser, one.raw) for one in (beatmap, result)]
        np.testing.assert_allclose(theirs[1], theirs[0], rtol=0, atol=1 + 1e-2, err_msg=name)
