"""How far coordinates are from the distances that were asked for, and from the playfield."""

import numpy as np
from numpy.typing import NDArray

from beatmaps.sequence import Sequence
from conventions.arrays import FloatArray
from conventions.playfield import off_playfield


def spacing_errors(
    source: Sequence, xy: FloatArray, wanted: FloatArray | None = None
) -> FloatArray:
    """(T,) px by which each distance of xy (T, 2) to the previous point is off.

    The right distance is `wanted` (T,) where that is given and not negative, else the source's.
    """
    distances = source.distances()
    if wanted is not None:
        distances = np.where(wanted < 0, distances, wanted)
    return np.abs(source.moved(xy).distances() - distances)


def summarise_errors(error: FloatArray, starts: NDArray[np.bool_]) -> dict[str, float]:
    """Median and p95 of spacing errors (T,): of all points, of object starts, of the others."""
    result = {}
    for name, chosen in (("all", starts | True), ("object", starts), ("inner", ~starts)):
        values = error[chosen] if chosen.any() else np.zeros(1)
        result[f"{name}_spacing_error_median"] = float(np.median(values))
        result[f"{name}_spacing_error_p95"] = float(np.quantile(values, 0.95))
    return result


def measure(source: Sequence, xy: FloatArray, wanted: FloatArray | None = None) -> dict[str, float]:
    """How well coordinates xy (T, 2) px keep distances, see `spacing_errors`, and the playfield.

    Spacing errors in px of all points, of object starts and of inner points; shares of all points
    and of objects' centres that are off the playfield.
    """
    off = off_playfield(xy)
    starts = source.object_starts
    result = summarise_errors(spacing_errors(source, xy, wanted), starts)
    result["points_off_playfield"] = float(off.mean())
    result["centres_off_playfield"] = float(off[starts].mean())
    return result
