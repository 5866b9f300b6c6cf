"""From sampled coordinates to whole pixels: every slider keeps its shape, every distance is met.

Formats before v128 hold integers. Rounding each point by itself would spoil the spacing that the
sampler kept, so shapes are rounded first, relative to their heads; moved by whole pixels, a
slider's end then moves exactly with its head, and heads can be chosen one after the other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sequence import END, PLAYFIELD_CENTRE, PointType, Sequence, SliderTopology, separate
from slider_path import PathSet

PLAYFIELD = np.array([512.0, 384.0])
ORIGIN = np.array(PLAYFIELD_CENTRE)
BODY_SAMPLES = 16
LENGTHEN_LIMIT = 1.5
_GRID = np.array([(x, y) for x in range(-2, 3) for y in range(-2, 3)], dtype=np.float64)
_WIDE_GRID = np.array([(x, y) for x in range(-6, 7) for y in range(-6, 7)], dtype=np.float64)
_ANGLES = np.linspace(0, 2 * np.pi, 96, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Objects:
    """The M hit objects of a sequence as rigid bodies.

    starts (M,) index of the head's data point; heads (M, 2) px; ends (M, 2) px, the object's last
    data point relative to its head; low and high (M, 2) px, where the head may be so that the body
    stays on the playfield; fixed (M,) those that stay; distances (M,) px wanted from the previous
    end.
    """

    starts: NDArray[np.intp]
    heads: FloatArray
    ends: FloatArray
    low: FloatArray
    high: FloatArray
    fixed: NDArray[np.bool_]
    distances: FloatArray


def place(
    sequence: Sequence,
    topology: SliderTopology,
    xy: FloatArray,
    distances: FloatArray,
    *,
    keep_spacing: bool,
    on_playfield: bool,
    kept: NDArray[np.bool_] | None = None,
) -> FloatArray:
    """Whole-pixel coordinates (T, 2) near `xy` (T, 2); slider ends are where the game has them.

    `distances` (T,) are the wanted distances to the previous data point. With `keep_spacing` every
    object starts as near to its distance from the previous object's end as integers allow; with
    `on_playfield` bodies stay on the playfield where they fit. Spinners and the objects marked in
    `kept` (M,) stay exactly where `sequence` has them, and the others join them.
    """
    paths = PathSet(topology.sliders)
    fixed = sequence.types[sequence.object_starts] == PointType.SPINNER
    if kept is not None:
        fixed = fixed | kept
    fixed_points = fixed[sequence.objects][:, None]  # (T, 1)
    xy = np.where(fixed_points, sequence.xy, xy)
    shaped = _round_shapes(sequence, xy)
    if keep_spacing:
        shaped = _lengthen(sequence, topology, paths, shaped)
    shaped = np.where(fixed_points, sequence.xy, shaped)
    objects, shaped = _rigid_objects(sequence, topology, paths, shaped, distances, xy, fixed)
    if keep_spacing:
        heads = _choose_pixels(objects, _settle(objects, on_playfield), on_playfield)
    else:
        heads = np.rint(objects.heads)
        if on_playfield:
            heads = np.clip(heads, np.ceil(objects.low), np.floor(objects.high))
    moved = heads - shaped[objects.starts]
    return np.where(fixed_points, sequence.xy, shaped + moved[sequence.objects])


def _round_shapes(sequence: Sequence, xy: FloatArray) -> FloatArray:
    """Objects with whole-pixel heads, and anchors whole pixels away from them."""
    heads = xy[np.flatnonzero(sequence.object_starts)][sequence.objects]
    rounded = np.rint(heads) + np.rint(xy - heads)
    return _separated(sequence, rounded, xy - heads + np.rint(heads))


def _separated(sequence: Sequence, rounded: FloatArray, wanted: FloatArray) -> FloatArray:
    """`rounded` (T, 2) with no two neighbouring points of a slider on one pixel."""
    same = (rounded[1:] == rounded[:-1]).all(axis=1) & (sequence.anchors[1:] > 0)
    result = rounded.copy()
    for index in np.unique(sequence.objects[1:][same]):
        mine = np.flatnonzero((sequence.objects == index) & (sequence.anchors != END))
        result[mine] = separate(rounded[mine], wanted[mine])
    return result


def _lengthen(
    sequence: Sequence, topology: SliderTopology, paths: PathSet, xy: FloatArray
) -> FloatArray:
    """Widens sliders whose path came out shorter than their pixel length.

    The game would extend them straight on, which looks wrong and sends their end elsewhere.
    Sliders that are too short in the source too are left alone.
    """
    wanted = np.array([length for _, length in topology.sliders])
    source = paths.evaluate(sequence.xy)[1]
    result = xy
    for turn in range(5):
        natural = paths.evaluate(result)[1]
        short = (natural < wanted) & (source >= wanted - 0.5) & (natural > 1)
        if not short.any():
            break
        # A little more every time, or rounding gives the same pixels again.
        target = 1.005 * wanted + 0.5 * turn
        factor = np.where(short, target / np.maximum(natural, 1), 1.0)
        by_object = np.ones(int(sequence.objects[-1]) + 1)
        by_object[topology.objects] = np.minimum(factor, LENGTHEN_LIMIT)
        heads = result[np.flatnonzero(sequence.object_starts)][sequence.objects]
        scaled = heads + (result - heads) * by_object[sequence.objects][:, None]
        result = _separated(sequence, np.rint(scaled), scaled)
    return result


def _rigid_objects(
    sequence: Sequence,
    topology: SliderTopology,
    paths: PathSet,
    shaped: FloatArray,
    distances: FloatArray,
    xy: FloatArray,
    fixed: NDArray[np.bool_],
) -> tuple[Objects, FloatArray]:
    """The objects at their unrounded heads in `xy`, and `shaped` with its slider ends in place."""
    starts = np.flatnonzero(sequence.object_starts)
    ends = np.zeros((len(starts), 2))
    lowest, highest = np.zeros_like(ends), np.zeros_like(ends)
    shaped = shaped.copy()
    if len(topology.objects):
        shaped[topology.ends] = paths.evaluate(shaped)[0]
        heads = shaped[topology.heads]
        bodies = paths.bodies(shaped, BODY_SAMPLES) - heads[:, None]
        ends[topology.objects] = shaped[topology.ends] - heads
        lowest[topology.objects] = bodies.min(axis=1)
        highest[topology.objects] = bodies.max(axis=1)
    low, high = -lowest, PLAYFIELD - highest
    fits = low <= high  # by axis; a body larger than the playfield keeps its head on it
    low, high = np.where(fits, low, 0.0), np.where(fits, high, PLAYFIELD)
    return Objects(starts, xy[starts], ends, low, high, fixed, distances[starts]), shaped


def _settle(objects: Objects, on_playfield: bool, sweeps: int = 60) -> FloatArray:
    """Heads (M, 2) moved as rigid bodies until distances and playfield agree, unrounded."""
    heads = np.concatenate([ORIGIN[None], objects.heads])
    ends = np.concatenate([np.zeros((1, 2)), objects.ends])
    mobile = np.concatenate([[0.0], (~objects.fixed).astype(np.float64)])[:, None]
    free = mobile[1:] > 0
    for _ in range(sweeps):
        for parity in (0, 1):
            half = slice(parity, None, 2)
            first, second = heads[:-1][half], heads[1:][half]  # views
            masses = np.maximum(mobile[:-1][half] + mobile[1:][half], 1.0)
            offset = second - (first + ends[:-1][half])
            length = np.hypot(*offset.T)[:, None]
            wanted = objects.distances[half][:, None]
            excess = np.where(length > 1e-6, 1 - wanted / np.maximum(length, 1e-6), 0.0)
            correction = offset * excess / masses
            first += correction * mobile[:-1][half]
            second -= correction * mobile[1:][half]
        if on_playfield:
            clipped = np.clip(heads[1:], objects.low, objects.high)
            heads[1:] = np.where(free, clipped, heads[1:])
    return heads[1:]


def _choose_pixels(objects: Objects, targets: FloatArray, on_playfield: bool) -> FloatArray:
    """Whole-pixel heads (M, 2), one after the other, each at its distance from the last end.

    Among the pixels around the target, brought to its distance, the one that meets the distance
    best is taken; nearness to the target decides between equals. Where the playfield's edge leaves
    none, pixels all around the circle of that distance are looked at. Before an object that stays,
    the distance to that one counts as well.
    """
    heads = targets.copy()
    end = ORIGIN
    for i, target in enumerate(targets):
        if not objects.fixed[i]:
            bounds = (np.ceil(objects.low[i]), np.floor(objects.high[i]))
            circles = [(end, objects.distances[i])]
            if i + 1 < len(targets) and objects.fixed[i + 1]:
                circles.append((heads[i + 1] - objects.ends[i], objects.distances[i + 1]))
            heads[i] = _best_pixel(target, circles, bounds if on_playfield else None)
        end = heads[i] + objects.ends[i]
    return heads


Circle = tuple[FloatArray, float]
"""Centre and radius in px: where a head has its distance from another object."""


def _best_pixel(
    target: FloatArray,
    circles: list[Circle],
    bounds: tuple[FloatArray, FloatArray] | None,
) -> FloatArray:
    """The pixel nearest to the (one or two) circles, and then nearest to `target`."""
    end, distance = circles[0]
    offset = target - end
    length = np.hypot(*offset)
    direction = offset / length if length > 1e-6 else np.array([1.0, 0.0])
    near = np.rint(end + direction * distance) + _GRID
    if len(circles) > 1:
        near = np.concatenate([near, np.rint(target) + _WIDE_GRID])
    best, error = _score(near, target, circles, bounds)
    if error > len(circles):
        around, other = _score(np.rint(end + distance * _CIRCLE), target, circles, bounds)
        if len(circles) > 1:
            around, other = _score(around + _WIDE_GRID, target, circles, bounds)
        if other < error:
            best = around
    return best


def _score(
    pixels: FloatArray,
    target: FloatArray,
    circles: list[Circle],
    bounds: tuple[FloatArray, FloatArray] | None,
) -> tuple[FloatArray, float]:
    """The best of `pixels` (K, 2), brought within bounds, and its px off the circles, summed."""
    if bounds is not None and bool((bounds[0] <= bounds[1]).all()):
        pixels = np.clip(pixels, *bounds)
    error = np.zeros(len(pixels))
    for centre, radius in circles:
        error += np.abs(np.hypot(*(pixels - centre).T) - radius)
    away = np.hypot(*(pixels - target).T)
    index = int(np.argmin(error + 0.1 * away))
    return pixels[index], float(error[index])
