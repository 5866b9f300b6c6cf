"""Where beatmaps are found: song folders, archives, osu!lazer's store, Mapperator datasets.

Looking for beatmaps reads names, sizes and, in osu!lazer's store, first bytes. The process that
packs them reads their content. Hidden files, and files that systems add, are ignored.
"""

import json
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from beatmaps.file_names import is_hidden
from beatmaps.osu_file import MAX_FILE_BYTES
from conventions.errors import FieldError

TRACK = re.compile(r"Track(\d{5})")
ARCHIVE_SUFFIX = ".osz"
SUFFIXES = (".osu", ARCHIVE_SUFFIX)
MAX_METADATA_BYTES = 64 * 2**20
PREFIX_BYTES = 64
WHAT_IS_FOUND = (
    ".osu and .osz files at any depth, an osu!lazer data folder (files/0/00/...) or "
    "a Mapperator dataset (Track00000/beatmaps)"
)


@dataclass(frozen=True)
class Known:
    """What a collection says about a beatmap; it overrides the beatmap's file."""

    beatmap_id: int | None = None
    set_id: int | None = None
    star_rating: float | None = None
    creator: str | None = None
    tags: str | None = None


@dataclass(frozen=True)
class Source:
    """A file with one beatmap, or an archive with several.

    `size` in bytes and `modified` in ns show whether it has changed. `class_index` is the class in
    a Mapperator file name.
    """

    path: Path
    size: int
    modified: int
    class_index: int | None = None
    known: Known = Known()

    @property
    def is_archive(self) -> bool:
        """Whether it is an .osz archive."""
        return self.path.suffix.casefold() == ARCHIVE_SUFFIX


def find_beatmaps(
    *paths: Path, data_start: int | None = None, data_end: int | None = None
) -> list[Source]:
    """All beatmaps of folders and single files, each file once, in the order of their names.

    The kind of a folder is recognised by its content: `WHAT_IS_FOUND`. Of Mapperator datasets the
    tracks [data_start, data_end) are taken, and the first six digits of a file name are its class.
    """
    tracks = [_tracks(path) for path in paths]
    if not any(tracks) and (data_start is not None or data_end is not None):
        raise FieldError(
            "{0} is no Mapperator dataset (no folders Track00000, ...): "
            "leave out {data_start} and {data_end}",
            paths[0],
        )
    found: dict[Path, Source] = {}
    for path, numbered in zip(paths, tracks, strict=True):
        sources = _in_tracks(numbered, data_start or 0, data_end) if numbered else _below(path)
        for source in sources:
            found.setdefault(source.path, source)
    return list(found.values())


def _tracks(path: Path) -> list[Path]:
    """The track folders of a Mapperator dataset; none in another folder."""
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if TRACK.fullmatch(p.name) and p.is_dir())


def _below(path: Path) -> list[Source]:
    """Beatmaps of a file, an osu!lazer data folder or any other folder."""
    if path.is_file() and path.suffix.casefold() in SUFFIXES:
        return [_source(path)]
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder: give one with {WHAT_IS_FOUND}")
    for store in (path / "files", path):
        if _is_store(store):
            return _in_store(store)
    return [_source(p) for p in _walk(path, set()) if _is_wanted(p, path, SUFFIXES)]


