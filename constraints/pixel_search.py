"""Chooses whole pixels: each body at its distance from the previous end, twins on one place."""

import numpy as np

from constraints.bodies import ORIGIN, Bodies
from conventions.arrays import FloatArray, IntArray

BEAM = 12
MEMORY = 40
"""How many bodies before it a twin may be."""
PARTED = 2.0
"""Cost, in px^2 of distance error, of a body that is not on its twin's place."""
STACKED = 100.0
"""Weight of errors where the wanted distance is 0: stacks must not fall apart."""
NEARNESS, NEARNESS_BEFORE_TWINS = 0.004, 0.02
"""Cost, in px^2 of distance error, of a squared px away from the target."""
AHEAD = 6
"""How many bodies before a twin stay nearer to their targets, from which it can be reached."""
CROOKED = 1.0
"""Cost, in px^2 of distance error, of a squared px beside the line on which a body should be."""
GRID = np.array([(x, y) for x in range(-2, 3) for y in range(-2, 3)], dtype=np.float64)
_ANGLES = np.linspace(0, 2 * np.pi, 96, endpoint=False)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def choose_pixels(bodies: Bodies, targets: FloatArray, origin: FloatArray = ORIGIN) -> FloatArray:
    """Whole-pixel heads (M, 2) near targets (M, 2); the first distance starts at `origin`."""
    return _Search(bodies, targets, origin).run()


