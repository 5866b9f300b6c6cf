"""Writes a table of beatmaps, a row each: names, difficulty, rhythm, spacing, style class.

    python testing/create_beatmap_dataframe.py "C:/osu!/Songs" --output beatmaps.csv

The beatmaps may be anywhere that create_dataset.py finds them, or in a packed dataset, of which
only the columns are known that its data points and its own table tell. Without a SOURCE the table
is the class table of --ckpt. With --ckpt or --beatmap-idx the classes are that model's.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tables import claim_table, write_table

from beatmaps.osu_file import Beatmap
from beatmaps.sequence import Points, beatmap_to_sequence
from beatmaps.star_rating import star_ratings_available
from conventions import command_line
from conventions.errors import naming
from conventions.point_types import PointType
from data_loading import PackedDataset
from datasets import filters
from datasets.class_tables import load_beatmap_idx
from datasets.filters import Filters, date_of
from datasets.pack import FILTERED, default_workers, results_of
from datasets.read import Skipped, beatmap_row, count_reasons, each_beatmap, readable
from datasets.sources import WHAT_IS_FOUND, Known, Source, find_beatmaps

Row = dict[str, Any]

COLUMNS = (
    *("beatmap_id", "set_id", "artist", "title", "creator", "version", "tags", "date"),
    *("circle_size", "approach_rate", "overall_difficulty", "hp_drain_rate", "bpm", "length_s"),
    *("objects", "circles", "sliders", "spinners", "points"),
    *("spacing_median", "spacing_p95", "velocity_median", "velocity_p95"),
    *("star_rating", "class_index", "md5", "file"),
)
"""Spacing is px from where an object ends to the next one, velocity is that over the time, px/s."""
WHOLE = ("beatmap_id", "set_id", "objects", "circles", "sliders", "spinners", "points")


# --- rows -----------------------------------------------------------------------------------------


def describe_file(source: Source) -> list[Row | Skipped]:
    """The rows of a file's beatmaps; what a worker process does."""
    return each_beatmap(source, describe)


def describe(file: str, beatmap: Beatmap, known: Known) -> Row:
    """A beatmap's row, all but its class and its date."""
    row = beatmap_row(beatmap, known) | describe_points(beatmap_to_sequence(beatmap))
    return {
        **{name: readable(v) if isinstance(v, str) else v for name, v in row.items()},
        "approach_rate": beatmap.approach_rate,
        "overall_difficulty": beatmap.overall_difficulty,
        "hp_drain_rate": beatmap.hp_drain_rate,
        "bpm": main_bpm(beatmap),
        "file": file,
    }


def describe_points(sequence: Points) -> Row:
    """What data points tell: length, objects by kind, spacing and velocity."""
    types, starts = sequence.types, np.flatnonzero(sequence.object_starts)
    heads = np.isin(types, (PointType.SLIDER_HEAD, PointType.SLIDER_HEAD_NC))
    spinners = types == PointType.SPINNER
    later = starts[1:][~spinners[starts[1:]]]  # the first one has no predecessor
    spacing = sequence.distances()[later]
    seconds = (sequence.times[later] - sequence.times[later - 1]) / 1000
    velocity = spacing[seconds > 0] / seconds[seconds > 0]
    return {
        "length_s": (sequence.times.max() - sequence.times[0]) / 1000,
        "objects": len(starts),
        "circles": len(starts) - int(heads.sum()) - int(spinners.sum()),
        "sliders": int(heads.sum()),
        "spinners": int(spinners.sum()),
        "points": len(sequence),
        **_median_and_p95("spacing", spacing),
        **_median_and_p95("velocity", velocity),
    }


def _median_and_p95(name: str, values: np.ndarray) -> dict[str, float]:
    median, p95 = np.quantile(values, (0.5, 0.95)) if len(values) else (np.nan, np.nan)
    return {f"{name}_median": float(median), f"{name}_p95": float(p95)}


def main_bpm(beatmap: Beatmap) -> float:
    """The beats a minute that hold longest between the first object and the end of the last."""
    first, last = beatmap.objects[0].time, max(hit.end_time for hit in beatmap.objects)
    changes = [time for time in beatmap.timing.beat_times if first < time < last]
    edges = [first, *changes, max(last, first + 1)]
    held: dict[float, float] = {}
    for start, stop in pairwise(edges):
        beat = beatmap.beat_length_at(start)
        held[beat] = held.get(beat, 0.0) + stop - start
    return round(60_000 / max(held, key=held.__getitem__), 3)


def packed_rows(folder: Path) -> Iterator[Row]:
    """The rows of a packed dataset, without what only the files tell."""
    dataset = PackedDataset(folder)
    table = dataset.beatmaps.astype({"star_rating": object})
    table["star_rating"] = table["star_rating"].where(table["star_rating"].notna(), None)
    for row in table.to_dict("records"):
        points = dataset.points[row["offset"] : row["offset"] + row["count"]]
        xy = np.stack([points["x"], points["y"]], axis=1).astype(np.float64)
        yield {str(k): v for k, v in row.items()} | describe_points(
            Points(points["time"], xy, points["type"])
        )


# --- tables ---------------------------------------------------------------------------------------


