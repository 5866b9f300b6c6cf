"""Packing folders of beatmaps: what is found, what is left out and why, the cache."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import create_dataset
from beatmaps.osu_file import Beatmap, read_beatmap
from beatmaps.sequence import Sequence, beatmap_to_sequence
from data_loading import PackedDataset
from datasets import read as reading
from datasets.class_tables import load_beatmap_idx
from datasets.pack import open_or_pack, pack
from datasets.read import Packed, Skipped
from datasets.sources import Source, find_beatmaps
from tests.conftest import (
    beatmap_text,
    call_main,
    pack_maps,
    random_objects,
    read_json,
    run_command,
    write_maps,
)
from tests.datasets.test_sources import store, write_archive

FOLDER = os.environ.get("OSU_DIFFUSION_BEATMAPS")


def write_tree(folder: Path) -> None:
    """Three good maps in a deep tree, a copy of one, and everything that cannot be packed."""
    deep = folder / "12 a - b" / "夜空"
    write_maps(folder, [0])
    write_maps(deep, [1, 2])
    (folder / "copy.osu").write_bytes((folder / "map 0.osu").read_bytes())
    (folder / "taiko.osu").write_text(beatmap_text("1,1,1,1,0", mode=1), encoding="utf-8")
    (folder / "mania.osu").write_text(beatmap_text("1,1,1,1,0", mode=3), encoding="utf-8")
    (folder / "empty.osu").write_bytes(b"")
    (folder / "noise.osu").write_bytes(np.random.default_rng(0).bytes(2000))
    (folder / "no objects.osu").write_text(beatmap_text(""), encoding="utf-8")
    (folder / "notes.txt").write_text(beatmap_text("1,1,1,1,0"), encoding="utf-8")


def test_a_tree_is_packed_and_what_is_left_out_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs, output = tmp_path / "songs", tmp_path / "packed"
    write_tree(songs)
    flags = (songs, "--output", output, "--num-workers", 1)
    assert call_main(create_dataset.main, *flags) == 0
    dataset = PackedDataset(output)
    ids = dataset.beatmaps["beatmap_id"].tolist()
    assert sorted(ids) == [101, 102, 103]
    reasons = {Path(e["file"]).name: e["reason"] for e in dataset.description["skipped"]}
    again = {"copy.osu", "map 0.osu"} & set(reasons)
    assert len(again) == 1 and "the same file as Somebody" in reasons.pop(again.pop())
    assert "osu!taiko" in reasons.pop("taiko.osu")
    assert "osu!mania" in reasons.pop("mania.osu")
    assert "is empty" in reasons.pop("empty.osu")
    assert "not an osu! beatmap" in reasons.pop("noise.osu")
    assert "no hit objects" in reasons.pop("no objects.osu")
    assert not reasons
    printed = capsys.readouterr().out
    assert "packed 3 new maps" in printed and "skipped 6 beatmaps" in printed
    assert "1 is an osu!taiko beatmap, such as" in printed


def test_the_packed_points_are_those_of_the_beatmaps(songs: Path, packed: PackedDataset) -> None:
    for row in packed.beatmaps.itertuples():
        beatmap = read_beatmap(songs / f"map {row.beatmap_id - 101}.osu")
        sequence = beatmap_to_sequence(beatmap)
        points = packed.points[row.offset : row.offset + row.count]
        assert row.count == len(sequence)
        assert np.array_equal(points["time"], sequence.times)
        assert np.array_equal(points["type"], sequence.types)
        assert np.array_equal(points["x"], sequence.xy[:, 0].astype(np.float32))
        assert np.array_equal(points["y"], sequence.xy[:, 1].astype(np.float32))
        assert (row.md5, row.title) == (beatmap.md5, beatmap.title)
        assert (row.version, row.set_id, row.creator) == (beatmap.version, beatmap.set_id, "Mapper")
        assert row.circle_size == 4
    assert packed.beatmaps["class_index"].tolist() == list(range(len(packed)))
    index = load_beatmap_idx(packed.folder / "beatmap_idx.pickle")
    assert index == packed.beatmap_idx() and set(index) == set(packed.beatmaps["beatmap_id"])


def write_mapperator(folder: Path) -> None:
    """Tracks 0 to 2 with two maps each; classes 0, 1, 10, 11, 20, 21."""
    for track in range(3):
        maps = folder / f"Track{track:05d}" / "beatmaps"
        maps.mkdir(parents=True)
        for k in range(2):
            number = 10 * track + k
            text = beatmap_text(random_objects(number, 20), beatmap_id=500 + number)
            path = maps / f"{number:06d}M{k:03d}.osu"
            path.write_text(text, encoding="utf-8")
        (maps.parent / "metadata.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "classes"),
    [
        ((), [0, 1, 10, 11, 20, 21]),
        (("--data-start", 1), [10, 11, 20, 21]),
        (("--data-start", 1, "--data-end", 2), [10, 11]),
        (("--data-end", 0), []),
    ],
)
def test_a_mapperator_dataset_has_the_classes_of_its_file_names(
    tmp_path: Path, flags: tuple[object, ...], classes: list[int]
) -> None:
    write_mapperator(tmp_path / "data")
    arguments = (tmp_path / "data", "--output", tmp_path / "packed", *flags)
    if not classes:
        with pytest.raises(ValueError, match=r"found no \.osu"):
            call_main(create_dataset.main, *arguments)
        return
    call_main(create_dataset.main, *arguments)
    dataset = PackedDataset(tmp_path / "packed")
    assert dataset.beatmaps["class_index"].tolist() == classes
    assert dataset.num_classes == classes[-1] + 1
    assert dataset.beatmap_idx() == {500 + number: number for number in classes}


def test_a_mapperator_file_without_digits_is_an_error(tmp_path: Path) -> None:
    write_mapperator(tmp_path)
    (tmp_path / "Track00001" / "beatmaps" / "hello.osu").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"hello\.osu.*six digits"):
        find_beatmaps(tmp_path)
    assert len(find_beatmaps(tmp_path, data_start=2)) == 2  # not looked at


def test_a_song_named_like_a_track_is_an_ordinary_folder(tmp_path: Path) -> None:
    write_maps(tmp_path / "123 Someone - SoundTrack00001", [0])
    assert [source.class_index for source in find_beatmaps(tmp_path)] == [None]


def test_a_dataset_is_replaced_only_when_asked(tmp_path: Path, songs: Path) -> None:
    write_maps(tmp_path / "one", [9])
    output = tmp_path / "packed"
    call_main(create_dataset.main, songs, "--output", output)
    call_main(create_dataset.main, tmp_path / "one", "--output", output)
    assert len(PackedDataset(output)) == 7  # added
    call_main(create_dataset.main, tmp_path / "one", "--output", output, "--overwrite")
    assert PackedDataset(output).beatmaps["beatmap_id"].tolist() == [110]
    assert load_beatmap_idx(output / "beatmap_idx.pickle") == {110: 0}


def test_folders_without_a_usable_map_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "packed"
    (tmp_path / "none").mkdir()
    for folder, reason in ((tmp_path / "none", "found no .osu"), (tmp_path / "x", "not a folder")):
        assert run_command(create_dataset.main, folder, "--output", output) == 2
        assert reason in capsys.readouterr().err
    (tmp_path / "none" / "bad.osu").write_bytes(b"")
    assert run_command(create_dataset.main, tmp_path / "none", "--output", output) == 2
    assert "is empty" in capsys.readouterr().err
    assert not (output / "dataset.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_file_names_that_are_no_utf8_are_packed_and_reported(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """As old archives in other encodings leave them."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_maps(folder, [0])
    (folder / os.fsdecode(b"caf\xe9.osu")).write_bytes(b"")
    arguments = (tmp_path, "--output", tmp_path / "packed")
    assert call_main(create_dataset.main, *arguments) == 0
    description = read_json(tmp_path / "packed" / "dataset.json")
    assert description["num_beatmaps"] == 1
    assert "caf\\xe9.osu" in description["skipped"][0]["file"].replace("\\udce9", "\\xe9")
    assert b"skipped" in capsysbinary.readouterr().out


