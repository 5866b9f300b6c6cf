"""Packs folders of beatmaps into one dataset that `train.py` reads without `slider`."""

import argparse
import hashlib
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

import cli
from beatmap import BeatmapError, read_beatmap
from data_loading import COLUMNS, POINT_DTYPE, PackedDataset, save_beatmap_idx, write_dataset
from sequence import beatmap_to_sequence
from star_rating import star_rating

TRACK = re.compile(r"Track(\d{5})")


@dataclass(frozen=True)
class Source:
    """A beatmap file and, in a Mapperator dataset, the class that its file name gives it."""

    path: Path
    class_index: int | None = None


def find_beatmaps(
    folder: Path, data_start: int | None = None, data_end: int | None = None
) -> list[Source]:
    """All .osu files below `folder`, in the order of their names.

    In a Mapperator dataset (folders Track00000, ...) the track range [data_start, data_end) is
    taken and the six leading digits of a file name are its class.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give a folder that holds .osu files")
    tracks = sorted(p for p in folder.iterdir() if TRACK.fullmatch(p.name))
    if not tracks:
        if data_start is not None or data_end is not None:
            raise ValueError(
                f"{folder} is no Mapperator dataset (no folders Track00000, ...): "
                "leave out --data-start and --data-end"
            )
        return [Source(p) for p in sorted(folder.rglob("*.osu"))]
    found = []
    for track in tracks:
        number = int(track.name[5:])
        if number < (data_start or 0) or (data_end is not None and number >= data_end):
            continue
        for path in sorted(track.rglob("*.osu")):
            digits = path.name[:6]
            if not digits.isdecimal():
                raise ValueError(f"{path}: a Mapperator file name begins with six digits")
            found.append(Source(path, int(digits)))
    return found


def pack_one(path: Path) -> tuple[dict[str, Any], np.ndarray] | str:
    """One beatmap as (row of the table, data points), or the reason why it is left out."""
    try:
        beatmap = read_beatmap(path)
        sequence = beatmap_to_sequence(beatmap)
    except (BeatmapError, OSError) as error:
        return str(error)
    points = np.empty(len(sequence), POINT_DTYPE)
    points["time"], points["type"] = sequence.times, sequence.types
    points["x"], points["y"] = sequence.xy.T
    row = {
        "count": len(points),
        "md5": beatmap.md5,
        "beatmap_id": beatmap.beatmap_id,
        "set_id": beatmap.set_id,
        "artist": beatmap.artist,
        "title": beatmap.title,
        "creator": beatmap.creator,
        "version": beatmap.version,
        "circle_size": beatmap.circle_size,
        "star_rating": star_rating(beatmap.raw),
    }
    return row, points


def _readable(text: Path | str) -> str:
    """Text that can be printed and stored: old archives leave file names that are no UTF-8."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def default_workers() -> int:
    """One process a core; Windows cannot wait for more than 61."""
    return min(61, os.cpu_count() or 1)


def pack(sources: list[Source], output: Path, workers: int) -> dict[str, Any]:
    """Packs `sources` into the dataset folder `output`; returns counts and the skipped files."""
    rows: list[dict[str, Any]] = []
    arrays: list[np.ndarray] = []
    skipped: list[dict[str, str]] = []
    seen: set[str] = set()
    paths = [source.path for source in sources]
    # Workers are spawned on every platform alike; chunks keep the traffic small.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        results = pool.map(pack_one, paths, chunksize=16)
        progress = tqdm(results, total=len(paths), desc="packing", unit="map", file=sys.stderr)
        for source, result in zip(sources, progress, strict=True):
            if isinstance(result, str):
                skipped.append({"file": _readable(source.path), "reason": _readable(result)})
            elif result[0]["md5"] in seen:
                skipped.append({"file": _readable(source.path), "reason": "the same file again"})
            else:
                row, points = result
                seen.add(row["md5"])
                row["class_index"] = len(rows) if source.class_index is None else source.class_index
                rows.append(row)
                arrays.append(points)
    if not rows:
        reasons = skipped[0]["reason"] if skipped else "no .osu file was found"
        raise ValueError(f"nothing to pack: {reasons}")
    table = pd.DataFrame(rows)
    twice = table["class_index"].duplicated()
    if twice.any():
        raise ValueError(
            f"class {table['class_index'][twice].iloc[0]} is given twice: pack Mapperator datasets "
            "one at a time, without other folders"
        )
    points = np.concatenate(arrays)
    table["offset"] = table["count"].cumsum() - table["count"]
    folders = sorted({_readable(source.path.parent) for source in sources})
    report = {"sources": folders[:100], "skipped": skipped}
    write_dataset(output, points, table[COLUMNS], report)
    save_beatmap_idx(output / "beatmap_idx.pickle", PackedDataset(output).beatmap_idx())
    return {"maps": len(rows), "points": len(points), "skipped": skipped}


def open_or_pack(
    path: Path,
    cache: Path,
    data_start: int | None = None,
    data_end: int | None = None,
    workers: int | None = None,
) -> PackedDataset:
    """Opens a packed dataset, or packs a folder of beatmaps below `cache` on first use."""
    if (path / "dataset.json").is_file():
        return PackedDataset(path)
    sources = find_beatmaps(path, data_start, data_end)
    digest = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape"))
    for source in sources:  # a changed or added file is another dataset
        status = source.path.stat()
        line = f"{source.path} {status.st_size} {status.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    packed = cache / f"packed-{digest.hexdigest()[:12]}"
    if not (packed / "dataset.json").is_file():
        result = pack(sources, packed, workers or default_workers())
        print(
            f"packed {result['maps']} maps into {packed}, skipped {len(result['skipped'])} files "
            "(reasons in dataset.json)",
            file=sys.stderr,
        )
    return PackedDataset(packed)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders with .osu files (recursive)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the packed dataset")
    parser.add_argument("--data-start", type=int, help="first track of a Mapperator dataset")
    parser.add_argument("--data-end", type=int, help="track after the last one")
    parser.add_argument("--num-workers", type=int, default=default_workers(), help="processes")
    parser.add_argument(
        "--overwrite", action=cli.BooleanFlag, default=False, help="replace a dataset in --output"
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if (args.output / "dataset.json").exists() and not args.overwrite:
        raise ValueError(f"{args.output} holds a dataset already: add --overwrite to replace it")
    sources = [
        source
        for folder in args.folders
        for source in find_beatmaps(folder, args.data_start, args.data_end)
    ]
    result = pack(sources, args.output, max(1, args.num_workers))
    print(f"packed {result['maps']} maps, {result['points']} data points into {args.output}")
    for entry in result["skipped"][:20]:
        print(f"skipped {entry['file']}: {entry['reason']}")
    if len(result["skipped"]) > 20:
        print(f"... {len(result['skipped'])} skipped in all, listed in dataset.json")
    return 0


if __name__ == "__main__":
    cli.run(main)