def collect(
    paths: list[Path], chosen: Filters, workers: int, start: int | None, end: int | None
) -> tuple[list[Row], list[Skipped]]:
    """The rows of all sources that the filters let pass, each file once, and what was left out."""
    packed = [path for path in paths if (path / "dataset.json").is_file()]
    others = [path for path in paths if path not in packed]
    sources = find_beatmaps(*others, data_start=start, data_end=end) if others else []
    rows: dict[str, Row] = {}
    skipped: list[Skipped] = []

    def take(row: Row, file: str) -> None:
        reason = chosen.reason_against(row)
        if row["md5"] in rows:
            skipped.append(Skipped(file, "the same file as another", row["md5"]))
        elif reason:
            skipped.append(Skipped(file, f"{FILTERED} {reason}", reason))
        else:
            rows[row["md5"]] = row

    for folder in packed:
        for row in packed_rows(folder):
            take(row, f"{folder}: class {row['class_index']}")
    with closing(results_of(describe_file, sources, workers)) as stream:
        options = {"total": len(sources), "disable": not sources, "file": sys.stderr}
        bar = tqdm(stream, desc="reading", unit="file", **options)
        for source, results in zip(sources, bar, strict=True):
            for result in results:
                if isinstance(result, Skipped):
                    skipped.append(result)
                else:
                    take(result | {"class_index": source.class_index}, result["file"])
            bar.set_postfix({"rows": len(rows), "skipped": len(skipped)}, refresh=False)
    return list(rows.values()), skipped


def model_classes(args: argparse.Namespace) -> pd.DataFrame | None:
    """The classes of the model, or index, that the command line names; None for none."""
    if args.ckpt is not None:
        # Imported for models alone: torch takes seconds to start.
        from class_embeddings import class_table

        from checkpoint import load_model

        return class_table(load_model(args.ckpt), args.beatmap_idx)
    if args.beatmap_idx is not None:
        index = load_beatmap_idx(args.beatmap_idx)
        return pd.DataFrame({"beatmap_id": list(index), "class_index": list(index.values())})
    return None


def give_classes(rows: list[Row], classes: pd.DataFrame) -> None:
    """Replaces the rows' classes by a model's: by MD5, or else by beatmap ID; None for others."""
    known = classes.to_dict("records")
    by_md5 = {row["md5"]: row["class_index"] for row in known if row.get("md5")}
    by_id = {row["beatmap_id"]: row["class_index"] for row in known if row["beatmap_id"] > 0}
    for row in rows:
        row["class_index"] = by_md5.get(row["md5"], by_id.get(row["beatmap_id"]))


def make_table(rows: list[Row], dates: filters.Dates) -> pd.DataFrame:
    """`COLUMNS` of the rows, without those of which nothing is known."""
    for row in rows:
        day = date_of(row, dates)
        row["date"] = None if day is None else day.isoformat()
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).dropna(axis="columns", how="all")
    whole = [name for name in (*WHOLE, "class_index") if name in table]
    return table.astype(dict.fromkeys(whole, "Int64"))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=command_line.HelpFormatter
    )
    add = parser.add_argument
    add(
        "sources",
        nargs="*",
        type=Path,
        metavar="SOURCE",
        help=f"packed dataset, or {WHAT_IS_FOUND}; default: the class table of --ckpt",
    )
    add("--output", type=Path, default=Path("beatmaps.csv"), help=".csv, .parquet or .pkl")
    add("--overwrite", action=command_line.BooleanFlag, default=False, help="replace --output")
    add("--ckpt", type=Path, help="model whose classes are given")
    add("--beatmap-idx", "--beatmap_idx", type=Path, help="beatmap index whose classes are given")
    add("--data-start", type=int, help="first track of a Mapperator dataset")
    add("--data-end", type=int, help="track after the last one")
    add("--num-workers", type=int, default=default_workers(), help="processes")
    filters.add_arguments(parser)
    return parser.parse_args()


@naming(command_line.flag_names())
def main() -> int:
    args = parse_args()
    claim_table(args.output, args.overwrite)
    chosen, classes = filters.from_arguments(args), model_classes(args)
    if not args.sources and args.ckpt is None:
        raise ValueError("no SOURCE and no --ckpt: name a folder with beatmaps, or a model")
    if not args.sources and chosen.describe().keys() - {"dates"}:
        raise ValueError("filters choose among the beatmaps of a SOURCE: name one")
    if args.sources:
        rows, skipped = collect(
            args.sources, chosen, max(1, args.num_workers), args.data_start, args.data_end
        )
        if classes is not None:
            give_classes(rows, classes)
    else:
        assert classes is not None
        rows, skipped = [{str(k): v for k, v in r.items()} for r in classes.to_dict("records")], []
    if skipped:
        print(f"skipped {len(skipped)} beatmaps:", *count_reasons(skipped), sep="\n")
    if not rows:
        raise ValueError("no beatmap is left for the table")
    if not star_ratings_available():
        print("star ratings are missing where no table has them: pip install rosu-pp-py")
    table = make_table(rows, chosen.dates)
    write_table(args.output, table)
    print(f"wrote {len(table)} beatmaps with {len(table.columns)} columns to {args.output}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
