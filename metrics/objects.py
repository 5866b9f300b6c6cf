"""What can be measured of every hit object of a map: movement, places, surroundings, shapes.

Sampling marks unusual objects by it, so nothing here needs pandas, which is slow to import.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beatmaps.game_rules import STACK_DISTANCE, circle_radius, preempt, stack_shifts
from beatmaps.osu_file import Beatmap
from beatmaps.sequence import END, PointType, Sequence
from constraints.bounds import Bounds
from constraints.lines import DIRECTION_SAMPLES, signed_turn
from conventions.arrays import FloatArray
from conventions.playfield import PLAYFIELD

MIN_STEP = 5.0  # px; shorter steps have no direction that a player sees
MIN_TURN = 0.05  # rad; on whole pixels, less is going straight on
MAX_GAP = 4.0  # beats; over a longer gap two objects are not one movement
LOOK_BACK = 16  # objects that are looked at for repeated places
SPACING_BINS = (40.0, 80.0, 120.0, 200.0)  # px
RHYTHM_BINS = (0.3, 0.6, 1.1)  # beats: 1/4, 1/2, 1/1 and more


class Feature(NamedTuple):
    """What a column of `measure_objects` is: its unit, and whether it is an angle on a circle."""

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
"""Columns that a remap gets from its source, or should: px and beats from the previous object."""


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


def measure_objects(sequence: Sequence) -> dict[str, FloatArray]:
    """(M,) each of the columns of `FEATURES` and `CONTEXT`, NaN where undefined.

    Also `visible_lag`: how many objects before is the one that `visible_distance` is measured from.
    """
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
    return columns


def condition_bins(spacing: FloatArray, gap: FloatArray) -> NDArray[np.intp]:
    """(M,) number of the bin of spacing (px) and rhythm (beats) of each object; -1: of none."""
    bins = np.digitize(spacing, SPACING_BINS) * (len(RHYTHM_BINS) + 1) + np.digitize(
        gap, RHYTHM_BINS
    )
    return np.where(~np.isnan(spacing) & (gap <= MAX_GAP), bins, -1)


def _objects(sequence: Sequence) -> _Objects:
    beatmap, sliders = sequence.beatmap, sequence.topology.objects
    heads = sequence.xy[np.flatnonzero(sequence.object_starts)].copy()
    kinds = np.array([hit.kind for hit in beatmap.objects], dtype=object)
    heads[kinds == "spinner"] = np.nan
    bodies = np.repeat(heads[:, None], DIRECTION_SAMPLES, axis=1)
    if len(sliders):
        bodies[sliders] = sequence.paths.bodies(sequence.xy, DIRECTION_SAMPLES)
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
    """`values` (M, ...) of the object `lag` before each; NaN for the first ones."""
    result = np.full_like(values, np.nan)
    result[lag:] = values[:-lag]
    return result


def _length(vectors: FloatArray) -> FloatArray:
    """Lengths (...) of vectors (..., 2)."""
    return np.hypot(vectors[..., 0], vectors[..., 1])


def _movement(objects: _Objects) -> dict[str, FloatArray]:
    """Spacing and the angles between one step and the next.

    A step goes from the end of an object to the head of the next one. `relative_turn` is an angle
    given the sense of the turn before it: positive goes on turning the same way, negative turns
    back; alone, the sign of an angle means nothing, as maps can be mirrored, and straight on
    and straight back have none. `jump_asymmetry` is 0 where a step undoes the one before the last,
    as in rectangles and to and fro.
    """
    steps = objects.heads - _earlier(objects.ends, 1)
    spacing = _length(steps)
    steps[~(objects.gaps <= MAX_GAP)] = np.nan
    before = _earlier(steps, 2)
    both = _length(steps) + _length(before)
    asymmetry = _length(steps + before) / np.where(both >= MIN_STEP, both, np.nan)
    steps[~(spacing >= MIN_STEP)] = np.nan  # no direction that a player sees
    following = np.full_like(steps, np.nan)
    following[:-1] = steps[1:]
    turn = np.where(objects.is_circle, signed_turn(steps, following), np.nan)
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
        "flow_into_slider": np.abs(signed_turn(steps, enter)),
        "flow_out_of_slider": np.abs(signed_turn(leave, following)),
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


def _seen_before(
    objects: _Objects, lead: float, lag: int
) -> tuple[NDArray[np.bool_], FloatArray, FloatArray]:
    """Of the object `lag` before each: whether it is still seen when this one appears, its body.

    An object appears `lead` ms before its time. Third, how far it is from this one's head in px.
    """
    seen = _earlier(objects.end_times, lag) > objects.times - lead
    bodies = _earlier(objects.bodies, lag)
    return seen, bodies, _length(objects.heads[:, None] - bodies).min(axis=1)


def _surroundings(objects: _Objects, beatmap: Beatmap) -> dict[str, FloatArray]:
    """How near a head is to objects that are on screen when it is hit or appears.

    An object appears `preempt` ms before its time; earlier ones that end after that are seen with
    it. Stacked ones lie within 3 px; others nearer than a diameter overlap. The previous object
    counts for stacks alone: how far away it is, is the spacing.
    """
    radius, lead = circle_radius(beatmap.circle_size), preempt(beatmap.approach_rate)
    stacked = np.full(len(objects.heads), np.nan)
    nearest = np.full(len(objects.heads), np.nan)
    nearest_lag = np.full(len(objects.heads), np.nan)
    for lag in range(1, LOOK_BACK + 1):
        seen, _, away = _seen_before(objects, lead, lag)
        away[~seen] = np.nan
        on_top = np.where(np.isnan(away), np.nan, away < STACK_DISTANCE)
        stacked = np.fmax(stacked, on_top)
        if lag > 1:
            apart = np.where(away < STACK_DISTANCE, np.nan, away)
            nearest_lag[(apart < nearest) | (np.isnan(nearest) & ~np.isnan(apart))] = lag
            nearest = np.fmin(nearest, apart)
    return {
        "stacked": stacked,
        "visible_distance": nearest / radius,
        "visible_lag": nearest_lag,
        "overlapping": np.where(np.isnan(nearest), np.nan, nearest < 2 * radius),
    }


def crossing_objects(sequence: Sequence) -> NDArray[np.bool_]:
    """(M,) objects that cross an earlier one that is still seen, by a slider's body alone.

    A slider's body is nearer than a diameter to the earlier object's, all along both, while its
    head is not; or an object lies on the slider just before it. Neighbours count where the one
    ends, and its path ends, a diameter or more from the other's head.
    """
    objects = _objects(sequence)
    diameter = 2 * circle_radius(sequence.beatmap.circle_size)
    lead = preempt(sequence.beatmap.approach_rate)
    crossing = np.zeros(len(objects.heads), dtype=bool)
    for lag in range(1, LOOK_BACK + 1):
        seen, earlier, away = _seen_before(objects, lead, lag)
        if lag == 1:
            for end in (earlier[:, -1], _earlier(objects.ends, 1)):
                seen &= _length(objects.heads - end) >= diameter
        over = seen & (away < diameter)
        crossing |= over & (lag == 1)
        mine = np.flatnonzero(seen & objects.is_slider & ~over)
        gaps = _length(objects.bodies[mine, :, None] - earlier[mine, None])
        crossing[mine] |= gaps.min(axis=(1, 2)) < diameter
    return crossing


def _slider_shapes(objects: _Objects) -> dict[str, FloatArray]:
    """Shape of the played path: total and sharpest turning, one-sidedness, straightness.

    `slider_curl` is |sum of turns| / sum of |turns|: 1 for an arc, 0 for an S or a zigzag.
    `chord_over_length` is the bounded form of length over chord.
    """
    chords = np.diff(objects.bodies, axis=1)  # (M, B - 1, 2)
    turns = np.nan_to_num(signed_turn(chords[:, :-1], chords[:, 1:]))
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
    turns = np.abs(signed_turn(chords[:-1], chords[1:]))
    same = (owner[2:] == owner[:-2]) & ~np.isnan(turns)
    sums = np.bincount(owner[1:-1][same], turns[same], count)
    numbers = np.bincount(owner[1:-1][same], minlength=count)
    result: FloatArray = sums / np.where(numbers > 0, numbers, np.nan)
    return result


def out_of_bounds(
    sequence: Sequence, xy: FloatArray, bounds: Bounds
) -> tuple[FloatArray, FloatArray]:
    """(M,) px by which each object, centre and body, is outside: unstacked, and as it is drawn.

    Spinners, which are where they always are, count as inside.
    """
    starts = np.flatnonzero(sequence.object_starts)
    stops = np.append(starts[1:], len(sequence)) - 1
    low, high = xy[starts], xy[starts]
    topology = sequence.topology
    body_low, body_high = sequence.paths.extents(xy)
    low[topology.objects] = np.minimum(low[topology.objects], body_low)
    high[topology.objects] = np.maximum(high[topology.objects], body_high)
    shift = stack_shifts(sequence.beatmap, xy[starts], xy[stops])[:, None]
    movable = sequence.types[starts] != PointType.SPINNER
    plain, drawn = (
        np.maximum(bounds.excess(low - by), bounds.excess(high - by)) * movable
        for by in (0.0, shift)
    )
    return plain, drawn
