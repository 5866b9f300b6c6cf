"""Can a classifier tell remaps from real maps? Needs scikit-learn, an extra of the evaluation.

Windows of objects, described by the features of `realism`, go to gradient-boosted trees. A remap
has its source's rhythm, so both are always in the same cross-validation fold, with all other maps
of their beatmapset: only placement can tell them apart, not the song.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from conventions.arrays import FloatArray
from metrics.metric import Metric, Pair
from metrics.objects import CONTEXT, FEATURES

WINDOW = 32  # objects
MIN_WINDOW = 16
FOLDS = 5
QUANTILES = (0.1, 0.5, 0.9)
COLUMNS = (*FEATURES, *CONTEXT)
RULED = (
    *("nearest_earlier", "visible_distance", "overlapping"),
    *("repeated_position", "stacked", "return_distance", "third_distance"),
    *("turning_angle", "flow_into_slider", "flow_out_of_slider", "jump_asymmetry"),
)
"""Features that rules change: how far earlier objects are, whether positions repeat, and turns,
of which small ones become none. The distances to the second and third object before are included,
which are 0 at a repeated position, and the asymmetry of jumps, which is 1 on a line."""


@dataclass(frozen=True)
class Verdict:
    """Area under the ROC curve over folds: 0.5 is chance, 1.0 tells all apart.

    `auc` judges windows of 32 objects; `map_auc` whole maps, by the mean of their windows'
    log-odds. `_std` are standard deviations over folds. `_without_rules` are those of trees that do
    not see the features in `RULED`. `importance` is the drop of `auc` when all columns of one
    feature are shuffled, the largest first.
    """

    auc: float
    auc_std: float
    map_auc: float
    map_auc_std: float
    auc_without_rules: float
    auc_without_rules_std: float
    map_auc_without_rules: float
    map_auc_without_rules_std: float
    windows: int
    importance: dict[str, float]


def available() -> bool:
    """Whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


def describe_windows(features: pd.DataFrame) -> FloatArray:
    """(windows, 6 a feature) of a map: mean, std, quantiles and share of defined values.

    The last window of a map, and the only one of a short map, may be as short as half a window.
    """
    values = features[list(COLUMNS)].to_numpy(dtype=np.float64)
    starts = [s for s in range(0, len(values), WINDOW) if len(values) - s >= MIN_WINDOW]
    rows = [_describe(values[start : start + WINDOW]) for start in starts]
    return np.stack(rows) if rows else np.empty((0, (3 + len(QUANTILES)) * len(COLUMNS)))


def _describe(window: FloatArray) -> FloatArray:
    """Statistics of window (n, F), all of one feature side by side; NaN where it has no values."""
    known = ~np.isnan(window)
    result = np.full((3 + len(QUANTILES), window.shape[1]), np.nan)
    result[0] = known.mean(axis=0)
    some = known.any(axis=0)
    if some.any():
        result[1, some] = np.nanmean(window[:, some], axis=0)
        result[2, some] = np.nanstd(window[:, some], axis=0)
        result[3:, some] = np.nanquantile(window[:, some], QUANTILES, axis=0)
    return result.T.ravel()


def split_sets(sets: list[str], seed: int) -> list[NDArray[np.str_]]:
    """The beatmapsets of each of at most `FOLDS` folds; no folds for less than two beatmapsets.

    Both judges hold out these, so that their results can be compared. They equal scikit-learn's
    shuffled GroupKFold.
    """
    names = np.unique(np.array(sets, dtype=str))
    if len(names) < 2:
        return []
    shuffled = np.random.RandomState(seed).permutation(names)
    return np.array_split(shuffled, min(FOLDS, len(names)))


