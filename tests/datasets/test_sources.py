"""Finding beatmaps in every kind of collection, and telling them from everything else."""

import hashlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from datasets import sources
from datasets.sources import Known, find_beatmaps
from tests.conftest import beatmap_text, random_objects, write_maps


def a_map(seed: int) -> bytes:
    return beatmap_text(random_objects(seed, 20), beatmap_id=101 + seed).encode()


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def store(folder: Path, data: bytes) -> Path:
    """Stores a file as osu!lazer does."""
    name = hashlib.sha256(data).hexdigest()
    path = folder / "files" / name[0] / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(found: list[sources.Source]) -> list[str]:
    return [source.path.name for source in found]


# --- folders --------------------------------------------------------------------------------------


def test_files_are_found_at_any_depth_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_maps(tmp_path / "b" / "c", [0])
    write_maps(tmp_path / "a", [1])
    write_archive(tmp_path / "c.OSZ", {"x.osu": a_map(2)})
    (tmp_path / "b.osu").write_bytes(a_map(3))
    (tmp_path / "a" / "song.mp3").write_bytes(b"ID3")
    found = find_beatmaps(tmp_path)
    assert names(found) == ["map 1.osu", "map 0.osu", "b.osu", "c.OSZ"]
    assert [source.is_archive for source in found] == [False, False, False, True]
    for source in found:
        status = source.path.stat()
        assert (source.size, source.modified) == (status.st_size, status.st_mtime_ns)


