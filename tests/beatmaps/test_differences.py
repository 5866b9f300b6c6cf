"""A remap's proof: what is meant to change is named, and anything else is found."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

import sample
from beatmaps.differences import Proof, compare
from beatmaps.osu_file import parse_beatmap
from beatmaps.sequence import beatmap_to_sequence
from sampling.remap import remapped_file
from tests.conftest import beatmap_text, random_objects, run_command

EXTRA = """
[Events]
//Background and Video events
0,0,"bg.png",0,0
2,4000,5000

[Colours]
Combo1 : 255,0,0
"""
OBJECTS = random_objects(4, 30)
SOURCE = beatmap_text(OBJECTS, beatmap_id=104, set_id=77).replace(
    "\n[TimingPoints]", f"{EXTRA}\n[TimingPoints]"
)


def remapped(source: bytes, set_id: int | None = None, velocity: str = "keep") -> bytes:
    """A remap with every object somewhere else."""
    beatmap = parse_beatmap(source, "source")
    sequence = beatmap_to_sequence(beatmap)
    xy = sequence.xy + np.random.default_rng(1).normal(0, 20, sequence.xy.shape)
    name = f"{beatmap.version} (AI remap seed 3)"
    return remapped_file(sequence, xy, name, 3, set_id, velocity)  # type: ignore[arg-type]


def proof(source: bytes, result: bytes) -> Proof:
    return compare(parse_beatmap(source, "source"), parse_beatmap(result, "result"))


RESULT = remapped(SOURCE.encode()).decode()


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_remap_changes_coordinates_and_its_name_alone(ending: str, encoding: str) -> None:
    source = SOURCE.replace("\n", ending).encode(encoding)
    found = proof(source, remapped(source, set_id=-1))
    assert not found.others and found.objects == 30
    assert 25 <= found.moved <= 29  # the spinner stays
    meant = [change.how.split()[0] for change in found.changes]
    assert meant == ["Version", "Tags", "BeatmapID", "BeatmapSetID"]
    assert "nothing else changed" in list(found.table())[-1]


def test_a_file_is_the_same_as_itself() -> None:
    found = proof(SOURCE.encode(), SOURCE.encode())
    assert not found.changes and found.moved == 0


@pytest.mark.parametrize("missing", ["Tags:one two\n", "BeatmapID:104\n", "Version:Normal\n"])
def test_metadata_that_was_not_there_may_be_added(missing: str) -> None:
    source = SOURCE.replace(missing, "").encode()
    beatmap = parse_beatmap(source, "source")
    sequence = beatmap_to_sequence(beatmap)
    result = remapped_file(sequence, sequence.xy, f"{beatmap.version} (AI remap)", 3)
    found = proof(source, result)
    assert not found.others and missing.partition(":")[0] in " ".join(c.how for c in found.changes)


def test_a_length_that_the_game_takes_anyway_may_be_written() -> None:
    """It keeps the slider's duration where the file has no length that counts."""
    source = beatmap_text("100,100,1000,2,0,L|200:100,1\n300,100,3000,1,0").encode()
    result = remapped(source)
    assert b",1,100.0\n" in result
    found = proof(source, result)
    assert not found.others and "objects: slider lengths" in [c.what for c in found.changes]


def test_fitted_slider_velocities_are_named() -> None:
    found = proof(SOURCE.encode(), remapped(SOURCE.encode(), velocity="fit"))
    assert {"objects: slider lengths", "[TimingPoints]"} <= {c.what for c in found.others}


def nth(pattern: str, text: str, number: int = 0) -> re.Match[str]:
    return list(re.finditer(pattern, text, re.MULTILINE))[number]


