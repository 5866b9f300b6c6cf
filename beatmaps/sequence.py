"""A beatmap as a sequence of data points, and back.

One data point is one thing that has a coordinate: a circle, a slider's head, each of its anchors,
its end, a spinner's start and end. Writing moves the points and keeps everything else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from math import isclose
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from beatmaps.osu_file import (
    FIRST_LAZER_VERSION,
    MAX_COORDINATE,
    Beatmap,
    Change,
    HitObject,
    Letters,
    TimingEdits,
    curve_segments,
    patch_objects,
)
from beatmaps.slider_path import NEARLY, PathSet, SliderPath, flatten
from beatmaps.slider_velocity import VelocityPlan, earliest_fit, plan_velocities
from conventions.arrays import FloatArray
from conventions.playfield import PLAYFIELD_CENTRE
from conventions.point_types import SPINNERS, STARTS, PointType

END = -1  # `anchors` of a slider's or spinner's end
_NEIGHBOURS = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y], dtype=np.float64)
COORDINATE_LIMIT = 16000.0  # px; far outside the playfield, and safe in the game's arithmetic

SliderVelocity = Literal["keep", "fit"]


@dataclass(frozen=True, eq=False)
class Points:
    """T data points: times (T,) ms, xy (T, 2) px, types (T,) `PointType`."""

    times: FloatArray
    xy: FloatArray
    types: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.times)

    def distances(self) -> FloatArray:
        """(T,) px from each data point to the previous one; the first one to (256, 192)."""
        steps = np.diff(self.xy, axis=0, prepend=np.array([PLAYFIELD_CENTRE]))
        return np.hypot(steps[:, 0], steps[:, 1])

    @cached_property
    def object_starts(self) -> NDArray[np.bool_]:
        """(T,) true where a data point starts an object: circle, slider head, spinner."""
        starts = np.isin(self.types, STARTS)
        starts.flags.writeable = False  # all callers share it
        return starts


Slider = tuple[list[tuple[str, int | None, NDArray[np.intp]]], float | None]
"""Segments as (kind, B-spline degree or None, indices of their points), and the pixel length."""


@dataclass(frozen=True, eq=False)
class SliderTopology:
    """The parts of the S sliders of a beatmap, as indices into the (T, 2) coordinates.

    `sliders` is the input of `slider_path.PathSet`: per slider its segments, as (kind, B-spline
    degree or None, indices of their points), and its pixel length, None where it may be any.
    `heads`, `ends` and `objects` (S,) are the indices of slider heads, slider ends and hit objects.
    """

    sliders: list[Slider]
    heads: NDArray[np.intp]
    ends: NDArray[np.intp]
    objects: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Sequence(Points):
    """The T data points of a beatmap, object after object in the beatmap's order.

    objects (T,) index into the beatmap's objects, anchors (T,) index into the slider's points of
    the file: 0 for the head, the first of the pair for a red anchor, -1 for a slider's or spinner's
    end. Times do not decrease within an object; a slider that overlaps the next object ends after
    that object's start. Values derived from the points are cached.
    """

    objects: NDArray[np.int32]
    anchors: NDArray[np.int32]
    beatmap: Beatmap

    @cached_property
    def topology(self) -> SliderTopology:
        """Which data points make up each slider, to recompute slider ends for other coordinates."""
        return _slider_topology(self)

    @cached_property
    def paths(self) -> PathSet:
        """The paths of the sliders, with the lengths of the file, for any coordinates."""
        return PathSet(self.topology.sliders)

    def moved(self, xy: FloatArray) -> Sequence:
        """The same points at xy (T, 2) px; cached values that do not depend on coordinates stay."""
        result = replace(self, xy=xy)
        kept = {name: self.__dict__[name] for name in _KEPT if name in self.__dict__}
        result.__dict__.update(kept)
        return result


_KEPT = ("object_starts", "topology", "paths")
"""Derived values of a sequence that do not depend on its coordinates."""


def slider_end_type(slides: int) -> PointType:
    """Type of the end of a slider after `slides` slides."""
    if slides <= 3:
        return PointType(PointType.SLIDER_END_1 + slides - 1)
    return PointType.SLIDER_END_ODD if slides % 2 else PointType.SLIDER_END_EVEN


@dataclass(frozen=True)
class _Layout:
    """The data points of a slider except its end; they depend on its shape alone.

    `anchors` and `types` have one entry a data point after the head; `anchors` are indices into
    the points of the file. `segments` are (kind, degree, data points counted from the head).
    """

    anchors: tuple[int, ...]
    types: tuple[PointType, ...]
    segments: tuple[tuple[str, int | None, NDArray[np.intp]], ...]


def beatmap_to_sequence(beatmap: Beatmap) -> Sequence:
    """The data points of a beatmap.

    Anchors are spread evenly over the first slide by their index in the file, the last anchor
    sits at its end. Repeated points of a slider are one data point, at the first of them (at the
    last for the end of the curve). A slider that never leaves its head has no anchor.
    """
    times: list[float] = []
    xy: list[list[float]] = []
    types: list[int] = []
    objects: list[int] = []
    anchors: list[int] = []
    for index, hit in enumerate(beatmap.objects):
        start = len(times)
        if hit.kind == "circle":
            times.append(hit.time)
            xy.append([hit.x, hit.y])
            types.append(PointType.CIRCLE_NC if hit.new_combo else PointType.CIRCLE)
            anchors.append(0)
        elif hit.kind == "spinner":
            times += (hit.time, hit.end_time)
            xy += [[*PLAYFIELD_CENTRE], [*PLAYFIELD_CENTRE]]  # whatever the file says
            types += (PointType.SPINNER, PointType.SPINNER_END)
            anchors += (0, END)
        else:
            points = hit.points.tolist()
            layout = _layout(hit.letters, _runs(points), hit.format_version)
            chosen = (0, *layout.anchors)
            span = hit.span_duration / max(len(points) - 1, 1)
            # Rounding must not put the last anchor after the end.
            times += [min(hit.time + anchor * span, hit.end_time) for anchor in chosen]
            times.append(hit.end_time)
            xy += [points[anchor] for anchor in chosen]
            xy.append(points[0])  # replaced below
            types.append(PointType.SLIDER_HEAD_NC if hit.new_combo else PointType.SLIDER_HEAD)
            types += layout.types
            types.append(slider_end_type(hit.slides))
            anchors += (*chosen, END)
        objects += [index] * (len(times) - start)
    sequence = Sequence(
        times=np.array(times, dtype=np.float64),
        xy=np.array(xy, dtype=np.float64).reshape(-1, 2),
        types=np.array(types, dtype=np.uint8),
        objects=np.array(objects, dtype=np.int32),
        anchors=np.array(anchors, dtype=np.int32),
        beatmap=beatmap,
    )
    return sequence.moved(recompute_ends(sequence, sequence.xy))


def _slider_topology(sequence: Sequence) -> SliderTopology:
    """Which data points make up each slider."""
    starts = np.flatnonzero(sequence.object_starts)
    stops = np.append(starts[1:], len(sequence))
    sliders: list[Slider] = []
    chosen = []
    for index, hit in enumerate(sequence.beatmap.objects):
        if hit.kind == "slider":
            layout = _layout(hit.letters, _runs(hit.points.tolist()), hit.format_version)
            head = starts[index]
            segments = [(kind, degree, head + ids) for kind, degree, ids in layout.segments]
            # `path_length` is the game's; it may differ from the file's: see `_set_length`.
            sliders.append((segments, hit.path_length))
            chosen.append(index)
    objects = np.array(chosen, dtype=np.intp)
    return SliderTopology(sliders, starts[objects], stops[objects] - 1, objects)


def recompute_ends(sequence: Sequence, xy: FloatArray) -> FloatArray:
    """`xy` (T, 2) with every slider's end where head, anchors and pixel length put it."""
    result = np.array(xy, dtype=np.float64)
    if len(sequence.topology.ends):
        result[sequence.topology.ends], _ = sequence.paths.evaluate(result)
    return result


