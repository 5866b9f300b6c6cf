"""What a remap must leave as it was, and what of its source's shapes and stacks it kept."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beatmap import Beatmap
from placement import PLAYFIELD
from sequence import PLAYFIELD_CENTRE, Sequence, slider_topology
from slider_path import PathSet

FloatArray = NDArray[np.float64]

EDITED = re.compile(rb"\s*(Version|BeatmapID|Tags)\s*:")
BODY_SAMPLES = 24
ROUNDING = 0.5  # px; a path is too short for its slider if it is shorter by more
TOUCHING = 1e-6  # px; nearer to the border's far side than this is on it


def skeleton(data: bytes, object_lines: set[int]) -> list[bytes]:
    """The lines of a file without what a remap may change.

    Left out are the metadata lines that it edits, and in hit-object lines (numbers in
    `object_lines`) the coordinates; of a curve its letters and number of points remain.
    """
    lines = []
    for number, line in enumerate(data.splitlines(keepends=True)):
        if number in object_lines:
            fields = line.split(b",")
            fields[:2] = [b"", b""]
            if len(fields) > 5 and b"|" in fields[5]:
                fields[5] = re.sub(rb"-?[\d.]+:-?[\d.]+", b":", fields[5])
            lines.append(b",".join(fields))
        elif not EDITED.match(line):
            lines.append(line)
    return lines


def count_changes(before: Beatmap, after: Beatmap) -> dict[str, int]:
    """What a remap must not change, and how often it did: all should be 0."""
    lines = [
        skeleton(b.raw, {hit_object.line for hit_object in b.objects}) for b in (before, after)
    ]
    pairs = list(zip(before.objects, after.objects, strict=False))
    return {
        "objects_lost": abs(len(before.objects) - len(after.objects)),
        "objects_moved_in_time": sum(
            a.time != b.time or abs(a.end_time - b.end_time) > 0.5 for a, b in pairs
        ),
        "objects_of_other_kind": sum(
            (a.kind, a.slides, a.new_combo) != (b.kind, b.slides, b.new_combo) for a, b in pairs
        ),
        "other_bytes_changed": sum(a != b for a, b in zip(*lines, strict=False))
        + abs(len(lines[0]) - len(lines[1])),
    }


def count_shapes(
    before: Beatmap, source: Sequence, after: Beatmap, written: Sequence
) -> dict[str, int]:
    """How many stacks and slider shapes of the source the written map has.

    A stack is an object that starts where the previous one ends, less than a pixel away; broken,
    it does not. A slider's ratio is that of its path to the pixel length that is played: below 1
    the game extends it straight, `sliders_shortened` counts those where only the remap's needs it.
    `sliders_ratio_kept` have a ratio within 5 % of the source's. `body_points` are 24 a slider.
    """
    stacks = source.object_starts & (source.distances() < 1)
    stacks[0] = False
    result = {
        "stacks": int(stacks.sum()),
        "stacks_broken": int((written.distances()[stacks] >= 1).sum()),
    }
    lengths, old = _path_lengths(before, source)
    _, new = _path_lengths(after, written)
    enough = lengths - ROUNDING
    kept = np.abs(new - old) <= 0.05 * old
    bodies = _bodies(after, written)
    return result | {
        "sliders": len(lengths),
        "sliders_shortened": int(((new < enough) & (old >= enough)).sum()),
        "sliders_ratio_kept": int(kept.sum()),
        "body_points": bodies.shape[0] * bodies.shape[1],
        "body_points_off_playfield": int((beyond_playfield(bodies) > TOUCHING).sum()),
    }


def _path_lengths(beatmap: Beatmap, sequence: Sequence) -> tuple[FloatArray, FloatArray]:
    """(S,) pixel lengths of a map's sliders, and (S,) px that their paths are long."""
    sliders = slider_topology(beatmap, sequence).sliders
    lengths = np.array([length for _, length in sliders], dtype=np.float64)
    return lengths, PathSet(sliders).evaluate(sequence.xy)[1]


def _bodies(beatmap: Beatmap, sequence: Sequence) -> FloatArray:
    """(S, 24, 2) px: points along every slider."""
    return PathSet(slider_topology(beatmap, sequence).sliders).bodies(sequence.xy, BODY_SAMPLES)


def beyond_playfield(xy: FloatArray) -> FloatArray:
    """How far points (..., 2) are off the playfield in px, along the worse axis; 0 on it."""
    return np.maximum(np.maximum(-xy, xy - PLAYFIELD).max(axis=-1), 0.0)


def list_off_playfield(
    before: Beatmap, source: Sequence, after: Beatmap, written: Sequence
) -> list[dict[str, Any]]:
    """Every object of the written map whose centre or slider body leaves the playfield.

    `beyond` and `source_beyond` are px off it; `impossible` says that nothing could be done: the
    slider, as it is shaped, is larger than the playfield, or no place on it has the distance asked
    for from where the previous object ends.
    """
    starts = np.flatnonzero(written.object_starts)
    objects = slider_topology(after, written).objects
    lowest, highest = written.xy[starts].copy(), written.xy[starts].copy()
    bodies, old_bodies = _bodies(after, written), _bodies(before, source)
    lowest[objects], highest[objects] = bodies.min(axis=1), bodies.max(axis=1)
    beyond = np.maximum(beyond_playfield(lowest), beyond_playfield(highest))
    source_beyond = beyond_playfield(source.xy[starts])
    source_beyond[objects] = beyond_playfield(old_bodies).max(axis=1)
    previous = np.concatenate([[PLAYFIELD_CENTRE], written.xy[:-1]])[starts]
    farthest = np.hypot(*np.maximum(previous, PLAYFIELD - previous).T)
    nearest = np.hypot(*np.maximum(np.maximum(-previous, previous - PLAYFIELD), 0.0).T)
    spacing = source.distances()[starts]
    too_large = (highest - lowest > PLAYFIELD).any(axis=1)
    impossible = too_large | (spacing > farthest) | (spacing < nearest)
    return [
        {
            "time": round(after.objects[i].time),
            "kind": after.objects[i].kind,
            "beyond": round(float(beyond[i]), 2),
            "source_beyond": round(float(source_beyond[i]), 2),
            "impossible": bool(impossible[i]),
        }
        for i in np.flatnonzero(beyond > TOUCHING)
    ]
