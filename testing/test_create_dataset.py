"""Packing folders of beatmaps: what is found, what is left out and why, the cache."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    beatmap_text,
    call_main,
    pack_maps,
    random_objects,
    read_json,
    run_command,
    write_maps,
)

import create_dataset
from beatmap import read_beatmap
from create_dataset import find_beatmaps, open_or_pack
from data_loading import PackedDataset, load_beatmap_idx
from sequence import beatmap_to_sequence

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

    monkeypatch.setattr(create_dataset, "pack", packed_again)
    assert open_or_pack(songs, cache).folder == first.folder
    assert open_or_pack(first.folder, cache).folder == first.folder
    with pytest.raises(ValueError, match="not a folder"):
        open_or_pack(tmp_path / "nowhere", cache)


def test_packing_twice_gives_the_same_files(songs: Path, packed: PackedDataset) -> None:
    again = pack_maps(songs, packed.folder.parent / "again")
    assert again.description["files"] == packed.description["files"]  # named by their content


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
