"""Lists the maps of the training set whose style a model has farthest from that of all others.

    python testing/find_unique_beatmaps.py --top 50 --output unique.csv

A map is as unique as the mean cosine distance between its class embedding and its nearest
neighbours is large.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from class_embeddings import Classes, add_flags, classes_from, names, nearest_neighbours
from tables import claim_table, save_table

from conventions import command_line
from conventions.errors import naming


def by_uniqueness(classes: Classes, neighbours: int) -> pd.DataFrame:
    """All classes, the most unique first: the distance, the nearest map, what the table knows."""
    distances, rows = nearest_neighbours(classes.vectors, neighbours)
    table = classes.table.copy()
    table.insert(0, "distance", distances.mean(axis=1))
    all_names = names(table)
    table.insert(1, "nearest_distance", distances[:, 0])
    table.insert(2, "nearest", [all_names[row] for row in rows[:, 0]])
    order = np.argsort(-table["distance"].to_numpy(), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=command_line.HelpFormatter
    )
    add = parser.add_argument
    add("--top", type=int, default=20, help="maps that are printed")
    add("--neighbours", type=int, default=5, help="nearest maps whose mean distance counts")
    add("--output", type=Path, help="also write all maps in this order: .csv, .parquet or .pkl")
    add("--overwrite", action=command_line.BooleanFlag, default=False, help="replace --output")
    add_flags(parser)
    return parser.parse_args()


@naming(command_line.flag_names())
def main() -> int:
    args = parse_args()
    if args.top < 1:
        raise ValueError(f"--top {args.top}: give a number above 0")
    claim_table(args.output, args.overwrite)
    _, classes = classes_from(args)
    if not 1 <= args.neighbours < len(classes):
        raise ValueError(f"--neighbours {args.neighbours}: give 1 to {len(classes) - 1}")
    table = by_uniqueness(classes, args.neighbours)
    low, middle, high = table["distance"].quantile([0.05, 0.5, 0.95])
    print(
        f"mean cosine distance to the {args.neighbours} nearest of {len(table)} maps: "
        f"median {middle:.3f}, 5 % below {low:.3f}, 5 % above {high:.3f}"
    )
    top = table.head(args.top)
    for row, name in zip(top.to_dict("records"), names(top), strict=True):
        print(f"{row['distance']:.3f} {row['beatmap_id']:>9} {row['star_rating']:5.2f}*  {name}")
        print(f"{row['nearest_distance']:23.3f}  {row['nearest']}")
    save_table(args.output, table)
    return 0


if __name__ == "__main__":
    command_line.run(main)
