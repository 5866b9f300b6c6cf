"""A model's class embeddings with the beatmaps they were learnt from, and distances between them.

What the scripts about embeddings share: flags, names, cosine distances, nearest neighbours.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tables import read_table

from checkpoint import LoadedModel, load_model
from conventions.arrays import FloatArray
from conventions.bundled import DEFAULT_MODEL
from datasets.filters import likely_mappers
from sampling.style import class_table_path, read_class_table, read_index
from sampling.style_learning import embeddings_of

TEXTS = ("md5", "artist", "title", "creator", "version")
NUMBERS = ("circle_size", "star_rating")
CHUNK = 1024  # rows of a matrix of distances that are in memory at once


@dataclass(frozen=True)
class Classes:
    """Classes whose beatmap is known.

    `table` has class_index, beatmap_id, set_id, `TEXTS`, `NUMBERS`, perhaps more columns; `vectors`
    (n, D) are the embeddings of its rows.
    """

    table: pd.DataFrame
    vectors: FloatArray

    def __len__(self) -> int:
        return len(self.table)

    def chosen(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Classes":
        """Some of the classes."""
        return Classes(self.table[rows].reset_index(drop=True), self.vectors[rows])


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags for `classes_from`."""
    add = parser.add_argument
    add("--ckpt", type=Path, default=DEFAULT_MODEL, help="model: .safetensors or .pt")
    add(
        "--beatmap-idx",
        "--beatmap_idx",
        type=Path,
        help="beatmap index, for a model without a class table; default: the model's",
    )
    add(
        "--dataframe",
        type=Path,
        help="table of create_beatmap_dataframe.py, for what the model's class table lacks",
    )


def classes_from(
    args: argparse.Namespace, device: torch.device | str = "cpu"
) -> tuple[LoadedModel, Classes]:
    """The model that the flags name, and its classes."""
    loaded = load_model(args.ckpt, device)
    table = class_table(loaded, args.beatmap_idx)
    if args.dataframe is not None:
        table = joined(table, read_table(args.dataframe), args.dataframe)
    vectors = embeddings_of(loaded).double().cpu().numpy()
    return loaded, Classes(table, vectors[table["class_index"].to_numpy()])


def class_table(loaded: LoadedModel, index_path: Path | None = None) -> pd.DataFrame:
    """A row a class: the model's class table, or where it has none, its beatmap index alone.

    ValueError where neither is there, or it does not fit the model.
    """
    try:
        path = None if index_path else class_table_path(loaded)
    except ValueError:
        path = None
    if path is not None:
        read_class_table(loaded)  # refuses one that does not fit
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXTS, str),
            keep_default_na=False,
            na_values={name: [""] for name in NUMBERS},
        )
    else:
        index = read_index(loaded, index_path)
        ids, classes = list(index), list(index.values())
        table = pd.DataFrame({"class_index": classes, "beatmap_id": ids})
    for columns, empty in ((TEXTS, ""), (NUMBERS, np.nan), (("set_id",), -1)):
        for name in columns:
            if name not in table:
                table[name] = empty
    return table.sort_values("class_index", ignore_index=True)


def joined(table: pd.DataFrame, more: pd.DataFrame, path: Path) -> pd.DataFrame:
    """`table` with what the data frame `more` knows of the same beatmaps, by MD5 or else by ID.

    ValueError where it knows none of them; `path` is what the message calls it.
    """
    missing = {"md5", "beatmap_id"} - set(more)
    if missing:
        raise ValueError(f"{path} has no column {' or '.join(sorted(missing))}")
    by_md5 = {md5: row for row, md5 in enumerate(more["md5"]) if md5}
    ids = more["beatmap_id"].fillna(-1)
    by_id = {number: row for row, number in enumerate(ids) if number > 0}
    keys = zip(table["md5"], table["beatmap_id"], strict=True)
    rows = np.array([by_md5.get(md5, by_id.get(number, -1)) for md5, number in keys], dtype=int)
    found = rows >= 0
    if not found.any():
        raise ValueError(f"{path} has none of the model's {len(table)} beatmaps")
    known = more.iloc[np.maximum(rows, 0)].reset_index(drop=True).loc[found]
    table = table.copy()
    for name in known.columns.drop("class_index", errors="ignore"):
        column = known[name].reindex(table.index)
        if name in table:  # what the model was trained on wins
            blank = table[name].isna() | table[name].isin(["", -1])
            column = table[name].where(~blank | ~found, column)
        table[name] = column
    return table


def names(table: pd.DataFrame) -> list[str]:
    """Artist - title [version] (creator) of every row; where that is not known, the ID."""
    rows = table[["artist", "title", "version", "creator", "beatmap_id"]].itertuples(index=False)
    return [
        f"{artist} - {title} [{version}] ({creator})" if artist or title else f"beatmap {number}"
        for artist, title, version, creator, number in rows
    ]


def mappers(table: pd.DataFrame) -> list[str]:
    """The mapper of every row's difficulty, as `filters.normal_name` has it; "" for several."""
    pairs = zip(table["creator"], table["version"], strict=True)
    makers = [likely_mappers(creator, version) for creator, version in pairs]
    return [next(iter(found)) if len(found) == 1 else "" for found in makers]


# --- distances ------------------------------------------------------------------------------------


def unit(vectors: FloatArray) -> FloatArray:
    """Vectors (n, D) of length 1; a zero vector stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: FloatArray = vectors / np.where(lengths > 0, lengths, 1.0)
    return result


def cosine_distances(vectors: FloatArray, to: FloatArray) -> FloatArray:
    """(n,) 1 - cosine of the angle between each of the vectors (n, D) and `to` (D,), 0 to 2."""
    result: FloatArray = np.clip(1.0 - unit(vectors) @ unit(to[None])[0], 0.0, 2.0)
    return result


def nearest_neighbours(vectors: FloatArray, count: int) -> tuple[FloatArray, NDArray[np.intp]]:
    """Cosine distances (n, count) to the nearest other vectors, nearest first, and their rows."""
    parts = list(_nearest_in_chunks(unit(vectors), count))
    return np.concatenate([d for d, _ in parts]), np.concatenate([rows for _, rows in parts])


def _nearest_in_chunks(
    units: FloatArray, count: int
) -> Iterator[tuple[FloatArray, NDArray[np.intp]]]:
    for start in range(0, len(units), CHUNK):
        away = np.clip(1.0 - units[start : start + CHUNK] @ units.T, 0.0, 2.0)
        away[np.arange(len(away)), start + np.arange(len(away))] = np.inf
        rows = np.argsort(away, axis=1, kind="stable")[:, :count]
        yield np.take_along_axis(away, rows, axis=1), rows