class _Search:
    """A beam search: of the ways to place the bodies so far, the `BEAM` cheapest are kept.

    The cost is the squared errors of the distances, and a little for being away from the targets.
    If the next body's place is decided already, because it is fixed or has a twin, its distance
    error is looked at one body ahead. Shapes: B ways, K places for the current body.
    """

    def __init__(self, bodies: Bodies, targets: FloatArray, origin: FloatArray) -> None:
        self.bodies, self.targets, self.origin = bodies, targets, origin
        count = len(targets)
        self.low, self.high = bodies.whole_range()
        relations = bodies.relations
        self.twins = np.full(count, -1) if relations is None else relations.twins
        self.shifts = np.zeros((count, 2)) if relations is None else relations.shifts
        self.weights = np.where(bodies.distances == 0, STACKED, 1.0)
        self.nearness = np.full(count, NEARNESS)
        for twin in np.flatnonzero(self.twins >= 0).tolist():
            self.nearness[max(twin - AHEAD, 0) : twin + 1] = NEARNESS_BEFORE_TWINS
        self.ways = np.empty((1, count, 2))  # (B, M, 2); only the last `MEMORY` bodies are right
        self.costs = np.zeros(1)
        self.steps: list[tuple[FloatArray, IntArray]] = []  # places (B, 2), and their ways' numbers

    def run(self) -> FloatArray:
        """Heads (M, 2) of the best way."""
        for i in range(len(self.targets)):
            places, total = self._places(i)
            self._keep_best(i, places, total, self._ahead(i, places))
        heads, best = np.empty_like(self.targets), int(np.argmin(self.costs))
        for i in range(len(heads) - 1, -1, -1):
            places, parents = self.steps[i]
            heads[i], best = places[best], int(parents[best])
        return heads

    def _places(self, i: int) -> tuple[FloatArray, FloatArray]:
        """Places (B, K, 2) for body i, and the costs (B, K) of the ways that end there."""
        bodies, target = self.bodies, self.targets[i]
        ends = self.ways[:, i - 1] + bodies.ends[i - 1] if i else self.origin[None]
        if bodies.fixed[i]:
            places = np.repeat(target[None, None], len(ends), axis=0)
            extra = np.zeros((len(ends), 1))
        else:
            places, extra = self._open_places(i, ends)
            if self.twins[i] >= 0:
                own = self.ways[:, self.twins[i]] + self.shifts[i]
                outside = ((own < self.low[i]) | (own > self.high[i])).any(axis=1)
                places = np.concatenate([places, own[:, None]], axis=1)
                extra = np.concatenate([extra + PARTED, 1e6 * outside[:, None]], axis=1)
        error = _lengths(places - ends[:, None]) - bodies.distances[i]
        return places, self.costs[:, None] + self.weights[i] * error**2 + extra

    def _open_places(self, i: int, ends: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pixels (B, K, 2) for body i after ends (B, 2), and what they cost besides distance."""
        bodies, line = self.bodies, None
        if bodies.lines is not None:
            line = bodies.lines.direction(i, self.ways, bodies.ends)
        places = self._around(i, ends)
        if line is not None:
            on_line = np.rint(ends + line * bodies.distances[i])[:, None] + GRID
            on_line = np.clip(on_line, self.low[i], self.high[i])
            again = (on_line[:, :, None] == places[:, None]).all(axis=-1).any(axis=-1)
            places = np.concatenate([places, on_line], axis=1)
        extra = self.nearness[i] * ((places - self.targets[i]) ** 2).sum(axis=-1)
        if line is not None:
            steps = places - ends[:, None]
            away = line[:, None, 0] * steps[..., 1] - line[:, None, 1] * steps[..., 0]
            extra += CROOKED * away**2
            # The same way twice would take the room of another one.
            extra[:, -again.shape[1] :][again] = np.inf
        return places, extra

    def _around(self, i: int, ends: FloatArray) -> FloatArray:
        """Pixels (B, K, 2) within bounds, about as far from ends (B, 2) as body i is wanted.

        They surround the place at that distance in the target's direction. If the bounds leave no
        good one, pixels in all directions are added.
        """
        distance, low, high = self.bodies.distances[i], self.low[i], self.high[i]
        offset = self.targets[i] - ends
        length = _lengths(offset)[:, None]
        direction = np.where(length > 1e-6, offset / np.maximum(length, 1e-6), (1.0, 0.0))
        places = np.clip(np.rint(ends + direction * distance)[:, None] + GRID, low, high)
        if np.abs(_lengths(places - ends[:, None]) - distance).min() > 1:
            around = np.clip(np.rint(ends[:, None] + distance * CIRCLE), low, high)
            places = np.concatenate([places, around], axis=1)
        return places

    def _ahead(self, i: int, places: FloatArray) -> FloatArray:
        """(B, K) cost of the next body's distance from there; 0 where its place is still open."""
        bodies, following = self.bodies, i + 1
        if following == len(self.targets):
            return np.zeros(places.shape[:2])
        twin, most = int(self.twins[following]), PARTED
        if bodies.fixed[following]:
            decided, most = self.targets[following][None, None], np.inf
        elif twin >= 0:
            decided = places if twin == i else self.ways[:, twin, None]
            decided = decided + self.shifts[following]
        else:
            return np.zeros(places.shape[:2])
        away = _lengths(decided - (places + bodies.ends[i])) - bodies.distances[following]
        return np.minimum(self.weights[following] * away**2, most)

    def _keep_best(self, i: int, places: FloatArray, total: FloatArray, ahead: FloatArray) -> None:
        """Keeps the cheapest of the ways (B, K)."""
        order = np.argsort((total + ahead).ravel(), kind="stable")[:BEAM]
        parents, choices = np.divmod(order, total.shape[1])
        recent = slice(max(0, i - MEMORY), i)
        kept = self.ways[parents, recent]
        if len(parents) != len(self.ways):
            self.ways = np.repeat(self.ways[:1], len(parents), axis=0)
        self.ways[:, recent] = kept
        self.ways[:, i] = places[parents, choices]
        self.steps.append((self.ways[:, i].copy(), parents))
        self.costs = total.ravel()[order]


def _lengths(vectors: FloatArray) -> FloatArray:
    """Lengths (...) of vectors (..., 2)."""
    return np.hypot(vectors[..., 0], vectors[..., 1])
