"""Can a classifier tell remaps from real maps? Needs scikit-learn, an extra of the evaluation.

Windows of objects, described by the features of `realism`, go to gradient-boosted trees. A remap
has its source's rhythm, so both are always on the same side of a cross-validation fold, with all
other maps of their beatmapset: what counts is placement, never which song it is.
"""

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from metrics.realism import CONTEXT, FEATURES

FloatArray = NDArray[np.float64]

WINDOW = 32  # objects
MIN_WINDOW = 16
FOLDS = 5
QUANTILES = (0.1, 0.5, 0.9)
COLUMNS = (*FEATURES, *CONTEXT)


@dataclass(frozen=True)
class Verdict:
    """Area under the ROC curve over folds: 0.5 cannot tell them apart, 1.0 always can.

    `auc` judges windows of 32 objects, `map_auc` whole maps by the mean of their windows'
    log-odds; `_std` are standard deviations over folds. `importance` is how much the AUC of
    windows falls when all columns of one feature are shuffled, the most telling first.
    """

    auc: float
    auc_std: float
    map_auc: float
    map_auc_std: float
    windows: int
    importance: dict[str, float]


def available() -> bool:
    """Whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


def describe_windows(features: pd.DataFrame) -> FloatArray:
    """(windows, 6 a feature) of a map: mean, deviation, quantiles and share of defined values.

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


def classify(
    real: list[pd.DataFrame], other: list[pd.DataFrame], sets: list[str], seed: int = 0
) -> Verdict | None:
    """Tells `other` from `real`, both lists of features by map, cross-validated by beatmapset.

    Map k of both lists belongs to beatmapset `sets[k]`. None where fewer than two
    beatmapsets have a window. Raises ImportError without scikit-learn.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    windows = [describe_windows(features) for features in (*real, *other)]
    counts = [len(rows) for rows in windows]
    x = np.concatenate(windows)
    maps = np.repeat(np.arange(len(windows)), counts)
    labels = (maps >= len(real)).astype(np.intp)
    groups = np.array([*sets, *sets])[maps]
    folds = min(FOLDS, len(np.unique(groups)))
    if folds < 2:
        return None
    rng = np.random.default_rng(seed)
    scores, map_scores, drops = [], [], []
    for train, test in GroupKFold(folds, shuffle=True, random_state=seed).split(x, groups=groups):
        model = HistGradientBoostingClassifier(
            max_iter=100, max_leaf_nodes=15, early_stopping=False, random_state=seed
        )
        # What is undefined everywhere, such as slider shapes without sliders, cannot be binned.
        usable = np.where(np.isnan(x[train]).all(axis=0), 0.0, x)
        model.fit(usable[train], labels[train])
        odds = model.decision_function(usable[test])
        scores.append(float(roc_auc_score(labels[test], odds)))
        by_map = pd.Series(odds).groupby(maps[test]).mean()
        map_scores.append(float(roc_auc_score(by_map.index >= len(real), by_map)))
        shuffled = _shuffled(usable[test], rng)
        drops.append(
            [scores[-1] - roc_auc_score(labels[test], model.decision_function(y)) for y in shuffled]
        )
    importance = dict(zip(COLUMNS, np.mean(drops, axis=0).tolist(), strict=True))
    return Verdict(
        auc=float(np.mean(scores)),
        auc_std=float(np.std(scores)),
        map_auc=float(np.mean(map_scores)),
        map_auc_std=float(np.std(map_scores)),
        windows=len(x),
        importance=dict(sorted(importance.items(), key=lambda item: -item[1])),
    )


def _shuffled(x: FloatArray, rng: np.random.Generator) -> list[FloatArray]:
    """Copies of x (n, statistics), in each of which one feature's rows are in random order."""
    width = x.shape[1] // len(COLUMNS)
    copies = []
    for k in range(len(COLUMNS)):
        copy = x.copy()
        columns = slice(k * width, (k + 1) * width)
        copy[:, columns] = copy[rng.permutation(len(x)), columns]
        copies.append(copy)
    return copies
