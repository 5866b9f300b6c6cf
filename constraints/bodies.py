"""The objects of a map as rigid bodies: what may move, how far, and what belongs together."""

from dataclasses import dataclass

import numpy as np

from constraints.lines import Lines
from constraints.structure import BodyRelations
from conventions.arrays import BoolArray, FloatArray, IntArray
from conventions.playfield import PLAYFIELD_CENTRE

ORIGIN = np.array(PLAYFIELD_CENTRE)
"""Where the first body's distance is measured from."""


@dataclass(frozen=True)
class Bodies:
    """The M rigid bodies of a map: its objects, stacks (distance 0) as one.

    heads (M, 2) px, of each body's first object; ends (M, 2) px, the last object's last data point
    relative to it; low and high (M, 2) px, where the head may be so that everything stays within
    bounds; fixed (M,) marks what must not move; distances (M,) px wanted from the previous body's
    end; relations and lines to keep. Of the O objects: owners (O,), their bodies, and offsets
    (O, 2) px from the body's head.
    """

    heads: FloatArray
    ends: FloatArray
    low: FloatArray
    high: FloatArray
    fixed: BoolArray
    distances: FloatArray
    owners: IntArray
    offsets: FloatArray
    relations: BodyRelations | None = None
    lines: Lines | None = None

    def errors(self, heads: FloatArray, origin: FloatArray) -> FloatArray:
        """(M,) px: how far the distances of heads (M, 2) are off; the first is that to `origin`."""
        before = np.concatenate([origin[None], (heads + self.ends)[:-1]])
        return np.abs(np.hypot(*(heads - before).T) - self.distances)

    def between(self, first: int, stop: int, heads: FloatArray) -> "Bodies":
        """The bodies first to stop - 1 at `heads` (M, 2), and the next one, if any, as fixed."""
        part = slice(first, min(stop + 1, len(heads)))
        fixed = self.fixed[part].copy()
        fixed[stop - first :] = True
        return Bodies(
            heads[part],
            self.ends[part],
            self.low[part],
            self.high[part],
            fixed,
            self.distances[part],
            self.owners[:0],
            self.offsets[:0],
        )

    def range(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest heads (M, 2); if a stack fits nowhere, both are halfway between."""
        fits = self.low <= self.high
        half = (np.where(fits, 0, self.low) + np.where(fits, 0, self.high)) / 2
        return np.where(fits, self.low, half), np.where(fits, self.high, half)

    def whole_range(self) -> tuple[FloatArray, FloatArray]:
        """The same in whole pixels."""
        low, high = np.ceil(self.low), np.floor(self.high)
        fits = low <= high
        nearest = np.rint(self.range()[0])
        return np.where(fits, low, nearest), np.where(fits, high, nearest)
