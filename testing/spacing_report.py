"""Reports how far the distances in remaps are off those that were asked for, by kind of point.

    python testing/spacing_report.py results
    python testing/spacing_report.py REMAP.osu --source ORIGINAL.osu --picture spacing.png

A REMAP is an .osu file, a .result.json of sample.py, or a folder with such. The source, and what
was asked for, are those that the .result.json says; with --source, the distances of that map.
"As played" is the distance from where the player leaves an object to the next one, which for a
slider that goes back and forth is not its end's; it is reported where distances were to be kept.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from figures import save_figure
from remap_pairs import Library, Pair, make_pair, pairs_at
from tables import claim_table, save_table

from beatmaps.game_rules import format_time
from beatmaps.osu_file import read_beatmap
from beatmaps.selection import editor_numbers
from beatmaps.sequence import Sequence
from conventions import command_line
from conventions.arrays import FloatArray
from conventions.errors import naming
from conventions.point_types import PointType
from metrics.fidelity import count_changes, count_faults
from metrics.realism import object_features
from metrics.spacing import spacing_errors

KINDS = ("object start", "anchor", "slider end", "as played")
MAX_PRINTED = 5  # maps with a table of their own
SMALLEST = 0.01  # px; below that all is one bar
QUANTILES = {"median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Errors:
    """Spacing errors of a remap: px of the points of each kind, and of every point (T,)."""

    pair: Pair
    by_kind: dict[str, FloatArray]
    by_point: FloatArray

    @property
    def name(self) -> str:
        """What tables call the remap."""
        return Path(self.pair.remap.name).name


def kinds_of(sequence: Sequence) -> dict[str, NDArray[np.bool_]]:
    """(T,) which data points are of which kind; a spinner's end is of none."""
    types = sequence.types
    anchors = (types >= PointType.BEZIER_ANCHOR) & (types <= PointType.LAST_ANCHOR)
    return {
        "object start": sequence.object_starts,
        "anchor": anchors,
        "slider end": types >= PointType.SLIDER_END_1,
    }


def measure_pair(pair: Pair) -> Errors:
    """The errors of the points that were remapped."""
    errors = spacing_errors(pair.before, pair.after.xy, pair.wanted)
    by_kind = {name: errors[mask & pair.moved] for name, mask in kinds_of(pair.before).items()}
    if pair.spacing.mode in ("keep", "model"):
        spacings = [
            object_features(sequence)["spacing"].to_numpy(dtype=np.float64)
            for beatmap, sequence in ((pair.source, pair.before), (pair.remap, pair.after))
        ]
        played = np.abs(spacings[1] - spacings[0])[pair.moved[pair.before.object_starts]]
        by_kind["as played"] = played[np.isfinite(played)]
    return Errors(pair, by_kind, np.where(pair.moved, errors, 0.0))


def summarise(values: FloatArray) -> dict[str, float]:
    """Count, quantiles, mean and the share above a pixel of errors (n,) px."""
    numbers = {name: float(np.quantile(values, q)) for name, q in QUANTILES.items()}
    above = float((values > 1).mean())
    return {"points": len(values), "mean": float(values.mean()), **numbers, "above_1_px": above}


def tabulate(measured: list[Errors]) -> pd.DataFrame:
    """A row for each map and kind of point; of several maps also for all of them."""
    rows = [
        {"map": errors.name, "kind": kind, **summarise(values)}
        for errors in measured
        for kind, values in errors.by_kind.items()
        if len(values)
    ]
    if len(measured) > 1:
        rows += [
            {"map": "all", "kind": kind, **summarise(values)}
            for kind, values in pooled(measured).items()
        ]
    return pd.DataFrame(rows)


def pooled(measured: list[Errors]) -> dict[str, FloatArray]:
    """The errors of all maps by kind, without kinds that have none."""
    found = {
        kind: np.concatenate([e.by_kind.get(kind, np.empty(0)) for e in measured]) for kind in KINDS
    }
    return {kind: values for kind, values in found.items() if len(values)}


# --- the worst ------------------------------------------------------------------------------------


def worst_objects(measured: list[Errors], count: int) -> list[dict[str, Any]]:
    """The objects with the largest errors, each by its worst point."""
    rows: list[dict[str, Any]] = []
    for errors in measured:
        owners = errors.pair.before.objects
        order = np.lexsort((-errors.by_point, owners))
        firsts = order[np.unique(owners[order], return_index=True)[1]]
        chosen = firsts[np.argsort(-errors.by_point[firsts], kind="stable")][:count]
        rows += [_describe(errors, int(point)) for point in chosen if errors.by_point[point] > 0]
    return sorted(rows, key=lambda row: -row["error"])[:count]


