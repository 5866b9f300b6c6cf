"""What a metric is: something that is measured of remaps, one by one and all together."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from beatmaps.sequence import Sequence
from constraints.bounds import Bounds
from conventions.arrays import FloatArray
from metrics.realism import object_features


@dataclass(frozen=True)
class Pair:
    """A map and its remap, read back from its file.

    wanted (T,) px are the distances that were asked for, -1 where any was welcome. Of a remap that
    was sampled here, raw (T, 2) px is what it was before rounding, and seconds is how long it took.
    """

    before: Sequence
    after: Sequence
    wanted: FloatArray
    bounds: Bounds
    raw: FloatArray | None = None
    seconds: float | None = None

    @cached_property
    def features(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """`object_features` of the map and of the remap."""
        return object_features(self.before), object_features(self.after)

    @property
    def beatmapset(self) -> str:
        """What the map belongs to; difficulties that were never submitted, to the song's name."""
        beatmap = self.before.beatmap
        named = f"{beatmap.artist} - {beatmap.title}"
        return str(beatmap.set_id) if beatmap.set_id > 0 else named


class Metric:
    """One thing that is measured; every evaluation has an instance of its own.

    `columns` are those of the table, a row a map, with their units. What a metric needs to judge
    all maps together it keeps when it measures them.
    """

    name: ClassVar[str]
    columns: ClassVar[Mapping[str, str]] = {}

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed  # of what is drawn at random

    def measure(self, pair: Pair) -> dict[str, Any]:
        """The columns of one map."""
        return {}

    def summarise(self, table: pd.DataFrame) -> dict[str, Any]:
        """Numbers of all maps, whose columns are in `table`."""
        return {}

    def judge(self) -> dict[str, Any]:
        """What the report says beside the summary, as JSON has it."""
        return {}

    def lines(self) -> list[str]:
        """What is printed of that."""
        return []


def sums(table: pd.DataFrame, names: tuple[str, ...]) -> dict[str, int]:
    """Sums of the columns `names`."""
    return {name: int(table[name].sum()) for name in names}


def means_by_points(table: pd.DataFrame, names: tuple[str, ...]) -> dict[str, float]:
    """Means of the columns `names`, where they are there, weighted by maps' data points."""
    weight = table["points"] / table["points"].sum()
    return {name: float((table[name] * weight).sum()) for name in names if name in table}


def finite(value: float) -> float | None:
    """A number as JSON can hold it."""
    return value if np.isfinite(value) else None
