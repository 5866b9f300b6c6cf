"""Archives and many maps on the command line of sample.py."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from beatmaps.osu_file import Beatmap, parse_beatmap, read_beatmap
from beatmaps.osz import Archive
from metrics.fidelity import count_changes
from sampling import remap as remapping
from sampling import remap_files
from sampling.generate import generate
from tests.conftest import (
    beatmap_text,
    maps_below,
    needs_maps,
    random_objects,
    read_json,
    real_paths,
    remap,
    write_maps,
)

ROOT = Path(__file__).resolve().parent.parent
DATE = (2015, 4, 3, 2, 1, 0)
TAIL = "(AI remap seed 0)"

pytestmark = pytest.mark.usefixtures("no_pictures")


def difficulty(seed: int, version: str) -> str:
    return beatmap_text(random_objects(seed, 12), version=version, set_id=77)


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members.items():
            new.writestr(zipfile.ZipInfo(name, DATE), data, zipfile.ZIP_DEFLATED)
    return path


CONTENT = {
    "Somebody - Song (Mapper) [Hard].osu": difficulty(1, "Hard").encode(),
    "a.mp3": bytes(range(256)) * 20,
    "Somebody - Song (Mapper) [Easy].osu": difficulty(2, "Easy").encode(),
    "SB/dot.png": b"\x89PNG" + bytes(50),
    "taiko.osu": beatmap_text("1,1,1,1,0", version="Oni", mode=1).encode(),
    "Somebody - Song (Mapper).osb": b"[Events]\r\n",
}


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return pack(tmp_path / "77 Somebody - Song.osz", CONTENT)


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.rglob(pattern)
    return path


def new_difficulties(path: Path, expected: dict[str, bytes]) -> dict[str, Beatmap]:
    """The beatmaps added to `expected`, all other members of which must be there unchanged."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with Archive.open(path) as archive2:
        members = {m.name: archive2.read(m) for m in archive2.members}
        assert all(member.date == DATE for member in archive2.members)
    assert list(members)[: len(expected)] == list(expected)
    assert {name: members.pop(name) for name in expected} == expected
    return {name: parse_beatmap(data, name) for name, data in members.items()}


# --- archives -------------------------------------------------------------------------------------


def test_a_difficulty_is_added_to_its_archive(
    trained: Path, song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert remap(trained, output, "--beatmap", song, "--difficulty", "hard") == 0
    assert "skipped" in capsys.readouterr().err  # osu!taiko, by name
    path = only(output, "*.osz")
    assert path.name == song.name  # so that osu! finds the folder that it has
    ((name, after),) = new_difficulties(path, CONTENT).items()
    assert name == f"Somebody - Song (Mapper) [Hard {TAIL}].osu"
    before = parse_beatmap(CONTENT["Somebody - Song (Mapper) [Hard].osu"], "before")
    assert (after.version, after.beatmap_id, after.set_id) == (f"Hard {TAIL}", 0, 77)
    assert not any(count_changes(before, after).values())
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".json", ".osz", ".png"]
    report = read_json(only(output, "*.result.json"))
    assert report["source"]["difficulties"] == [{"name": "Hard", "md5": before.md5}]
    assert report["variants"][0]["beatmap"] == name


def test_the_new_difficulty_is_read_by_other_programs(
    trained: Path, song: Path, tmp_path: Path
) -> None:
    rosu = pytest.importorskip("rosu_pp_py")
    fosu = pytest.importorskip("fosu")
    assert remap(trained, tmp_path / "out", "--beatmap", song, "--difficulty", "Easy") == 0
    with zipfile.ZipFile(only(tmp_path / "out", "*.osz")) as archive:
        data = archive.read(archive.infolist()[-1])
    assert rosu.Beatmap(bytes=data).n_objects == 12
    path = tmp_path / "new.osu"
    path.write_bytes(data)
    assert len(fosu.parse_file(str(path)).hit_objects) == 12


