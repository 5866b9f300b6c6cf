"""The example has what a map can have, so that it shows and tests everything."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from beatmaps.osu_file import Beatmap, HitObject, read_beatmap

FOLDER = Path(__file__).resolve().parent.parent / "example"
MAP = FOLDER / "osu-diffusion - First Steps (osu-diffusion) [Original].osu"
TICK_MS = 80  # a quarter beat
OFFSET_MS = 600


@pytest.fixture(scope="module")
def example() -> Beatmap:
    return read_beatmap(MAP)


@pytest.fixture(scope="module")
def sections() -> dict[str, list[str]]:
    """The lines of every section of the file."""
    found: dict[str, list[str]] = {}
    for line in MAP.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            lines = found.setdefault(line.strip("[]"), [])
        elif found and line:
            lines.append(line)
    return found


def sliders(beatmap: Beatmap) -> list[HitObject]:
    return [o for o in beatmap.objects if o.kind == "slider"]


def has_red_anchor(slider: HitObject) -> bool:
    return bool((slider.points[1:] == slider.points[:-1]).all(axis=1).any())


def test_metadata(example: Beatmap) -> None:
    assert example.format_version == 14 and not example.skipped
    assert (example.artist, example.title) == ("osu-diffusion", "First Steps")
    assert (example.beatmap_id, example.set_id) == (0, -1)


def test_kinds_of_objects(example: Beatmap) -> None:
    kinds = Counter(o.kind for o in example.objects)
    assert 150 <= sum(kinds.values()) <= 250
    assert kinds["spinner"] == 2 and kinds["circle"] > 80 and kinds["slider"] > 60


def test_types_of_sliders(example: Beatmap) -> None:
    letters = Counter(o.letter for o in sliders(example))
    assert set(letters) == {"B", "C", "L", "P"} and min(letters.values()) >= 4
    bezier = Counter(has_red_anchor(o) for o in sliders(example) if o.letter == "B")
    assert bezier[True] >= 5 and bezier[False] >= 5
    assert {o.slides for o in sliders(example)} == {1, 2, 3, 4, 5}


def test_everything_lies_on_the_playfield(example: Beatmap) -> None:
    for o in example.objects:
        body = o.path().polyline() if o.kind == "slider" else np.array([[o.x, o.y]])
        assert (body >= 0).all() and (body <= [512, 384]).all(), o.time


def test_slider_paths_are_as_long_as_their_sliders(example: Beatmap) -> None:
    for o in sliders(example):
        assert o.length is not None
        natural = o.path().natural_length
        assert o.length - 0.5 <= natural <= o.length + 6, o.time


def test_everything_falls_on_the_beat(example: Beatmap) -> None:
    for o in example.objects:
        for time in (o.time, o.time + o.span_duration, o.end_time):
            ticks = (time - OFFSET_MS) / TICK_MS
            assert ticks == pytest.approx(round(ticks), abs=0.02), time


def test_objects_follow_one_another(example: Beatmap) -> None:
    for before, after in pairwise(example.objects):
        assert after.time - before.end_time >= TICK_MS - 1


def test_hit_sounds(sections: dict[str, list[str]]) -> None:
    rows = [line.split(",") for line in sections["HitObjects"]]
    circles = [row for row in rows if int(row[3]) & 1]
    slides = [row for row in rows if int(row[3]) & 2]
    bits = {int(row[4]) for row in circles}
    bits |= {int(sound) for row in slides for sound in row[8].split("|")}
    assert {0, 2, 4, 8} <= bits
    for row in slides:  # an edge more than slides
        assert len(row[8].split("|")) == len(row[9].split("|")) == int(row[6]) + 1
    assert any(row[5].startswith("3:") for row in circles)  # another sample set
    assert any(row[5].startswith("0:3:") for row in circles)  # an addition set
    assert any(edge == "0:3" for row in slides for edge in row[9].split("|"))
    assert any(row[5].endswith(".ogg") for row in circles)


def test_timing_points(example: Beatmap, sections: dict[str, list[str]]) -> None:
    rows = [line.split(",") for line in sections["TimingPoints"]]
    green = [row for row in rows if row[6] == "0"]
    assert len(rows) == len(green) + 1
    assert len({row[1] for row in green}) >= 6  # velocities
    assert {row[3] for row in green} == {"1", "2"}  # sample sets
    assert {row[4] for row in green} == {"0", "1", "2"}  # custom samples
    kiai = [row[7] == "1" for row in rows]
    assert sum(on and not before for before, on in pairwise(kiai)) == 2
    assert not kiai[-1]
    assert example.beat_length_at(0) == 4 * TICK_MS
    times = [int(row[0]) for row in rows]
    assert times == sorted(times)


def test_break_colours_bookmarks_preview(example: Beatmap, sections: dict[str, list[str]]) -> None:
    ((start, end),) = example.breaks
    assert end - start > 650
    assert not [o for o in example.objects if o.end_time > start and o.time < end]
    assert len(example.colours) == 4
    assert any(o.combo_skip for o in example.objects)
    editor = dict(line.split(": ") for line in sections["Editor"])
    assert len(editor["Bookmarks"].split(",")) == 8
    general = dict(line.split(": ") for line in sections["General"])
    assert int(general["PreviewTime"]) > 0


def test_files_that_the_map_names(example: Beatmap, sections: dict[str, list[str]]) -> None:
    (background,) = [line for line in sections["Events"] if line.startswith("0,0,")]
    names = [example.audio_filename, background.split('"')[1], "soft-hitwhistle2.ogg"]
    assert (FOLDER / names[0]).read_bytes()[:4] == b"OggS"
    assert (FOLDER / names[1]).read_bytes()[:2] == b"\xff\xd8"  # JPEG
    assert (FOLDER / names[2]).read_bytes()[:4] == b"OggS"
    assert (FOLDER / names[0]).stat().st_size < 600_000
    assert (FOLDER / names[1]).stat().st_size < 100_000
    assert not list(FOLDER.glob("*.wav"))


def test_it_is_an_insane_of_three_to_five_stars(example: Beatmap) -> None:
    rosu = pytest.importorskip("rosu_pp_py")
    theirs = rosu.Beatmap(path=str(MAP))
    assert theirs.n_objects == len(example.objects)
    assert 3 < rosu.Difficulty().calculate(theirs).stars < 5


def test_another_parser_reads_the_same_objects(example: Beatmap) -> None:
    theirs = pytest.importorskip("fosu").parse_file(str(MAP)).hit_objects
    assert len(theirs) == len(example.objects)
    for other, ours in zip(theirs, example.objects, strict=True):
        assert (other.time, other.new_combo, other.combo_skip) == (
            ours.time,
            ours.new_combo,
            ours.combo_skip,
        )
        if ours.kind == "slider":
            assert (other.slides, other.length) == (ours.slides, ours.length)
        elif ours.kind == "spinner":
            assert other.end_time == ours.end_time
