"""Writes packed datasets, which `data_loading` reads."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from conventions.whole_files import replacing, write_atomically
from data_loading import COLUMNS, FORMAT_VERSION, POINT_DTYPE, with_all_columns


class DatasetWriter:
    """Writes a packed dataset map by map: points are written to disk at once."""

    def __init__(self, folder: Path, file: BinaryIO) -> None:
        self.folder, self.num_points = folder, 0
        self._file, self._digest = file, hashlib.sha256()
        self._write_header()

    def _write_header(self) -> None:
        """The .npy header; numpy leaves room in it for the length to grow in place."""
        description = np.lib.format.header_data_from_array_1_0(np.empty(0, POINT_DTYPE))
        description["shape"] = (self.num_points,)
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, description)

    def add(self, points: np.ndarray) -> int:
        """Appends points (P,) of POINT_DTYPE; returns the offset of the first."""
        assert points.dtype == POINT_DTYPE
        offset, data = self.num_points, points.tobytes()
        self._file.write(data)
        self._digest.update(data)
        self.num_points += len(points)
        return offset

    def finish(self, beatmaps: pd.DataFrame, report: dict[str, Any], sources: bytes = b"") -> None:
        """Names the files by their content and makes them the dataset.

        `beatmaps` has COLUMNS, at least those of older datasets; `report` (skipped files with
        reasons, ...) goes to dataset.json; `sources` are the records that `create_dataset.py` reads
        when it adds to the dataset.
        """
        assert int(beatmaps["count"].sum()) == self.num_points
        self._write_header()
        self._file.close()
        temporary = Path(self._file.name)
        points = f"points-{self._digest.hexdigest()[:16]}.npy"
        # The same hash means the same file, which a trainer may have memory-mapped.
        if not (self.folder / points).exists():
            with replacing(self.folder / points) as final:
                temporary.replace(final)
        table = with_all_columns(beatmaps)[COLUMNS].to_csv(index=False).encode("utf-8")
        files = {"points": points, "beatmaps": write_by_hash(self.folder, "beatmaps", "csv", table)}
        counts = {"num_beatmaps": len(beatmaps), "num_points": self.num_points}
        write_description(self.folder, files, {**counts, **report}, sources)


@contextmanager
def writing_dataset(folder: Path) -> Iterator[DatasetWriter]:
    """A writer for a new dataset in `folder`, which stays as it is until `finish`."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".osu-diffusion-{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("w+b") as file:
            yield DatasetWriter(folder, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_by_hash(folder: Path, kind: str, suffix: str, data: bytes) -> str:
    """Writes an immutable file of a dataset, named by its content; returns its name."""
    name = f"{kind}-{hashlib.sha256(data).hexdigest()[:16]}.{suffix}"
    if not (folder / name).exists():
        write_atomically(folder / name, data)
    return name


def write_description(
    folder: Path, files: dict[str, str], report: dict[str, Any], sources: bytes
) -> None:
    """Writes dataset.json, which makes `files` the dataset, and deletes the previous files."""
    if sources:
        files = {**files, "sources": write_by_hash(folder, "sources", "json", sources)}
    description = {"format_version": FORMAT_VERSION, "files": files, **report}
    text = json.dumps(description, indent=1, ensure_ascii=False)
    write_atomically(folder / "dataset.json", text.encode("utf-8"))
    for pattern in ("points-*.npy", "beatmaps-*.csv", "sources-*.json", ".osu-diffusion-*.tmp"):
        for path in folder.glob(pattern):
            if path.name not in files.values():
                # Windows keeps files that a reader has open; the next run deletes them.
                with suppress(OSError):
                    path.unlink()


def write_dataset(
    folder: Path, points: np.ndarray, beatmaps: pd.DataFrame, report: dict[str, Any]
) -> None:
    """Writes points (P,) of POINT_DTYPE and the table of beatmaps (COLUMNS) as a dataset."""
    with writing_dataset(folder) as writer:
        writer.add(points)
        writer.finish(beatmaps, report)
