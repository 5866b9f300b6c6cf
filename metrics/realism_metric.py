"""The metric of realism: how far the placement of remaps is from real maps, by feature."""

import json
from typing import Any

import pandas as pd

from metrics.metric import Metric, Pair, finite
from metrics.realism import collect, compare, realism_ratio


class RealismDistances(Metric):
    """`realism.compare` of all maps and their remaps; it has no numbers of a single map."""

    name = "realism"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.real: list[pd.DataFrame] = []
        self.remapped: list[pd.DataFrame] = []
        self.sets: list[str] = []
        self.table, self.ratio = pd.DataFrame(), float("nan")

    def measure(self, pair: Pair) -> dict[str, Any]:
        real, remapped = pair.features
        self.real.append(real)
        self.remapped.append(remapped)
        self.sets.append(pair.beatmapset)
        return {}

    def judge(self) -> dict[str, Any]:
        real = collect(self.real, self.real, self.sets)
        remapped = collect(self.remapped, self.real, self.sets)
        self.table = compare(real, remapped, seed=self.seed)
        self.ratio = realism_ratio(self.table)
        # NaN is not JSON; pandas writes null.
        table = json.loads(self.table.to_json(orient="index"))
        return {"realism_ratio": finite(self.ratio), "realism": table}

    def lines(self) -> list[str]:
        lines = [
            "\ndistances of distributions: remaps to their sources; to maps of other beatmapsets;",
            "real maps to maps of other beatmapsets (conditional: within bins of spacing and "
            "rhythm)",
            self.table.to_string(float_format="{:.4g}".format, na_rep="-"),
        ]
        if finite(self.ratio) is not None:
            lines.append(f"{'realism_ratio':<42} {self.ratio:>12.4f}")
        return lines
