"""What the web page does for its visitors, without a page: compared with what sample.py does."""

import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from beatmaps.osu_file import BeatmapError, GameModeError, read_beatmap
from beatmaps.osz import ArchiveError
from beatmaps.sequence import Sequence
from checkpoint import LoadedModel, load_model
from conventions.bundled import EXAMPLE
from metrics.marks import MarkFinder
from sampling.conditioning import bundled_names
from sampling.flags import remap_parser, request_from
from sampling.loaded_models import Models
from sampling.request import RemapRequest
from sampling.style import ClassEntry
from tests.conftest import beatmap_text, maps_below, random_objects, remap
from tests.osu_diffusion_v2 import write_folder
from web.choices import (
    LISTED,
    can_choose_distances,
    class_table,
    find_styles,
    known_descriptors,
    known_mappers,
    split_styles,
    vocabularies,
)
from web.maps import open_map, pack_example
from web.requests import chosen_range, page_request
from web.sessions import Run, Sessions, Stopped

STEPS = 4


@pytest.fixture(scope="module")
def loaded(trained: Path) -> LoadedModel:
    """The tiny trained model."""
    return load_model(trained / "model.safetensors")


@pytest.fixture
def sessions(loaded: LoadedModel, tmp_path: Path) -> Sessions:
    """The model with no visitors yet."""
    return Sessions(Models(loaded), tmp_path / "served")


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
    can = replace(loaded, metadata={"distance_dropout": 0.1})
    assert not can_choose_distances(Models(loaded)) and can_choose_distances(Models(can))
    assert not can_choose_distances(Models(can, expert=loaded))
    assert vocabularies(Models(loaded)) == known_mappers(Models(loaded)) == []


