"""How maps arrange their objects, and how far two collections of maps are apart in this.

`object_features` describes every hit object of a map by what a player sees of its placement.
`compare` compares the distributions of two collections: Wasserstein-1 distances, also within bins
of spacing and of rhythm, so that placement is measured and not rhythm. For comparison it gives the
distance between two random halves of the real maps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from beatmaps.game import STACK_DISTANCE, circle_radius, preempt
from beatmaps.osu_file import Beatmap
from beatmaps.sequence import END, Sequence
from conventions.arrays import FloatArray
from conventions.playfield import PLAYFIELD
from conventions.point_types import PointType

BODY_SAMPLES = 24
MIN_STEP = 5.0  # px; shorter steps have no direction that a player sees
MIN_TURN = 0.05  # rad; on whole pixels, a smaller turn is straight on
MAX_GAP = 4.0  # beats; a longer gap separates two movements
LOOK_BACK = 16  # objects that are looked at for repeated places
MIN_VALUES = 30  # a bin with fewer is not compared
SPACING_BINS = (40.0, 80.0, 120.0, 200.0)  # px
RHYTHM_BINS = (0.3, 0.6, 1.1)  # beats: 1/4, 1/2, 1/1 and more
DENSITY_GRID = (8, 6)


class Feature(NamedTuple):
    """What a column of `object_features` is: its unit, and whether it is an angle on a circle."""

    unit: str
    circular: bool = False


FEATURES = {
    "turning_angle": Feature("rad"),
    "relative_turn": Feature("rad", circular=True),
    "flow_into_slider": Feature("rad"),
    "flow_out_of_slider": Feature("rad"),
    "return_distance": Feature("px"),
    "third_distance": Feature("px"),
    "jump_asymmetry": Feature("0..1"),
    "nearest_earlier": Feature("px"),
    "repeated_position": Feature("share"),
    "stacked": Feature("share"),
    "visible_distance": Feature("radii"),
    "overlapping": Feature("share"),
    "x": Feature("px"),
    "y": Feature("px"),
    "wall_distance": Feature("px"),
    "slider_wall_distance": Feature("px"),
    "slider_turning": Feature("rad"),
    "slider_sharpest_turn": Feature("rad"),
    "slider_curl": Feature("0..1"),
    "chord_over_length": Feature("ratio"),
    "path_over_length": Feature("ratio"),
    "anchor_turning": Feature("rad"),
}
CONTEXT = ("spacing", "gap")
"""Columns that a remap has, or should have, from its source: px and beats since the last object."""


# --- features -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Objects:
    """The M objects of a map as the player meets them; NaN for what spinners do not have.

    heads, ends (M, 2) px: where an object is first and last played; bodies (M, B, 2) px, of a
    circle its centre B times; gaps (M,) beats since the end of the previous object.
    """

    heads: FloatArray
    ends: FloatArray
    bodies: FloatArray
    is_circle: NDArray[np.bool_]
    is_slider: NDArray[np.bool_]
    times: FloatArray
    end_times: FloatArray
    gaps: FloatArray
    even_slides: NDArray[np.bool_]


def object_features(sequence: Sequence) -> pd.DataFrame:
    """A row for each hit object: the columns of `FEATURES` and `CONTEXT`, NaN where undefined."""
    topology = sequence.topology
    objects = _objects(sequence)
    columns = _movement(objects) | _places(objects) | _surroundings(objects, sequence.beatmap)
    columns |= _slider_shapes(objects)
    shapes = np.full((2, len(objects.heads)), np.nan)
    if len(topology.objects):
        lengths = np.array([length for _, length in topology.sliders])
        natural = sequence.paths.evaluate(sequence.xy)[1]
        usable = lengths > 0
        shapes[0, topology.objects[usable]] = natural[usable] / lengths[usable]
        shapes[1] = _anchor_turning(sequence, len(objects.heads))
    columns["path_over_length"], columns["anchor_turning"] = shapes
    return pd.DataFrame(columns)[[*FEATURES, *CONTEXT]]


def _objects(sequence: Sequence) -> _Objects:
    beatmap, sliders = sequence.beatmap, sequence.topology.objects
    heads = sequence.xy[np.flatnonzero(sequence.object_starts)].copy()
    kinds = np.array([hit.kind for hit in beatmap.objects], dtype=object)
    heads[kinds == "spinner"] = np.nan
    bodies = np.repeat(heads[:, None], BODY_SAMPLES, axis=1)
    if len(sliders):
        bodies[sliders] = sequence.paths.bodies(sequence.xy, BODY_SAMPLES)
    even = np.array([hit.slides % 2 == 0 for hit in beatmap.objects])
    times = np.array([hit.time for hit in beatmap.objects])
    end_times = np.array([hit.end_time for hit in beatmap.objects])
    beats = np.array([beatmap.beat_length_at(time) for time in times])
    return _Objects(
        heads=heads,
        ends=np.where(even[:, None], heads, bodies[:, -1]),
        bodies=bodies,
        is_circle=kinds == "circle",
        is_slider=kinds == "slider",
        times=times,
        end_times=end_times,
        gaps=(times - _earlier(end_times, 1)) / beats,
        even_slides=even,
    )


def _earlier(values: FloatArray, lag: int) -> FloatArray:
    """`values` (M, ...) of the object `lag` before each; NaN for the first `lag` objects."""
    result = np.full_like(values, np.nan)
    result[lag:] = values[:-lag]
    return result


def _length(vectors: FloatArray) -> FloatArray:
    """Lengths (...) of vectors (..., 2)."""
    return np.hypot(vectors[..., 0], vectors[..., 1])


def _turn(before: FloatArray, after: FloatArray) -> FloatArray:
    """Signed angle (...) in (-pi, pi] from `before` to `after` (..., 2); NaN for a zero vector."""
    cross = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
    dot = (before * after).sum(axis=-1)
    return np.where((cross == 0) & (dot == 0), np.nan, np.arctan2(cross, dot))


def _movement(objects: _Objects) -> dict[str, FloatArray]:
    """Spacing and the angles between one step and the next.

    A step goes from the end of an object to the head of the next one. `relative_turn` is an angle
    with the sign of the turn before it: positive turns on in the same direction, negative turns
    back. By itself the sign of an angle means nothing, as maps can be mirrored; straight on and
    straight back have none. `jump_asymmetry` is 0 where a step undoes the one before the last, as
    in rectangles and in back and forth.
    """
    steps = objects.heads - _earlier(objects.ends, 1)
    spacing = _length(steps)
    steps[~(objects.gaps <= MAX_GAP)] = np.nan
    before = _earlier(steps, 2)
    both = _length(steps) + _length(before)
    asymmetry = _length(steps + before) / np.where(both >= MIN_STEP, both, np.nan)
    steps[~(spacing >= MIN_STEP)] = np.nan  # too short to have a direction that a player sees
    following = np.full_like(steps, np.nan)
    following[:-1] = steps[1:]
    turn = np.where(objects.is_circle, _turn(steps, following), np.nan)
    last_turn = _earlier(turn, 1)
    has_sense = np.abs(np.abs(last_turn) - np.pi / 2) <= np.pi / 2 - MIN_TURN
    sense = np.where(has_sense, np.sign(last_turn), np.nan)
    enter = objects.bodies[:, 1] - objects.bodies[:, 0]
    leave = objects.bodies[:, -1] - objects.bodies[:, -2]
    leave = np.where(objects.even_slides[:, None], -enter, leave)
    return {
        "spacing": spacing,
        "gap": objects.gaps,
        "turning_angle": np.abs(turn),
        "relative_turn": turn * sense,
        # A circle's body has no direction.
        "flow_into_slider": np.abs(_turn(steps, enter)),
        "flow_out_of_slider": np.abs(_turn(leave, following)),
        "jump_asymmetry": asymmetry,
    }


def _places(objects: _Objects) -> dict[str, FloatArray]:
    """Where objects are, and how that relates to the places of earlier ones."""
    heads = objects.heads
    away = np.stack([_length(heads - _earlier(heads, lag)) for lag in range(1, LOOK_BACK + 1)])
    nearest = np.fmin.reduce(away[1:])  # ignores what is NaN
    walls = np.minimum(heads, PLAYFIELD - heads).min(axis=1)
    inside = np.minimum(objects.bodies, PLAYFIELD - objects.bodies).min(axis=(1, 2))
    return {
        "return_distance": away[1],
        "third_distance": away[2],
        "nearest_earlier": nearest,
        "repeated_position": np.where(np.isnan(nearest), np.nan, nearest < 1.0),
        "x": heads[:, 0],
        "y": heads[:, 1],
        "wall_distance": walls,
        "slider_wall_distance": np.where(objects.is_slider, inside, np.nan),
    }


def _surroundings(objects: _Objects, beatmap: Beatmap) -> dict[str, FloatArray]:
    """How near a head is to objects that are on screen when it is hit or appears.

    An object appears `preempt` ms before its time; earlier ones that end after that are seen with
    it. Stacked ones lie within 3 px; others nearer than a diameter overlap. The previous object
    counts only for stacks, because its distance is the spacing.
    """
    radius, lead = circle_radius(beatmap.circle_size), preempt(beatmap.approach_rate)
    stacked = np.full(len(objects.heads), np.nan)
    nearest = np.full(len(objects.heads), np.nan)
    for lag in range(1, LOOK_BACK + 1):
        seen = _earlier(objects.end_times, lag) > objects.times - lead
        bodies = _earlier(objects.bodies, lag)
        away = _length(objects.heads[:, None] - bodies).min(axis=1)
        away[~seen] = np.nan
        on_top = np.where(np.isnan(away), np.nan, away < STACK_DISTANCE)
        stacked = np.fmax(stacked, on_top)
        if lag > 1:
            nearest = np.fmin(nearest, np.where(away < STACK_DISTANCE, np.nan, away))
    return {
        "stacked": stacked,
        "visible_distance": nearest / radius,
        "overlapping": np.where(np.isnan(nearest), np.nan, nearest < 2 * radius),
    }


def _slider_shapes(objects: _Objects) -> dict[str, FloatArray]:
    """Shape of the played path: total and sharpest turn, share of turns to one side, straightness.

    `slider_curl` is |sum of turns| / sum of |turns|: 1 for an arc, 0 for an S or a zigzag.
    `chord_over_length` is the bounded form of length over chord.
    """
    chords = np.diff(objects.bodies, axis=1)  # (M, B - 1, 2)
    turns = np.nan_to_num(_turn(chords[:, :-1], chords[:, 1:]))
    total, signed = np.abs(turns).sum(axis=1), np.abs(turns.sum(axis=1))
    length = _length(chords).sum(axis=1)
    chord = _length(objects.bodies[:, -1] - objects.bodies[:, 0])
    # Less than 10 degrees in all is a straight slider, on whole pixels.
    bent = np.where(total > 0.175, total, np.nan)
    shapes = {
        "slider_turning": total,
        "slider_sharpest_turn": np.abs(turns).max(axis=1),
        "slider_curl": signed / bent,
        "chord_over_length": chord / np.where(length > 0, length, np.nan),
    }
    return {name: np.where(objects.is_slider, v, np.nan) for name, v in shapes.items()}


def _anchor_turning(sequence: Sequence, count: int) -> FloatArray:
    """(count,) mean turn of each slider's control polygon at its inner anchors, in rad."""
    polygon = sequence.anchors != END
    polygon &= sequence.types != PointType.SPINNER
    xy, owner = sequence.xy[polygon], sequence.objects[polygon]
    chords = np.diff(xy, axis=0)
    turns = np.abs(_turn(chords[:-1], chords[1:]))
    same = (owner[2:] == owner[:-2]) & ~np.isnan(turns)
    sums = np.bincount(owner[1:-1][same], turns[same], count)
    numbers = np.bincount(owner[1:-1][same], minlength=count)
    result: FloatArray = sums / np.where(numbers > 0, numbers, np.nan)
    return result


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


def condition_bins(source: pd.DataFrame) -> NDArray[np.intp]:
    """(M,) number of each object's bin of spacing and rhythm in the source map; -1 for none.

    A remap's objects are binned by their source's, so that both are in the same bins.
    """
    spacing = np.digitize(source["spacing"], SPACING_BINS)
    bins = spacing * (len(RHYTHM_BINS) + 1) + np.digitize(source["gap"], RHYTHM_BINS)
    known = source["spacing"].notna() & (source["gap"] <= MAX_GAP)
    return np.where(known, bins, -1)


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
        np.concatenate([condition_bins(source) for source in sources]),
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