CIRCLE = r"^\d+,\d+,(\d+),1,(\d),0:0:0:0:$"
SLIDER = r"^\d+,\d+,(\d+),2,0,([BPL])\|\S+,(\d),([\d.]+)$"
PLANTED: dict[str, tuple[str, str, int, str]] = {
    # what: (pattern of a line in the result, its group, what stands there instead)
    "[General]": (r"^AudioFilename: (a.mp3)$", "[General]", 1, "b.mp3"),
    "a title": (r"^Title:(Song)$", "[Metadata]", 1, "Sonk"),
    "an honest tag": (r"^Tags:.*(ai-generated)", "[Metadata]", 1, "human"),
    "a tag of the source": (r"^Tags:(one) ", "[Metadata]", 1, "eno"),
    "an honest name": (r"^Version:.*(AI remap)", "[Metadata]", 1, "remap"),
    "the beatmap's ID": (r"^BeatmapID:(0)$", "[Metadata]", 1, "105"),
    "the set's ID": (r"^BeatmapSetID:(77)$", "[Metadata]", 1, "78"),
    "a difficulty setting": (r"^CircleSize:(4)$", "[Difficulty]", 1, "4.0"),
    "an object's line's ending": (r"0:0:0:0:(\n)", "[HitObjects], other lines", 1, "\r\n"),
    "an object's comment": (r"0:0:0:0:()\n", "[HitObjects], other lines", 1, " // x"),
    "a comment": (r"^//Background and (Video) events$", "[Events]", 1, "video"),
    "the background": (r'^0,0,"(bg.png)",0,0$', "[Events]", 1, "no.png"),
    "a break": (r"^2,4000,(5000)$", "[Events]", 1, "5001"),
    "a timing point": (r"^2000,(-50),4", "[TimingPoints]", 1, "-50.1"),
    "a volume": (r"^2000,-50,4,1,0,(80)", "[TimingPoints]", 1, "81"),
    "a colour": (r"^Combo1 : (255),", "[Colours]", 1, "254"),
    "a time": (CIRCLE, "objects: times", 1, "501"),
    "a hitsound": (CIRCLE, "objects: hitsounds", 2, "8"),
    "a sample": (r"^\d+,\d+,\d+,1,\d,(0:0:0:0:)$", "objects: hitsounds", 1, "1:0:0:0:"),
    "a combo": (r"^\d+,\d+,\d+,(1),\d,0:0:0:0:$", "objects: kinds and flags", 1, "5"),
    "a curve's type": (SLIDER, "objects: curve types and anchors", 2, "C"),
    "an anchor": (r"^\S+,2,0,[BPL](\|\d+:\d+)", "objects: curve types and anchors", 1, "|9:9|8:8"),
    "a number of slides": (SLIDER, "objects: slides", 3, "3"),
    "a slider's length": (SLIDER, "objects: slider lengths", 4, "33.5"),
    "a spinner's end": (r",12,0,(\d+),", "objects: ends of spinners", 1, "99999"),
    "no coordinate": (r"^(\d+),\d+,\d+,1,\d,0:", "objects: times", 1, "1x"),
    "an object less": (r"^(\d+,\d+,\d+,1,\d,0:0:0:0:\n)", "objects: times", 1, ""),
    "a blank line": (r"^(\n)\[TimingPoints\]", "[Colours]", 1, "\n\n"),
    "a line's ending": (r"^StackLeniency.*(\n)|^Mode: 0(\n)", "[General]", 2, "\r\n"),
    "the format": (r"^osu file format v(14)$", "the file's head", 1, "13"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_one_planted_change_is_found_with_its_line(name: str) -> None:
    pattern, what, group, instead = PLANTED[name]
    match = nth(pattern, RESULT)
    start, end = match.span(group)
    planted = RESULT[:start] + instead + RESULT[end:]
    found = proof(SOURCE.encode(), planted.encode())
    line = RESULT.count("\n", 0, start) + 1
    places = {change.before or change.after for change in found.others if change.what == what}
    assert places and min(abs((place or 0) - line) for place in places) <= 1, found.others
    table = list(found.table())
    assert table[-1].endswith("found") and any("CHANGED" in row for row in table)


def test_a_path_without_a_length_that_grew_is_found_by_what_the_game_makes_of_it() -> None:
    """Nothing but coordinates differs in the file; yet the slider is longer and so lasts longer."""
    text = beatmap_text("100,100,1000,2,0,L|200:100,1\n300,100,3000,1,0")
    found = proof(text.encode(), text.replace("L|200:100", "L|250:100").encode())
    (change,) = found.others
    assert change.what == "objects: begin and end in play" and change.before == 26


def test_two_maps_that_have_nothing_in_common_are_compared_in_time() -> None:
    other = beatmap_text(random_objects(9, 3000)).encode()
    found = proof(beatmap_text(random_objects(8, 3000)).encode(), other)
    assert len(found.others) > 1000 and len(list(found.table())) < 100


def check(folder: Path, result: bytes, *flags: object) -> int:
    (folder / "source.osu").write_bytes(SOURCE.encode())
    (folder / "result.osu").write_bytes(result)
    return run_command(
        sample.main, "--check", folder / "result.osu", "--beatmap", folder / "source.osu", *flags
    )


def test_the_command_s_exit_code_says_whether_more_has_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, RESULT.encode()) == 0
    assert "nothing else changed" in capsys.readouterr().out
    assert check(tmp_path, RESULT.replace("CircleSize:4", "CircleSize:5").encode()) == 1
    said = capsys.readouterr().out
    assert "CHANGED: line 17, [Difficulty]: 'CircleSize:4\\n' has become 'CircleSize:5\\n'" in said
    assert "1 other change found" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.osu", "source.osu"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--check", "{folder}/none.osu"], "none.osu does not exist"),
        (["--check", "{folder}/a.osz"], "is an archive: take the new .osu file out of it"),
        (["--beatmap", "{folder}/source.osu", "{folder}/result.osu"], "one --beatmap"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.osz").write_bytes(b"PK\3\4")
    assert check(tmp_path, RESULT.encode(), *(f.format(folder=tmp_path) for f in flags)) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("error: ") and said.count("\n") == 1


def test_the_source_may_be_a_difficulty_of_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.osz", "w") as archive:
        archive.writestr("a.osu", SOURCE)
        archive.writestr("b.osu", SOURCE.replace("Version:Normal", "Version:Hard"))
    flags = ("--beatmap", tmp_path / "a.osz", "--difficulty", "Normal")
    assert check(tmp_path, RESULT.encode(), *flags) == 0