def test_models_of_osu_diffusion_v2_offer_what_they_can_be_told(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    second = load_model(write_folder(tmp_path / "v2"))
    names = [bundled_names()[303335]]
    for models, mappers in ((Models(second), names), (Models(loaded, expert=second), [])):
        assert known_descriptors(models) == ["skillset/jumps", "skillset/streams", "style/clean"]
        assert known_mappers(models) == mappers


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
            page_request(**wrong)
    for missing in ({"seed": None}, {"spacing": "snap", "factor": None}):
        with pytest.raises(ValueError, match="Give numbers"):
            page_request(**missing)
    with pytest.raises(ValueError, match="star rating 'many': give a number, or nothing"):
        page_request(star_rating="many")
    with pytest.raises(ValueError, match="is after"):
        page_request(timeline={"start": 2, "end": 1})
    alone = page_request(guidance=3)
    assert alone.options.cfg_scale == 1  # there is no style to exaggerate
    assert page_request(guidance=3, styles=("map:1",)).options.cfg_scale == 3


def test_the_page_asks_for_what_flags_ask_for() -> None:
    flags = ["--time-start", "1000", "--objects", "00:01:000 (1,2) -", "--seed", "5"]
    flags += ["--style-id", "101", "--style-mapper", "Ann", "7", "--cfg-scale", "2"]
    flags += ["--spacing", "scale:1.1", "--num-variants", "3", "--strength", "0.5"]
    flags += ["--descriptors", "style/clean", "--negative-descriptors", "streams"]
    flags += ["--star-rating", "6.5", "--circle-size", "4", "--num-sampling-steps", "9"]
    flags += ["--expert-ckpt", "v2", "--expert-below", "20", "--max-noise-step", "50"]
    base = RemapRequest(expert=Path("v2"), expert_below=20, max_noise_step=50)
    asked = page_request(
        base,
        timeline={"start": 1000, "end": None},
        objects=" 00:01:000 (1,2) - ",
        seed=5,
        styles=["map:101", "mapper:Ann"],
        mappers=["7"],
        guidance=2,
        spacing="scale",
        factor=1.1,
        variants=3,
        strength=0.5,
        descriptors=["style/clean"],
        negative_descriptors=["streams"],
        star_rating="6.5",
        circle_size=" 4 ",
        steps=9,
    )
    wanted = request_from(remap_parser().parse_args(flags))
    assert asked.label() == wanted.label()
    assert asked == replace(wanted, selection=asked.selection, pictures=asked.pictures)
    assert replace(asked.selection, objects=wanted.selection.objects) == wanted.selection


# Runs


def test_the_results_are_those_of_the_command_line(
    sessions: Sessions, trained: Path, archive: Path, tmp_path: Path
) -> None:
    request = page_request(
        styles=("map:101", "mapper:Mapper"),
        guidance=1.5,
        timeline={"start": 1000, "end": 5000},
        spacing="scale",
        factor=1.1,
        steps=STEPS,
        strength=0.8,
        variants=2,
        seed=5,
    )
    run = sessions.remap("one", archive, request, not_watching, 1)
    flags = ["--style-id", 101, "--style-mapper", "Mapper", "--cfg-scale", 1.5, "--seed", 5]
    flags += ["--time-start", 1000, "--time-end", 5000, "--spacing", "scale:1.1"]
    flags += ["--num-variants", 2, "--strength", 0.8, "--beatmap", archive, "--no-picture"]
    assert remap(trained, tmp_path, *flags, "--difficulty", "Hard", "--format", "osu") == 0
    wanted = sorted(tmp_path.glob("*/*.osu"))
    assert [variant.file.name for variant in run.variants] == [path.name for path in wanted]
    for mine, theirs in zip(run.variants, wanted, strict=True):
        assert mine.file.read_bytes() == theirs.read_bytes()
    looks = [run.look(k) for k in (0, 1)]
    assert "<iframe sandbox" in looks[0].player and looks[0].player != looks[1].player
    assert "audio/ogg" in looks[1].player
    for look, made in zip(looks, run.variants, strict=True):
        assert look.picture.read_bytes()[:4] == made.card.read_bytes()[:4] == b"\x89PNG"
        # The archive is the one that was brought, with the chosen variant alone beside the rest.
        assert look.archive is not None and look.archive.name == archive.name
        assert members_of(look.archive) == members_of(archive) | {
            made.file.name: made.file.read_bytes()
        }


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
    told = list(dict.fromkeys(what for what, _, _ in seen))
    assert told == ["Reading the map", "Learning the style", "Sampling", "Writing and drawing"]
    assert [done for what, done, _ in seen if what == "Sampling"] == list(range(STEPS + 1))
    seen.clear()
    second = sessions.remap("two", archive, request, lambda *step: seen.append(step))
    assert "Learning the style" not in {what for what, _, _ in seen}
    assert data_of(first) == data_of(second)
    plain = sessions.remap("two", archive, page_request(steps=STEPS), not_watching)
    assert data_of(plain) != data_of(second)


def test_a_run_of_no_strength_is_told_of_and_moves_nothing(
    sessions: Sessions, archive: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    run = sessions.remap("one", archive, page_request(strength=0), lambda *step: seen.append(step))
    assert ("Sampling", 0, 1) in seen and all(total for _, _, total in seen)  # to divide by
    with run.job() as job:
        before = job.beatmaps[0].objects
    after = read_beatmap(run.variants[0].file).objects
    assert [(hit.x, hit.y) for hit in after] == [(hit.x, hit.y) for hit in before]


def data_of(run: Run) -> list[bytes]:
    """The new difficulties of a run."""
    return [variant.file.read_bytes() for variant in run.variants]


def test_earlier_results_are_shown_again_without_sampling(
    sessions: Sessions, archive: Path
) -> None:
    first, second = (
        sessions.remap(
            "one", archive, page_request(steps=1, seed=seed), not_watching, seed, {"seed": seed}
        )
        for seed in (0, 1)
    )
    assert sessions.visitor("one").run == second
    again = sessions.show("one", 0)
    assert again == first and sessions.visitor("one").run == first
    assert again.settings == {"seed": 0} and again.look(0).archive is not None
    with again.job() as job:
        assert job.beatmaps[0].version == "Easy"
    archives = list(sessions.folder.rglob("*.osz"))
    assert len(archives) == 1  # of what is shown alone
    sessions.show("one", 1)
    assert not archives[0].exists()
    for at in (-1, 2):
        with pytest.raises(ValueError, match="that result is gone"):
            sessions.show("one", at)
    with pytest.raises(ValueError, match="that result is gone"):
        sessions.show("one", 0, 1)
    with pytest.raises(ValueError, match="that result is gone"):
        sessions.show("never here")


def test_a_page_keeps_its_last_results_alone(
    sessions: Sessions, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.sessions.KEPT_RUNS", 2)
    assert maps_below(sessions.folder) == {}
    runs = [
        sessions.remap("one", archive, page_request(steps=1, seed=seed), not_watching)
        for seed in range(3)
    ]
    other = sessions.remap("two", archive, page_request(steps=1), not_watching)
    assert sessions.visitor("one").runs == runs[1:]
    assert not runs[0].folder.exists() and runs[1].variants[0].file.exists()
    sessions.leave("one")
    sessions.leave("never here")
    assert not runs[2].folder.exists() and other.variants[0].file.exists()
    assert sessions.visitor("one").run is None


def test_parts_of_variants_are_combined(
    sessions: Sessions, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.sessions.KEPT_COMBINATIONS", 2)
    run = sessions.remap("one", archive, page_request(steps=1, variants=2), not_watching)
    for second in (3, 4, 5):
        made = sessions.combine("one", f"00:02:000 - 00:0{second}:000 -> 2", 0)
    assert made.variants[:2] == run.variants and len(made.variants) == 4 and made.shown == 3
    newest = made.variants[-1]
    assert "#1+#2+#1" in newest.version and len(newest.joints) == 2
    assert read_beatmap(newest.file).version == newest.version
    archived = made.look(made.shown).archive
    assert archived is not None and newest.file.name in members_of(archived)
    folders = {variant.card.parent for variant in made.variants}
    assert {path for path in made.folder.iterdir() if path.is_dir()} == folders
    assert sessions.visitor("one").run == made
    for text, rest, message in (
        ("00:02:000 - 00:03:000 -> 3", 0, "variants 1 to 2"),
        ("00:02:000 - 00:03:000 -> 2", 2, "choose one of them"),
        ("00:00:000 - -> 1", 0, "all objects come from variant 1"),
    ):
        with pytest.raises(ValueError, match=message):
            sessions.combine("one", text, rest)
    assert sessions.visitor("one").run == made


def test_a_run_measures_its_source_once_for_the_marks_of_all_variants(
    sessions: Sessions, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def counting(before: Sequence) -> MarkFinder:
        measured.append(before.beatmap.version)
        return MarkFinder(before)

    monkeypatch.setattr("web.sessions.MarkFinder", counting)
    run = sessions.remap("one", archive, page_request(steps=1, variants=2), not_watching)
    run = sessions.combine("one", "00:02:000 - 00:03:000 -> 2", 0)
    players = {run.look(k).player for k in (0, 1, 2, 0)}
    assert len(players) == 3 and measured == ["Easy"]


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
        if what == "Sampling":
            seen.append(done)
        if seen[-1:] == [2]:
            sessions.cancel("one")

    kept = sessions.remap("one", archive, page_request(steps=STEPS), not_watching)
    with pytest.raises(Stopped):
        sessions.remap("one", archive, page_request(steps=50), cancel_at_two)
    assert seen == [0, 1, 2]
    assert sessions.visitor("one").run == kept and kept.variants[0].file.exists()
    assert list(kept.folder.parent.iterdir()) == [kept.folder]
    with pytest.raises(Stopped):
        sessions.remap("one", archive, page_request(steps=STEPS), not_watching)
    sessions.begin("one")
    again = sessions.remap("one", archive, page_request(steps=STEPS), not_watching)
    assert data_of(again) == data_of(kept)
    sessions.cancel("never here")


def test_a_page_that_is_closed_during_a_run_leaves_nothing(
    sessions: Sessions, archive: Path
) -> None:
    def leave(what: str, done: int, total: int) -> None:
        sessions.leave("one")

    with pytest.raises(Stopped):
        sessions.remap("one", archive, page_request(steps=STEPS), leave)

    def leave_at_the_end(what: str, done: int, total: int) -> None:
        if what == "Writing and drawing":
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
        assert what == "Reading the map", "it samples"

    for request, chosen, message in (
        (page_request(styles=("mapper:Nobody",)), 0, "is not among the model's"),
        (page_request(timeline={"start": 900_000, "end": None}), 0, "nothing to remap"),
        (page_request(), 7, "has 2 difficulties"),
    ):
        with pytest.raises(ValueError, match=message):
            sessions.remap("one", archive, request, fail, chosen)
    with pytest.raises(BeatmapError, match="does not exist"):
        sessions.remap("one", Path("none.osu"), page_request(), fail)
