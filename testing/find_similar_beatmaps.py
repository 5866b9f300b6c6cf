"""Lists the maps of the training set whose style a model has nearest to that of a beatmap.

    python testing/find_similar_beatmaps.py --beatmap-id 1180619
    python testing/find_similar_beatmaps.py --beatmap FILE.osu --output similar.csv

Near means a small cosine distance between class embeddings: 0 is the same direction, 1 is a right
angle. The style of a file is learnt first, as by sample.py --style-beatmap, and kept.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from class_embeddings import Classes, add_flags, classes_from, cosine_distances, names
from tables import claim_table, save_table

from checkpoint import LoadedModel
from conventions import command_line
from conventions.errors import naming
from sampling.progress import bar
from sampling.style import class_of_id, style_of_files


def wanted_embedding(
    args: argparse.Namespace, loaded: LoadedModel, classes: Classes
) -> tuple[np.ndarray, str, int | None]:
    """The embedding (D,) of the beatmap that the flags name, its name, its class if it has one."""
    if args.beatmap is not None:
        with bar("learning the style") as progress:
            embedding = style_of_files(loaded, (args.beatmap,), args.cache, progress)
        return embedding.double().cpu().numpy(), args.beatmap.name, None
    known = classes.table[classes.table["beatmap_id"] > 0][::-1]
    index = dict(zip(known["beatmap_id"].tolist(), known["class_index"].tolist(), strict=True))
    number = class_of_id(str(args.beatmap_id), index, "beatmap_id")
    row = int(np.flatnonzero(classes.table["class_index"] == number)[0])
    return classes.vectors[row], names(classes.table.iloc[[row]])[0], number


def similar(classes: Classes, embedding: np.ndarray, count: int) -> pd.DataFrame:
    """The nearest classes, nearest first: distance, what the table knows, and a name."""
    distances = cosine_distances(classes.vectors, embedding)
    rows = np.argsort(distances, kind="stable")[:count]
    table = classes.table.iloc[rows].copy()
    table.insert(0, "distance", distances[rows])
    return table.reset_index(drop=True)


def print_table(table: pd.DataFrame) -> None:
    """Distances, IDs, star ratings and names, a line each."""
    for row, name in zip(table.to_dict("records"), names(table), strict=True):
        print(f"{row['distance']:.3f} {row['beatmap_id']:>9} {row['star_rating']:5.2f}*  {name}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=command_line.HelpFormatter
    )
    add = parser.add_argument
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--beatmap-id", type=int, help="a map that the model was trained on")
    wanted.add_argument("--beatmap", type=Path, metavar="FILE", help="any .osu or .osz file")
    add("--top", type=int, default=20, help="maps that are listed")
    add(
        "--other-sets",
        action=command_line.BooleanFlag,
        default=False,
        help="leave out difficulties of the same beatmapset (with --beatmap-id)",
    )
    add("--output", type=Path, help="also write the list: .csv, .parquet or .pkl")
    add("--overwrite", action=command_line.BooleanFlag, default=False, help="replace --output")
    add("--cache", type=Path, default=Path("results/.cache"), help="folder of learnt styles")
    add("--device", default="auto", help="for learning a style: cuda, mps, cpu or auto")
    add_flags(parser)
    return parser.parse_args()


@naming(command_line.flag_names())
def main() -> int:
    args = parse_args()
    if args.top < 1:
        raise ValueError(f"--top {args.top}: give a number above 0")
    if args.other_sets and args.beatmap is not None:
        raise ValueError("--other-sets goes by the class of a --beatmap-id")
    claim_table(args.output, args.overwrite)
    loaded, classes = classes_from(args, command_line.pick_device(args.device))
    embedding, name, number = wanted_embedding(args, loaded, classes)
    others = classes.table["class_index"] != number
    if args.other_sets:
        mine = classes.table["set_id"][~others].iloc[0]
        others &= (classes.table["set_id"] != mine) | (mine <= 0)
    others = classes.chosen(others.to_numpy())
    table = similar(others, embedding, args.top)
    print(f"nearest to {name} of {len(others)} maps:")
    print_table(table)
    middle = np.median(cosine_distances(others.vectors, embedding))
    print(f"the median of all is at {middle:.3f}")
    save_table(args.output, table)
    return 0


if __name__ == "__main__":
    command_line.run(main)
