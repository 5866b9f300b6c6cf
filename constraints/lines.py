"""Objects that go on almost straight, which mappers put exactly on one line.

Three circles in a row, a slider and what follows it, what leads into a slider: where a sampled step
is within a few degrees of its line, it is meant to be on it. Curves are left alone.
"""

from dataclasses import dataclass

import numpy as np

from conventions.arrays import BoolArray, FloatArray, IntArray

STRAIGHT = 0.1
"""rad: circles that turn by less are meant to lie on a line: real maps have many of no turn at all,
and few from here to 0.2."""
CURVED = 0.15
"""rad: circles whose headings differ by more, with small turns in a row, are on a curve."""
FLOWING = 0.05
"""rad: a step that leaves or enters a slider by less is meant to follow it."""
SHORTEST = 5.0  # px; over shorter steps no direction is seen
DIRECTION_SAMPLES = 24
"""Of a slider's path: its first and last piece say which way it faces."""
UNEVEN = 3.0
"""How many times as long as the other a step may be: of a short one, pixels blur the direction."""


@dataclass(frozen=True)
class Directions:
    """Which ways M bodies face, as unit vectors (M, 2), NaN for none.

    enters: that of a slider's path at its head; leaves: where it goes on to after its end. circles
    (M,) marks single circles, placed (M,) what is no spinner, returns (M,) sliders after which the
    player is back at the head.
    """

    circles: BoolArray
    placed: BoolArray
    returns: BoolArray
    enters: FloatArray
    leaves: FloatArray


@dataclass(frozen=True)
class Lines:
    """Steps between M bodies that are to be straight.

    through (M,) marks bodies that continue the line of the two before them; along (M, 2) is the
    direction of the step to a body from the end of the one before, NaN if any will do.
    """

    through: BoolArray
    along: FloatArray

    def straighten(self, heads: FloatArray, ends: FloatArray, mobile: FloatArray) -> None:
        """Moves bodies onto their lines, in place; heads and ends (M, 2) px, from the head.

        mobile (M,) is 0 for what must stay. All at once: a body moves by the mean of what its lines
        ask for (position-based dynamics, Mueller et al. 2007).
        """
        last = np.flatnonzero(self.through)
        start, middle = heads[last - 2] + ends[last - 2], heads[last - 1]
        chord = heads[last] - start
        share = ((middle - start) * chord).sum(axis=1) / np.maximum((chord**2).sum(axis=1), 1e-6)
        away = middle - (start + share[:, None] * chord)
        bodies = np.stack([last - 2, last - 1, last])
        weights = np.stack([1 - share, -np.ones(len(last)), share])
        _share_out(heads, mobile, bodies, weights, away)
        last = np.flatnonzero(~np.isnan(self.along[:, 0]))
        step = heads[last] - (heads + ends)[last - 1]
        away = step - (step * self.along[last]).sum(axis=1)[:, None] * self.along[last]
        weights = np.stack([np.ones(len(last)), -np.ones(len(last))])
        _share_out(heads, mobile, np.stack([last - 1, last]), weights, away)

    def direction(self, i: int, ways: FloatArray, ends: FloatArray) -> FloatArray | None:
        """(B, 2) unit vectors of the step to body i, by the bodies of B ways (B, M, 2) before it.

        None if any will do.
        """
        if self.through[i]:
            step = ways[:, i - 1] - (ways[:, i - 2] + ends[i - 2])
            return step / np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-6)[:, None]
        return None if np.isnan(self.along[i, 0]) else np.repeat(self.along[None, i], len(ways), 0)


def _share_out(
    heads: FloatArray, mobile: FloatArray, bodies: IntArray, weights: FloatArray, away: FloatArray
) -> None:
    """Moves the K bodies of each of L lines by their weights, until its error is gone.

    bodies and weights (K, L), errors away (L, 2) px.
    """
    total = np.maximum((mobile[bodies] * weights**2).sum(axis=0), 1e-6)
    moves = weights[..., None] * (away / total[:, None])
    count = np.maximum(np.bincount(bodies.ravel(), minlength=len(heads)), 1)
    for axis in (0, 1):
        heads[:, axis] += (
            mobile * np.bincount(bodies.ravel(), moves[..., axis].ravel(), len(heads)) / count
        )


def lines_near(heads: FloatArray, ends: FloatArray, facing: Directions) -> Lines:
    """The lines nearly kept by bodies at heads (M, 2) px that end at ends (M, 2) px from there."""
    through, along = np.zeros(len(heads), dtype=bool), np.full((len(heads), 2), np.nan)
    steps = heads[1:] - (heads + ends)[:-1]
    length = np.hypot(*steps.T)
    shown = (length >= SHORTEST) & facing.placed[1:] & facing.placed[:-1] & ~facing.returns[:-1]
    through[2:] = _straight(steps, length, shown) & facing.circles[1:-1]
    for way in (facing.enters[1:], facing.leaves[:-1]):  # the second has the last word
        with np.errstate(invalid="ignore"):
            follows = shown & (np.abs(signed_turn(way, steps)) < FLOWING)
        along[1:][follows] = way[follows]
    return Lines(through, along)


def _straight(steps: FloatArray, length: FloatArray, shown: BoolArray) -> BoolArray:
    """(S - 1,) whether each of S steps, after the first, goes straight on and is on no curve."""
    if len(steps) < 2:
        return np.zeros(max(len(steps) - 1, 0), dtype=bool)
    turns = signed_turn(steps[:-1], steps[1:])
    nearly = shown[:-1] & shown[1:] & (np.abs(turns) < STRAIGHT)
    shorter, longer = np.sort(np.stack([length[:-1], length[1:]]), axis=0)
    nearly &= longer <= UNEVEN * shorter
    # How far the heading swings within each run of small turns, also there and back.
    heading = np.append(0.0, np.cumsum(np.where(nearly, turns, 0.0)))
    begins = np.append(0, np.flatnonzero(~nearly) + 1)
    swing = np.maximum.reduceat(heading, begins) - np.minimum.reduceat(heading, begins)
    result: BoolArray = nearly & (swing[np.cumsum(~nearly)] < CURVED)
    return result


def signed_turn(before: FloatArray, after: FloatArray) -> FloatArray:
    """Signed angle (...) in (-pi, pi] from `before` to `after` (..., 2); NaN for a zero vector."""
    cross = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
    dot = (before * after).sum(axis=-1)
    return np.where((cross == 0) & (dot == 0), np.nan, np.arctan2(cross, dot))
