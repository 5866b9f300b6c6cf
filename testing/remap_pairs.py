"""Remaps with the maps they were made from, which the `.result.json` beside them names."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beatmaps.inputs import file_md5, is_archive, read_beatmaps
from beatmaps.osu_file import Beatmap, BeatmapError
from beatmaps.osz import ArchiveError
from beatmaps.selection import choose_objects
from beatmaps.sequence import Sequence, beatmap_to_sequence
from constraints.spacing import KEEP, Spacing
from conventions.arrays import FloatArray
from datasets.sources import find_beatmaps
from sampling.flags import request_of_report
from sampling.generate import kept_and_wanted

REPORT_SUFFIX = ".result.json"
MAX_REPORT_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Pair:
    """A map and a remap of it, and what the remap was asked for.

    wanted (T,) px are the distances to the previous data point, -1 where any was welcome; moved
    (T,) marks the points whose distance was not known from the beginning.
    """

    source: Beatmap
    remap: Beatmap
    before: Sequence
    after: Sequence
    spacing: Spacing
    wanted: FloatArray
    moved: NDArray[np.bool_]


def make_pair(
    source: Beatmap,
    remap: Beatmap,
    spacing: Spacing = KEEP,
    arguments: dict[str, Any] | None = None,
) -> Pair:
    """The pair of two maps; ValueError where they do not have the same objects.

    `arguments` are those that sample.py was given: what it says of the objects to remap.
    """
    before, after = beatmap_to_sequence(source), beatmap_to_sequence(remap)
    same = len(before) == len(after) and np.array_equal(before.types, after.types)
    if not same or np.abs(before.times - after.times).max() > 1:
        raise ValueError(f"{remap.name} is no remap of {source.name}: their objects differ")
    chosen = np.ones(len(source.objects), dtype=bool)
    if arguments is not None:
        selection = request_of_report(arguments).selection
        if not selection.is_everything:
            chosen = choose_objects(source, selection)
    kept, wanted = kept_and_wanted(before, spacing, chosen)
    moved = ~(kept & np.append(True, kept[:-1]))
    return Pair(source, remap, before, after, spacing, wanted, moved)


@dataclass(frozen=True)
class Library:
    """Folders in which source maps are looked for by their MD5."""

    folders: tuple[Path, ...] = ()

    @cached_property
    def files(self) -> list[Path]:
        """All files that may hold a beatmap."""
        return [found.path for found in find_beatmaps(*self.folders)] if self.folders else []

    def find(self, md5: str, first: Iterable[Path]) -> Beatmap | None:
        """The beatmap with that MD5, in one of the files `first` or in the folders."""
        for path in (*first, *self.files):
            try:
                if not is_archive(path) and file_md5(path) != md5:
                    continue  # without reading it as a beatmap
                found = [b for b in read_beatmaps(path) if b.md5 == md5]
            except (BeatmapError, ArchiveError, OSError):
                continue  # one of many places to look at
            if found:
                return found[0]
        return None


def pairs_at(path: Path, library: Library) -> list[Pair]:
    """The pairs of a remap, of a `.result.json`, or of all of those in a folder and below."""
    if path.is_dir():
        reports = sorted(path.rglob(f"*{REPORT_SUFFIX}"))
        if not reports:
            raise ValueError(f"{path}: there is no {REPORT_SUFFIX} of sample.py in it")
        return [pair for report in reports for pair in pairs_of_report(report, library)]
    if path.name.endswith(REPORT_SUFFIX):
        return pairs_of_report(path, library)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: check the path")
    for report in sorted(path.parent.glob(f"*{REPORT_SUFFIX}")):
        if path.name in read_report(report).files:
            return pairs_of_report(report, library, path.name)
    raise ValueError(f"{path}: no {REPORT_SUFFIX} beside it is about it: name its --source")


@dataclass(frozen=True)
class Report:
    """What sample.py wrote about a run, as far as it is needed here.

    `beatmap` is where the source was, `origin` its file's name; hashes are the MD5s of the source's
    difficulties, by name; variants are (difficulty, name of the new one's file).
    """

    beatmap: Path
    origin: str
    hashes: dict[str, str]
    files: list[str]
    variants: list[tuple[str, str]]
    spacing: Spacing
    arguments: dict[str, Any]


def read_report(path: Path) -> Report:
    """A report of sample.py; ValueError for anything else."""
    if not path.is_file():
        raise ValueError(f"there is no report {path}")
    if path.stat().st_size > MAX_REPORT_BYTES:
        raise ValueError(f"{path} is larger than {MAX_REPORT_BYTES >> 20} MiB: no report")
    try:
        report = json.loads(path.read_bytes())
        origin, arguments = report["source"], report["arguments"]
        request_of_report(arguments)  # refuses one that cannot be read
        return Report(
            Path(arguments["beatmap"]),
            str(origin["file"]),
            {str(entry["name"]): str(entry["md5"]) for entry in origin["difficulties"]},
            [Path(entry["file"]).name for entry in report["files"]],
            [(str(v["difficulty"]), str(v["beatmap"])) for v in report["variants"]],
            Spacing(**report["options"]["spacing"]),
            arguments,
        )
    except KeyError as error:
        raise ValueError(f"{path} is not a report of sample.py: it has no {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not a report of sample.py: {error}") from error


def pairs_of_report(path: Path, library: Library, only: str | None = None) -> list[Pair]:
    """The pairs of a run, or of its file `only`."""
    report = read_report(path)
    # An archive of results has the source difficulty in it, unless it is a set of its own.
    files = [path.parent / name for name in report.files]
    places = [report.beatmap, path.parent / Path(report.origin).name, *files]
    remaps = {b.name: b for f in files if only in (None, f.name) for b in read_beatmaps(f)}
    pairs = []
    for difficulty, file in report.variants:
        remap = next((b for n, b in remaps.items() if n.endswith(file)), None)
        if remap is None:
            continue  # of a file that is not asked for
        source = library.find(report.hashes.get(difficulty, ""), places)
        if source is None:
            raise ValueError(
                f"{path}: its source {report.origin} is not where it was: name the folder it is "
                "in with --sources"
            )
        pairs.append(make_pair(source, remap, report.spacing, report.arguments))
    return pairs
