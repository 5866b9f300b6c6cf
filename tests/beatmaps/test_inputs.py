"""Files, folders and patterns; which difficulty of an archive is meant."""

import io
import zipfile
from pathlib import Path

import pytest

from beatmaps.inputs import Choice, choose, find_inputs, is_archive, open_jobs
from beatmaps.osu_file import BeatmapError, GameModeError, LeftOutError, read_beatmap
from beatmaps.osz import ArchiveError
from tests.conftest import beatmap_text
from viewer.player_page import find_audio

CIRCLE = "100,100,1000,1,0"


def osz_bytes(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name, text in members.items():
            new.writestr(name, text)
    return buffer.getvalue()


def tree(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")


# --- files ----------------------------------------------------------------------------------------


def found(folder: Path, *patterns: str) -> list[str]:
    paths, left_out = find_inputs([folder / p for p in patterns], folder / "results")
    assert not left_out
    return [path.relative_to(folder).as_posix() for path in paths]


def test_files_folders_and_patterns_are_found_once_in_a_fixed_order(tmp_path: Path) -> None:
    tree(tmp_path, "b [Hard].osu", "a [Easy].osu", "song/c.OSZ", "song/deep/d.osu", "song/e.mp3")
    assert found(tmp_path, "b [Hard].osu", "a [Easy].osu") == ["b [Hard].osu", "a [Easy].osu"]
    everything = ["a [Easy].osu", "b [Hard].osu", "song/c.OSZ", "song/deep/d.osu"]
    assert found(tmp_path, "") == everything
    assert found(tmp_path, "*.osu") == everything[:2]
    assert found(tmp_path, "* [H*].osu") == ["b [Hard].osu"]
    assert found(tmp_path, "? [Easy].osu") == ["a [Easy].osu"]
    assert found(tmp_path, "**/*.osu") == [*everything[:2], "song/deep/d.osu"]
    assert found(tmp_path, "s*") == everything[2:]
    assert found(tmp_path, "song/e.mp3", "song") == ["song/e.mp3", *everything[2:]]
    assert found(tmp_path, "song/deep/../c.OSZ", "song/c.OSZ") == ["song/deep/../c.OSZ"]
    assert found(tmp_path, "nowhere.osu") == ["nowhere.osu"]  # reading it says what is wrong


def test_results_are_no_inputs_unless_they_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "a.osu", "results/x/b.osu")
    assert found(tmp_path, "") == ["a.osu"]
    assert found(tmp_path, "results/x/b.osu") == ["results/x/b.osu"]
    assert found(tmp_path, "results/x") == ["results/x/b.osu"]


def test_copies_are_told_apart_from_files_of_equal_size(tmp_path: Path) -> None:
    for name, text in (("a.osu", "one"), ("b.osu", "two"), ("c.osu", "one"), ("d.osu", "three")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    paths, left_out = find_inputs([tmp_path], tmp_path / "out")
    assert [p.name for p in paths] == ["a.osu", "b.osu", "d.osu"]
    assert left_out == [(tmp_path / "c.osu", "the same file again")]


def test_hidden_files_companions_and_empty_files_are_passed_over(tmp_path: Path) -> None:
    hidden = ("._a.osu", ".trash/b.osu", "__MACOSX/._c.osu", "@eaDir/d.osu", "song/.e.osz")
    tree(tmp_path, "a.osu", *hidden)
    (tmp_path / "empty.osu").write_bytes(b"")
    assert found(tmp_path, "") == found(tmp_path, "*.osu") == ["a.osu"]
    assert found(tmp_path, ".trash") == [".trash/b.osu"]  # who names it means it
    named = ["._a.osu", "empty.osu"]
    assert found(tmp_path, *named) == named


def test_difficulties_in_a_set_s_sub_folders_are_left_out_and_named(tmp_path: Path) -> None:
    tree(tmp_path, "set/a.osu", "set/a.mp3", "set/backup/b.osu", "set/backup/old/c.osu")
    tree(tmp_path, "pack/one/d.osu", "pack/d.mp3", "e.osu", "set/backup/f.osz")
    paths, left_out = find_inputs([tmp_path], tmp_path / "results")
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == ["e.osu", "pack/one/d.osu", "set/a.osu", "set/backup/f.osz"]
    below = [tmp_path / "set/backup" / name for name in ("b.osu", "old/c.osu")]
    assert [path for path, _ in left_out] == below
    assert all("in a sub-folder of its set, where osu! does not show it" in r for _, r in left_out)
    assert found(tmp_path, "set/backup")[0] == "set/backup/b.osu"  # who names it means it
    paths, left_out = find_inputs([tmp_path / "set", below[0]], tmp_path / "results")
    assert below[0] in paths and [path for path, _ in left_out] == below[1:]


def test_a_file_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> str:
        if path.name == "a.osu":
            raise PermissionError(13, "Permission denied")
        return path.read_text(encoding="utf-8")

    tree(tmp_path, "a.osu", "b.osu", "c.osu")
    monkeypatch.setattr("beatmaps.inputs.file_md5", read)
    assert found(tmp_path, "") == ["a.osu", "b.osu", "c.osu"]


@pytest.mark.parametrize("pattern", ["*.osu", "empty", "**/x?.osz"])
def test_nothing_to_be_found_is_an_error(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"there is no .osu or .osz file there"):
        find_inputs([tmp_path / pattern], tmp_path / "out")


def test_archives_are_known_by_name_or_content(tmp_path: Path) -> None:
    data = {"a.osz": b"", "b.zip": osz_bytes({"a": "b"}), "c.osu": b"osu file", "d.osu": b""}
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    assert [is_archive(tmp_path / name) for name in (*data, "none")] == [True] * 2 + [False] * 3


# --- difficulties ---------------------------------------------------------------------------------

NAMES = ["Easy", "easy", "Insane 3", "Collab Insane", "Extra"]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [("Easy", 0), ("easy", 1), ("EXTRA", 4), ("3", 2), ("5", 4), ("collab", 3), ("insane 3", 2)],
)
def test_a_difficulty_is_meant_by_name_number_or_part(wanted: str, index: int) -> None:
    assert choose(Path("s.osz"), NAMES, wanted) == index


@pytest.mark.parametrize("wanted", ["EASY", "insane", "6", "0", "nothing", "", None])
def test_an_unclear_choice_shows_the_list(wanted: str | None) -> None:
    with pytest.raises(BeatmapError, match=r"s.osz has 5 difficulties.*1: Easy, 2: easy, 3: Ins"):
        choose(Path("s.osz"), NAMES, wanted)


def test_difficulties_of_one_name_are_told_apart_by_number_and_file() -> None:
    files = ["a/x.osu", "a/Normal.osu", "a/y.osu"]
    with pytest.raises(BeatmapError) as caught:
        choose(Path("s.osz"), ["Normal", "Hard", "Normal"], "Normal", files)
    assert str(caught.value) == (
        "s.osz has 3 difficulties, difficulty 'Normal' means 2 of them: give the number of one "
        "(1: Normal in 'a/x.osu', 2: Hard, 3: Normal in 'a/y.osu'), or take all difficulties"
    )
    assert choose(Path("s.osz"), ["Normal", "Hard", "Normal"], "3", files) == 2
    assert choose(Path("s.osz"), ["Normal", "Hard", "Normal"], "A\\y.osu", files) == 2


def test_a_single_difficulty_needs_no_choice() -> None:
    assert choose(Path("s.osz"), ["Only"], None) == 0
    with pytest.raises(BeatmapError, match="1: Only"):
        choose(Path("s.osz"), ["Only"], "Other")


@pytest.mark.parametrize("wanted", ["Hard", "hard", "har", None])
def test_a_loose_file_is_taken_by_its_difficulty(tmp_path: Path, wanted: str | None) -> None:
    path = tmp_path / "a.osu"
    path.write_text(beatmap_text(CIRCLE, version="Hard"), encoding="utf-8")
    with open_jobs(path, Choice(difficulty=wanted)) as (jobs, _):
        assert [b.version for b in jobs[0].beatmaps] == ["Hard"]


def test_a_loose_file_of_another_difficulty_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.osu"
    path.write_text(beatmap_text(CIRCLE, version="Hard"), encoding="utf-8")
    message = r"a\.osu is the difficulty 'Hard', not difficulty 'Easy': leave that flag out"
    with pytest.raises(BeatmapError, match=message), open_jobs(path, Choice(difficulty="Easy")):
        pass


def mixed(path: Path) -> Path:
    members = {
        "taiko.osu": beatmap_text(CIRCLE, version="Oni", mode=1),
        "normal.osu": beatmap_text(CIRCLE, version="Normal"),
        "broken.osu": "nothing",
        "HARD.OSU": beatmap_text(CIRCLE, version="Hard"),
        "audio.mp3": "a",
    }
    path.write_bytes(osz_bytes(members))
    return path


def test_only_standard_difficulties_count_and_others_are_named(tmp_path: Path) -> None:
    path = mixed(tmp_path / "a.osz")
    with open_jobs(path, Choice(all_difficulties=True)) as (jobs, left_out):
        (job,) = jobs
        assert [b.version for b in job.beatmaps] == ["Normal", "Hard"]
        assert [m.name for m in job.members] == ["normal.osu", "HARD.OSU"]
        assert str(job) == str(path)
    assert [type(error) for error in left_out] == [GameModeError, BeatmapError]
    assert "taiko.osu" in str(left_out[0]) and "broken.osu" in str(left_out[1])
    with open_jobs(path, Choice(all_difficulties=True, format="osu")) as (jobs, _):
        assert [job.beatmaps[0].version for job in jobs] == ["Normal", "Hard"]
        assert all(job.archive is None for job in jobs)
        assert len({job.md5 for job in jobs}) == 2
    with open_jobs(path, Choice(difficulty="hard")) as (jobs, _):
        assert [b.version for b in jobs[0].beatmaps] == ["Hard"]
    with pytest.raises(BeatmapError, match="1: Normal, 2: Hard"), open_jobs(path, Choice()):
        pass


def backed_up(path: Path, top: str = "") -> Path:
    members = {
        f"{top}a.osu": beatmap_text(CIRCLE, version="Normal"),
        f"{top}backup\\b.osu": beatmap_text(CIRCLE, version="Old"),
        f"{top}a.mp3": "a",
        f"{top}__MACOSX/._a.osu": "\0\5\26\7",
        f"{top}empty.osu": "",
    }
    path.write_bytes(osz_bytes(members))
    return path


@pytest.mark.parametrize("top", ["", "My Song/"])
def test_difficulties_in_sub_folders_are_taken_by_their_file_alone(
    tmp_path: Path, top: str
) -> None:
    path = backed_up(tmp_path / "a.osz", top)
    for choice in (Choice(), Choice(all_difficulties=True)):
        with open_jobs(path, choice) as (jobs, left_out):
            assert [b.version for b in jobs[0].beatmaps] == ["Normal"]
            assert jobs[0].song(jobs[0].beatmaps[0]) == b"a"
        (error,) = left_out
        assert f"{top}backup/b.osu is in a sub-folder of its set" in str(error)
        assert isinstance(error, LeftOutError)
    with open_jobs(path, Choice(difficulty=f"{top}backup/b.osu")) as (jobs, left_out):
        assert [b.version for b in jobs[0].beatmaps] == ["Old"] and not left_out
        assert jobs[0].song(jobs[0].beatmaps[0]) == b"a"


def test_folders_of_an_archive_without_a_difficulty_at_the_top_count(tmp_path: Path) -> None:
    path = tmp_path / "a.osz"
    members = {"one/a.osu": beatmap_text(CIRCLE), "two/b.osu": beatmap_text(CIRCLE), "a.mp3": "a"}
    path.write_bytes(osz_bytes(members))
    with open_jobs(path, Choice(all_difficulties=True)) as (jobs, left_out):
        assert len(jobs[0].beatmaps) == 2 and not left_out


@pytest.mark.parametrize("song", ["virtual", "Virtual", ""])
def test_a_map_without_a_song_becomes_an_archive(tmp_path: Path, song: str) -> None:
    path = tmp_path / "a.osu"
    path.write_text(beatmap_text(CIRCLE).replace("a.mp3", song), encoding="utf-8")
    with open_jobs(path, Choice(format="osz")) as ((job,), _):
        assert [m.name for m in job.members] == ["a.osu"]
        assert job.song(job.beatmaps[0]) is None


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("\u00e9.mp3", "e\u0301.mp3"),
        ("e\u0301.mp3", "\u00e9.mp3"),
        ("SONG.mp3", "song.MP3"),
        ("sb\\a.mp3", "SB/a.mp3"),
    ],
)
def test_a_song_is_found_however_it_is_spelt(tmp_path: Path, wanted: str, there: str) -> None:
    path = tmp_path / "a.osu"
    path.write_text(beatmap_text(CIRCLE).replace("a.mp3", wanted), encoding="utf-8")
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_bytes(b"ID3")
    with open_jobs(path, Choice(format="osz")) as ((job,), _):
        assert job.song(job.beatmaps[0]) == b"ID3"
    assert find_audio(read_beatmap(path))[0] == b"ID3"


