"""Metrics of a map as a whole: its star rating, and how long sampling it took."""

from typing import Any, ClassVar

import pandas as pd

from beatmaps.star_rating import star_rating
from metrics.metric import Metric, Pair


class StarRatings(Metric):
    """Star ratings before and after, where they can be computed, and the change as a share."""

    name = "star_rating"
    columns: ClassVar = {
        "stars_before": "stars",
        "stars_after": "stars",
        "star_rating_change": "share",
    }

    def measure(self, pair: Pair) -> dict[str, Any]:
        before, after = (star_rating(side.beatmap.raw) for side in (pair.before, pair.after))
        row: dict[str, Any] = {"stars_before": before, "stars_after": after}
        if before and after is not None:
            row["star_rating_change"] = after / before - 1
        return row

    def summarise(self, table: pd.DataFrame) -> dict[str, Any]:
        if "star_rating_change" not in table:
            return {}
        change = table["star_rating_change"]
        return {
            "star_rating_change_median": float(change.median()),
            "star_rating_change_median_absolute": float(change.abs().median()),
        }


class Speed(Metric):
    """How long sampling took."""

    name = "speed"
    columns: ClassVar = {"seconds_per_1000_points": "s"}

    def measure(self, pair: Pair) -> dict[str, Any]:
        if pair.seconds is None:
            return {}
        return {"seconds_per_1000_points": 1000 * pair.seconds / len(pair.before)}

    def summarise(self, table: pd.DataFrame) -> dict[str, Any]:
        (name,) = self.columns
        return {name: float(table[name].median())} if name in table else {}
