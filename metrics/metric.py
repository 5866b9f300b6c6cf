"""What a metric is: something measured of each remap, and of all together."""

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

    wanted (T,) px are the distances that were asked for, -1 where any was accepted. If the remap
    was sampled here, raw (T, 2) px are its coordinates before rounding, and seconds its time.
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
        """The map's set: its ID, or for maps that were never submitted the song's name."""
        beatmap = self.before.beatmap
        named = f"{beatmap.artist} - {beatmap.title}"
        return str(beatmap.set_id) if beatmap.set_id > 0 else named


class Metric:
    """One thing that is measured; every evaluation has an instance of its own.

    `columns` are those of the table, with their units; the table has a row per map. `measure` keeps
    what the metric needs to judge all maps together.
    """

    name: ClassVar[str]
    columns: ClassVar[Mapping[str, str]] = {}

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed  # for all random numbers

    def measure(self, pair: Pair) -> dict[str, Any]:
        """The columns of one map."""
        return {}

    def summarise(self, table: pd.DataFrame) -> dict[str, Any]:
        """Numbers over all maps, whose columns are in `table`."""
        return {}

    def judge(self) -> dict[str, Any]:
        """What the report says besides the summary, as JSON values."""
        return {}

    def lines(self) -> list[str]:
        """The printed lines of that."""
        return []


def sums(table: pd.DataFrame, names: tuple[str, ...]) -> dict[str, int]:
    """Sums of the columns `names`."""
    return {name: int(table[name].sum()) for name in names}


def means_by_points(table: pd.DataFrame, names: tuple[str, ...]) -> dict[str, float]:
    """Means of those columns of `names` that exist, weighted by maps' data points."""
    weight = table["points"] / table["points"].sum()
    return {name: float((table[name] * weight).sum()) for name in names if name in table}


def finite(value: float) -> float | None:
    """A number as JSON can store it: None for NaN and infinity."""
    return value if np.isfinite(value) else None
