"""Reading and patching `.osu` files: made-up files with known answers, real maps byte by byte."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatmaps import osu_file as beatmap_module
from beatmaps.osu_file import (
    Beatmap,
    BeatmapError,
    Change,
    GameModeError,
    edit_metadata,
    parse_beatmap,
    patch_objects,
    read_beatmap,
    write_new_file,
)
from tests.conftest import needs_maps, real_paths

SLIDER = "100,100,1000,2,0,B|200:200|300:100,1,140"


def osu_text(
    objects: str,
    *,
    timing: str = "0,500,4,1,0,100,1,0",
    version: int = 14,
    general: str = "Mode: 0",
    events: str = "",
    difficulty: str = "SliderMultiplier:1.4",
) -> str:
    """A small beatmap of our own around the given lines."""
    return (
        f"osu file format v{version}\n\n[General]\nAudioFilename: a.mp3\n{general}\n\n"
        "[Metadata]\nTitle:Some // title\nArtist:Somebody\nCreator:Mapper\nVersion:Easy\n"
        "Tags:one two\nBeatmapID:12\nBeatmapSetID:34\n\n"
        f"[Difficulty]\nCircleSize:4\nOverallDifficulty:7\n{difficulty}\n\n"
        f"[Events]\n//Break Periods\n{events}\n\n[TimingPoints]\n{timing}\n\n"
        f"[Colours]\nCombo1 : 255,128,0\nCombo2 : 1,2,3\n\n[HitObjects]\n{objects}\n"
    )


def parse(objects: str, **parts: object) -> Beatmap:
    return parse_beatmap(osu_text(objects, **parts).encode(), "test.osu")  # type: ignore[arg-type]


# --- reading --------------------------------------------------------------------------------------


def test_objects_and_metadata_of_an_ordinary_file() -> None:
    """Each field of a circle, a slider and a spinner, and the metadata."""
    data = osu_text(
        "256,192,500,5,0,0:0:0:0:\n"
        "100,100,1000,38,2,P|150:50|200:100,3,70,0|0,0:0|0:0,0:0:0:0:\n"
        "256,192,3000,12,0,4000,0:0:0:0:",
        events="2,1500,2500",
    )
    beatmap = parse_beatmap(data.encode(), "test.osu")
    circle, slider, spinner = beatmap.objects
    assert (circle.kind, circle.time, circle.end_time, circle.x, circle.y, circle.new_combo) == (
        *("circle", 500, 500, 256, 192, True),
    )
    assert (slider.kind, slider.slides, slider.length, slider.letter) == ("slider", 3, 70, "P")
    assert (slider.new_combo, slider.combo_skip) == (True, 2)
    assert slider.points.tolist() == [[100, 100], [150, 50], [200, 100]]
    assert slider.span_duration == 250
    assert slider.end_time == 1750
    assert beatmap.lines[slider.line].startswith(b"100,100,1000")
    assert (spinner.kind, spinner.time, spinner.end_time) == ("spinner", 3000, 4000)
    names = (beatmap.title, beatmap.artist, beatmap.creator, beatmap.version)
    assert names == ("Some // title", "Somebody", "Mapper", "Easy")
    assert (beatmap.beatmap_id, beatmap.set_id, beatmap.tags) == (12, 34, ["one", "two"])
    assert (beatmap.circle_size, beatmap.approach_rate, beatmap.stack_leniency) == (4, 7, 0.7)
    assert (beatmap.audio_filename, beatmap.slider_multiplier) == ("a.mp3", 1.4)
    assert beatmap.colours == [(255, 128, 0), (1, 2, 3)]
    assert beatmap.breaks == [(1500, 2500)]
    assert b"".join(beatmap.lines) == beatmap.raw == data.encode()
    assert len(beatmap.md5) == 32
    assert not beatmap.skipped


RED = "0,500,4,1,0,100,1,0"


@pytest.mark.parametrize(
    ("timing", "duration"),
    [
        (RED, 500),
        (f"{RED}\n1000,-50,4,1,0,100,0,0", 250),
        (f"{RED}\n1000.001,-50,4,1,0,100,0,0", 500),
        (f"{RED}\n0,50,4,1,0,100,0,0", 500),  # a positive green line means velocity 1
        (f"{RED}\n0,-50,4,1,0,100,0,0\n500,NaN,4,1,0,100,0,0", 500),
        (f"{RED}\n0,-5000,4,1,0,100,0,0", 5000),  # velocity at least 0.1
        (f"{RED}\n0,-1,4,1,0,100,0,0", 50),  # and at most 10
        (f"0,-50,4,1,0,100,0,0\n{RED}", 250),  # at one time the green line wins
        (f"{RED}\n0,-50,4,1,0,100,0,0\n500,500,4,1,0,100,1,0", 500),  # a red line resets it
        (f"{RED}\n500,NaN,4,1,0,100,1,0", 500),  # a red line without a number is rejected
        ("0,1,4,1,0,100,1,0", 6),
        ("0,100000,4,1,0,100,1,0", 60000),
        ("0,-300,4,1,0,100,1,0", 18),  # negative on a red line: both 6 ms a beat and velocity 1/3
        ("5000,250,4,1,0,100,1,0", 250),  # holds before its own time
        ("0,500", 500),
        (f"900,-50,4,1,0,100,0,0\n{RED}", 250),
        ("0,500,0,1,0,100,1,0\n700,250,-1,1,0,100,1,0", 500),  # a bar of -1 beats: rejected
        ("0,500,4,1,0,100,1,0\nnonsense\n800,1e400,4,1,0,100,1,0", 500),
        ("", 1000),
    ],
)
def test_slider_duration_follows_the_timing_points(timing: str, duration: float) -> None:
    """One beat of 140 px at 1000 ms, under all kinds of timing points."""
    slider = parse(SLIDER, timing=timing).objects[0]
    assert slider.end_time - slider.time == pytest.approx(duration, abs=1e-9)


def test_end_times_are_not_floored() -> None:
    """100 px at 140 px a beat of 500 ms."""
    slider = parse("0,0,1000,2,0,L|100:0,1,100").objects[0]
    assert slider.end_time == pytest.approx(1000 + 500 / 1.4, abs=1e-9)


def test_timing_lookups() -> None:
    """Beat length and velocity between, at and before the lines."""
    timing = "0,500,4,1,0,100,1,0\n1000,-50,4,1,0,100,0,0\n2000,300,4,1,0,100,1,0"
    beatmap = parse(SLIDER, timing=timing)
    times = (-10, 999, 1000, 2000)
    assert [beatmap.beat_length_at(time) for time in times] == [500, 500, 500, 300]
    assert [beatmap.slider_velocity_at(time) for time in times] == [1, 1, 2, 1]


@pytest.mark.parametrize("multiplier", [("0.1", 0.4), ("9", 3.6), ("junk", 1.4), ("2", 2.0)])
def test_slider_multiplier_is_limited(multiplier: tuple[str, float]) -> None:
    text, value = multiplier
    beatmap = parse(SLIDER, difficulty=f"SliderMultiplier:{text}")
    assert beatmap.slider_multiplier == value
    assert beatmap.objects[0].end_time == pytest.approx(1000 + 140 / (100 * value) * 500)


@pytest.mark.parametrize("length", ["", ",0", ",-50", ",0,0|0,0:0|0:0"])
def test_natural_length(length: str) -> None:
    """Without a usable length the path's own, here 300 px, is taken."""
    beatmap = parse(f"0,0,1000,2,0,L|300:0,1{length}")
    slider = beatmap.objects[0]
    assert slider.length is None
    assert slider.path().length == pytest.approx(300)
    assert slider.end_time == pytest.approx(1000 + 300 / 140 * 500)