def test_a_folder_is_packed_once_and_then_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs, cache = tmp_path / "songs", tmp_path / "cache"
    write_mapperator(songs)
    first = open_or_pack(songs, cache)
    other = open_or_pack(songs, cache, 1, 2)  # another range is another dataset
    assert (len(first), len(other)) == (6, 2)

    def packed_again(*_: object) -> None:
        raise AssertionError("packed again")

    monkeypatch.setattr("datasets.pack.pack", packed_again)
    assert open_or_pack(songs, cache).folder == first.folder
    assert open_or_pack(first.folder, cache).folder == first.folder
    with pytest.raises(ValueError, match="not a folder"):
        open_or_pack(tmp_path / "nowhere", cache)


def test_packing_twice_gives_the_same_files(songs: Path, packed: PackedDataset) -> None:
    again = pack_maps(songs, packed.folder.parent / "again")
    assert again.description["files"] == packed.description["files"]  # named by their content


# --- several sources, duplicates ------------------------------------------------------------------


def pack_into(output: Path, *arguments: object) -> PackedDataset:
    """Runs the command in this process."""
    assert call_main(create_dataset.main, *arguments, "--output", output) == 0
    return PackedDataset(output)


def skipped(dataset: PackedDataset) -> dict[str, str]:
    """Names of the skipped files with the kinds of reasons."""
    return {Path(e["file"]).name: e["kind"] for e in dataset.description["skipped"]}


