"""What the web page does for its visitors, without a page: compared with what sample.py does."""

import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from beatmaps.osu_file import BeatmapError, GameModeError, read_beatmap
from beatmaps.osz import ArchiveError
from checkpoint import LoadedModel, load_model
from conventions.bundled import EXAMPLE
from sampling.style import ClassEntry
from tests.conftest import beatmap_text, maps_below, random_objects, remap
from web.maps import open_map, pack_example
from web.offers import LISTED, can_choose_distances, class_table, find_styles, split_styles
from web.requests import chosen_range, page_request
from web.sessions import Sessions, Stopped

STEPS = 4


@pytest.fixture(scope="module")
def loaded(trained: Path) -> LoadedModel:
    """The tiny trained model."""
    return load_model(trained / "model.safetensors")


@pytest.fixture
def sessions(loaded: LoadedModel, tmp_path: Path) -> Sessions:
    """The model with no visitors yet."""
    return Sessions(loaded, tmp_path / "served")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A set with two difficulties, one of another game mode, a damaged one, and the song."""
    path = tmp_path / "11 Somebody - Song.osz"
    with zipfile.ZipFile(path, "w") as file:
        for k, version in enumerate(("Easy", "Hard")):
            text = beatmap_text(random_objects(k, 30), version=version)
            file.writestr(f"{version}.osu", text.replace("a.mp3", "song.ogg"))
        file.writestr("Keys.osu", beatmap_text("100,100,1000,1,0", version="Keys", mode=3))
        file.writestr("Broken.osu", "no beatmap")
        file.write(EXAMPLE.parent / "first steps.ogg", "song.ogg")
    return path


def not_watching(what: str, done: int, total: int) -> None:
    """For runs whose progress is not looked at."""


# Maps and styles


def test_a_file_is_opened_with_all_that_the_page_shows(archive: Path) -> None:
    opened = open_map(archive, 1)
    assert [b.version for b in opened.beatmaps] == ["Easy", "Hard"]
    assert opened.beatmap.version == "Hard"
    assert opened.song == (EXAMPLE.parent / "first steps.ogg").read_bytes()
    assert len(opened.left_out) == 2 and isinstance(opened.left_out[0], GameModeError)
    alone = open_map(EXAMPLE)
    assert len(alone.beatmap.objects) == 199 and alone.song is None
    for chosen in (-1, 2):
        with pytest.raises(ValueError, match="has 2 difficulties: choose one"):
            open_map(archive, chosen)


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    bad = tmp_path / "bad.osz"
    bad.write_bytes(b"PK\3\4 and no more")
    with pytest.raises(ArchiveError, match=r"bad\.osz is cut off"):
        open_map(bad)
    text = tmp_path / "text.osu"
    text.write_text("Dear diary", encoding="utf-8")
    with pytest.raises(BeatmapError, match=r"text\.osu"):
        open_map(text)


def test_the_example_is_packed_with_its_song(tmp_path: Path) -> None:
    path = pack_example(EXAMPLE, tmp_path / "new")
    first = path.read_bytes()
    assert path.name == "osu-diffusion - First Steps.osz"
    assert open_map(path).beatmap.md5 == read_beatmap(EXAMPLE).md5
    assert open_map(path).song == (EXAMPLE.parent / "first steps.ogg").read_bytes()
    assert pack_example(EXAMPLE, tmp_path / "new").read_bytes() == first


def entries() -> list[ClassEntry]:
    """A class table: of Ann one map, of Bob two, one of them without an ID."""
    return [
        ClassEntry(0, 11, "Ann", "X - Sun", "Hard"),
        ClassEntry(1, 12, "Bob", "Y - Moon", "Ann's Easy"),
        ClassEntry(2, -1, "Bob", "Y - Star", "Insane"),
    ]


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", ["mapper:Bob", "mapper:Ann", "map:11", "map:12"]),
        ("ann", ["mapper:Ann", "map:11", "map:12"]),
        ("  MOON  bob ", ["map:12"]),
        ("bob star", []),
        ("2 maps", ["mapper:Bob"]),
    ],
)
def test_styles_are_found_by_all_words(query: str, values: list[str]) -> None:
    assert [value for _, value in find_styles(entries(), query)] == values


def test_picked_styles_stay_in_the_list_and_long_lists_are_cut() -> None:
    assert find_styles(entries(), "moon", ["mapper:Ann", "mapper:Nobody"]) == [
        ("Ann (1 map)", "mapper:Ann"),
        ("Y - Moon [Ann's Easy] by Bob", "map:12"),
    ]
    many = [ClassEntry(k, k + 1, f"M{k}", "A - B", "C") for k in range(100)]
    assert len(find_styles(many, "")) == LISTED
    assert len(find_styles(many, "", ["map:7"])) == LISTED + 1


def test_styles_become_ids_and_mappers() -> None:
    picked = ["map:11", "mapper:A B", "map:12"]
    assert split_styles(picked) == (["11", "12"], ["A B"])
    with pytest.raises(ValueError, match="'set:1': choose one of the list"):
        split_styles(["set:1"])


def test_what_a_model_offers(loaded: LoadedModel, tmp_path: Path) -> None:
    assert {entry.creator for entry in class_table(loaded)} == {"Mapper"}
    assert class_table(replace(loaded, path=tmp_path / "alone.safetensors")) == []
    assert not can_choose_distances(loaded)
    assert can_choose_distances(replace(loaded, metadata={"distance_dropout": 0.1}))


# Requests


@pytest.mark.parametrize("end", ["1", float("nan"), float("inf"), [1]])
def test_ranges_from_a_page_are_checked(end: object) -> None:
    assert chosen_range({"start": None, "end": 2.5}) == (None, 2.5)
    assert chosen_range(None) == (None, None)
    with pytest.raises(ValueError, match="is no time of the map"):
        chosen_range({"start": 1, "end": end})


def test_requests_have_limits() -> None:
    for wrong in ({"steps": 101}, {"steps": 0}, {"variants": 9}):
        with pytest.raises(ValueError, match="give a number from 1 to"):
            page_request(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is after"):
        page_request(start=2, end=1)
    alone = page_request(guidance=3)
    assert alone.options.cfg_scale == 1  # there is no style to exaggerate
    assert page_request(guidance=3, styles=("map:1",)).options.cfg_scale == 3


# Runs


def test_the_results_are_those_of_the_command_line(
    sessions: Sessions, trained: Path, archive: Path, tmp_path: Path
) -> None:
    request = page_request(
        styles=("map:101", "mapper:Mapper"),
        guidance=1.5,
        start=1000,
        end=5000,
        spacing="scale:1.1",
        steps=STEPS,
        strength=0.8,
        variants=2,
        seed=5,
    )
    run = sessions.remap("one", archive, request, not_watching, 1)
    flags = ["--style-id", 101, "--style-mapper", "Mapper", "--cfg-scale", 1.5, "--seed", 5]
    flags += ["--time-start", 1000, "--time-end", 5000, "--spacing", "scale:1.1"]
    flags += ["--num-variants", 2, "--strength", 0.8, "--beatmap", archive, "--no-picture"]
    for form, results in (("osu", run.files), ("osz", [run.archive])):
        output = tmp_path / form
        assert remap(trained, output, *flags, "--difficulty", "Hard", "--format", form) == 0
        wanted = sorted(output.rglob(f"*.{form}"))
        assert [path.name for path in results if path] == [path.name for path in wanted]
        for mine, theirs in zip(results, wanted, strict=True):
            if form == "osu":
                assert mine and mine.read_bytes() == theirs.read_bytes()
            elif mine:
                assert members_of(mine) == members_of(theirs)
    assert run.song and run.before.version == "Hard"
    assert run.picture(1).read_bytes()[:4] == b"\x89PNG"
    assert "<iframe sandbox" in run.player(0) and run.player(0) != run.player(1)


def members_of(path: Path) -> dict[str, bytes]:
    """The content of an archive."""
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_style_of_files_is_learnt_with_progress_and_once(
    sessions: Sessions, archive: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.osu"
    other.write_text(beatmap_text(random_objects(9, 40)), encoding="utf-8")
    request = page_request(style_files=(other,), steps=STEPS)
    seen: list[tuple[str, int, int]] = []
    first = sessions.remap("one", archive, request, lambda *step: seen.append(step))
    assert {what for what, _, _ in seen} == {"Learning the style", "Sampling"}
    assert seen[-1] == ("Sampling", STEPS, STEPS) and seen.count(seen[-1]) == 1
    seen.clear()
    second = sessions.remap("two", archive, request, lambda *step: seen.append(step))
    assert {what for what, _, _ in seen} == {"Sampling"}
    assert [made.data for made in first.made] == [made.data for made in second.made]
    plain = sessions.remap("two", archive, page_request(steps=STEPS), not_watching)
    assert plain.made[0].data != second.made[0].data


def test_a_run_of_no_strength_is_told_of_and_moves_nothing(
    sessions: Sessions, archive: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    run = sessions.remap("one", archive, page_request(strength=0), lambda *step: seen.append(step))
    assert seen == [("Sampling", 0, 1)]  # a page divides by the steps in all
    before, after = run.before.objects, run.made[0].beatmap.objects
    assert [(hit.x, hit.y) for hit in after] == [(hit.x, hit.y) for hit in before]


def test_only_the_last_run_of_a_page_is_kept_and_none_after_it(
    sessions: Sessions, archive: Path
) -> None:
    assert maps_below(sessions.folder) == {}
    first = sessions.remap("one", archive, page_request(steps=STEPS), not_watching)
    second = sessions.remap("one", archive, page_request(steps=STEPS, seed=1), not_watching)
    other = sessions.remap("two", archive, page_request(steps=STEPS), not_watching)
    assert not first.files[0].exists() and second.files[0].exists()
    assert sessions.visitor("one").run is second
    sessions.leave("one")
    sessions.leave("never here")
    assert not second.files[0].exists() and other.files[0].exists()
    assert sessions.visitor("one").run is None


def test_uploads_are_removed_with_the_last_page_that_has_them(
    sessions: Sessions, tmp_path: Path
) -> None:
    sessions.folder.mkdir()
    both, mine = sessions.folder / "both.osu", sessions.folder / "mine.osu"
    elsewhere = tmp_path / "elsewhere.osu"
    for path in (both, mine, elsewhere):
        path.write_text("a beatmap", encoding="utf-8")
    sessions.hold("one", [both, mine, elsewhere, sessions.folder / "gone.osu"])
    sessions.hold("two", [both])
    sessions.leave("one")
    assert both.exists() and not mine.exists()
    sessions.leave("two")
    assert not both.exists() and elsewhere.exists()


def test_a_cancelled_run_stops_and_the_next_one_works(sessions: Sessions, archive: Path) -> None:
    seen = []

    def cancel_at_two(what: str, done: int, total: int) -> None:
        seen.append(done)
        if done == 2:
            sessions.cancel("one")

    kept = sessions.remap("one", archive, page_request(steps=STEPS), not_watching)
    with pytest.raises(Stopped):
        sessions.remap("one", archive, page_request(steps=50), cancel_at_two)
    assert seen == [0, 1, 2]
    assert sessions.visitor("one").run is kept and kept.files[0].exists()
    with pytest.raises(Stopped):
        sessions.remap("one", archive, page_request(steps=STEPS), not_watching)
    sessions.begin("one")
    again = sessions.remap("one", archive, page_request(steps=STEPS), not_watching)
    assert again.made[0].data == kept.made[0].data
    sessions.cancel("never here")


def test_a_page_that_is_closed_during_a_run_leaves_nothing(
    sessions: Sessions, archive: Path
) -> None:
    def leave(what: str, done: int, total: int) -> None:
        sessions.leave("one")

    with pytest.raises(Stopped):
        sessions.remap("one", archive, page_request(steps=STEPS), leave)

    def leave_at_the_end(what: str, done: int, total: int) -> None:
        if done == total:
            sessions.leave("one")

    sessions.remap("one", archive, page_request(steps=STEPS), leave_at_the_end)
    assert list(sessions.folder.glob("*")) == []


def test_runs_wait_for_each_other_in_order_and_can_be_cancelled_meanwhile(
    sessions: Sessions, archive: Path
) -> None:
    """While the first run has the model, three more come; the third is cancelled."""
    names = ["one", "two", "three", "four"]
    events: list[tuple[str, str]] = []
    waits = {name: threading.Event() for name in names}

    def run(name: str) -> None:
        def report(what: str, done: int, total: int) -> None:
            events.append((name, what))
            waits[name].set()
            if name == "one" and done == 1:
                let_the_others_come()

        try:
            sessions.remap(name, archive, page_request(steps=STEPS), report)
        except Stopped:
            events.append((name, "stopped"))

    def let_the_others_come() -> None:
        for name in names[1:]:
            threads[name].start()
            assert waits[name].wait(30)
        sessions.cancel("three")
        threads["three"].join(30)

    threads = {name: threading.Thread(target=run, args=[name]) for name in names}
    run("one")
    for name in names[1:]:
        threads[name].join(30)
    assert [what for name, what in events if name == "three"] == [
        "Waiting for 2 other runs",
        "stopped",
    ]
    assert ("two", "Waiting for 1 other run") in events
    assert ("four", "Waiting for 3 other runs") in events
    sampled = [name for name, what in events if what == "Sampling"]
    assert sampled == [name for name in ("one", "two", "four") for _ in range(STEPS + 1)]


def test_wrong_requests_cost_no_sampling(sessions: Sessions, archive: Path) -> None:
    def fail(what: str, done: int, total: int) -> None:
        raise AssertionError("it samples")

    for request, chosen, message in (
        (page_request(styles=("mapper:Nobody",)), 0, "is not among the model's"),
        (page_request(start=900_000), 0, "nothing to remap"),
        (page_request(), 7, "has 2 difficulties"),
    ):
        with pytest.raises(ValueError, match=message):
            sessions.remap("one", archive, request, fail, chosen)
    with pytest.raises(BeatmapError, match="does not exist"):
        sessions.remap("one", Path("none.osu"), page_request(), fail)