def apply_coordinates(
    sequence: Sequence, xy: FloatArray, slider_velocity: SliderVelocity = "keep"
) -> bytes:
    """The file of the sequence's beatmap with its data points at `xy` (T, 2) px.

    Times and durations stay. Spinners stay where they are, and so do sliders whose path is longer
    than any length that a file may hold. Coordinates are clamped to +-`COORDINATE_LIMIT` and,
    before version 128, rounded; rounding never makes a new red anchor. With `sequence.xy` the
    result is the file as it was.

    With `slider_velocity` "keep", slider lengths and timing points stay too, so the ends of sliders
    in `xy` are not used. (Where a slider's length in the file is not what the game takes, see
    `_set_length`.) With "fit", a slider becomes as long as its path is up to the place nearest to
    its end in `xy`, and green lines are changed or added to keep its duration within a millisecond,
    see `slider_velocity.plan_velocities`; sliders that cannot have a velocity of their own keep
    their lengths, see `slider_velocity.earliest_fit`.

    Raises `ValueError` for another shape, NaN and infinity.
    """
    beatmap = sequence.beatmap
    target, limited = _targets(sequence, xy)
    moved = (target != sequence.xy).any(axis=1) & ~np.isin(sequence.types, SPINNERS)
    fit = slider_velocity == "fit"
    if not fit:
        moved &= sequence.anchors != END
    starts = np.flatnonzero(sequence.object_starts)
    changes: dict[int, Change] = {}
    ratios: dict[int, float] = {}  # of new and old length
    earliest = earliest_fit(beatmap)
    for index in np.unique(sequence.objects[moved]).tolist():
        hit, start = beatmap.objects[index], int(starts[index])
        if hit.kind == "circle":
            changes[index] = Change(_pair(target[start]))
            continue
        if hit.path_length > MAX_COORDINATE:
            continue  # no file can hold the length that it would need elsewhere
        runs = np.array(_runs(hit.points.tolist()))
        stop = start + int(runs[-1]) + 1
        points = separate(target[start:stop], limited[start:stop])[runs]
        changes[index] = Change(_pair(points[0]), points)
        if fit and hit.end_time > hit.time and hit.time >= earliest:
            ratios[index] = _generated_length(hit, points, limited[stop]) / hit.path_length
    plan = plan_velocities(beatmap, ratios) if ratios else VelocityPlan({}, TimingEdits())
    for index, change in changes.items():
        if change.points is not None:
            hit = beatmap.objects[index]
            before = beatmap.slider_velocity_at(hit.time)
            ratio = plan.velocities.get(index, before) / before if index in ratios else 1.0
            points, length = _set_length(hit, change.points, hit.path_length * ratio)
            changes[index] = Change(_pair(points[0]), points, length)
    return patch_objects(beatmap, changes, plan.edits)