def test_all_difficulties_and_variants_are_added(trained: Path, song: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    flags = ("--beatmap", song, "--all-difficulties", "--num-variants", 2)
    assert remap(trained, output, *flags) == 0
    new = new_difficulties(only(output, "*.osz"), CONTENT)
    versions = [f"{v} {TAIL} #{k}" for v in ("Hard", "Easy") for k in (1, 2)]
    assert [beatmap.version for beatmap in new.values()] == versions
    assert len({beatmap.md5 for beatmap in new.values()}) == 4
    assert len(read_json(only(output, "*.result.json"))["variants"]) == 4
    assert not list(output.rglob("*.png"))


def test_an_archive_gives_the_same_difficulty_as_the_loose_file(
    trained: Path, song: Path, tmp_path: Path
) -> None:
    loose = tmp_path / "loose.osu"
    loose.write_bytes(CONTENT["Somebody - Song (Mapper) [Easy].osu"])
    assert remap(trained, tmp_path / "1", "--beatmap", loose) == 0
    flags = ("--beatmap", song, "--difficulty", "2")
    assert remap(trained, tmp_path / "2", *flags, "--format", "osu") == 0
    assert remap(trained, tmp_path / "3", *flags) == 0
    assert maps_below(tmp_path / "1") == maps_below(tmp_path / "2")
    ((name, beatmap),) = new_difficulties(only(tmp_path / "3", "*.osz"), CONTENT).items()
    assert maps_below(tmp_path / "1") == {name: beatmap.raw}
    assert not list(tmp_path.glob("[12]/**/*.osz"))


def test_a_separate_set_has_no_old_difficulty(trained: Path, song: Path, tmp_path: Path) -> None:
    flags = ("--beatmap", song, "--difficulty", "Hard", "--separate-set")
    assert remap(trained, tmp_path / "out", *flags) == 0
    path = only(tmp_path / "out", "*.osz")
    assert path.name == f"77 Somebody - Song [Hard] {TAIL}.osz"
    rest = {name: data for name, data in CONTENT.items() if not name.endswith(".osu")}
    ((_, beatmap),) = new_difficulties(path, rest).items()
    assert (beatmap.set_id, beatmap.beatmap_id) == (-1, 0)


def test_a_song_folder_is_packed(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "77 Song"
    folder.mkdir()
    for name, data in CONTENT.items():
        (folder / Path(name).name).write_bytes(data)
    source = folder / "Somebody - Song (Mapper) [Easy].osu"
    assert remap(trained, tmp_path / "out", "--beatmap", source, "--format", "osz") == 0
    path = only(tmp_path / "out", "*.osz")
    assert path.name == "77 Song.osz"
    with Archive.open(path) as archive:
        found = {m.name: archive.read(m) for m in archive.members}
    new = f"Somebody - Song (Mapper) [Easy {TAIL}].osu"
    assert found.pop(new) and found == {Path(n).name: data for n, data in CONTENT.items()}


def test_a_name_that_is_taken_gets_a_number(trained: Path, song: Path, tmp_path: Path) -> None:
    """The archive that has the result already, remapped again."""
    flags = ("--difficulty", "Hard")
    assert remap(trained, tmp_path / "1", "--beatmap", song, *flags) == 0
    again = only(tmp_path / "1", "*.osz")
    with Archive.open(again) as archive:
        content = {m.name: archive.read(m) for m in archive.members}
    assert remap(trained, tmp_path / "2", "--beatmap", again, *flags) == 0
    (name,) = new_difficulties(only(tmp_path / "2", "*.osz"), content)
    assert name == f"Somebody - Song (Mapper) [Hard {TAIL}] (2).osu"


def test_difficulties_whose_names_begin_alike_have_results_of_their_own(
    trained: Path, tmp_path: Path
) -> None:
    versions = [f"{'The same long beginning ' * 3}{k}" for k in (1, 2)]
    members = {f"{v}.osu": difficulty(k, v).encode() for k, v in enumerate(versions)}
    song = pack(tmp_path / "song.osz", members)
    for version in versions:
        flags = ("--beatmap", song, "--difficulty", version)
        assert remap(trained, tmp_path / "out", *flags) == 0
    assert remap(trained, tmp_path / "out", "--beatmap", song, "--all-difficulties") == 0
    assert len(list((tmp_path / "out").rglob("*.osz"))) == 3
    (both,) = (p for p in (tmp_path / "out").rglob("*.osz") if "[all]" in str(p.parent))
    new = new_difficulties(both, members)
    assert [b.version for b in new.values()] == [f"{v} {TAIL}" for v in versions]


@pytest.mark.parametrize(
    "report", ["", "[]", "{}", '{"arguments": []}', '{"arguments": {}, "source": 1}', "\x00"]
)
def test_a_report_that_makes_no_sense_is_not_overwritten(
    trained: Path, song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], report: str
) -> None:
    flags = ("--beatmap", song, "--difficulty", "Hard")
    assert remap(trained, tmp_path / "out", *flags) == 0
    path = only(tmp_path / "out", "*.result.json")
    path.write_text(report, encoding="utf-8")
    capsys.readouterr()
    assert remap(trained, tmp_path / "out", *flags) == 2
    assert "other options: add --overwrite" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == report


def test_a_path_with_spaces_and_without_quotation_marks_is_told_so(
    trained: Path, song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "My own song.osz"
    path.write_bytes(song.read_bytes())
    assert remap(trained, tmp_path / "out", "--beatmap", *str(path).split(" ")) == 2
    assert f'"{path}": a path with spaces' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("members", "flags", "message"),
    [
        (CONTENT, "", "1: Hard, 2: Easy"),
        (CONTENT, "--difficulty x", "'x' is none of them"),
        ({"taiko.osu": CONTENT["taiko.osu"]}, "", "osu!taiko"),
        (CONTENT | {"../evil": b""}, "--difficulty Hard", "leads out"),
    ],
)
def test_archives_that_are_refused(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    members: dict[str, bytes],
    flags: str,
    message: str,
) -> None:
    path = pack(tmp_path / "song.osz", members)
    capsys.readouterr()
    assert remap(trained, tmp_path / "out", "--beatmap", path, *flags.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err and str(path) in captured.err
    assert captured.out == "" and not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_member_that_is_only_copied_may_hold_anything(
    trained: Path, song: Path, tmp_path: Path
) -> None:
    """What the game opens is not refused for the sake of a song that it cannot play."""
    data = bytearray(song.read_bytes())
    at = data.index(b"a.mp3") + 50
    data[at] ^= 1
    song.write_bytes(data)
    assert remap(trained, tmp_path / "out", "--beatmap", song, "--difficulty", "Hard") == 0
    written = only(tmp_path / "out", "*.osz").read_bytes()
    assert data[: data.index(b"PK\1\2")] in written


@pytest.mark.usefixtures("no_pictures")
def test_companions_of_macos_are_no_failures(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "song"
    write_maps(folder, [0], count=12)
    (folder / "._map 0.osu").write_bytes(b"\0\5\26\7 AppleDouble")
    (folder / "song.osz").write_bytes(b"")
    pack(folder / "song.osz", {**CONTENT, "__MACOSX/._easy.osu": b"\0\5\26\7", "empty.osu": b""})
    flags = ("--beatmap", folder, "--all-difficulties")
    assert remap(trained, tmp_path / "out", *flags) == 0
    said = capsys.readouterr().err
    assert "3 remapped, 0 done before, 0 failed, 1 skipped" in said
    assert "._" not in said and "empty.osu" not in said


@pytest.mark.usefixtures("no_pictures")
def test_a_backup_in_a_set_is_left_out_and_said(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "songs"
    write_maps(folder / "set", [0], count=12)
    write_maps(folder / "set" / "backup", [1], count=12)
    (folder / "set" / "a.mp3").write_bytes(b"ID3")
    assert remap(trained, tmp_path / "out", "--beatmap", folder) == 0
    said = capsys.readouterr().err
    assert "map 1.osu: is in a sub-folder of its set, where osu! does not show it" in said
    assert "1 remapped, 0 done before, 0 failed, 1 skipped" in said
    old = difficulty(3, "Old").encode()
    archive = pack(tmp_path / "set.osz", CONTENT | {"backup/old.osu": old})
    flags = ("--beatmap", archive, "--all-difficulties")
    assert remap(trained, tmp_path / "out2", *flags) == 0
    said = capsys.readouterr().err
    assert "backup/old.osu is in a sub-folder of its set" in said and "0 failed, 2 skipped" in said


# --- many maps ------------------------------------------------------------------------------------


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Three good maps, two of them in an archive, and a copy, a broken and a taiko map."""
    folder = tmp_path / "songs"
    write_maps(folder, [0], count=12)
    pack(folder / "song.osz", CONTENT)
    (folder / "copy.osu").write_bytes((folder / "map 0.osu").read_bytes())
    (folder / "corrupt.osu").write_bytes(b"\x00\x01")
    (folder / "taiko.osu").write_bytes(CONTENT["taiko.osu"])
    return folder


def files_below(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_one_bad_map_does_not_stop_the_others_and_a_second_call_does_nothing(
    trained: Path,
    collection: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("--beatmap", collection, "--all-difficulties", "--format", "osu")
    capsys.readouterr()
    assert remap(trained, tmp_path / "out", *flags) == 1
    err = capsys.readouterr().err
    assert "3 remapped, 0 done before, 1 failed, 3 skipped" in err
    assert "failed: " in err and "corrupt.osu" in err
    assert "taiko.osu is an osu!taiko beatmap" in err and "the same file again" in err
    assert len(maps_below(tmp_path / "out")) == 3
    before = files_below(tmp_path / "out")
    assert remap(trained, tmp_path / "out", *flags) == 1
    assert "0 remapped, 3 done before, 1 failed, 3 skipped" in capsys.readouterr().err
    assert files_below(tmp_path / "out") == before
    (collection / "corrupt.osu").unlink()
    assert remap(trained, tmp_path / "out", *flags) == 0


def test_nothing_that_could_be_done_is_exit_code_2(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.osu").write_bytes(name.encode())
    flags = ("--beatmap", tmp_path / "a.osu", tmp_path / "b.osu", tmp_path / "none.osu")
    assert remap(trained, tmp_path / "out", *flags) == 2
    err = capsys.readouterr().err
    assert err.count("failed: ") == 3 and "none.osu does not exist" in err
    assert not (tmp_path / "out").exists()


def test_results_of_maps_with_one_name_do_not_meet(trained: Path, tmp_path: Path) -> None:
    for k in range(3):
        text = difficulty(k, "Same")
        (tmp_path / f"{k}.osu").write_text(text, encoding="utf-8")
    assert remap(trained, tmp_path / "out", "--beatmap", tmp_path) == 0
    assert len(list((tmp_path / "out").rglob("*.osu"))) == 3


def test_an_error_of_our_own_in_one_map_is_reported_and_the_rest_is_done(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_maps(tmp_path / "songs", range(3), count=5)

    def fails_once(*given: object) -> object:
        if given[1].beatmap.version == "Difficulty 1":  # type: ignore[attr-defined]
            raise IndexError("out of range")
        return generate(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(remapping, "generate", fails_once)
    assert remap(trained, tmp_path / "out", "--beatmap", tmp_path / "songs") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "map 1.osu: out of range" in err
    assert len(maps_below(tmp_path / "out")) == 2


def test_a_killed_run_leaves_no_half_file_and_can_go_on(
    trained: Path, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--beatmap", song, "--difficulty", "Hard")
    assert remap(trained, tmp_path / "whole", *flags) == 0
    with monkeypatch.context() as patch:
        patch.setattr(remap_files, "put_bytes", interrupted)  # the report, written last
        assert remap(trained, tmp_path / "out", *flags) == 130
    assert sorted(p.suffix for p in (tmp_path / "out").rglob("*.*")) == [".osz", ".png"]
    with monkeypatch.context() as patch:
        patch.setattr("sampling.results.write_archive", half_written)
        assert remap(trained, tmp_path / "half", *flags) == 130
    assert not list((tmp_path / "half").rglob("*.*"))
    for name in ("out", "half"):
        assert remap(trained, tmp_path / name, *flags) == 0
        again = only(tmp_path / name, "*.osz").read_bytes()
        assert again == only(tmp_path / "whole", "*.osz").read_bytes()


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def half_written(path: Path, *_: object) -> None:
    path.write_bytes(b"half")
    raise KeyboardInterrupt


def test_ranks_share_the_work_and_give_the_same_files(
    trained: Path, collection: Path, tmp_path: Path
) -> None:
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    flags = [ROOT / "sample.py", "--beatmap", collection, "--all-difficulties", "--output", "out"]
    flags += ["--ckpt", trained / "model.safetensors", "--device", "cpu"]
    flags += ["--num-sampling-steps", 2]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    result = {}
    for name, command in (("1", [sys.executable]), ("2", launcher)):
        result[name] = subprocess.run(
            [str(part) for part in [*command, *flags]],
            cwd=tmp_path / name,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=180,
        )
    for name in result:
        assert result[name].returncode == 1, result[name].stderr
        assert "3 remapped, 0 done before, 1 failed, 3 skipped" in result[name].stderr
    contents = [
        {name: data for name, (data, _) in files_below(tmp_path / number / "out").items()}
        for number in ("1", "2")
    ]
    assert contents[0] == contents[1]
    assert sorted(Path(name).suffix for name in contents[0]) == [".json", ".json", ".osu", ".osz"]


@needs_maps
def test_real_maps_survive_an_archive(trained: Path, tmp_path: Path) -> None:
    paths = real_paths("val")[:3]
    members = {f"{path.name}": path.read_bytes() for path in paths} | {"a.mp3": b"x"}
    song = pack(tmp_path / "song.osz", members)
    assert remap(trained, tmp_path / "out", "--beatmap", song, "--all-difficulties") == 0
    new = new_difficulties(only(tmp_path / "out", "*.osz"), members)
    for path, after in zip(paths, new.values(), strict=True):
        assert not any(count_changes(read_beatmap(path), after).values())
