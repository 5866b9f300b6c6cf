"""Sliders of maps that have only their rhythm: a length, but all points in one place.

Such a slider has no anchors that could be placed. It gets some, for a remap that places objects by
their rhythm alone: a short one a straight line, a longer one a gentle curve. A remap that keeps
distances keeps those between a slider's points, too, and a straight row's leave no room to bend.
"""

import math

import numpy as np

from beatmaps.osu_file import Beatmap, HitObject, lossless, parse_beatmap
from beatmaps.selection import Mask

SHAPELESS_PX = 1.0
"""A path shorter than this has no direction."""
CURVED_FROM_PX = 60.0
"""From this length on a slider gets an inner anchor, so that it can be a curve."""
HEIGHT = 0.3
"""Of the inner anchor over the chord, in chords: about as bent as sliders are on average."""
BENT = 1.0571
"""How many chords long a quadratic Bezier curve of that height is."""


def is_shapeless(hit: HitObject) -> bool:
    """Whether an object is a slider that has a length, but all its points in one place."""
    if hit.kind != "slider" or (hit.length or 0.0) < SHAPELESS_PX:
        return False
    return float(np.ptp(hit.points, axis=0).max()) < SHAPELESS_PX


def with_shapes(beatmap: Beatmap, chosen: Mask) -> Beatmap:
    """The beatmap with a shape for each shapeless slider of the `chosen` (M,) objects.

    The same beatmap if there are none. In the file only their curves change. In the game they then
    last as long as their lengths say; before, a path of no length takes no time.
    """
    found = [hit for hit, mine in zip(beatmap.objects, chosen, strict=True) if mine]
    found = [hit for hit in found if is_shapeless(hit)]
    if not found:
        return beatmap
    lines, errors = list(beatmap.lines), lossless(beatmap.encoding)
    for hit in found:
        body = beatmap.line_text(hit.line)
        fields = body.split(",")
        fields[5] = _curve(hit)
        text = lines[hit.line].decode(beatmap.encoding, errors)
        shaped = ",".join(fields) + text[len(body) :]
        lines[hit.line] = shaped.encode(beatmap.encoding, errors)
    return parse_beatmap(b"".join(lines), beatmap.name)


def _curve(hit: HitObject) -> str:
    """A curve to the right of the head that is as long as the slider."""
    x, y, length = round(hit.x), round(hit.y), hit.length or 0.0
    if length < CURVED_FROM_PX:
        return f"L|{x + max(1, round(length))}:{y}"
    chord = math.ceil(length / BENT)
    return f"B|{x + chord // 2}:{y + math.ceil(HEIGHT * chord)}|{x + chord}:{y}"
