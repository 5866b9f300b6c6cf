"""Slider path geometry in plain numpy: split into segments, flatten, walk by arc length.

Behaviour follows osu!lazer (``SliderPath``, ``PathApproximator``, ``ConvertHitObjectParser`` of
ppy/osu and ppy/osu-framework); coordinates and lengths are osu! pixels, arrays are float64.

- `slider_path` gives one slider's path the way the game has it.
- `PathSet` does the same for all sliders of a map together, fast enough for a sampling loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import isfinite

import numpy as np

FIRST_LAZER_VERSION = 128  # first file format version written by osu!lazer
BEZIER_TOLERANCE = 0.25  # px, the game's flatness of a bezier piece
ARC_TOLERANCE = 0.1  # px, the game's distance between a circular arc and its chords
MAX_ARC_VERTICES = 1000  # from this many vertices on the game draws an arc as a bezier
CATMULL_DETAIL = 50  # chords between two Catmull-Rom knots
COLLINEAR_TOLERANCE = 1e-3  # px^2, cross product below which three points are on one line
COINCIDENT = 1e-6  # px, vertices closer than this are one point
NEARLY = 1.0  # px, differences of distance that `SliderPath.project` may overlook

MAX_HALVINGS = 12  # of a bezier; 10 do for the largest coordinate the game reads, 131072
MATRIX_POINTS = 64  # beziers up to this many control points are subdivided by a cached matrix
MAX_DEGREE = 2**31 - 1  # of a B-spline; the game reads larger numbers as none
MAX_VERTICES = 2**21  # of paths flattened together; from there on curves are drawn more coarsely


@dataclass(frozen=True)
class Segment:
    """One piece of a slider path: `kind` 'B', 'P', 'C' or 'L' and its (n, 2) control points.

    The first point is the end of the previous segment (the slider head for the first one).
    `degree` is the degree of a B-spline (lazer's ``B3``), None for an ordinary bezier.
    """

    kind: str
    degree: int | None
    points: np.ndarray


def _parse_kind(kind: str) -> tuple[str, int | None]:
    """Letter and B-spline degree of a curve type; like the game, an unknown letter is Catmull."""
    if not kind:
        raise ValueError("empty curve type; expected B, C, L or P")
    if kind[0] == "B":
        digits = kind[1:].lstrip("0")
        is_number = digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_DEGREE))
        degree = int(digits) if is_number else 0
        return "B", degree if 0 < degree <= MAX_DEGREE else None
    return (kind[0] if kind[0] in "LP" else "C"), None


def _checked_points(points: np.ndarray) -> np.ndarray:
    """`points` as a finite float64 (n, 2) array, n >= 1; raises ValueError otherwise."""
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"points have shape {points.shape}; expected (n, 2) with n >= 1")
    if not np.isfinite(points).all():
        raise ValueError("points hold NaN or infinity; a path needs finite coordinates")
    return points


def _cross(points: np.ndarray) -> np.ndarray:
    """Twice the signed area of the triangles `points` (..., 3, 2)."""
    b = points[..., 1, :] - points[..., 0, :]
    c = points[..., 2, :] - points[..., 0, :]
    cross: np.ndarray = b[..., 1] * c[..., 0] - b[..., 0] * c[..., 1]
    return cross


def split_segments(
    kind: str, points: np.ndarray, *, version: int = 14, joined: bool = False
) -> list[Segment]:
    """Split control points at red anchors (doubled points) the way the game does.

    `kind` and `points` (n, 2), head included, are as in the file, `version` is its format
    version. `joined` tells that the last point already belongs to the next explicit segment of a
    multi-segment curve (``B|..|P|..``), which changes which doubled point counts as the last one.
    Raises ValueError on an empty kind or on points that are not a finite (n, 2) array.
    """
    points = _checked_points(points)
    letter, degree = _parse_kind(kind)
    legacy = version < FIRST_LAZER_VERSION
    if letter == "P":
        if len(points) != 3:
            letter = "B"
        elif abs(_cross(points)) <= COLLINEAR_TOLERANCE:
            letter = "L" if legacy else "B"

    doubled = np.zeros(len(points), dtype=bool)
    doubled[1:] = (points[1:] == points[:-1]).all(axis=1)
    doubled[len(points) - 1 - joined :] = False  # the last point never starts a segment
    if letter == "C" and legacy:
        doubled[2:] = False
    if not doubled.any():
        return [Segment(letter, degree, points)]
    kept = points[~doubled]
    # A doubled point ends a segment at the kept point before it; more copies change nothing.
    joints = (np.cumsum(~doubled) - 1)[np.flatnonzero(doubled)]
    bounds = np.unique(np.concatenate([[0], joints, [len(kept) - 1]]))
    return [Segment(letter, degree, kept[i : j + 1]) for i, j in pairwise(bounds)]


# Polylines of many segments of one kind at once: vertices (v, 2), one segment's after another's,
# and how many each segment has (g,). Both ends of a segment are vertices.
_Polylines = tuple[np.ndarray, np.ndarray]


def _even_fractions(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(g,) vertex counts, each >= 2 -> owner (v,) and evenly spaced parameter (v,) in [0, 1]."""
    owner = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
    return owner, place / (counts - 1)[owner]


def _lines(points: np.ndarray) -> _Polylines:
    """Control points (g, n, 2) of linear segments are their vertices."""
    g, n, _ = points.shape
    return points.reshape(g * n, 2), np.full(g, n)


# Bezier curves and B-splines


def _quadratics(points: np.ndarray, limit: float) -> _Polylines:
    """Beziers of three points (g, 3, 2), the same vertices as by halving until flat.

    A halving divides the second difference by 4 wherever on the curve it is, so the subdivision
    is even, with two chords for each flat piece, and needs no recursion.
    """
    bend = points[:, 0] - 2 * points[:, 1] + points[:, 2]
    excess = np.sqrt((bend**2).sum(axis=1)) / (2 * BEZIER_TOLERANCE)
    halvings = np.minimum(np.ceil(np.log2(np.maximum(excess, 1.0)) / 2), MAX_HALVINGS)
    if (2.0 ** (halvings + 1)).sum() > limit:
        halvings = np.minimum(halvings, np.floor(np.log2(max(limit / len(points), 2.0))) - 1)
    counts = 2 ** (halvings.astype(np.intp) + 1) + 1
    owner, t = _even_fractions(counts)
    t = t[:, None]
    a, b, c = points[owner, 0], points[owner, 1], points[owner, 2]
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c, counts


def _halve(controls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Control points (k, n, d) of the two halves of k beziers (de Casteljau at t = 1/2)."""
    n = controls.shape[1]
    left, right, mid = np.empty_like(controls), np.empty_like(controls), controls
    for i in range(n):
        left[:, i] = mid[:, 0]
        right[:, n - 1 - i] = mid[:, -1]
        mid = (mid[:, :-1] + mid[:, 1:]) / 2
    return left, right


@lru_cache(maxsize=MATRIX_POINTS + 1)
def _halving_matrix(n: int) -> np.ndarray:
    """(2n, n) matrix that maps n control points to those of the left and the right half."""
    left, right = _halve(np.eye(n)[None])
    return np.concatenate([left[0], right[0]])


def _subdivide(controls: np.ndarray) -> np.ndarray:
    """(k, n, 2) control points of k beziers -> (2k, n, 2), halves in order along the curve."""
    k, n, _ = controls.shape
    if n <= MATRIX_POINTS:
        halves: np.ndarray = _halving_matrix(n) @ controls
        return halves.reshape(2 * k, n, 2)
    return np.stack(_halve(controls), axis=1).reshape(2 * k, n, 2)


def _flat_vertices(controls: np.ndarray) -> np.ndarray:
    """n - 1 vertices (the end point left out) of each of k flat beziers (k, n, 2) -> (k, n-1, 2).

    They are the control polygons of both halves, smoothed with weights 1/4, 1/2, 1/4.
    """
    k, n, _ = controls.shape
    halves = _subdivide(controls).reshape(k, 2 * n, 2)
    polygon = np.concatenate([halves[:, :n], halves[:, n + 1 :]], axis=1)  # (k, 2n-1, 2)
    inner = (polygon[:, 1:-3:2] + 2 * polygon[:, 2:-2:2] + polygon[:, 3:-1:2]) / 4
    return np.concatenate([controls[:, :1], inner], axis=1)


def _beziers(points: np.ndarray, limit: float) -> _Polylines:
    """Beziers (g, n, 2), halved until every second difference is at most twice the tolerance."""
    g, n, _ = points.shape
    pieces = limit / _cost(n)
    done: list[tuple[np.ndarray, np.ndarray]] = []  # flat pieces: owner + parameter, vertices
    controls, start = points, np.arange(g, dtype=np.float64)
    for halvings in range(MAX_HALVINGS + 1):
        bend = controls[:, :-2] - 2 * controls[:, 1:-1] + controls[:, 2:]
        flat = ((bend**2).sum(axis=2) <= (2 * BEZIER_TOLERANCE) ** 2).all(axis=1)
        flat |= halvings == MAX_HALVINGS or 2 * len(controls) > pieces
        if flat.any():
            done.append((start[flat], _flat_vertices(controls[flat])))
        if flat.all():
            break
        controls = _subdivide(controls[~flat])
        start = (start[~flat][:, None] + [0.0, 0.5 ** (halvings + 1)]).ravel()
    starts = np.concatenate([key for key, _ in done])
    order = np.argsort(starts)
    owner = starts[order].astype(np.intp)
    counts = np.bincount(owner, minlength=g) * (n - 1) + 1
    vertices = np.empty((counts.sum(), 2))
    rows = np.arange(len(owner) * (n - 1)) + np.repeat(owner, n - 1)  # an end before each owner's
    vertices[rows] = np.concatenate([piece for _, piece in done])[order].reshape(-1, 2)
    vertices[np.cumsum(counts) - 1] = points[:, -1]
    return vertices, counts


def _cost(n: int) -> float:
    """Cost of halving a bezier of n control points, relative to one by the cached matrix."""
    return n * max(1.0, n / MATRIX_POINTS)


def _bsplines(points: np.ndarray, degree: int, limit: float) -> _Polylines:
    """Clamped uniform B-splines (g, n, 2) of a degree from 2 to n - 2, one bezier per knot span.

    A bezier's control points are the values of the spline's polar form at the ends of the span
    (Ramshaw, "Blossoming", 1987), found with de Boor's recursion.
    """
    g, n, _ = points.shape
    span = np.arange(n - degree)[:, None]  # (k, 1)
    knots = np.clip(np.arange(n + degree + 1) - degree, 0, n - degree)
    controls = []
    for ones in range(degree + 1):  # arguments of the polar form at the far end of the span
        row = points[:, span + np.arange(degree + 1)]  # (g, k, degree+1, 2)
        for level in range(degree):
            u = span + (level < ones)
            low = span + level + 1 + np.arange(degree - level)
            high = low + degree - level
            weight = ((u - knots[low]) / (knots[high] - knots[low]))[..., None]
            row = (1 - weight) * row[:, :, :-1] + weight * row[:, :, 1:]
        controls.append(row)
    pieces = np.concatenate(controls, axis=2)  # (g, k, degree+1, 2)
    vertices, counts = _polylines("B", None, pieces.reshape(-1, degree + 1, 2), limit)
    return vertices, counts.reshape(g, -1).sum(axis=1)


# Circular arcs


@dataclass(frozen=True)
class _Arcs:
    """Circles through the triangles (g, 3, 2); where not `valid`, the other fields are dummies.

    `sweep` is signed, so that the arc runs over angles start + sweep * [0, 1].
    """

    valid: np.ndarray  # (g,)
    centre: np.ndarray  # (g, 2)
    radius: np.ndarray
    start: np.ndarray
    sweep: np.ndarray
    vertices: np.ndarray  # how many vertices the game gives the arc, >= 2

    @staticmethod
    def through(points: np.ndarray) -> _Arcs:
        """Arcs from points[:, 0] through points[:, 1] to points[:, 2]."""
        cross = _cross(points)
        valid = np.abs(cross) > COLLINEAR_TOLERANCE
        b = points[:, 1] - points[:, 0]
        c = points[:, 2] - points[:, 0]
        scale = -0.5 / np.where(valid, cross, 1.0)
        weight_b = (c**2).sum(axis=-1) * scale
        weight_c = (b**2).sum(axis=-1) * scale
        x = c[:, 1] * weight_c - b[:, 1] * weight_b  # centre relative to the first point
        y = b[:, 0] * weight_b - c[:, 0] * weight_c
        radius = np.sqrt(x**2 + y**2)
        start = np.arctan2(-y, -x)
        stop = np.arctan2(c[:, 1] - y, c[:, 0] - x)
        turn = np.where(cross < 0, 1.0, -1.0)  # the side of the chord the middle point is on
        sweep = turn * (((stop - start) * turn) % (2 * np.pi))
        # In single precision like the game: its rounding decides the vertex count of some arcs.
        radius_32 = np.maximum(radius, ARC_TOLERANCE / 2).astype(np.float32)
        cosine = np.float32(1) - np.float32(ARC_TOLERANCE) / radius_32
        step = 2 * np.arccos(cosine.astype(np.float64))
        vertices = np.maximum(2.0, np.ceil(np.abs(sweep) / np.maximum(step, 1e-9)))
        centre = np.empty_like(b)
        centre[:, 0], centre[:, 1] = points[:, 0, 0] + x, points[:, 0, 1] + y
        return _Arcs(valid & (vertices < MAX_ARC_VERTICES), centre, radius, start, sweep, vertices)

    def polylines(self, points: np.ndarray, limit: float) -> _Polylines:
        """Vertices of the arcs, which must all be valid, through `points` (g, 3, 2)."""
        counts = self.vertices.astype(np.intp)
        if counts.sum() > limit:
            counts = np.minimum(counts, max(int(limit / len(points)), 2))
        owner, fraction = _even_fractions(counts)
        angle = self.start[owner] + self.sweep[owner] * fraction
        vertices = self.centre[owner]
        vertices[:, 0] += self.radius[owner] * np.cos(angle)
        vertices[:, 1] += self.radius[owner] * np.sin(angle)
        ends = np.cumsum(counts)
        vertices[ends - counts], vertices[ends - 1] = points[:, 0], points[:, 2]
        return vertices, counts


# Catmull-Rom splines


def _catmulls(points: np.ndarray, limit: float) -> _Polylines:
    """Uniform Catmull-Rom splines (g, n, 2), n >= 2, with `CATMULL_DETAIL` chords a span.

    The first knot is repeated before the start, the last span is continued straight. The game
    also leaves out vertices less than 6 px apart, which moves ends by a fraction of a pixel.
    """
    g, n, _ = points.shape
    detail = max(min(CATMULL_DETAIL, int(limit / (g * n))), 1)
    beyond = 2 * points[:, -1:] - points[:, -2:-1]
    padded = np.concatenate([points[:, :1], points, beyond], axis=1)[:, :, None]
    p0, p1, p2, p3 = (padded[:, i : i + n - 1] for i in range(4))  # (g, n-1, 1, 2)
    t = np.arange(detail)[:, None] / detail
    quadratic, cubic = 2 * p0 - 5 * p1 + 4 * p2 - p3, 3 * (p1 - p2) + p3 - p0
    spans = (2 * p1 + t * (p2 - p0 + t * (quadratic + t * cubic))) / 2
    return _lines(np.concatenate([spans.reshape(g, -1, 2), points[:, -1:]], axis=1))


# Paths

_Key = tuple[str, int | None, int]  # how a segment is drawn: kind, B-spline degree, points


def _drawn_as(kind: str, degree: int | None, n: int) -> _Key:
    """The way a segment with n points is drawn; different kinds may be drawn alike."""
    if kind not in ("B", "P", "C", "L") or n == 0:
        raise ValueError(f"segment of kind {kind!r} with {n} points; expected B, P, C or L, n >= 1")
    if n <= 2 or (kind == "B" and degree == 1):
        return "L", None, n
    if kind == "P" and n != 3:
        kind = "B"
    is_bspline = kind == "B" and degree is not None and degree < n - 1
    return kind, degree if is_bspline else None, n


def _polylines(kind: str, degree: int | None, points: np.ndarray, limit: float) -> _Polylines:
    """Vertices, about `limit` at most, of segments (g, n, 2) drawn in one way, arcs excepted."""
    if kind == "L" or len(points) == 0:
        return _lines(points)
    if kind == "C":
        return _catmulls(points, limit)
    if degree is not None:
        return _bsplines(points, degree, limit)
    return _quadratics(points, limit) if points.shape[1] == 3 else _beziers(points, limit)


def _parts(
    key: _Key, points: np.ndarray, limit: float = MAX_VERTICES
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Vertices of segments (g, n, 2) with one `key`, in parts: (members, vertices, counts).

    A 'P' is a line where its points are collinear, a bezier where the arc would be huge.
    """
    everyone = np.arange(len(points))
    kind, degree, _ = key
    if kind != "P":
        return [(everyone, *_polylines(kind, degree, points, limit))]
    arcs = _Arcs.through(points)
    if arcs.valid.all():
        return [(everyone, *arcs.polylines(points, limit))]
    line = np.abs(_cross(points)) <= COLLINEAR_TOLERANCE
    huge = ~arcs.valid & ~line
    round_ = points[arcs.valid]
    return [
        (everyone[arcs.valid], *_Arcs.through(round_).polylines(round_, limit)),
        (everyone[line], *_polylines("L", None, points[line], limit)),
        (everyone[huge], *_polylines("B", None, points[huge], limit)),
    ]


def flatten(segments: list[Segment]) -> np.ndarray:
    """Vertices (m, 2) of the path's polyline, as the game has it; joints appear once.

    Raises ValueError without segments.
    """
    if not segments:
        raise ValueError("no segments; a slider path needs at least its head")
    joined: list[np.ndarray] = []
    for segment in segments:
        key = _drawn_as(segment.kind, segment.degree, len(segment.points))
        vertices = np.concatenate([part[1] for part in _parts(key, segment.points[None])])
        skip = int(bool(joined) and bool((vertices[0] == joined[-1][-1]).all()))
        if len(vertices) > skip:
            joined.append(vertices[skip:])
    return np.concatenate(joined)


class SliderPath:
    """A polyline cut, or extended along its last chord, to a slider's pixel length.

    `vertices` (m, 2) and `cumulative` (m,) arc lengths are those of the whole path of
    `natural_length`; `length` is the effective length. A `pixel_length` that is None, not finite,
    zero or negative means the natural length. Like in the game, a path whose last two vertices
    coincide is never extended. Raises ValueError when `vertices` is not a finite (m, 2) array.
    """

    def __init__(self, vertices: np.ndarray, pixel_length: float | None) -> None:
        self.vertices = _checked_points(vertices)
        chords = self.vertices[1:] - self.vertices[:-1]
        lengths = np.sqrt((chords**2).sum(axis=1))
        self.cumulative = np.zeros(len(self.vertices))
        np.cumsum(lengths, out=self.cumulative[1:])
        self.natural_length = float(self.cumulative[-1])
        self._direction = np.zeros(2)
        extensible = len(lengths) > 0 and lengths[-1] > COINCIDENT
        if extensible:
            self._direction = chords[-1] / lengths[-1]
        self.length = _effective_length(pixel_length, self.natural_length, extensible)

    def position_at(self, distance: float | np.ndarray) -> np.ndarray:
        """(..., 2) positions at arc lengths `distance` (...), clamped to [0, length]."""
        distance = np.clip(np.asarray(distance, dtype=np.float64), 0.0, self.length)
        result = np.maximum(distance - self.natural_length, 0.0)[..., None] * self._direction
        result[..., 0] += np.interp(distance, self.cumulative, self.vertices[:, 0])
        result[..., 1] += np.interp(distance, self.cumulative, self.vertices[:, 1])
        return result

    @property
    def end(self) -> np.ndarray:
        """(2,) position of the slider's end."""
        return self.position_at(self.length)

    def polyline(self) -> np.ndarray:
        """(k, 2) vertices of the path cut or extended to `length`."""
        inner = self.vertices[self.cumulative < self.length]
        return np.concatenate([inner, self.end[None]])

    def project(self, point: np.ndarray, near: float | None = None) -> float:
        """Arc length, in [0, length], of the place on the path nearest to `point` (2,).

        With `near`, an arc length, places less than `NEARLY` px further away count as equally near;
        of these, the one with the arc length nearest to `near` is taken. That chooses the branch
        where a path crosses or retraces itself.
        """
        vertices = self.polyline()
        chords = np.diff(vertices, axis=0)
        if len(chords) == 0:
            return 0.0
        lengths = np.sqrt((chords**2).sum(axis=1))
        offset = np.asarray(point, dtype=np.float64) - vertices[:-1]
        squared = np.where(lengths > 0, lengths**2, 1.0)
        fraction = np.clip((offset * chords).sum(axis=1) / squared, 0.0, 1.0)
        distance = np.sqrt(((offset - fraction[:, None] * chords) ** 2).sum(axis=1))
        places = np.minimum(np.cumsum(lengths) - (1 - fraction) * lengths, self.length)
        if near is None:
            return float(places[np.argmin(distance)])
        places = places[distance <= distance.min() + NEARLY]
        return float(places[np.argmin(np.abs(places - near))])


def _effective_length(pixel_length: float | None, natural: float, extensible: bool) -> float:
    """The length the game gives a slider whose path is `natural` px long."""
    if pixel_length is None or not isfinite(pixel_length) or pixel_length <= 0:
        return natural
    return float(pixel_length) if extensible else min(float(pixel_length), natural)


def slider_path(
    kind: str, points: np.ndarray, pixel_length: float | None, *, version: int = 14
) -> SliderPath:
    """The path of a slider from its curve type, (n, 2) points with the head, and pixel length.

    Raises ValueError as `split_segments` does.
    """
    return SliderPath(flatten(split_segments(kind, points, version=version)), pixel_length)


# All sliders of a map at once


class PathSet:
    """All sliders of a map with fixed topology, evaluated for ever new coordinates.

    `sliders` holds per slider its segments, as (kind, B-spline degree or None, (n,) indices into
    the points), and its pixel length (None, not finite or <= 0: natural). Consecutive segments
    share their joint's index. Results equal those of `SliderPath` up to rounding, unless the paths
    would have more than about `MAX_VERTICES` vertices.

    Kinds are those of the file, split at red anchors. Leave a 'P' of three points a 'P' even when
    they are collinear at first: that is looked at again for all new coordinates. Raises
    ValueError for an unknown kind and for an empty segment or slider.
    """

    def __init__(
        self, sliders: Sequence[tuple[list[tuple[str, int | None, np.ndarray]], float | None]]
    ) -> None:
        groups: dict[_Key, tuple[list[int], list[np.ndarray]]] = {}
        last, count = [], 0
        for segments, _ in sliders:
            if not segments:
                raise ValueError("a slider without segments; each needs at least one")
            for place, (kind, degree, indices) in enumerate(segments):
                if place > 0 and len(indices) == 1:
                    continue  # an explicit segment without points of its own draws nothing
                members = groups.setdefault(_drawn_as(kind, degree, len(indices)), ([], []))
                members[0].append(count)
                members[1].append(np.asarray(indices, dtype=np.intp))
                count += 1
            last.append(count - 1)
        self._groups = [(key, np.array(i), np.stack(x)) for key, (i, x) in groups.items()]
        costs = [0.0 if key[0] == "L" else len(i) * _cost(key[2]) for key, i, _ in self._groups]
        shares = np.array(costs) / max(sum(costs), 1.0)
        self._limits = (MAX_VERTICES * shares).tolist()  # vertices of each group
        self._last = np.array(last, dtype=np.intp)  # (S,) number of the last segment
        lengths = np.array([np.nan if px is None else px for _, px in sliders], dtype=np.float64)
        natural = ~(np.isfinite(lengths) & (lengths > 0))
        self._pixel_length = np.where(natural, np.nan, lengths)

    def copies(self, which: np.ndarray, shifts: np.ndarray) -> PathSet:
        """The set of the sliders `which` (C,), repeats allowed, indices moved by `shifts`.

        So many variations of a slider, each with points of its own, are evaluated at once.
        """
        sizes = np.diff(self._last, prepend=-1)  # segments a slider
        last = np.cumsum(sizes[which]) - 1
        groups, limits = [], []
        for (key, numbers, indices), limit in zip(self._groups, self._limits, strict=True):
            owner = np.searchsorted(self._last, numbers)  # rises, as numbers do
            begin, stop = np.searchsorted(owner, which), np.searchsorted(owner, which, "right")
            count = stop - begin
            copy = np.repeat(np.arange(len(which)), count)
            rows = np.arange(len(copy)) + np.repeat(begin - (np.cumsum(count) - count), count)
            if not len(copy):
                continue
            before_last = self._last[owner[rows]] - numbers[rows]
            groups.append((key, last[copy] - before_last, indices[rows] + shifts[copy][:, None]))
            # Each copy is drawn as finely as its slider is.
            limits.append(limit * len(copy) / len(numbers))
        result = PathSet([])
        result._groups, result._limits = groups, limits
        result._last, result._pixel_length = last, self._pixel_length[which]
        return result

    def __len__(self) -> int:
        return len(self._last)

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends (S, 2) and natural lengths (S,) of all sliders for coordinates `points` (P, 2)."""
        walk = self._walk(points)
        return walk.at(walk.length[:, None])[:, 0], walk.natural

    def lengths(self, points: np.ndarray) -> np.ndarray:
        """(S,) effective lengths of all sliders for coordinates `points` (P, 2)."""
        return self._walk(points).length

    def bodies(self, points: np.ndarray, samples: int) -> np.ndarray:
        """(S, samples, 2) positions at equal steps of arc length from head to end."""
        walk = self._walk(points)
        return walk.at(walk.length[:, None] * np.linspace(0, 1, samples))

    def extents(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest x and y, each (S, 2), of all sliders' bodies, head to end."""
        return self._walk(points).extents()

    def _walk(self, points: np.ndarray) -> _Walk:
        """Flatten all segments, group by group, into one array in the order of the sliders."""
        if len(self) == 0:
            return _Walk(np.empty((0, 2)), self._last, self._last, self._pixel_length)
        points = _checked_points(points)
        parts = [
            (numbers[members], vertices, counts)
            for (key, numbers, indices), limit in zip(self._groups, self._limits, strict=True)
            for members, vertices, counts in _parts(key, points[indices], limit)
        ]
        size = np.empty(int(self._last[-1]) + 1, dtype=np.intp)  # vertices of each segment
        for numbers, _, counts in parts:
            size[numbers] = counts
        stop = np.cumsum(size)
        joined = np.empty((int(stop[-1]), 2))
        for numbers, vertices, counts in parts:
            shift = (stop - size)[numbers] - (np.cumsum(counts) - counts)
            joined[np.arange(len(vertices)) + np.repeat(shift, counts)] = vertices
        last = stop[self._last] - 1
        first = np.concatenate([[0], last[:-1] + 1])
        return _Walk(joined, first, last, self._pixel_length)


class _Walk:
    """Arc lengths along the vertices of all sliders, which lie one after another in one array."""

    def __init__(
        self, vertices: np.ndarray, first: np.ndarray, last: np.ndarray, pixel_length: np.ndarray
    ) -> None:
        self._vertices, self._first, self._last = vertices, first, last
        chords = np.diff(vertices, axis=0)
        lengths = np.sqrt(chords[:, 0] ** 2 + chords[:, 1] ** 2)
        lengths[last[:-1]] = 0.0  # from one slider's last vertex to the next one's first
        self._cumulative = np.concatenate([np.zeros(min(1, len(vertices))), np.cumsum(lengths)])
        self.natural = self._cumulative[last] - self._cumulative[first]
        # The chord before the last vertex; a slider of one vertex has none.
        before = np.maximum(last - 1, first)
        chord = vertices[last] - vertices[before]
        final = np.sqrt((chord**2).sum(axis=1))
        extensible = final > COINCIDENT
        self._direction = chord / np.where(extensible, final, 1.0)[:, None]
        wanted = np.where(np.isnan(pixel_length), self.natural, pixel_length)
        self.length = np.where(extensible, wanted, np.minimum(wanted, self.natural))

    def at(self, distance: np.ndarray) -> np.ndarray:
        """(S, k) arc lengths in [0, length] -> (S, k, 2) positions."""
        start, stop = self._first[:, None], self._last[:, None]
        inside = np.minimum(distance, self.natural[:, None]) + self._cumulative[start]
        after = np.searchsorted(self._cumulative, inside)
        # Rounding, or equal vertices of a neighbouring slider, must not lead out of the slider.
        after = np.clip(after, np.minimum(start + 1, stop), stop)
        before = np.maximum(after - 1, start)
        step = self._cumulative[after] - self._cumulative[before]
        fraction = (inside - self._cumulative[before]) / np.where(step > 0, step, 1.0)
        fraction = np.clip(fraction, 0.0, 1.0)[..., None]
        a, b = self._vertices[before], self._vertices[after]
        beyond = np.maximum(distance - self.natural[:, None], 0.0)
        extension = beyond[..., None] * self._direction[:, None]
        position: np.ndarray = a + fraction * (b - a) + extension
        return position

    def extents(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners (S, 2) of the rectangles that hold the paths up to their lengths."""
        ends = self.at(self.length[:, None])[:, 0]
        if len(ends) == 0:
            return ends, ends
        sizes = self._last - self._first + 1
        travelled = self._cumulative - np.repeat(self._cumulative[self._first], sizes)
        inside = (travelled <= np.repeat(self.length, sizes))[:, None]
        low = np.minimum.reduceat(np.where(inside, self._vertices, np.inf), self._first)
        high = np.maximum.reduceat(np.where(inside, self._vertices, -np.inf), self._first)
        return np.minimum(low, ends), np.maximum(high, ends)
