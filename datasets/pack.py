"""Packs beatmaps into a dataset, in several processes; a second run adds what is new."""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from beatmaps.star_rating import star_ratings_available
from conventions.errors import FieldError
from data_loading import COLUMNS, LATER_COLUMNS, PackedDataset
from datasets.class_tables import save_beatmap_idx
from datasets.filters import Filters
from datasets.labels import Labels
from datasets.read import Packed, Result, Skipped, count_reasons, pack_file, readable
from datasets.sources import WHAT_IS_FOUND, Source, find_beatmaps
from datasets.writer import DatasetWriter, writing_dataset

CHUNK = 16  # files that a worker process takes at once


FILTERED = "filtered:"  # prefix of reasons that other filters may change


TRANSIENT = ("cannot be read", "does not exist", "unexpected error")


def default_workers() -> int:
    """One process per core; Windows cannot wait for more than 61."""
    return min(61, os.cpu_count() or 1)


def results_of(
    read: Callable[[Source], Result], sources: list[Source], workers: int
) -> Generator[Result, None, None]:
    """`read` of every source in order, computed by that many processes; close it when done."""
    workers = min(workers, -(-len(sources) // CHUNK))
    if workers <= 1:  # starting a process takes longer than a few maps
        yield from map(read, sources)
        return
    # Workers are spawned on every platform alike; chunks keep the traffic small.
    pool = ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=signal.signal,  # only this process handles Ctrl-C
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        yield from pool.map(read, sources, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise FieldError(
            "a worker process was killed, perhaps for want of memory: use fewer {num_workers}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass
class Report:
    """What a run did; `skipped` are the beatmaps that it read and left out."""

    added: int = 0
    removed: int = 0
    vanished: int = 0
    maps: int = 0
    points: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    def lines(self, output: Path) -> Iterator[str]:
        """The report for people: counts by reason, each with an example."""
        yield (
            f"packed {self.added} new maps into {output}, which has {self.maps} maps, "
            f"{self.points} data points"
        )
        if self.removed:
            yield f"took out {self.removed} maps of excluded mappers; their classes stay unused"
        if self.vanished:
            yield f"kept {self.vanished} maps whose files are gone or changed"
        if self.skipped:
            yield f"skipped {len(self.skipped)} beatmaps (listed in dataset.json):"
        yield from count_reasons(self.skipped)


class Records:
    """Which files a dataset was made from, so that the next run need not read them again.

    `files` maps a path to [size, modified, filters, maps]: the filters that left out some of its
    beatmaps, empty if none did, and how many of its beatmaps the dataset has.
    """

    def __init__(self, dataset: PackedDataset | None, filters: str) -> None:
        self.filters = filters
        self.files: dict[str, list[Any]] = {}
        self.skipped: list[Skipped] = []
        if dataset is not None and "sources" in dataset.description["files"]:
            path = dataset.folder / dataset.description["files"]["sources"]
            self.files = json.loads(path.read_text(encoding="ascii"))
            self.skipped = [Skipped(**entry) for entry in dataset.description["skipped"]]

    def has(self, source: Source) -> bool:
        """Whether reading the file again would give nothing new."""
        size, modified, filters, _ = self.files.get(str(source.path), (-1, -1, "", 0))
        unchanged = (size, modified) == (source.size, source.modified)
        return unchanged and filters in ("", self.filters)

    def forget_missing(self, sources: list[Source]) -> int:
        """Forgets files that no longer exist; returns how many maps came from them."""
        present = {str(source.path) for source in sources}
        gone = [p for p in self.files if p not in present and not Path(p).exists()]
        return sum(self.files.pop(path)[3] for path in gone)

    def forget(self, source: Source) -> int:
        """Forgets a file before it is read again; returns how many maps came from it."""
        return int(self.files.pop(str(source.path), (0, 0, "", 0))[3])

    def remember(self, source: Source, maps: int, skipped: list[Skipped]) -> None:
        """Notes what a file contained; one that could not be read is tried again the next time."""
        if not any(skip.kind.startswith(TRANSIENT) for skip in skipped):
            filtered = any(skip.kind.startswith(FILTERED) for skip in skipped)
            entry = [source.size, source.modified, self.filters if filtered else "", maps]
            self.files[str(source.path)] = entry

    def still_skipped(self) -> list[Skipped]:
        """Beatmaps that earlier runs skipped, of files that were not read again."""
        known = {readable(path) for path in self.files}
        return [
            skip
            for skip in self.skipped
            if any(str(path) in known for path in (Path(skip.file), *Path(skip.file).parents))
        ]


class Table:
    """The rows of a dataset while it is written; maps with equal hit objects are taken once."""

    def __init__(self, writer: DatasetWriter) -> None:
        self.writer = writer
        self.rows: list[dict[str, Any]] = []
        self.num_old = 0
        self.known_files: set[str] = set()
        self._row_of: dict[bytes, int] = {}

    def keep(self, dataset: PackedDataset, selection: Filters) -> int:
        """Copies a dataset without excluded mappers; returns how many maps these had."""
        old = dataset.beatmaps.reindex(columns=COLUMNS, fill_value="").to_dict("records")
        for row in old:
            if not selection.is_excluded(row):
                points = dataset.points[row["offset"] : row["offset"] + row["count"]]
                self._append(row, points)
                self.known_files.add(row["md5"])
        self.num_old = len(self.rows)
        return len(old) - len(self.rows)

    def add(self, packed: Packed, class_index: int | None) -> Skipped | None:
        """Adds a map, or returns which map with equal hit objects is already there.

        The first one stays; but if it is of this run and unsubmitted, a submitted one replaces it.
        """
        row = {**packed.row, "class_index": class_index}
        index = self._row_of.get(_digest(packed.points))
        if index is None:
            self._append(row, packed.points)
            return None
        first = self.rows[index]
        name = f"{first['artist']} - {first['title']} ({first['creator']}) [{first['version']}]"
        if index >= self.num_old and first["beatmap_id"] <= 0 < row["beatmap_id"]:
            self.rows[index] = {**row, "offset": first["offset"]}
        kind = "the same file" if first["md5"] == row["md5"] else "the same hit objects"
        return Skipped(packed.file, f"{kind} as another", f"{kind} as {readable(name)}")

    def _append(self, row: dict[str, Any], points: np.ndarray) -> None:
        self._row_of.setdefault(_digest(points), len(self.rows))
        self.rows.append({**row, "offset": self.writer.add(points)})

    def frame(self, next_class: int, labels: Labels) -> pd.DataFrame:
        """The table; maps without a class get new ones from `next_class` on."""
        for row in self.rows:
            if row["class_index"] is None:
                row["class_index"] = next_class
                next_class += 1
            row.update({**LATER_COLUMNS, **row, **labels.of(row["beatmap_id"])})
        table = pd.DataFrame(self.rows)[COLUMNS]
        twice = table["class_index"].duplicated()
        if twice.any():
            raise FieldError(
                "class {0} is given twice: a Mapperator dataset "
                "must come first, or with the others in one run with {overwrite}, and two of them "
                "need outputs of their own",
                table["class_index"][twice].iloc[0],
            )
        return table


def _digest(points: np.ndarray) -> bytes:
    """Identifies a map's data points."""
    return hashlib.sha256(points.tobytes()).digest()


def pack(
    sources: list[Source],
    output: Path,
    workers: int,
    chosen: Filters | None = None,
    overwrite: bool = False,
    labels: Labels | None = None,
) -> Report:
    """Packs what is new in `sources` into the dataset folder `output`.

    A dataset there is extended, or replaced with `overwrite`; until the end it stays as it was.
    Maps whose files are gone stay in it, with their classes. `labels` apply to all maps, old ones
    included.
    """
    chosen = chosen or Filters()
    _require_stars(sources, chosen)
    exists = (output / "dataset.json").exists() and not overwrite
    old = PackedDataset(output) if exists else None
    filters = json.dumps(chosen.describe(), sort_keys=True)
    records = Records(old, hashlib.sha256(filters.encode("ascii")).hexdigest()[:16])
    report = Report(vanished=records.forget_missing(sources))
    new = [source for source in sources if not records.has(source)]
    before = [records.forget(source) for source in new]
    skipped = records.still_skipped()
    classes = [s.class_index + 1 for s in sources if s.class_index is not None]
    next_class = max([old.num_classes if old else 0, *classes])
    with writing_dataset(output) as writer:
        table = Table(writer)
        if old is not None:
            report.removed = table.keep(old, chosen)
        with closing(results_of(pack_file, new, workers)) as stream:
            options = {"total": len(new), "disable": not new, "file": sys.stderr}
            progress = tqdm(stream, desc="packing", unit="file", **options)
            for source, maps, results in zip(new, before, progress, strict=True):
                there = _take(source, results, table, chosen, records, report)
                report.vanished += max(0, maps - there)
                counts = {"packed": report.added, "skipped": len(report.skipped)}
                progress.set_postfix(counts, refresh=False)
        if not table.rows:
            reason = report.skipped[0].reason if report.skipped else f"found no {WHAT_IS_FOUND}"
            raise ValueError(f"nothing to pack: {reason}")
        frame = table.frame(next_class, labels or Labels())
        report.maps, report.points = len(frame), writer.num_points
        description = {
            "num_classes": max(next_class, int(frame["class_index"].max()) + 1),
            "filters": chosen.describe(),
            "skipped": [s._asdict() for s in (*skipped, *report.skipped)],
        }
        # Lone surrogates in old file names survive only as ASCII escapes.
        writer.finish(frame, description, json.dumps(records.files).encode("ascii"))
    save_beatmap_idx(output / "beatmap_idx.pickle", PackedDataset(output).beatmap_idx())
    return report


def _take(
    source: Source,
    results: list[Packed | Skipped],
    table: Table,
    chosen: Filters,
    records: Records,
    report: Report,
) -> int:
    """Puts a file's beatmaps into the table, or into the report with the reason.

    Returns how many were in the dataset before.
    """
    skipped: list[Skipped] = []
    maps = there = 0
    for result in results:
        if isinstance(result, Skipped):
            skipped.append(result)
        elif result.row["md5"] in table.known_files:
            there += 1
        elif reason := chosen.reason_against(result.row):
            skipped.append(Skipped(result.file, f"{FILTERED} {reason}", f"{FILTERED} {reason}"))
        elif duplicate := table.add(result, source.class_index):
            skipped.append(duplicate)
        else:
            maps += 1
    report.added += maps
    report.skipped += skipped
    records.remember(source, maps + there, skipped)
    return there


def _require_stars(sources: list[Source], chosen: Filters) -> None:
    if chosen.needs_stars and not star_ratings_available():
        unknown = sum(source.known.star_rating is None for source in sources)
        if unknown:
            raise FieldError(
                "{min_stars} and {max_stars}: the star ratings of {0} files are not known; "
                "install rosu-pp-py, or leave the filter out",
                unknown,
            )


def open_or_pack(
    path: Path,
    cache: Path,
    data_start: int | None = None,
    data_end: int | None = None,
    workers: int | None = None,
) -> PackedDataset:
    """Opens a packed dataset, or packs a source of beatmaps below `cache` on first use."""
    if (path / "dataset.json").is_file():
        return PackedDataset(path)
    sources = find_beatmaps(path.absolute(), data_start=data_start, data_end=data_end)
    digest = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape"))
    for source in sources:  # a changed or added file makes another dataset
        digest.update(repr(source).encode("ascii", "backslashreplace"))
    packed = cache / f"packed-{digest.hexdigest()[:12]}"
    if not (packed / "dataset.json").is_file():
        report = pack(sources, packed, workers or default_workers())
        print(*report.lines(packed), sep="\n", file=sys.stderr)
    return PackedDataset(packed)
