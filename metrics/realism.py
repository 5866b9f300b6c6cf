"""How maps arrange their objects, and how far two collections of maps are apart in this.

`object_features` describes every hit object of a map by what a player sees of its placement.
`compare` compares the distributions of two collections: Wasserstein-1 distances, also within bins
of spacing and of rhythm, so that placement is measured and not rhythm. For comparison it gives the
distance between two random halves of the real maps.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from beatmaps.sequence import Sequence
from conventions.arrays import FloatArray
from conventions.playfield import PLAYFIELD
from metrics.objects import CONTEXT, FEATURES, condition_bins, measure_objects

MIN_VALUES = 30  # of a bin, to be compared
DENSITY_GRID = (8, 6)


def object_features(sequence: Sequence) -> pd.DataFrame:
    """A row for each hit object: the columns of `FEATURES` and `CONTEXT`, NaN where undefined."""
    return pd.DataFrame(measure_objects(sequence))[[*FEATURES, *CONTEXT]]


# --- distances ------------------------------------------------------------------------------------


def wasserstein(a: FloatArray, b: FloatArray, *, circular: bool = False) -> float:
    """Wasserstein-1 distance between two samples (n,), (m,): the area between their CDFs.

    On a circle of 2 pi, for angles in [-pi, pi], the difference of the CDFs is first shifted by
    its median over the circle (Rabin, Delon & Gousseau 2011, Transportation distances on the
    circle). Raises ValueError for an empty sample.
    """
    if not (len(a) and len(b)):
        raise ValueError("a distance between distributions needs values of both")
    a, b = np.sort(a), np.sort(b)
    grid = np.sort(np.concatenate([a, b]))
    difference = np.searchsorted(a, grid, "right") / len(a)
    difference -= np.searchsorted(b, grid, "right") / len(b)
    if not circular:
        return float(np.sum(np.abs(difference[:-1]) * np.diff(grid)))
    widths = np.diff(grid, append=grid[0] + 2 * np.pi)
    order = np.argsort(difference)
    middle = np.searchsorted(np.cumsum(widths[order]), np.pi)
    shift = difference[order[min(int(middle), len(order) - 1)]]
    return float(np.sum(np.abs(difference - shift) * widths))


def binned_wasserstein(
    a: FloatArray,
    b: FloatArray,
    bins_a: NDArray[np.intp],
    bins_b: NDArray[np.intp],
    *,
    circular: bool = False,
) -> float:
    """Mean of the distances within bins, weighted by their counts; NaN if all bins are small."""
    distances, weights = [], []
    for number in np.union1d(bins_a, bins_b):
        in_a, in_b = a[bins_a == number], b[bins_b == number]
        if min(len(in_a), len(in_b)) >= MIN_VALUES:
            distances.append(wasserstein(in_a, in_b, circular=circular))
            weights.append(len(in_a) / len(a) + len(in_b) / len(b))
    return float(np.average(distances, weights=weights)) if weights else float("nan")


def density_distance(a: FloatArray, b: FloatArray) -> float:
    """Total variation in 0..1 between the positions (n, 2) px of two sets, on a coarse grid."""
    edges = [np.linspace(0, size, n + 1) for size, n in zip(PLAYFIELD, DENSITY_GRID, strict=True)]
    shares = []
    for xy in (a, b):
        inside = np.clip(xy, 0, PLAYFIELD)
        shares.append(np.histogram2d(inside[:, 0], inside[:, 1], bins=edges)[0] / len(xy))
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


# --- collections of maps --------------------------------------------------------------------------


def bins_of(source: pd.DataFrame) -> NDArray[np.intp]:
    """(M,) `condition_bins` of a source map's features.

    A remap's objects are binned by their source's, so that both are in the same bins.
    """
    return condition_bins(source["spacing"].to_numpy(), source["gap"].to_numpy())


@dataclass(frozen=True)
class Collection:
    """Objects of many maps: features (n, len(FEATURES)), their bins (n,) and beatmapsets (n,)."""

    features: pd.DataFrame
    bins: NDArray[np.intp]
    sets: NDArray[np.str_]

    def of_sets(self, chosen: NDArray[np.str_]) -> "Collection":
        """The objects of these beatmapsets alone."""
        mask = np.isin(self.sets, chosen)
        return Collection(self.features[mask], self.bins[mask], self.sets[mask])


def collect(maps: list[pd.DataFrame], sources: list[pd.DataFrame], sets: list[str]) -> Collection:
    """One collection from the features of maps, the features to bin them by, and their sets."""
    counts = [len(features) for features in maps]
    return Collection(
        pd.concat(maps, ignore_index=True),
        np.concatenate([bins_of(source) for source in sources]),
        np.repeat(np.array(sets, dtype=str), counts),
    )


def distances(a: Collection, b: Collection) -> pd.DataFrame:
    """How far apart two collections are: a row a feature, columns `overall` and `conditional`.

    `position_density` is the total variation of positions on a grid. NaN if one has no values.
    """
    rows = {}
    for name, feature in FEATURES.items():
        values, bins = [], []
        for side in (a, b):
            column = side.features[name].to_numpy(dtype=np.float64)
            known = ~np.isnan(column)
            values.append(column[known])
            bins.append(side.bins[known])
        if not (len(values[0]) and len(values[1])):
            rows[name] = (np.nan, np.nan)
            continue
        circular = feature.circular
        binned = [v[i >= 0] for v, i in zip(values, bins, strict=True)]
        rows[name] = (
            wasserstein(*values, circular=circular),
            binned_wasserstein(*binned, *(i[i >= 0] for i in bins), circular=circular),
        )
    places = [side.features[["x", "y"]].dropna().to_numpy() for side in (a, b)]
    density = density_distance(*places) if len(places[0]) and len(places[1]) else np.nan
    rows["position_density"] = (density, np.nan)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["overall", "conditional"])


def compare(
    real: Collection, generated: Collection, *, repeats: int = 10, seed: int = 0
) -> pd.DataFrame:
    """A row a feature: means, distances of the generated maps, and of real ones for comparison.

    `overall` and `conditional` compare the remaps with the very maps they were made from. What can
    be achieved is seen across beatmapsets: `*_across` is the distance of the remaps of one half of
    the sets to the real maps of the other half, `*_real` that of the real maps of both halves;
    means over `repeats` random splits. Remaps as good as real maps have `across` equal to `real`.
    With one beatmapset there are no halves, and those columns are NaN.
    """
    table = pd.DataFrame(
        {
            "unit": {name: feature.unit for name, feature in FEATURES.items()},
            "real_mean": real.features.mean(),
            "generated_mean": generated.features.mean(),
        }
    ).reindex([*FEATURES, "position_density"])
    angles = [name for name, feature in FEATURES.items() if feature.circular]
    table.loc[angles, ["real_mean", "generated_mean"]] = np.nan  # no mean of angles on a circle
    table.loc["position_density", "unit"] = "0..1"
    table = table.join(distances(generated, real))
    sets, rng = np.unique(real.sets), np.random.default_rng(seed)
    across, within = [], []
    for _ in range(repeats if len(sets) > 1 else 0):
        shuffled = rng.permutation(sets)
        halves = shuffled[: len(sets) // 2], shuffled[len(sets) // 2 :]
        other = real.of_sets(halves[1])
        across.append(distances(generated.of_sets(halves[0]), other))
        within.append(distances(real.of_sets(halves[0]), other))
    for name, results in (("across", across), ("real", within)):
        for kind in ("overall", "conditional"):
            columns = [result[kind] for result in results]
            table[f"{kind}_{name}"] = pd.concat(columns, axis=1).mean(axis=1) if columns else np.nan
    return table


def realism_ratio(table: pd.DataFrame, kind: str = "conditional") -> float:
    """Geometric mean over features of `across` / `real` of `compare`: 1 is as good as real maps."""
    pairs = table[[f"{kind}_across", f"{kind}_real"]].astype(np.float64)
    pairs = pairs[(pairs > 0).all(axis=1)]
    if not len(pairs):
        return float("nan")
    return float(np.exp(np.log(pairs.iloc[:, 0] / pairs.iloc[:, 1]).mean()))
