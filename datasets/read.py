"""One file of beatmaps as rows and data points: what the worker processes of packing do.

It does not import torch, which would take each process seconds.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from beatmaps.osu_file import MAX_FILE_BYTES, Beatmap, BeatmapError, parse_beatmap, read_beatmap
from beatmaps.osz import Archive, ArchiveError
from beatmaps.sequence import beatmap_to_sequence
from beatmaps.star_rating import star_rating
from data_loading import packed_points
from datasets.sources import Known, Source

Result = TypeVar("Result")


class Packed(NamedTuple):
    """A beatmap as its row of the table and its data points."""

    file: str
    row: dict[str, Any]
    points: np.ndarray


class Skipped(NamedTuple):
    """A beatmap that is left out: the kind of reason, for counting, and the reason in full."""

    file: str
    kind: str
    reason: str

    @classmethod
    def by(cls, file: str, error: Exception) -> "Skipped":
        """For an exception from reading a beatmap, whose message begins with the file's name."""
        reason = readable(str(error))
        if isinstance(error, OSError):
            return cls(file, "cannot be read", reason)
        if not isinstance(error, (BeatmapError, ArchiveError)):
            return cls(file, "unexpected error, please report it", repr(error))
        return cls(file, re.split(r"[:;,(]", reason.removeprefix(file))[0].strip(), reason)


def count_reasons(skipped: list[Skipped]) -> Iterator[str]:
    """A line for each kind of reason, the most frequent first, with an example."""
    counts = Counter(skip.kind for skip in skipped)
    examples = {skip.kind: skip.file for skip in reversed(skipped)}
    for kind, count in counts.most_common():
        yield f"{count:7d} {kind}, such as {examples[kind]}"


def pack_file(source: Source) -> list[Packed | Skipped]:
    """All beatmaps of a file, packed; one that cannot be used becomes a `Skipped`."""
    return each_beatmap(source, _pack_beatmap)


def each_beatmap(
    source: Source, use: Callable[[str, Beatmap, Known], Result]
) -> list[Result | Skipped]:
    """The result of `use` for each beatmap of a file; an exception becomes a `Skipped`."""
    if not source.is_archive:
        return [_use_beatmap(readable(source.path), source, use)]
    results: list[Result | Skipped] = []
    try:
        with Archive.open(source.path) as archive:
            for member in sorted(archive.beatmaps, key=lambda member: member.name):
                file = readable(f"{source.path}/{member.name}")
                try:
                    data = archive.read(member, MAX_FILE_BYTES)
                except ArchiveError as error:
                    results.append(Skipped.by(readable(source.path), error)._replace(file=file))
                    continue
                results.append(_use_beatmap(file, source, use, data))
    except (ArchiveError, OSError) as error:
        results.append(Skipped.by(readable(source.path), error))
    return results


def _use_beatmap(
    file: str,
    source: Source,
    use: Callable[[str, Beatmap, Known], Result],
    data: bytes | None = None,
) -> Result | Skipped:
    """The result of `use` for the beatmap in a file, or in `data`, its bytes from an archive."""
    try:
        beatmap = read_beatmap(source.path) if data is None else parse_beatmap(data, file)
        return use(file, beatmap, source.known)
    except Exception as error:  # one odd file among many thousands must not end the work
        return Skipped.by(file, error)


def _pack_beatmap(file: str, beatmap: Beatmap, known: Known) -> Packed:
    sequence = beatmap_to_sequence(beatmap)
    points = packed_points(sequence)
    return Packed(file, {**beatmap_row(beatmap, known), "count": len(points)}, points)


def beatmap_row(beatmap: Beatmap, known: Known) -> dict[str, Any]:
    """The columns of the table, which filters use, for a beatmap."""
    return {
        "md5": beatmap.md5,
        "beatmap_id": known.beatmap_id or beatmap.beatmap_id,
        "set_id": known.set_id or beatmap.set_id,
        "artist": beatmap.artist,
        "title": beatmap.title,
        "creator": known.creator or beatmap.creator,
        "version": beatmap.version,
        "tags": known.tags or " ".join(beatmap.tags),
        "circle_size": beatmap.circle_size,
        "star_rating": known.star_rating or star_rating(beatmap.raw),
        "objects": len(beatmap.objects),
    }


def readable(text: Path | str) -> str:
    """Text that can be printed and stored: names in old archives may not be UTF-8."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")