def test_all_kinds_of_sources_are_packed_at_once(tmp_path: Path) -> None:
    """Mapperator classes are its own; the others get the next free ones."""
    write_mapperator(tmp_path / "data")
    track = tmp_path / "data" / "Track00002"
    known = {"BeatmapId": 7777, "StandardStarRating": {"0": 3.5}}
    metadata = {"BeatmapSetId": 88, "Beatmaps": {"000020M000": known}}
    (track / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    write_maps(tmp_path / "songs", [1])
    taiko = beatmap_text("1,1,1,1,0", mode=1).encode()
    members = {f"{k}.osu": beatmap_text(random_objects(k, 20)).encode() for k in (60, 61)}
    write_archive(tmp_path / "songs" / "set.osz", {**members, "taiko.osu": taiko})
    (tmp_path / "songs" / "broken.osz").write_bytes(b"PK")
    store(tmp_path / "lazer", beatmap_text(random_objects(70, 20), beatmap_id=170).encode())
    store(tmp_path / "lazer", b"ID3" * 100)
    paths = [tmp_path / name for name in ("songs", "lazer", "data")]
    dataset = pack_into(tmp_path / "packed", *paths)
    table = dataset.beatmaps
    assert table["beatmap_id"].tolist() == [102, 0, 0, 170, 500, 501, 510, 511, 7777, 521]
    assert table["class_index"].tolist() == [22, 23, 24, 25, 0, 1, 10, 11, 20, 21]
    assert (table["star_rating"][8], table["set_id"][8]) == (3.5, 88)
    assert dataset.num_classes == 26
    assert skipped(dataset) == {
        "taiko.osu": "is an osu!taiko beatmap",
        "broken.osz": "is not a ZIP archive",
    }


def test_equal_hit_objects_are_taken_once(tmp_path: Path, songs: Path) -> None:
    """The first by name, but rather one that was submitted; a file is told from its contents."""
    folder = tmp_path / "songs"
    folder.mkdir()
    objects = random_objects(0, 20)
    for name, number in (("a", 0), ("b", 55), ("c", 56), ("d", 0)):
        text = beatmap_text(objects, version=name, beatmap_id=number)
        (folder / f"{name}.osu").write_text(text, encoding="utf-8")
    moved = objects.replace("500", "501", 1)
    (folder / "e.osu").write_text(beatmap_text(moved, version="e"), encoding="utf-8")
    (folder / "f.osu").write_bytes((folder / "e.osu").read_bytes())
    dataset = pack_into(tmp_path / "packed", folder)
    assert dataset.beatmaps["version"].tolist() == ["b", "e"]
    assert dataset.beatmaps["count"].sum() == len(dataset.points)
    hit, file = "the same hit objects as another", "the same file as another"
    assert skipped(dataset) == {"b.osu": hit, "c.osu": hit, "d.osu": hit, "f.osu": file}


def test_filters_leave_beatmaps_out(tmp_path: Path, songs: Path) -> None:
    output = tmp_path / "packed"
    dataset = pack_into(output, songs, "--min-id", 103, "--max-id", 104)
    assert dataset.beatmaps["beatmap_id"].tolist() == [103, 104]
    assert set(skipped(dataset).values()) == {
        "filtered: beatmap ID below 103",
        "filtered: beatmap ID above 104",
    }
    assert dataset.description["filters"] == {"min_id": 103, "max_id": 104}
    wider = pack_into(output, songs, "--min-id", 102)
    assert wider.beatmaps["beatmap_id"].tolist() == [103, 104, 102, 105, 106]
    assert skipped(wider) == {"map 0.osu": "filtered: beatmap ID below 102"}


def test_star_ratings_must_be_known_to_filter_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("datasets.pack.star_ratings_available", lambda: False)
    monkeypatch.setattr(reading, "star_rating", lambda _: None)
    write_mapperator(tmp_path / "data")
    flags = (tmp_path / "data", "--output", tmp_path / "packed", "--min-stars", 3)
    assert run_command(create_dataset.main, *flags) == 2
    error = capsys.readouterr().err
    assert "ratings of 6 files" in error and "rosu-pp-py" in error
    for track in (tmp_path / "data").iterdir():
        names = [path.stem for path in track.glob("beatmaps/*.osu")]
        stars = {n: {"StandardStarRating": {"0": int(n[:6]) / 4}} for n in names}
        (track / "metadata.json").write_text(json.dumps({"Beatmaps": stars}), encoding="utf-8")
    # A rating of 0 is none: the first map's.
    with pytest.raises(ValueError, match="ratings of 1 files"):
        call_main(create_dataset.main, *flags)
    dataset = pack_into(tmp_path / "packed", *flags[:1], *flags[3:], "--data-start", 1)
    assert dataset.beatmaps["star_rating"].tolist() == [5.0, 5.25]


# --- adding to a dataset --------------------------------------------------------------------------


def classes(dataset: PackedDataset) -> dict[str, int]:
    """Class by MD5."""
    table = dataset.beatmaps
    return dict(zip(table["md5"].tolist(), table["class_index"].tolist(), strict=True))


def test_a_second_run_adds_what_is_new_and_changes_no_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    songs, output = tmp_path / "songs", tmp_path / "packed"
    write_maps(songs, [3, 5, 7])
    (songs / "bad.osu").write_bytes(b"")
    members = {"x.osu": beatmap_text(random_objects(60, 20)).encode()}
    write_archive(songs / "set.osz", members)
    first = pack_into(output, songs)
    before = classes(first)
    read: list[str] = []
    pack_file = reading.pack_file

    def recorded(source: Source) -> list[Packed | Skipped]:
        read.append(source.path.name)
        return pack_file(source)

    monkeypatch.setattr("datasets.pack.pack_file", recorded)
    files = {path.name: path.read_bytes() for path in output.iterdir()}
    pack_into(output, songs)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == files and not read

    write_maps(songs, [1])  # comes before the others
    with (songs / "map 5.osu").open("a", encoding="utf-8") as file:
        file.write("100,100,99999,1,0\n")
    (songs / "map 3.osu").unlink()
    os.utime(songs / "map 7.osu", ns=(1, 1))  # touched only
    write_archive(songs / "set.osz", {**members, "y.osu": members["x.osu"].replace(b",5", b",6")})
    capsys.readouterr()
    second = pack_into(output, songs)
    assert sorted(read) == ["map 1.osu", "map 5.osu", "map 7.osu", "set.osz"]
    now = classes(second)
    assert before.items() <= now.items() and len(now) == 7
    assert sorted(now.values()) == list(range(7))
    printed = capsys.readouterr().out
    assert "packed 3 new maps" in printed and "kept 2 maps whose files are gone" in printed
    assert second.beatmap_idx()[106] == first.beatmap_idx()[106]  # of the version that was there
    assert load_beatmap_idx(output / "beatmap_idx.pickle") == second.beatmap_idx()
    assert skipped(second) == {"bad.osu": "is empty"}  # of the first run
    for row in first.beatmaps.to_dict("records"):
        again = second.beatmaps[second.beatmaps["md5"] == row["md5"]].to_dict("records")[0]
        assert {**row, "offset": 0} == {**again, "offset": 0}
        for dataset, entry in ((first, row), (second, again)):
            points = dataset.points[entry["offset"] : entry["offset"] + entry["count"]]
            assert np.array_equal(points, first.points[row["offset"] :][: row["count"]])
    names = {path.name for path in output.iterdir()}
    assert names == {"dataset.json", "beatmap_idx.pickle", *second.description["files"].values()}


def test_another_source_is_added_and_the_first_stays(tmp_path: Path, songs: Path) -> None:
    write_maps(tmp_path / "more", [20])
    (tmp_path / "more" / "again.osu").write_bytes((songs / "map 2.osu").read_bytes())
    output = tmp_path / "packed"
    before = classes(pack_into(output, songs))
    both = pack_into(output, tmp_path / "more")
    assert classes(both).items() >= before.items() and len(both) == 7
    assert both.beatmaps["class_index"].tolist() == list(range(7))
    again = pack_into(output, songs)  # known still
    assert classes(again) == classes(both)


def test_a_mapperator_class_that_is_taken_is_an_error(tmp_path: Path, songs: Path) -> None:
    write_mapperator(tmp_path / "data")
    pack_into(tmp_path / "packed", songs)
    with pytest.raises(ValueError, match=r"class 0 is given twice.*overwrite"):
        pack_into(tmp_path / "packed", tmp_path / "data")
    assert len(PackedDataset(tmp_path / "packed")) == 6


def test_the_exclusion_list_takes_maps_out_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their classes are not given to others, and the others keep theirs."""
    songs, output, exclusions = tmp_path / "songs", tmp_path / "packed", tmp_path / "names.txt"
    write_maps(songs, range(5))
    path = songs / "map 4.osu"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("Tags:one two", "Tags:one night_sky"), encoding="utf-8")
    first = pack_into(output, songs)
    exclusions.write_text("Night Sky\n", encoding="utf-8")
    second = pack_into(output, songs, "--exclude", exclusions)
    assert "took out 1 maps" in capsys.readouterr().out
    assert second.beatmaps["class_index"].tolist() == [0, 1, 2, 3]
    assert len(second.points) == second.beatmaps["count"].sum() < len(first.points)
    write_maps(songs, [9])
    third = pack_into(output, songs, "--exclude", exclusions)
    assert third.beatmaps["class_index"].tolist() == [0, 1, 2, 3, 5]
    assert (second.num_classes, third.num_classes) == (5, 6)
    fresh = pack_into(tmp_path / "fresh", songs, "--exclude", exclusions)
    assert set(classes(fresh)) == set(classes(third))
    assert skipped(fresh) == {"map 4.osu": "filtered: mapper on the exclusion list"}


@pytest.mark.parametrize("where", ["pack_file", "points-", "beatmaps-", "sources-", "dataset.json"])
def test_an_interrupted_pack_leaves_the_old_dataset(
    tmp_path: Path, songs: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """While it reads beatmaps, and at each of the files that it writes."""
    output, replace_file = tmp_path / "packed", Path.replace
    first = pack_into(output, songs)
    write_maps(tmp_path / "more", [8, 9])

    def die(self: Path | Source, *target: Path) -> Path:
        if not target or target[0].name.startswith(where):
            raise KeyboardInterrupt
        assert isinstance(self, Path)
        return replace_file(self, *target)

    with monkeypatch.context() as patch:
        if where == "pack_file":
            patch.setattr("datasets.pack.pack_file", die)
        else:
            patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            pack_into(output, tmp_path / "more")
    again = PackedDataset(output)
    assert again.description == first.description
    assert again.beatmaps.equals(first.beatmaps) and np.array_equal(again.points, first.points)
    assert not list(output.glob(".*"))
    whole = pack_into(output, tmp_path / "more")
    assert len(whole) == 8
    files = {"dataset.json", "beatmap_idx.pickle", *whole.description["files"].values()}
    assert {path.name for path in output.iterdir()} == files


def test_worker_processes_give_what_this_process_gives(tmp_path: Path) -> None:
    """Spawned ones, as on every system; the order does not depend on who is done first."""
    songs = tmp_path / "songs"
    write_maps(songs, range(40), count=20)
    (songs / "map 4.osu").write_bytes(b"")
    alone = pack_into(tmp_path / "alone", songs, "--num-workers", 1)
    together = pack_into(tmp_path / "together", songs, "--num-workers", 2)
    assert alone.description == together.description and len(alone) == 39


def test_an_unexpected_error_is_reported_and_the_rest_is_packed(
    tmp_path: Path, songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the beatmap is tried again by the next run."""
    with monkeypatch.context() as patch:

        def fail(beatmap: Beatmap) -> Sequence:
            if beatmap.beatmap_id == 103:
                raise IndexError("a defect")
            return beatmap_to_sequence(beatmap)

        patch.setattr(reading, "beatmap_to_sequence", fail)
        dataset = pack_into(tmp_path / "packed", songs)
    (entry,) = dataset.description["skipped"]
    assert entry["kind"].startswith("unexpected error") and "a defect" in entry["reason"]
    assert len(dataset) == 5
    assert len(pack_into(tmp_path / "packed", songs)) == 6


def test_a_file_that_cannot_be_read_is_tried_again(tmp_path: Path, songs: Path) -> None:
    write_archive(tmp_path / "a.osz", {"x.osu": beatmap_text(random_objects(60, 20)).encode()})
    missing = replace(find_beatmaps(tmp_path / "a.osz")[0], path=tmp_path / "b.osz")
    report = pack([*find_beatmaps(songs), missing], tmp_path / "packed", 1)
    assert [skip.kind for skip in report.skipped] == ["cannot be read"]
    (tmp_path / "a.osz").rename(tmp_path / "b.osz")
    assert pack([missing], tmp_path / "packed", 1).added == 1


@pytest.mark.parametrize("kind", ["archives", "lazer"])
def test_every_source_can_be_trained_on_directly(tmp_path: Path, kind: str) -> None:
    for k in range(3):
        data = beatmap_text(random_objects(k, 20), beatmap_id=101 + k).encode()
        if kind == "lazer":
            store(tmp_path / kind, data)
        else:
            write_archive(tmp_path / kind / f"{k}.osz", {"a.osu": data})
    first = open_or_pack(tmp_path / kind, tmp_path / "cache")
    assert len(first) == 3
    before = (first.folder / "dataset.json").stat().st_mtime_ns
    assert open_or_pack(tmp_path / kind, tmp_path / "cache").folder == first.folder
    assert (first.folder / "dataset.json").stat().st_mtime_ns == before


@pytest.mark.skipif(not FOLDER, reason="OSU_DIFFUSION_BEATMAPS names no folder of beatmaps")
def test_real_maps_are_packed_whole(tmp_path: Path) -> None:
    assert FOLDER is not None
    paths = sorted((Path(FOLDER) / "val").rglob("*.osu"))[:3]
    for path in paths:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    dataset = pack_maps(tmp_path, tmp_path / "packed")
    counts = [len(beatmap_to_sequence(read_beatmap(path))) for path in paths]
    assert dataset.beatmaps["count"].tolist() == counts
    assert dataset.description["skipped"] == []