def test_archives_without_a_standard_difficulty_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.osz"
    taiko = beatmap_text(CIRCLE, mode=1)
    cases: list[tuple[dict[str, str], type[Exception]]] = [
        ({"a.osu": taiko, "b.mp3": "x"}, GameModeError),
        ({"a.osu": taiko, "b.osu": "x"}, BeatmapError),
        ({"a.mp3": "x"}, BeatmapError),
    ]
    for members, kind in cases:
        path.write_bytes(osz_bytes(members))
        message = r"no osu!standard difficulty"
        with pytest.raises(kind, match=message) as caught, open_jobs(path, Choice()):
            pass
        assert type(caught.value) is kind


def test_a_song_folder_becomes_an_archive(tmp_path: Path) -> None:
    folder = tmp_path / "1 Song"
    folder.mkdir()
    (folder / "A.osu").write_text(beatmap_text(CIRCLE), encoding="utf-8")
    (folder / "other.osu").write_text(beatmap_text(CIRCLE), encoding="utf-8")
    choice = Choice(format="osz")
    message = r"its song 'a.mp3' is not beside it"
    with pytest.raises(ArchiveError, match=message), open_jobs(folder / "A.osu", choice):
        pass
    (folder / "A.MP3").write_bytes(b"music")
    with open_jobs(folder / "A.osu", choice) as (jobs, left_out):
        (job,) = jobs
        assert job.archive is not None and job.title == "1 Song" and not left_out
        assert sorted(m.name for m in job.archive.members) == ["A.MP3", "A.osu", "other.osu"]
        assert [m.name for m in job.members] == ["A.osu"]


@pytest.mark.parametrize(
    ("options", "from_archive", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"format": "osu"}, True, False),
        ({"format": "osz"}, False, True),
        ({"separate_set": True}, False, True),
    ],
)
def test_the_format_follows_the_input(
    options: dict[str, object], from_archive: bool, expected: bool
) -> None:
    assert Choice(**options).into_archive(from_archive) is expected  # type: ignore[arg-type]
