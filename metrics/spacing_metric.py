"""The metric of spacing: how far remaps are from the distances that were asked for."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd

from conventions.arrays import FloatArray
from conventions.playfield import off_playfield
from metrics.metric import Metric, Pair, means_by_points
from metrics.spacing import measure, spacing_errors, summarise_errors

ERRORS = tuple(
    f"{which}_spacing_error_{what}"
    for which in ("all", "object", "inner")
    for what in ("median", "p95")
)
OFF = ("points_off_playfield", "centres_off_playfield")
SOURCE_OFF = "source_points_off_playfield"


class SpacingErrors(Metric):
    """Spacing errors and shares off the playfield, as written and before rounding (`raw_`).

    Remaps that were read from files, not sampled, have no raw ones. Of the maps themselves, to
    compare with, it has the share of points off the playfield.
    """

    name = "spacing"
    columns: ClassVar = {
        f"{prefix}{name}": unit
        for prefix in ("raw_", "")
        for names, unit in ((ERRORS, "px"), (OFF, "share"))
        for name in names
    } | {SOURCE_OFF: "share"}

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.starts: list[np.ndarray] = []
        self.errors: dict[str, list[FloatArray]] = {}

    def measure(self, pair: Pair) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for prefix, xy in (("raw_", pair.raw), ("", pair.after.xy)):
            if xy is not None:
                found = measure(pair.before, xy, pair.wanted)
                row |= {f"{prefix}{name}": value for name, value in found.items()}
                errors = spacing_errors(pair.before, xy, pair.wanted)
                self.errors.setdefault(prefix, []).append(errors)
        self.starts.append(pair.before.object_starts)
        return row | {SOURCE_OFF: float(off_playfield(pair.before.xy).mean())}

    def summarise(self, table: pd.DataFrame) -> dict[str, Any]:
        """Median and p95 over all data points of all maps, means of the shares."""
        starts = np.concatenate(self.starts)
        result: dict[str, Any] = {}
        for prefix, errors in self.errors.items():
            found = summarise_errors(np.concatenate(errors), starts)
            result |= {f"{prefix}{name}": value for name, value in found.items()}
        shares = (*(f"raw_{name}" for name in OFF), *OFF, SOURCE_OFF)
        return result | means_by_points(table, shares)