def _describe(errors: Errors, point: int) -> dict[str, Any]:
    pair = errors.pair
    index = int(pair.before.objects[point])
    number = editor_numbers(pair.remap)[index]
    kinds = [kind for kind, mask in kinds_of(pair.before).items() if mask[point]]
    kind = kinds[0] if kinds else "spinner end"
    if kind == "anchor":
        kind = f"anchor {pair.before.anchors[point]}"
    wanted = pair.wanted[point] if pair.wanted[point] >= 0 else pair.before.distances()[point]
    return {
        "map": errors.name,
        "stamp": f"{format_time(pair.remap.objects[index].time)} ({number})",
        "point": kind,
        "wanted": float(wanted),
        "found": float(pair.after.distances()[point]),
        "error": float(errors.by_point[point]),
    }


# --- output ---------------------------------------------------------------------------------------


def print_report(measured: list[Errors], table: pd.DataFrame, worst: list[dict[str, Any]]) -> None:
    """The table, what else went wrong, and the worst objects."""
    shown = measured if len(measured) <= MAX_PRINTED else []
    for name in [*(errors.name for errors in shown), *(["all"] if len(measured) > 1 else [])]:
        rows = table[table["map"] == name].drop(columns="map")
        print(f"{name}, spacing errors in px:")
        print(rows.to_string(index=False, float_format="{:.3f}".format))
    faults = Counter[str]()
    for errors in measured:
        pair = errors.pair
        faults.update(count_faults(pair.before, pair.after.xy))
        faults["changes"] += sum(count_changes(pair.source, pair.remap).values())
    print(
        f"{faults['stacks_broken']} of {faults['stacks']} stacks broken, "
        f"{faults['paths_too_short']} of {faults['sliders']} paths too short, "
        f"{faults['changes']} changes of what must stay"
    )
    if worst:
        print("largest errors:")
    for row in worst:
        place = row["map"] + ": " if len(measured) > 1 else ""
        print(
            f"  {place}{row['stamp']} - {row['point']}: {row['found']:.1f} px instead of "
            f"{row['wanted']:.1f}, off by {row['error']:.2f}"
        )


def draw(errors: dict[str, FloatArray], title: str) -> Figure:
    """Histograms of the errors by kind of point, on a logarithmic scale."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    largest = max(float(values.max()) for values in errors.values())
    edges = np.geomspace(SMALLEST, max(largest, 10 * SMALLEST) * 1.01, 60)
    for kind, values in errors.items():
        weights = np.full(len(values), 100 / len(values))
        label = f"{kind}: {len(values):,}, median {np.median(values):.2f} px"
        shown = np.maximum(values, SMALLEST)
        axes.hist(
            shown, edges.tolist(), weights=weights, histtype="step", linewidth=1.4, label=label
        )
    axes.axvline(1.0, color="#999999", linewidth=0.8, linestyle="--")
    axes.set(
        xscale="log",
        xlabel=f"spacing error, px (all below {SMALLEST:g} in the first bar)",
        ylabel="share of the points, %",
        title=title,
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=command_line.HelpFormatter
    )
    add = parser.add_argument
    add(
        "remaps",
        nargs="+",
        type=Path,
        metavar="REMAP",
        help="remapped .osu files, .result.json files, or folders with them",
    )
    add("--source", nargs="+", type=Path, metavar="FILE", help="the source of each REMAP, in order")
    add(
        "--sources",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="where to look for sources that are not where they were",
    )
    add("--top", type=int, default=10, help="objects that are listed")
    add("--output", type=Path, help="also write the table: .csv, .parquet or .pkl")
    add("--picture", type=Path, default=Path("spacing.png"), help="histogram, PNG")
    add(
        "--overwrite", action=command_line.BooleanFlag, default=False, help="replace existing files"
    )
    return parser.parse_args()


def find_pairs(args: argparse.Namespace) -> list[Pair]:
    """The pairs that the command line names."""
    if args.source is None:
        library = Library(tuple(args.sources))
        bar = tqdm(args.remaps, desc="reading", unit="remap", file=sys.stderr)
        return [pair for path in bar for pair in pairs_at(path, library)]
    if len(args.source) != len(args.remaps):
        raise ValueError(
            f"{len(args.remaps)} REMAPs and {len(args.source)} files of --source: give as many"
        )
    pairs = zip(args.source, args.remaps, strict=True)
    return [make_pair(read_beatmap(source), read_beatmap(remap)) for source, remap in pairs]


@naming(command_line.flag_names())
def main() -> int:
    args = parse_args()
    command_line.claim_output(args.picture, args.overwrite)
    claim_table(args.output, args.overwrite)
    measured = [measure_pair(pair) for pair in find_pairs(args)]
    errors = pooled(measured)
    if not errors:
        raise ValueError("nothing was remapped there")
    table = tabulate(measured)
    print_report(measured, table, worst_objects(measured, args.top))
    title = measured[0].name if len(measured) == 1 else f"{len(measured)} remaps"
    save_figure(args.picture, draw(errors, title))
    print(f"wrote {args.picture}")
    save_table(args.output, table)
    return 0


if __name__ == "__main__":
    command_line.run(main)