def test_doubled_last_point_forbids_extension() -> None:
    slider = parse("0,0,1000,2,0,L|70:0|70:0,1,140").objects[0]
    assert slider.length == 140
    assert slider.end_time == pytest.approx(1250)


@pytest.mark.parametrize(
    "curve", ["B", "B|100:100", "L|100:100|100:100", "P|100:100|100:100", "C|100:100"]
)
def test_sliders_that_stay_at_their_head(curve: str) -> None:
    slider = parse(f"100,100,1000,2,0,{curve},1,140").objects[0]
    assert slider.end_time == 1000
    assert slider.path().end.tolist() == [100, 100]


@pytest.mark.parametrize(("slides", "expected"), [("0", 1), ("-1", 1), ("2", 2), ("9000", 9000)])
def test_slides(slides: str, expected: int) -> None:
    slider = parse(f"0,0,1000,2,0,L|300:0,{slides},140").objects[0]
    assert slider.slides == expected
    assert slider.end_time == pytest.approx(1000 + expected * 500)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0,0,0,2,0,L|9:0,1,1e9", "outside"),
        ("0,0,0,2,0,L|9:0,1,NaN", "outside"),
        ("0,0,0,2,0,L|9:0,9001,10", "9001 slides"),
        ("0,0,0,2,0,L|1:b,1,10", "could not convert"),
        ("0,0,0,2,0,|9:0,1,10", "could not convert"),
        ("0,0,0,2,0,9:0,1,10", "letter"),
        ("0,0,0,2,0,B|9:0|P,1,10", "letter"),
        ("0,0,0,2,0", "without a curve"),
        ("0,0,0,8,0", "without an end time"),
        ("200000,0,0,1,0", "outside"),
        ("0,0,1_0,1,0", "not a number"),
        ("0,0,0,1.0,0", "invalid literal"),
        ("0,0,0,1", "5 fields"),
        ("0,0,0,0,0", "unknown hit object type"),
    ],
)
def test_lines_that_the_game_drops(line: str, reason: str) -> None:
    """They are reported with their line number and stay in the file."""
    beatmap = parse(f"{line}\n5,5,7000,1,0")
    number = beatmap.raw.decode().splitlines().index(line) + 1
    assert [(n, reason in text) for n, text in beatmap.skipped] == [(number, True)]
    assert [hit.time for hit in beatmap.objects] == [7000]
    assert line.encode() in patch_objects(beatmap, {0: Change((9.0, 9.0))})


