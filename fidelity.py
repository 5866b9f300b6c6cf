"""What a remap should have kept of each object, counted: stacks, slider paths, bounds."""

import numpy as np
from numpy.typing import NDArray

from beatmap import Beatmap
from playfield import Bounds, stack_shifts
from sequence import PointType, Sequence, slider_topology
from slider_path import PathSet

TOLERANCE = 1e-3  # px
RATIO_TOLERANCE = 0.05

FloatArray = NDArray[np.float64]


def count_faults(beatmap: Beatmap, sequence: Sequence, xy: FloatArray) -> dict[str, int]:
    """How many stacks and sliders there are, and how many of them coordinates xy (T, 2) spoil.

    A stack is an object at distance 0 from the previous one's end, and should be on the pixel
    nearest to it: slider ends lie between pixels. Paths are too short where the
    game must extend them and had not to with the coordinates of `sequence`; their length, as a
    multiple of the slider's, should be within 5 % of what it was.
    """
    stacked = sequence.object_starts & (sequence.distances() == 0)
    stacked[0] = False  # its distance is to the playfield's centre
    apart = np.append(True, np.abs(np.diff(xy, axis=0)).max(axis=1) > 0.5 + TOLERANCE)
    topology = slider_topology(beatmap, sequence)
    lengths = np.array([length for _, length in topology.sliders])
    paths = PathSet(topology.sliders)
    before, after = paths.evaluate(sequence.xy)[1], paths.evaluate(xy)[1]
    long_enough = before >= lengths - TOLERANCE
    ratio = after / np.maximum(before, TOLERANCE)
    return {
        "stacks": int(stacked.sum()),
        "stacks_broken": int((stacked & apart).sum()),
        "sliders": len(lengths),
        "sliders_long_enough": int(long_enough.sum()),
        "paths_too_short": int((long_enough & (after < lengths - TOLERANCE)).sum()),
        "paths_of_other_length": int((np.abs(ratio - 1) > RATIO_TOLERANCE).sum()),
    }


def out_of_bounds(
    beatmap: Beatmap, sequence: Sequence, xy: FloatArray, bounds: Bounds
) -> tuple[FloatArray, FloatArray]:
    """(M,) px by which each object, centre and body, is outside: unstacked, and as it is drawn.

    Spinners, which are where they always are, count as inside.
    """
    starts = np.flatnonzero(sequence.object_starts)
    stops = np.append(starts[1:], len(sequence)) - 1
    low, high = xy[starts], xy[starts]
    topology = slider_topology(beatmap, sequence)
    body_low, body_high = PathSet(topology.sliders).extents(xy)
    low[topology.objects] = np.minimum(low[topology.objects], body_low)
    high[topology.objects] = np.maximum(high[topology.objects], body_high)
    shift = stack_shifts(beatmap, xy[starts], xy[stops])[:, None]
    movable = sequence.types[starts] != PointType.SPINNER
    plain, drawn = (
        np.maximum(bounds.excess(low - by), bounds.excess(high - by)) * movable
        for by in (0.0, shift)
    )
    return plain, drawn
