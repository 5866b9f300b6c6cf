"""How the game and its editor read a map: sizes, stacks, combo numbers, the format of times.

The game draws objects that share a place one behind the other, up and to the left. It does that
when it loads a map, so coordinates here and in files are those before the shift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from conventions.arrays import FloatArray

if TYPE_CHECKING:  # constraints and validation need no reader of beatmaps
    from beatmaps.osu_file import Beatmap

STACK_DISTANCE = 3.0  # px; nearer objects are stacked
STACK_STEP = 0.1  # of a circle's radius
FIRST_STACKING_VERSION = 6  # of the present algorithm; older maps use the previous one

Colour = tuple[int, int, int]
DEFAULT_COLOURS: list[Colour] = [(255, 192, 0), (0, 202, 0), (18, 124, 255), (242, 24, 57)]


def circle_radius(circle_size: float) -> float:
    """Radius of a hit circle in osu! pixels."""
    return 54.4 - 4.48 * circle_size


def preempt(approach_rate: float) -> float:
    """How long before its time an object appears, in ms."""
    return 1200 + (120 if approach_rate < 5 else 150) * (5 - approach_rate)


def stack_shifts(beatmap: Beatmap, heads: FloatArray, tails: FloatArray) -> FloatArray:
    """(M,) px by which the game moves each object left and up (negative: right and down).

    heads and tails (M, 2) px are where objects begin and where their paths end.
    """
    return stack_heights(beatmap, heads, tails) * STACK_STEP * circle_radius(beatmap.circle_size)


def stack_heights(beatmap: Beatmap, heads: FloatArray, tails: FloatArray) -> FloatArray:
    """(M,) stack heights, in steps by which the game moves objects; arguments as `stack_shifts`."""
    if beatmap.format_version >= FIRST_STACKING_VERSION:
        return _heights(beatmap, heads, tails)
    return _old_heights(beatmap, heads, tails)


def _threshold(beatmap: Beatmap) -> float:
    """ms within which objects at one place are stacked: a fraction of the time they are visible."""
    # The game takes whole milliseconds here.
    return int(preempt(beatmap.approach_rate)) * beatmap.stack_leniency


def _heights(beatmap: Beatmap, heads: FloatArray, tails: FloatArray) -> FloatArray:
    """Heights in the stacks (M,) since format version 6, computed from the last object on.

    Circles on the end of a slider go below it: their heights are negative.
    """
    objects, threshold = beatmap.objects, _threshold(beatmap)
    # Where an object ends: a slider with an even number of slides ends at its head.
    ends = np.where([[h.kind == "slider" and h.slides % 2 == 1] for h in objects], tails, heads)
    heights = [0] * len(objects)
    for last in range(len(objects) - 1, 0, -1):
        if heights[last] != 0 or objects[last].kind == "spinner":
            continue
        top = last
        for n in range(last - 1, -1, -1):
            under = objects[n]
            if under.kind == "spinner":
                continue
            slider = objects[last].kind == "slider"
            if objects[top].time - (under.time if slider else under.end_time) > threshold:
                break
            if not slider and under.kind == "slider" and _near(ends[n], heads[top]):
                offset = heights[top] - heights[n] + 1
                for j in range(n + 1, last + 1):
                    if _near(ends[n], heads[j]):
                        heights[j] -= offset
                break
            if _near(ends[n] if slider else heads[n], heads[top]):
                heights[n] = heights[top] + 1
                top = n
    return np.array(heights, dtype=np.float64)


def _old_heights(beatmap: Beatmap, heads: FloatArray, tails: FloatArray) -> FloatArray:
    """Heights in the stacks (M,) before format version 6, computed from the first object on."""
    objects, threshold = beatmap.objects, _threshold(beatmap)
    heights = [0] * len(objects)
    for i, hit in enumerate(objects):
        if heights[i] != 0 and hit.kind != "slider":
            continue
        until, under = hit.end_time, 0
        for j in range(i + 1, len(objects)):
            if objects[j].time - threshold > until:
                break
            if _near(heads[j], heads[i]):
                heights[i] += 1
            elif _near(heads[j], tails[i]):
                under += 1
                heights[j] -= under
            else:
                continue
            until = objects[j].time
    return np.array(heights, dtype=np.float64)


def _near(a: FloatArray, b: FloatArray) -> bool:
    """Whether two places (2,) count as the same."""
    return bool((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 < STACK_DISTANCE**2)


def combo_numbers(beatmap: Beatmap) -> list[tuple[int, int]]:
    """(number in its combo from 1, index of its colour) of every object, as the game counts.

    A spinner has number 0 and never starts a combo. The object after a spinner or a break always
    starts one; `HitObject.new_combo` says so already. The first combo has the *second* colour, and
    a combo's skip count is added to the step of 1. The index is below the number of the map's
    colours, or of the game's default colours if it has none.
    """
    count = len(beatmap.colours or DEFAULT_COLOURS)
    numbers = []
    number, colour = 0, 0
    for hit_object in beatmap.objects:
        if hit_object.kind == "spinner":
            numbers.append((0, colour % count))
            continue
        number += 1
        if hit_object.new_combo:
            number = 1
            colour += 1 + hit_object.combo_skip
        numbers.append((number, colour % count))
    return numbers


def format_time(ms: float) -> str:
    """mm:ss:mmm, as the editor copies it: cut to whole ms, not rounded."""
    whole = int(np.floor(abs(ms)))
    sign = "-" if ms < 0 and whole else ""
    return f"{sign}{whole // 60_000:02}:{whole // 1000 % 60:02}:{whole % 1000:03}"