def test_objects_are_sorted_by_time_and_stay_in_file_order_otherwise() -> None:
    beatmap = parse("1,0,500,1,0\n2,0,100,1,0\n3,0,500,1,0\n4,0,100,1,0")
    assert [hit.x for hit in beatmap.objects] == [2, 4, 1, 3]


def test_forced_new_combos() -> None:
    """First object, after a spinner, after a break; a spinner is not forced."""
    objects = (
        "0,0,0,1,0\n0,0,100,1,0\n256,192,200,8,0,300\n0,0,400,1,0\n0,0,500,1,0\n"
        "0,0,2000,1,0\n0,0,2001,1,0\n0,0,2002,1,0"
    )
    combos = [hit.new_combo for hit in parse(objects, events="2,600,2000").objects]
    assert combos == [True, False, False, True, False, False, True, False]
    assert not parse("256,192,200,8,0,300").objects[0].new_combo


@pytest.mark.parametrize("tail", ["", ",0:0:0:0:", ",0:0:0:0:some,file.wav", ","])
def test_new_combo_flag_without_hit_sample(tail: str) -> None:
    """Old formats have no hit sample; the flag must not suffer."""
    objects = f"0,0,0,1,0{tail}\n0,0,100,1,0{tail}\n0,0,200,5,0{tail}\n0,0,300,12,0,400{tail}"
    combos = [hit.new_combo for hit in parse(objects).objects]
    assert combos == [True, False, True, True]