def _is_wanted(path: Path, folder: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file in `folder` has one of the suffixes and was not added by a system."""
    is_meant = path.suffix.casefold() in suffixes
    return is_meant and not is_hidden(str(path.relative_to(folder)))


def _source(path: Path, class_index: int | None = None, known: Known | None = None) -> Source:
    # A dangling link has a status of its own; reading it later reports what is wrong.
    status = path.stat() if path.exists() else path.lstat()
    return Source(path, status.st_size, status.st_mtime_ns, class_index, known or Known())


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Files at any depth, also behind links to folders; no folder is entered twice."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if entry.is_dir():
            yield from _walk(Path(entry.path), seen)
        else:
            yield Path(entry.path)


# --- osu!lazer ------------------------------------------------------------------------------------


def _is_store(folder: Path) -> bool:
    """Whether it is laid out as osu!lazer's files/, as in a/ab/abcdef..."""
    if not folder.is_dir():
        return False
    return any(
        deeper.name[0] == first.name and re.fullmatch(r"[0-9a-f]{2}", deeper.name)
        for first in folder.iterdir()
        if re.fullmatch(r"[0-9a-f]", first.name) and first.is_dir()
        for deeper in first.iterdir()
    )


def _in_store(store: Path) -> list[Source]:
    """Beatmaps among the files of all kinds that osu!lazer keeps under their SHA-256."""
    folders = sorted(p for p in store.glob("[0-9a-f]/[0-9a-f][0-9a-f]") if p.is_dir())
    found = []
    # Hundreds of thousands of files on a slow disk take minutes.
    for folder in tqdm(folders, desc="looking for beatmaps", unit="folder", file=sys.stderr):
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            if not re.fullmatch(r"[0-9a-f]{64}", entry.name) or not entry.is_file():
                continue
            # Videos and long songs are recognised by their size alone.
            if 0 < entry.stat().st_size <= MAX_FILE_BYTES and _looks_like_beatmap(entry.path):
                found.append(_source(Path(entry.path)))
    return found


def _looks_like_beatmap(path: str) -> bool:
    """Whether a file begins with the version line; true for one that cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (half a million of them)
            prefix = file.read(PREFIX_BYTES)
    except OSError:
        return True
    utf16 = prefix[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = prefix.decode("utf-16" if utf16 else "utf-8", "replace")
    return text.lstrip("\ufeff\0 \t\r\n").startswith("osu file format v")


# --- Mapperator -----------------------------------------------------------------------------------


def _in_tracks(tracks: list[Path], start: int, end: int | None) -> list[Source]:
    """Beatmaps of the tracks numbered [start, end), with what metadata.json says."""
    found = []
    for track in tracks:
        number = int(track.name[5:])
        if number < start or (end is not None and number >= end):
            continue
        metadata = _read_metadata(track / "metadata.json")
        for path in _walk(track, set()):
            if not _is_wanted(path, track, (".osu",)):
                continue
            digits = path.name[:6]
            if not re.fullmatch(r"[0-9]{6}", digits):
                raise ValueError(f"{path}: a Mapperator file name begins with six digits")
            found.append(_source(path, int(digits), _known(metadata, path.stem)))
    return found


def _read_metadata(path: Path) -> dict[str, Any]:
    """The content of metadata.json; empty if there is none."""
    if not path.exists():
        return {}
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise ValueError(f"{path} is larger than {MAX_METADATA_BYTES >> 20} MiB: no metadata")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: repair or delete it ({error})") from error
    return metadata if isinstance(metadata, dict) else {}


def _known(metadata: dict[str, Any], name: str) -> Known:
    """What metadata.json says about the beatmap `name`, without impossible values."""
    beatmaps = metadata.get("Beatmaps")
    beatmap = beatmaps.get(name) if isinstance(beatmaps, dict) else None
    if not isinstance(beatmap, dict):
        beatmap = {}
    ratings = beatmap.get("StandardStarRating")
    stars = ratings.get("0") if isinstance(ratings, dict) else None  # "0": without mods
    return Known(
        _positive_id(beatmap.get("BeatmapId")),
        _positive_id(metadata.get("BeatmapSetId")),
        float(stars) if isinstance(stars, int | float) and 0 < stars < math.inf else None,
        _line(metadata.get("Creator")),
        _line(metadata.get("Tags")),
    )


def _line(value: Any) -> str | None:
    """A text as it may stand on a line of a beatmap; None for anything else."""
    return value if isinstance(value, str) and value.isprintable() and value.strip() else None


def _positive_id(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**31 else None