def classify(
    real: list[pd.DataFrame], other: list[pd.DataFrame], sets: list[str], seed: int = 0
) -> Verdict | None:
    """Tells `other` from `real`, both lists of features by map, cross-validated by beatmapset.

    Map k of both lists belongs to beatmapset `sets[k]`. None where fewer than two
    beatmapsets have a window. Raises ImportError without scikit-learn.
    """
    windows = [describe_windows(features) for features in (*real, *other)]
    x = np.concatenate(windows)
    maps = np.repeat(np.arange(len(windows)), [len(rows) for rows in windows])
    labels = (maps >= len(real)).astype(np.intp)
    groups = np.array([*sets, *sets])[maps]
    free = np.repeat([name not in RULED for name in COLUMNS], x.shape[1] // len(COLUMNS))
    rng = np.random.default_rng(seed)
    scores, drops = [], []
    for held_out in split_sets(groups.tolist(), seed):
        test = np.isin(groups, held_out)
        # Trees cannot bin a column that is undefined everywhere (slider shapes without sliders).
        usable = np.where(np.isnan(x[~test]).all(axis=0), 0.0, x)
        fold: list[float] = []
        for seen in (np.ones_like(free), free):
            score = _fit(usable[~test][:, seen], labels[~test], seed)
            fold += _areas(score(usable[test][:, seen]), labels[test], maps[test])
            if seen.all():
                shuffled = _shuffled(usable[test], rng)
                falls = [fold[0] - _areas(score(y), labels[test], maps[test])[0] for y in shuffled]
                drops.append(falls)
        scores.append(fold)
    if not scores:
        return None
    importance = dict(zip(COLUMNS, np.mean(drops, axis=0).tolist(), strict=True))
    (auc, map_auc, free_auc, free_map_auc), deviations = np.mean(scores, 0), np.std(scores, 0)
    return Verdict(
        auc=float(auc),
        auc_std=float(deviations[0]),
        map_auc=float(map_auc),
        map_auc_std=float(deviations[1]),
        auc_without_rules=float(free_auc),
        auc_without_rules_std=float(deviations[2]),
        map_auc_without_rules=float(free_map_auc),
        map_auc_without_rules_std=float(deviations[3]),
        windows=len(x),
        importance=dict(sorted(importance.items(), key=lambda item: -item[1])),
    )


def _fit(x: FloatArray, labels: NDArray[np.intp], seed: int) -> Callable[[FloatArray], FloatArray]:
    """Trees that tell windows x (n, statistics) of label 1 from label 0; returns log-odds (n,)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=100, max_leaf_nodes=15, early_stopping=False, random_state=seed
    )
    score: Callable[[FloatArray], FloatArray] = model.fit(x, labels).decision_function
    return score


def _areas(odds: FloatArray, labels: NDArray[np.intp], maps: NDArray[np.intp]) -> list[float]:
    """AUC of windows, and of maps by the means of their windows, all (n,)."""
    _, owners = np.unique(maps, return_inverse=True)
    means = np.bincount(owners, odds) / np.bincount(owners)
    other = np.bincount(owners, labels) > 0
    return [
        area_under_roc(odds[labels == 0], odds[labels == 1]),
        area_under_roc(means[~other], means[other]),
    ]


def area_under_roc(real: FloatArray, other: FloatArray) -> float:
    """How often one of `other` (m,) has a higher score than one of `real` (n,); ties count half."""
    ordered = np.sort(real)
    below = np.searchsorted(ordered, other, "left") + np.searchsorted(ordered, other, "right")
    return float(below.mean() / (2 * len(real)))


def _shuffled(x: FloatArray, rng: np.random.Generator) -> list[FloatArray]:
    """Copies of x (n, statistics); in each, the rows of one feature are in random order."""
    width = x.shape[1] // len(COLUMNS)
    copies = []
    for k in range(len(COLUMNS)):
        copy = x.copy()
        columns = slice(k * width, (k + 1) * width)
        copy[:, columns] = copy[rng.permutation(len(x)), columns]
        copies.append(copy)
    return copies


# --- the metric -----------------------------------------------------------------------------------

TOLD = ("auc", "map_auc", "auc_without_rules", "map_auc_without_rules")
TELLING = 8  # features that are printed


class Judge(Metric):
    """A judge of all maps and their remaps; if it has no verdict, the report says why."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.real: list[Any] = []
        self.remapped: list[Any] = []
        self.sets: list[str] = []
        self.verdict: dict[str, Any] = {}

    def look_at(self, pair: Pair) -> tuple[Any, Any]:
        """What the judge sees of a map and of its remap."""
        raise NotImplementedError

    def decide(self) -> dict[str, Any] | None:
        """The verdict; None if there are too few beatmapsets."""
        raise NotImplementedError

    def measure(self, pair: Pair) -> dict[str, Any]:
        real, remapped = self.look_at(pair)
        self.real.append(real)
        self.remapped.append(remapped)
        self.sets.append(pair.beatmapset)
        return {}

    def judge(self) -> dict[str, Any]:
        self.verdict = self.decide() or {"skipped": "too few beatmapsets"}
        return {self.name: self.verdict}

    def lines(self) -> list[str]:
        verdict = self.verdict
        if "skipped" in verdict:
            return [f"{self.name} skipped: {verdict['skipped']}"]
        lines = []
        for name in TOLD:
            if name in verdict:
                label = f"{self.name}_{name}"
                lines.append(f"{label:<42} {verdict[name]:>12.4f} +- {verdict[name + '_std']:.4f}")
        for name, drop in list(verdict.get("importance", {}).items())[:TELLING]:
            lines.append(f"  without {name:<32} {-drop:>12.4f}")
        return lines


class Classifier(Judge):
    """Trees that see the features of `realism`."""

    name = "classifier"

    def look_at(self, pair: Pair) -> tuple[Any, Any]:
        return pair.features

    def decide(self) -> dict[str, Any] | None:
        if not available():
            return {"skipped": "scikit-learn is not installed"}
        found = classify(self.real, self.remapped, self.sets, self.seed)
        return None if found is None else asdict(found)