def test_files_before_version_5_play_24_ms_later() -> None:
    beatmap = parse(
        f"{SLIDER}\n256,192,3000,12,0,4000",
        version=4,
        events="2,2000,2500",
        timing="0,500,4,1,0,100,1,0\n1000,-50,4,1,0,100,0,0",
    )
    slider, spinner = beatmap.objects
    assert (slider.time, slider.end_time) == (1024, 1274)
    assert (spinner.time, spinner.end_time) == (3024, 4024)
    assert beatmap.breaks == [(2024, 2524)]


def test_fractions() -> None:
    """Cut off before version 128, kept from there on; times always keep theirs."""
    objects = "1.7,-2.7,100.5,2,0,L|30.9:0,1,20\n256,192,300.25,12,0,400.75"
    old, new = parse(objects), parse(objects, version=128)
    assert old.objects[0].points.tolist() == [[1, -2], [30, 0]]
    assert new.objects[0].points.tolist() == [[1.7, -2.7], [30.9, 0]]
    for beatmap in (old, new):
        assert beatmap.objects[0].time == 100.5
        assert (beatmap.objects[1].time, beatmap.objects[1].end_time) == (300.25, 400.75)


def test_curve_letters_within_a_curve() -> None:
    """A letter starts a segment at the point after it, which ends the one before it as well."""
    slider = parse("0,0,0,2,0,B|10:10|P|20:0|30:10|40:0|L|50:0,1,60").objects[0]
    assert slider.letters == ((0, "B"), (2, "P"), (5, "L"))
    kinds = [(part.kind, part.points[:, 0].tolist()) for part in slider.segments()]
    # From 20:0 on there are four points up to the L, so the P is a bezier.
    assert kinds == [("B", [0, 10, 20]), ("B", [20, 30, 40, 50]), ("L", [50])]


def test_b_spline_degree() -> None:
    slider = parse("0,0,0,2,0,B3|10:10|20:0|30:10|40:0,1,60").objects[0]
    assert [(part.kind, part.degree) for part in slider.segments()] == [("B", 3)]


def test_hold_note_is_played_as_a_spinner() -> None:
    hold = parse("0,0,100,128,0,900:0:0:0:0:").objects[0]
    assert (hold.kind, hold.end_time) == ("spinner", 900)


def test_missing_sections_and_fields() -> None:
    """Only hit objects: the game's defaults hold."""
    beatmap = parse_beatmap(b"[HitObjects]\n0,0,0,2,0,L|300:0,1,140", "bare.osu")
    assert beatmap.objects[0].end_time == 1000
    assert (beatmap.format_version, beatmap.artist, beatmap.beatmap_id) == (14, "", -1)
    assert (beatmap.circle_size, beatmap.approach_rate) == (5, 5)
    assert (beatmap.overall_difficulty, beatmap.hp_drain_rate) == (5, 5)


def test_fields_that_are_no_numbers_keep_the_default() -> None:
    text = (
        osu_text("0,0,0,1,0")
        .replace("BeatmapID:12", "BeatmapID:")
        .replace("CircleSize:4", "CircleSize:x")
    )
    beatmap = parse_beatmap(text.encode(), "x")
    assert (beatmap.beatmap_id, beatmap.circle_size) == (-1, 5)
    assert parse("0,0,0,1,0", difficulty="CircleSize:32").circle_size == 10


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"]
)
def test_encodings_and_line_endings(newline: str, encoding: str) -> None:
    text = osu_text(SLIDER).replace("Somebody", "Größe ✓ 𝄞").replace("\n", newline)
    if encoding.endswith("-bom"):
        encoding, text = encoding.removesuffix("-bom"), "\ufeff" + text
    beatmap = parse_beatmap(text.encode(encoding), "x")
    assert beatmap.artist == "Größe ✓ 𝄞"
    assert b"".join(beatmap.lines) == beatmap.raw
    points = beatmap.objects[0].points + 7.0
    patched = patch_objects(beatmap, {0: Change((107.0, 107.0), points)})
    expected = text.replace("100,100,1000", "107,107,1000").replace(
        "200:200|300:100", "207:207|307:107"
    )
    assert patched == expected.encode(encoding)


