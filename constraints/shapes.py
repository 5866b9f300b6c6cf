"""Slider shapes that keep their points' distances and their path's length, unrounded and in pixels.

A slider keeps its pixel length, so the model's anchors must make a path about as long as the
source's. If it is shorter, the game extends it straight; if it is much longer, the slider ends
early on it. Distances between its points are wanted, too. Both are residuals of one least-squares
problem per slider. Its derivatives, and the search among whole pixels, come from variations of
the slider with one anchor moved, all evaluated together.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beatmaps.sequence import Sequence, SliderTopology
from beatmaps.slider_path import PathSet
from conventions.arrays import FloatArray, IntArray

MAX_ANCHORS = 40
"""Sliders with more anchors are only scaled: their variations would cost too much."""
STEP_PX = 1.0
DAMPING = 0.05
LONGEST_MOVE = 40.0
NEARNESS = 0.02
SHORT_PENALTY = 1e4
TOUCHING_PENALTY = 1e8
TOLERANCE = 1e-3
LENGTHEN_LIMIT = 1.5
_MOVES = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y], dtype=np.float64)
_GRADIENT = np.array([(STEP_PX, 0.0), (0.0, STEP_PX)])


@dataclass(frozen=True)
class Variations:
    """C variations of sliders, each with one anchor moved, and how far they are off.

    owners (C,) index the sliders, anchors (C,) count from 1, moves (C, 2) px. edge_errors (E,) px
    are errors of the distances from point to point, one variation after the other, each from index
    `edges` (C,) on. end_errors (C,) px are errors of the distance from last anchor to end, naturals
    (C,) px the lengths of the whole paths. touching (C,) counts neighbouring points at one place,
    which would cut the slider in two.
    """

    owners: IntArray
    anchors: IntArray
    moves: FloatArray
    edge_errors: FloatArray
    edges: IntArray
    touching: IntArray
    end_errors: FloatArray
    naturals: FloatArray


class SliderShapes:
    """The S sliders of a map, with the distances and path lengths that they should have.

    `distances` (T,) px to the previous data point; `kept` (T,) marks points that must not move.
    Paths shall be as long as with coordinates `like` (T, 2), by default the sequence's, and not
    shorter than their sliders unless the sequence's already are. Sliders whose length is None in
    `topology` may have any length; they end with their paths.
    """

    def __init__(
        self,
        sequence: Sequence,
        topology: SliderTopology,
        distances: FloatArray,
        kept: NDArray[np.bool_],
        like: FloatArray | None = None,
    ) -> None:
        self.heads, self.ends = topology.heads, topology.ends
        self.paths = PathSet(topology.sliders)
        self.distances = distances
        self.counts = self.ends - self.heads - 1  # anchors
        self.lengths = np.array([length for _, length in topology.sliders], dtype=np.float64)
        self.bound = ~np.isnan(self.lengths)
        source = self.paths.evaluate(sequence.xy)[1]
        self.shortest = np.where(source >= self.lengths - TOLERANCE, self.lengths, 0.0)
        self.natural = source if like is None else self.paths.evaluate(like)[1]
        movable = (self.counts > 0) & ~kept[self.heads]
        self.fitted = np.flatnonzero(movable & (self.counts <= MAX_ANCHORS))
        self.scaled = np.flatnonzero(movable & (self.counts > MAX_ANCHORS))

    def with_ends(self, xy: FloatArray) -> FloatArray:
        """xy (T, 2) with slider ends where heads, anchors and lengths put them."""
        result = xy.copy()
        if len(self.heads):
            result[self.ends] = self.paths.evaluate(xy)[0]
        return result

    def fit(self, xy: FloatArray, iterations: int) -> FloatArray:
        """xy (T, 2) with anchors moved towards their distances and their path's length; ends too.

        Damped least-norm Gauss-Newton steps: shapes change as little as possible.
        """
        xy = xy.copy()
        for _ in range(iterations):
            if len(self.fitted):
                self._gauss_newton(xy)
        self._scale(xy)
        return self.with_ends(xy)

    def _gauss_newton(self, xy: FloatArray) -> None:
        """One step for all fitted sliders, in place."""
        base = self._residuals(self._vary(xy, self.fitted, np.zeros((1, 2)), first_only=True))
        varied = self._residuals(self._vary(xy, self.fitted, _GRADIENT))
        for count, residual in base.items():
            sliders = self.fitted[self.counts[self.fitted] == count]
            n, m = len(sliders), count + 2
            slope = (varied[count].reshape(n, 2 * count, m) - residual[:, None]) / STEP_PX
            normal = slope.transpose(0, 2, 1) @ slope + DAMPING * np.eye(m)
            move = -(slope @ np.linalg.solve(normal, residual[..., None]))[..., 0]
            move = move.reshape(n, count, 2)
            size = np.hypot(*np.moveaxis(move, -1, 0)).max(axis=1)[:, None, None]
            move *= np.minimum(1.0, LONGEST_MOVE / np.maximum(size, 1e-9))
            xy[self.heads[sliders][:, None] + np.arange(1, count + 1)] += move

    def _residuals(self, varied: Variations) -> dict[int, FloatArray]:
        """By number k of anchors: (variations, k + 2) px errors of edges, of the end, of length."""
        counts = self.counts[varied.owners]
        # Rounding shortens paths a little, hence 0.5 px more.
        target = np.maximum(self.natural, self.shortest + 0.5)[varied.owners]
        result = {}
        for count in np.unique(counts).tolist():
            mine = np.flatnonzero(counts == count)
            edges = varied.edge_errors[varied.edges[mine][:, None] + np.arange(count)]
            rest = np.stack([varied.end_errors, varied.naturals - target], axis=1)[mine]
            rest *= self.bound[varied.owners[mine]][:, None]
            result[count] = np.concatenate([edges, rest], axis=1)
        return result

    def _vary(
        self, xy: FloatArray, sliders: IntArray, moves: FloatArray, *, first_only: bool = False
    ) -> Variations:
        """The variations of `sliders` in which each anchor (or the first) makes each of `moves`."""
        counts = self.counts[sliders]
        varied = np.ones_like(counts) if first_only else counts
        owners = np.repeat(sliders, varied * len(moves))
        within = np.arange(len(owners)) - np.repeat(
            np.cumsum(varied * len(moves)) - varied * len(moves), varied * len(moves)
        )
        anchors, move = within // len(moves) + 1, moves[within % len(moves)]
        size = self.counts[owners] + 1
        first = np.cumsum(size) - size
        place = np.arange(int(size.sum())) - np.repeat(first, size)
        source = np.repeat(self.heads[owners], size) + place
        points = xy[source]
        points[first + anchors] += move
        paths = self.paths.copies(owners, first - self.heads[owners])
        ends, naturals = paths.evaluate(points)
        inner = place > 0
        offset = (points - np.roll(points, 1, axis=0))[inner]
        lengths = np.hypot(offset[:, 0], offset[:, 1])
        last = points[first + size - 1]
        end_distance = np.hypot(*(ends - last).T)
        edges = np.cumsum(size - 1) - (size - 1)
        return Variations(
            owners,
            anchors,
            move,
            lengths - self.distances[source[inner]],
            edges,
            np.add.reduceat((lengths < 0.5).astype(np.intp), edges),
            end_distance - self.distances[self.ends[owners]],
            naturals,
        )

    def improve(self, pixels: FloatArray, wanted: FloatArray, rounds: int = 16) -> FloatArray:
        """Better whole pixels (T, 2) than `pixels`, a rounding of the fit `wanted` (T, 2).

        Every slider makes its best move of one anchor by one pixel until none is better.
        """
        pixels = pixels.copy()
        active = self.fitted
        for _ in range(rounds):
            if not len(active):
                break
            now = self._vary(pixels, active, np.zeros((1, 2)), first_only=True)
            varied = self._vary(pixels, active, _MOVES)
            before, after = (self._costs(v, pixels, wanted) for v in (now, varied))
            first = np.flatnonzero(np.diff(varied.owners, prepend=-1))
            best = _first_argmin(after, first)
            better = after[best] < before - 1e-9
            best, active = best[better], active[better]
            pixels[self.heads[active] + varied.anchors[best]] += varied.moves[best]
        return pixels

    def _costs(self, varied: Variations, pixels: FloatArray, wanted: FloatArray) -> FloatArray:
        """(C,) px^2, costs of variations of `pixels` (T, 2), with penalties for faults."""
        cost = np.add.reduceat(varied.edge_errors**2, varied.edges)
        excess = varied.naturals - np.maximum(self.natural, self.shortest)[varied.owners]
        cost += self.bound[varied.owners] * (varied.end_errors**2 + excess**2)
        missing = np.maximum(self.shortest[varied.owners] - varied.naturals, 0.0)
        cost += np.where(missing > TOLERANCE, SHORT_PENALTY * (1 + missing), 0.0)
        cost += TOUCHING_PENALTY * varied.touching
        index = self.heads[varied.owners] + varied.anchors
        away = pixels[index] - wanted[index]
        change = ((away + varied.moves) ** 2 - away**2).sum(axis=1)
        return cost + NEARNESS * change

    def _scale(self, xy: FloatArray) -> None:
        """Enlarges the sliders with very many anchors whose path is too short, in place."""
        for turn in range(5 if len(self.scaled) else 0):
            natural = self.paths.evaluate(xy)[1][self.scaled]
            short = (natural < self.shortest[self.scaled]) & (natural > 1)
            # A little more each time, since rounding could give the same pixels again.
            for slider, length in zip(self.scaled[short], natural[short], strict=True):
                factor = min((1.005 * self.lengths[slider] + 0.5 * turn) / length, LENGTHEN_LIMIT)
                head, end = self.heads[slider], self.ends[slider]
                xy[head:end] = xy[head] + factor * (xy[head:end] - xy[head])


def _first_argmin(values: FloatArray, starts: IntArray) -> IntArray:
    """Index of the (first) smallest of each run of values (n,) that begins at starts (k,)."""
    smallest = np.minimum.reduceat(values, starts)
    run = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(values)))
    hits = np.flatnonzero(values == smallest[run])
    return hits[np.searchsorted(run[hits], np.arange(len(starts)))]