def _targets(sequence: Sequence, xy: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coordinates (T, 2) as the file stores them, and before rounding; both within the limit."""
    xy = np.asarray(xy, dtype=np.float64)
    if xy.shape != sequence.xy.shape:
        raise ValueError(f"coordinates have shape {xy.shape}, the sequence {sequence.xy.shape}")
    if not np.isfinite(xy).all():
        first = int(np.flatnonzero(~np.isfinite(xy).all(axis=1))[0])
        raise ValueError(f"data point {first} has coordinates {xy[first]}: they must be finite")
    limited = np.clip(xy, -COORDINATE_LIMIT, COORDINATE_LIMIT)
    fractions = sequence.beatmap.format_version >= FIRST_LAZER_VERSION
    target = limited.astype(np.float32).astype(np.float64) if fractions else np.rint(limited)
    return np.where(xy == sequence.xy, sequence.xy, target), limited


def _pair(point: FloatArray) -> tuple[float, float]:
    """A point (2,) as plain numbers."""
    return float(point[0]), float(point[1])


def separate(points: FloatArray, wanted: FloatArray) -> FloatArray:
    """Slider points (n, 2) without equal neighbours, which would start a new segment.

    A point on its predecessor moves by a pixel, to where it is nearest to `wanted` (n, 2).
    """
    points = points.copy()
    for i in np.flatnonzero((points[1:] == points[:-1]).all(axis=1)) + 1:
        if (points[i] != points[i - 1]).any():
            continue  # the predecessor has moved
        places = points[i] + _NEIGHBOURS
        away = np.hypot(*(places - wanted[i]).T)
        if i + 1 < len(points):
            away[(places == points[i + 1]).all(axis=1)] = np.inf
        points[i] = places[np.argmin(away)]
    return points


def _doubled_end(points: FloatArray) -> bool:
    """Whether the last two points coincide: the game never extends such a slider's path."""
    return len(points) > 1 and bool((points[-1] == points[-2]).all())


def _generated_length(hit: HitObject, points: FloatArray, end: FloatArray) -> float:
    """Length in px of a slider with new `points` (n, 2) up to the place nearest to `end` (2,).

    The old length is kept if its place is about as near; the path is extended up to that, no
    further. Of several places, the one nearest to the same fraction of the path as before is taken.
    """
    old, before = hit.path_length, hit.path().natural_length
    vertices = flatten(curve_segments(hit.letters, points, hit.format_version))
    natural = SliderPath(vertices, None).natural_length
    path = SliderPath(vertices, max(natural, old))
    length = path.project(end, near=old * natural / before if before > 0 else natural)
    away = np.hypot(*(path.position_at(np.array([old, length])) - end).T)
    return old if away[0] <= away[1] + NEARLY else min(length, float(MAX_COORDINATE))


def _set_length(
    hit: HitObject, points: FloatArray, wanted: float
) -> tuple[FloatArray, float | None]:
    """(points, length to write or None) with which a moved slider is `wanted` px long.

    Where the game uses the length of the path itself, something must change: a slider without a
    pixel length gets one; if the path is too short and has a doubled last point, the last point
    moves by a pixel, because the game extends the path only then.
    """
    if wanted == 0:  # it stays at its head, whatever its length in the file
        return points, None
    doubled = _doubled_end(points)
    if hit.length is None or doubled:
        vertices = flatten(curve_segments(hit.letters, points, hit.format_version))
        path = SliderPath(vertices, hit.length)
        if isclose(path.length, wanted, rel_tol=1e-12):
            return points, None
        if doubled and path.natural_length < wanted:
            before = points[(points != points[-1]).any(axis=1)][-1]
            away = points[-1] - before
            points = points.copy()
            points[-1] += np.rint(away / np.hypot(*away))
    if hit.length is not None and isclose(hit.length, wanted, rel_tol=1e-12):
        return points, None
    return points, min(wanted, float(MAX_COORDINATE))


def _runs(points: list[list[float]]) -> tuple[int, ...]:
    """Number of the data point of each of a slider's points: equal neighbours share one.

    So a red anchor is one data point, and so are a doubled head and a doubled last point.
    """
    runs = [0]
    for previous, point in pairwise(points):
        runs.append(runs[-1] + (previous != point))
    return tuple(runs)


@lru_cache(maxsize=4096)
def _layout(letters: Letters, runs: tuple[int, ...], version: int) -> _Layout:
    """Layout of a slider with curve letters `letters` and points `runs`."""
    last = len(runs) - 1
    inner = [i for i in range(1, last) if runs[i - 1] < runs[i] < runs[last]]
    types = _anchor_types(letters, runs, version)
    anchors, inner_types = (*inner, last), (*(types[i] for i in inner), PointType.LAST_ANCHOR)
    if runs[last] == 0:
        anchors, inner_types = (), ()
    # Points on a parabola are equal exactly where the slider's are, and no three are collinear,
    # so that a circular arc stays one whatever its present coordinates.
    number = np.array(runs, dtype=np.float64)
    parts = curve_segments(letters, np.stack([number, number**2], axis=1), version)
    segments = tuple((part.kind, part.degree, part.points[:, 0].astype(np.intp)) for part in parts)
    return _Layout(anchors, inner_types, segments)


def _anchor_types(letters: Letters, runs: tuple[int, ...], version: int) -> list[PointType]:
    """Types of a slider's points, if each were an inner anchor."""
    types = []
    corners = {start for start, _ in letters[1:]}  # a new letter within the curve
    for (start, letter), stop in zip(
        letters, [*(i for i, _ in letters[1:]), len(runs)], strict=True
    ):
        count = min(stop + 1, len(runs)) - start
        smooth = PointType.CATMULL_ANCHOR
        if letter[0] == "P" and count == 3:
            smooth = PointType.PERFECT_ANCHOR
        elif letter[0] in "BP":
            smooth = PointType.BEZIER_ANCHOR
        elif letter[0] == "L":
            smooth = PointType.RED_ANCHOR
        # Old catmull curves stay smooth at a doubled point.
        always = smooth == PointType.CATMULL_ANCHOR and version < FIRST_LAZER_VERSION
        for i in range(start, stop):
            doubled = i + 1 < len(runs) and runs[i] == runs[i + 1] and not always
            types.append(PointType.RED_ANCHOR if doubled or i in corners else smooth)
    return types