def test_bytes_that_are_not_utf8_survive() -> None:
    data = osu_text("0,0,0,1,0,0:0:0:0:cl\xe4p.wav").encode("latin-1")
    beatmap = parse_beatmap(data, "x")
    assert patch_objects(beatmap, {}) == data
    assert patch_objects(beatmap, {0: Change((1.0, 0.0))}) == data.replace(b"0,0,0,1", b"1,0,0,1")


def test_odd_but_legal_layout() -> None:
    """Comments, blank lines, a section in two parts, separators that only Python knows."""
    text = (
        "\n\nosu file format v12\n[HitObjects]\n0,0,0,1,0 // first\n\n//5,5,5,1,0\n"
        "[Metadata]\nTitle:a\x85b\u2028c\x0bd\n[HitObjects]\n 1,0,50,1,0\n[Unknown]\n2,0,60,1,0\n"
    )
    beatmap = parse_beatmap(text.encode(), "x")
    assert [hit.x for hit in beatmap.objects] == [0, 1]
    assert beatmap.title == "a b c d"
    assert beatmap.format_version == 12


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\r\n \0", "is empty"),
        (b"This is a letter.\nDear reader", "not an osu! beatmap"),
        (osu_text("0,0,0,1,0", general="Mode: 1").encode(), "osu!taiko"),
        (osu_text("0,0,0,1,0", general="Mode:2").encode(), "osu!catch"),
        (osu_text("0,0,0,1,0", general="Mode: 3").encode(), "osu!mania"),
        (osu_text("0,0,0,1,0", general="Mode: 9").encode(), "mode 9"),
        (osu_text("").encode(), "has no hit objects after line 32"),
        (b"osu file format v14\n[General]\nMode:0", "no section"),
        (osu_text("1,2").encode(), "line 3"),
        (b"\xff\xfe[\0H\0", "not an osu! beatmap"),
        (b"\xff\xfea\0b", "UTF-16"),
    ],
)
def test_files_that_cannot_be_used(data: bytes, message: str) -> None:
    with pytest.raises(BeatmapError, match=message) as caught:
        parse_beatmap(data, "some.osu")
    assert "some.osu" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, GameModeError) == ("mode" in message or "osu!" in message[:4])


