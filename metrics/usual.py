"""How often something occurs in real maps, by a table that was measured of many: what is unusual.

`usual.json` holds histograms of what `judged` finds. `testing/usual_values.py` makes it.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beatmaps.sequence import Sequence
from constraints.bounds import Bounds
from conventions.arrays import FloatArray
from metrics.objects import (
    MIN_STEP,
    RHYTHM_BINS,
    SPACING_BINS,
    condition_bins,
    measure_objects,
    out_of_bounds,
)

TABLE = Path(__file__).with_name("usual.json")
FEWEST = 1000  # values of a cell, for one in a hundred to mean something
FEWEST_ALIKE = 8  # distances of a map at a rhythm, for one of them to stand out
CELLS = (len(SPACING_BINS) + 1) * (len(RHYTHM_BINS) + 1)


class Kind(NamedTuple):
    """Edges of a histogram, and which of its values are unusual: high, low or seldom ones."""

    edges: tuple[float, ...]
    unusual: Literal["high", "low", "seldom"]


_ANGLES = tuple(np.linspace(0, np.pi, 13).tolist())
KINDS = {
    "turning_angle": Kind(_ANGLES, "seldom"),
    "flow_into_slider": Kind(_ANGLES, "seldom"),
    "flow_out_of_slider": Kind(_ANGLES, "seldom"),
    "visible_distance": Kind((*np.linspace(0, 2, 41).tolist(), np.inf), "low"),
    "relative_spacing": Kind((0, *np.geomspace(1, 64, 49).tolist(), np.inf), "high"),
    "off_playfield": Kind((0, 1e-3, 1, 2, 4, 8, 16, 32, 64, np.inf), "high"),
}


class Values(NamedTuple):
    """Of M objects: values (M,), NaN where there are none, and the cells (M,) they are told by."""

    values: FloatArray
    cells: NDArray[np.intp]


def judged(sequence: Sequence) -> tuple[dict[str, Values], dict[str, FloatArray]]:
    """What of each of a map's objects can be unusual, by `KINDS`; and its `measure_objects`.

    Turns are told by the distances and rhythms of the steps that they are between, from the end of
    an object to the next one. `relative_spacing` is a step over the median of the map's steps of
    about the same rhythm.
    """
    columns = measure_objects(sequence)
    came = condition_bins(columns["spacing"], columns["gap"])
    went = np.append(came[1:], -1)
    both = np.where((came >= 0) & (went >= 0), came * CELLS + went, -1)
    alone = np.zeros_like(came)
    off = np.maximum(*out_of_bounds(sequence, sequence.xy, Bounds()))
    return {
        "turning_angle": Values(columns["turning_angle"], both),
        "flow_into_slider": Values(columns["flow_into_slider"], came),
        "flow_out_of_slider": Values(columns["flow_out_of_slider"], went),
        "visible_distance": Values(columns["visible_distance"], alone),
        "relative_spacing": Values(_relative_spacing(columns), alone),
        "off_playfield": Values(off, alone),
    }, columns


def _relative_spacing(columns: dict[str, FloatArray]) -> FloatArray:
    """(M,) distances over the map's median at that rhythm; NaN where it has few of those."""
    spacing, result = columns["spacing"], np.full(len(columns["spacing"]), np.nan)
    known = condition_bins(spacing, columns["gap"]) >= 0
    rhythms = np.digitize(columns["gap"], RHYTHM_BINS)
    for rhythm in range(len(RHYTHM_BINS) + 1):
        mine = known & (rhythms == rhythm) & (spacing >= MIN_STEP)
        if mine.sum() >= FEWEST_ALIKE:
            result[mine] = spacing[mine] / np.median(spacing[mine])
    return result


def shares(found: dict[str, Values]) -> dict[str, FloatArray]:
    """(M,) which share of real maps' objects is at least as unusual, by kind; NaN if not known."""
    table = _table()
    result = {}
    for name, (values, cells) in found.items():
        result[name] = np.full(len(values), np.nan)
        bins = np.searchsorted(KINDS[name].edges, values, "right") - 1
        bins = np.clip(bins, 0, len(KINDS[name].edges) - 2)
        for cell in np.unique(cells[~np.isnan(values)]).tolist():
            if cell in table[name]:
                mine = (cells == cell) & ~np.isnan(values)
                result[name][mine] = table[name][cell][bins[mine]]
    return result


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[int, FloatArray]]:
    """By kind and cell, which share of objects is as unusual as those of each bin, or more."""
    counts = json.loads(TABLE.read_text(encoding="utf-8"))["counts"]
    return {
        name: {
            int(cell): _shares(np.array(row), kind.unusual) for cell, row in counts[name].items()
        }
        for name, kind in KINDS.items()
    }


def _shares(counts: NDArray[np.intp], unusual: str) -> FloatArray:
    if unusual == "low":
        result = np.cumsum(counts)
    elif unusual == "high":
        result = np.cumsum(counts[::-1])[::-1]
    else:
        result = np.array([counts[counts <= count].sum() for count in counts])
    return np.asarray(result / counts.sum())


def count(maps: Iterable[dict[str, Values]]) -> dict[str, dict[str, list[int]]]:
    """The histograms of many maps, by kind and cell; cells with too few values are left out."""
    sums: dict[str, dict[int, NDArray[np.intp]]] = {name: {} for name in KINDS}
    for found in maps:
        for name, (values, cells) in found.items():
            known = (cells >= 0) & ~np.isnan(values)
            for cell in np.unique(cells[known]).tolist():
                row = np.histogram(values[known & (cells == cell)], KINDS[name].edges)[0]
                sums[name][cell] = sums[name].get(cell, 0) + row
    return {
        name: {str(cell): row.tolist() for cell, row in sorted(rows.items()) if row.sum() >= FEWEST}
        for name, rows in sums.items()
    }