def test_hidden_files_and_companions_are_no_sources(tmp_path: Path) -> None:
    write_maps(tmp_path / ".cache" / "songs", [0])
    folder = tmp_path / ".cache"  # who names it means it
    for name in ("._map 0.osu", ".trash/a.osu", "__MACOSX/._a.osu", "songs/@eaDir/map 0.osu"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\26\7")
    (folder / "._empty.osz").write_bytes(b"x")
    assert names(find_beatmaps(folder)) == ["map 0.osu"]


def test_companions_are_no_maps_of_a_mapperator_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "Track00000" / "beatmaps"
    folder.mkdir(parents=True)
    (folder / "000007a.osu").write_bytes(a_map(1))
    (folder / "._000007a.osu").write_bytes(b"\0\5\26\7")
    assert names(find_beatmaps(tmp_path)) == ["000007a.osu"]


def test_a_single_file_is_a_source(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.osz", {"x.osu": a_map(2)})
    assert names(find_beatmaps(tmp_path / "a.osz")) == ["a.osz"]
    with pytest.raises(ValueError, match="is not a folder"):
        find_beatmaps(tmp_path / "b.osz")


def test_a_file_in_two_sources_is_found_once(tmp_path: Path) -> None:
    write_maps(tmp_path / "a", [1])
    write_maps(tmp_path / "b", [2])
    found = find_beatmaps(tmp_path / "b", tmp_path, tmp_path / "a" / "map 1.osu")
    assert names(found) == ["map 2.osu", "map 1.osu"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_to_folders_are_followed_without_end(tmp_path: Path) -> None:
    write_maps(tmp_path / "elsewhere", [0])
    songs = tmp_path / "songs"
    songs.mkdir()
    (songs / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(songs)
    (songs / "gone.osu").symlink_to(tmp_path / "nothing.osu")
    assert names(find_beatmaps(songs)) == ["gone.osu", "map 0.osu"]


# --- osu!lazer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["", "files"])
def test_beatmaps_are_told_from_the_other_files_of_a_lazer_store(
    tmp_path: Path, inner: str
) -> None:
    utf16 = "\ufeff" + beatmap_text(random_objects(3, 9))
    maps = [a_map(0), b"\xef\xbb\xbf" + a_map(1), b"\r\n" + a_map(2), utf16.encode("utf-16-le")]
    junk = [b"ID3\x04", b"\x89PNG\r\n", b"", b"[Events]\n//storyboard", b"\xff\xfb" * 40, b"\xff"]
    paths = {store(tmp_path, data) for data in maps}
    for data in junk:
        store(tmp_path, data)
    (tmp_path / "client.realm").write_bytes(b"realm")
    write_maps(tmp_path / "exports", [7])  # not part of the store
    folder = next(iter(paths)).parent
    (folder / "temporary").write_bytes(a_map(4))  # no SHA-256
    found = find_beatmaps(tmp_path / inner)
    assert {source.path for source in found} == paths
    assert not any(source.is_archive for source in found)


def test_of_a_lazer_store_only_first_bytes_of_small_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, small = store(tmp_path, a_map(0) * 3), store(tmp_path, a_map(1))
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", video.stat().st_size - 1)
    opened = []

    def looks(path: str) -> bool:
        opened.append(Path(path))
        return True

    monkeypatch.setattr(sources, "_looks_like_beatmap", looks)
    assert [source.path for source in find_beatmaps(tmp_path)] == [small] == opened


@pytest.mark.skipif(sys.platform != "linux", reason="uses /dev/zero as a file without an end")
def test_an_endless_file_is_no_beatmap() -> None:
    assert not sources._looks_like_beatmap("/dev/zero")


# --- Mapperator -----------------------------------------------------------------------------------


def write_track(folder: Path, number: int, maps: dict[str, bytes], metadata: Any = None) -> None:
    track = folder / f"Track{number:05d}"
    (track / "beatmaps").mkdir(parents=True)
    for name, data in maps.items():
        (track / "beatmaps" / f"{name}.osu").write_bytes(data)
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        (track / "metadata.json").write_text(text, encoding="utf-8")


def test_metadata_of_a_mapperator_dataset_is_known(tmp_path: Path) -> None:
    metadata = {
        "BeatmapSetId": 12,
        "Creator": "Luna",
        "Tags": "one two",
        "Beatmaps": {
            "000003M000": {"BeatmapId": 345, "StandardStarRating": {"0": 4.25, "64": 6.0}},
            "000004M001": {"BeatmapId": -1, "StandardStarRating": {}},
        },
    }
    maps = {"000003M000": a_map(0), "000004M001": a_map(1), "000005M002": a_map(2)}
    write_track(tmp_path, 0, maps, metadata)
    write_track(tmp_path, 7, {"000006M000": a_map(3)})
    found = find_beatmaps(tmp_path)
    assert [source.class_index for source in found] == [3, 4, 5, 6]
    told = ("Luna", "one two")
    expected = [Known(345, 12, 4.25, *told), *[Known(None, 12, None, *told)] * 2, Known()]
    assert [source.known for source in found] == expected
    assert [s.class_index for s in find_beatmaps(tmp_path, data_start=1, data_end=8)] == [6]


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        {"Beatmaps": []},
        {"Creator": 5, "Tags": "one\ntwo"},
        {"Beatmaps": {"000000M000": 5}},
        {"Beatmaps": {"000000M000": {"BeatmapId": "5", "StandardStarRating": {"0": "x"}}}},
        {"Beatmaps": {"000000M000": {"BeatmapId": 2**40, "StandardStarRating": [4]}}},
        '{"Beatmaps": {"000000M000": {"StandardStarRating": {"0": NaN}}}}',
        '{"Beatmaps": {"000000M000": {"StandardStarRating": {"0": 1e999}}}}',
    ],
)
def test_metadata_that_cannot_be_is_left_out(tmp_path: Path, metadata: Any) -> None:
    write_track(tmp_path, 0, {"000000M000": a_map(0)}, metadata)
    assert [source.known for source in find_beatmaps(tmp_path)] == [Known()]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_metadata_that_is_no_json_is_an_error(tmp_path: Path, text: str) -> None:
    write_track(tmp_path, 0, {"000000M000": a_map(0)}, text)
    with pytest.raises(ValueError, match=r"metadata\.json is not JSON"):
        find_beatmaps(tmp_path)


def test_a_track_range_is_for_mapperator_datasets(tmp_path: Path) -> None:
    write_track(tmp_path / "data", 0, {"000000M000": a_map(0)})
    write_track(tmp_path / "data", 1, {"000001M000": a_map(1)})
    write_maps(tmp_path / "songs", [5])
    with pytest.raises(ValueError, match="no Mapperator dataset"):
        find_beatmaps(tmp_path / "songs", data_start=1)
    both = find_beatmaps(tmp_path / "songs", tmp_path / "data", data_start=1)
    assert [source.class_index for source in both] == [None, 1]