def test_paths_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BeatmapError, match="does not exist"):
        read_beatmap(tmp_path / "none.osu")
    with pytest.raises(BeatmapError, match="is a folder"):
        read_beatmap(tmp_path)
    (tmp_path / "a.osu").write_bytes(osu_text(SLIDER).encode())
    assert len(read_beatmap(tmp_path / "a.osu").objects) == 1
    monkeypatch.setattr(beatmap_module, "MAX_FILE_BYTES", 100)
    with pytest.raises(BeatmapError, match="limit of 100"):
        read_beatmap(tmp_path / "a.osu")


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_LINES", 10, "more than 10 lines"),
        ("MAX_LINE_BYTES", 40, r"line 35 has 44 bytes, more than the limit of 40"),
        ("MAX_OBJECTS", 1, "line 35: more than 1 objects"),
        ("MAX_POINTS", 5, "line 35: more than 50000 objects or 5 slider points"),
        ("MAX_POINTS", 26, "26 slider points"),  # a letter within a curve counts as 20
        ("MAX_TIMING_LINES", 1, "line 27: more than 1 timing points"),
        ("MAX_UNORDERED_LINES", 0, "line 27: more than 100000 timing points, or 0 out of order"),
        ("MAX_CURVE_WORK", 30, "line 35: smooth curves"),
    ],
)
def test_files_beyond_the_limits(
    limit: str, value: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each limit names the line, where there is one."""
    sliders = f"{SLIDER}\n0,0,2000,2,0,B2|9:9|8:8|7:0|P|5:5|1:1,1,100"
    timing = "500,500,4,1,0,100,1,0\n0,-50,4,1,0,100,0,0"
    assert len(parse(sliders, timing=timing).objects) == 2
    monkeypatch.setattr(beatmap_module, limit, value)
    with pytest.raises(BeatmapError, match=message):
        parse(sliders, timing=timing)


def test_a_degree_beyond_all_numbers_is_none() -> None:
    """So the game reads a curve type's number that does not fit into 32 bits."""
    for letter in ("B" + "9" * 5000, "B2147483648", "B0"):
        slider = parse(f"0,0,0,2,0,{letter}|9:9|8:8|7:0,1").objects[0]
        assert [part.degree for part in slider.segments()] == [None]
    assert parse("0,0,0,2,0,B003|9:9|8:8|7:0|1:1,1").objects[0].segments()[0].degree == 3


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Nothing but `BeatmapError` ever comes out of garbage."""
    for text in (data, b"[HitObjects]\n1,1,1,1,1\n" + data, b"[HitObjects]\n1,1,1,2,0,B|" + data):
        try:
            beatmap = parse_beatmap(text, "x")
        except BeatmapError:
            continue
        assert patch_objects(beatmap, {}) == text


# --- writing --------------------------------------------------------------------------------------


def test_only_the_numbers_that_change_are_rewritten() -> None:
    """Odd texts of other numbers, spaces and comments stay."""
    objects = " 10.0, 20,0,1,0\n30,40,100,2,0,B|+50:60.5|070:80:9,1,50.00, 0 // note"
    beatmap = parse(objects)
    points = beatmap.objects[1].points.copy()
    points[2] = (71, 80)
    data = patch_objects(beatmap, {0: Change((10.0, 21.0)), 1: Change((30.0, 40.0), points)})
    expected = " 10.0,21,0,1,0\n30,40,100,2,0,B|+50:60.5|71:80:9,1,50.00, 0 // note"
    assert data == beatmap.raw.replace(objects.encode(), expected.encode())


def test_coordinates_are_rounded_only_before_version_128() -> None:
    change = {0: Change((10.25, -3.625))}
    assert b"\n10,-4,0,1" in patch_objects(parse("0,0,0,1,0"), change)
    assert b"\n10.25,-3.625,0,1" in patch_objects(parse("0,0,0,1,0", version=128), change)


@given(st.floats(-16000, 16000, width=32))
def test_fractional_coordinates_survive(x: float) -> None:
    """The game reads 32-bit floats; it reads the same one back."""
    data = patch_objects(parse("0,0,0,1,0", version=128), {0: Change((x, 0.0))})
    assert np.float32(parse_beatmap(data, "x").objects[0].x) == np.float32(x)


@pytest.mark.parametrize("x", [float("nan"), float("inf"), 2e5])
def test_coordinates_that_the_game_does_not_load(x: float) -> None:
    with pytest.raises(ValueError, match=r"test\.osu line 33: coordinate"):
        patch_objects(parse("0,0,0,1,0"), {0: Change((x, 0.0))})


@pytest.mark.parametrize("rest", ["1", "1,0", "1,-3,0|0,0:0|0:0,0:0:0:0:", "1 // natural"])
def test_length_is_written_or_added(rest: str) -> None:
    beatmap = parse(f"0,0,0,2,0,L|300:0,{rest}")
    hit = beatmap.objects[0]
    again = parse_beatmap(patch_objects(beatmap, {0: Change((0.0, 0.0), hit.points, 12.5)}), "x")
    assert again.objects[0].length == 12.5
    assert len(again.lines) == len(beatmap.lines)


def test_metadata_lines_are_replaced_one_by_one() -> None:
    text = osu_text(SLIDER).replace("\n", "\r\n").replace("Version:Easy\r\n", "Version: Easy\n")
    data = edit_metadata(text.encode(), version="Easier", beatmap_id=0, add_tags=("two", "new"))
    expected = (
        text.replace("Version: Easy\n", "Version: Easier\n")
        .replace("BeatmapID:12", "BeatmapID:0")
        .replace("Tags:one two", "Tags:one two new")
    )
    assert data == expected.encode()
    assert edit_metadata(data, version="Easier", add_tags=["new"]) == data


def test_a_set_id_is_replaced_or_added_when_one_is_given() -> None:
    text = osu_text(SLIDER)
    assert edit_metadata(text.encode(), version="Easy", beatmap_id=12) == text.encode()
    data = edit_metadata(text.encode(), version="Easy", beatmap_id=12, set_id=-1)
    assert data == text.replace("BeatmapSetID:34", "BeatmapSetID:-1").encode()
    bare = text.replace("BeatmapSetID:34\n", "").encode()
    added = edit_metadata(bare, version="Easy", beatmap_id=12, set_id=-1)
    assert parse_beatmap(added, "x").set_id == -1
    assert added.replace(b"BeatmapSetID:-1\n", b"") == bare


def test_missing_metadata_is_added() -> None:
    text = "osu file format v3\r\n\r\n[Metadata]\r\nTitle:t\r\n\r\n[HitObjects]\r\n0,0,0,1,0"
    data = edit_metadata(text.encode(), version="Hard", add_tags=("tag",))
    added = "Title:t\r\nVersion:Hard\r\nBeatmapID:0\r\nTags:tag\r\n"
    assert data == text.replace("Title:t\r\n", added).encode()
    bare = edit_metadata(b"[HitObjects]\n0,0,0,1,0", version="Hard")
    assert bare == b"[Metadata]\nVersion:Hard\nBeatmapID:0\n\n[HitObjects]\n0,0,0,1,0"
    last = edit_metadata(b"[HitObjects]\n0,0,0,1,0\n[Metadata]", version="Hard")
    assert parse_beatmap(last, "x").version == "Hard"


def test_empty_values_and_utf16() -> None:
    text = "\ufeff" + osu_text(SLIDER).replace("Tags:one two", "Tags:").replace("Easy", "")
    data = edit_metadata(text.encode("utf-16-le"), version="✓ Größe", add_tags=("a",))
    expected = text.replace("Version:", "Version:✓ Größe").replace("Tags:", "Tags:a")
    assert data.decode("utf-16-le") == expected.replace("ID:12", "ID:0")


@pytest.mark.parametrize(
    "values",
    [
        {"version": ""},
        {"version": "a\nb"},
        {"version": "a\u2028b"},
        {"add_tags": ["a b"]},
        {"add_tags": [""]},
    ],
)
def test_metadata_that_does_not_fit_on_a_line(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="it must be one"):
        edit_metadata(osu_text(SLIDER).encode(), **{"version": "v", **values})  # type: ignore[arg-type]


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new.osu"
    write_new_file(path, b"one", overwrite=False)
    with pytest.raises(BeatmapError, match="exists already"):
        write_new_file(path, b"two", overwrite=False)
    assert path.read_bytes() == b"one"
    write_new_file(path, b"two", overwrite=True)
    assert path.read_bytes() == b"two"
    with pytest.raises(BeatmapError, match="cannot be written"):
        write_new_file(tmp_path / "none" / "new.osu", b"three", overwrite=False)
    with pytest.raises(BeatmapError, match="cannot be written"):
        write_new_file(tmp_path, b"four", overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["new.osu"]


# --- real maps ------------------------------------------------------------------------------------


@needs_maps
def test_metadata_of_edge_files() -> None:
    """Whatever is read takes another name; what is refused has one clear line."""
    messages = []
    for path in real_paths("edge") + real_paths("cases"):
        try:
            beatmap = read_beatmap(path)
        except BeatmapError as error:
            messages.append((path.name, str(error)))
            continue
        edited = edit_metadata(beatmap.raw, version="Another", add_tags=("tag",))
        again = parse_beatmap(edited, path.name)
        assert (again.version, again.beatmap_id) == ("Another", 0), path.name
        assert len(again.objects) == len(beatmap.objects), path.name
    assert all(name in message and "\n" not in message for name, message in messages)
