"""What a remap must not change, and what it should keep: stacks, slider paths, bounds."""

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from beatmaps.osu_file import Beatmap
from beatmaps.sequence import Sequence
from constraints.bounds import Bounds
from conventions.arrays import FloatArray
from conventions.playfield import PLAYFIELD_CENTRE
from metrics.metric import Metric, Pair, sums
from metrics.objects import crossing_objects, out_of_bounds

TOLERANCE = 1e-3  # px
RATIO_TOLERANCE = 0.05
MAX_LISTED = 200  # objects out of bounds in a report
EDITED = re.compile(rb"\s*(Version|BeatmapID|Tags)\s*:")


def skeleton(data: bytes, object_lines: set[int]) -> list[bytes]:
    """The lines of a file without what a remap may change.

    The metadata lines that it edits are left out, and the coordinates in hit-object lines (line
    numbers in `object_lines`); curve letters and the number of points remain.
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
    """Counts of changes that a remap must not make; all should be 0."""
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


def count_faults(sequence: Sequence, xy: FloatArray) -> dict[str, int]:
    """How many stacks and sliders there are, and how many of them coordinates xy (T, 2) break.

    A stack is an object at distance 0 from the previous one's end. It should be on the pixel
    nearest to that end, as slider ends lie between pixels. Paths are too short if the game must
    extend them and did not need to with the coordinates of `sequence`. Path lengths should be
    within 5 % of what they were.
    """
    stacked = sequence.object_starts & (sequence.distances() == 0)
    stacked[0] = False  # its distance is to the playfield's centre
    apart = np.append(True, np.abs(np.diff(xy, axis=0)).max(axis=1) > 0.5 + TOLERANCE)
    lengths = np.array([length for _, length in sequence.topology.sliders])
    before, after = (sequence.paths.evaluate(points)[1] for points in (sequence.xy, xy))
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


def list_out_of_bounds(
    sequence: Sequence, xy: FloatArray, wanted: FloatArray, bounds: Bounds
) -> list[dict[str, Any]]:
    """Every object whose centre or body is outside with coordinates xy (T, 2).

    `beyond` are px before stacking, `drawn_beyond` after stacking, `source_beyond` in the source.
    `impossible` says that it cannot be avoided: the slider, with this shape, is larger than the
    bounds, or no place in them has the distance `wanted` (T,) from the end of the previous object.
    """
    plain, drawn = out_of_bounds(sequence, xy, bounds)
    source = np.maximum(*out_of_bounds(sequence, sequence.xy, bounds))
    starts = np.flatnonzero(sequence.object_starts)
    low, high = np.array(bounds.low), np.array(bounds.high)
    previous = np.concatenate([[PLAYFIELD_CENTRE], xy[:-1]])[starts]
    farthest = np.hypot(*np.maximum(previous - low, high - previous).T)
    nearest = np.hypot(*np.maximum(np.maximum(low - previous, previous - high), 0.0).T)
    impossible = (wanted[starts] > farthest) | (wanted[starts] >= 0) & (wanted[starts] < nearest)
    topology = sequence.topology
    body_low, body_high = sequence.paths.extents(xy)
    impossible[topology.objects] |= (body_high - body_low > high - low).any(axis=1)
    return [
        {
            "time": round(sequence.beatmap.objects[i].time),
            "kind": sequence.beatmap.objects[i].kind,
            "beyond": round(float(plain[i]), 2),
            "drawn_beyond": round(float(drawn[i]), 2),
            "source_beyond": round(float(source[i]), 2),
            "impossible": bool(impossible[i]),
        }
        for i in np.flatnonzero(np.maximum(plain, drawn) > TOLERANCE)
    ]


# --- the metrics ----------------------------------------------------------------------------------


class Changes(Metric):
    """How often a remap changed something that it must not change."""

    name = "changes"
    columns: ClassVar = {
        "objects_lost": "objects",
        "objects_moved_in_time": "objects",
        "objects_of_other_kind": "objects",
        "other_bytes_changed": "lines",
    }

    def measure(self, pair: Pair) -> dict[str, Any]:
        return count_changes(pair.before.beatmap, pair.after.beatmap)

    def summarise(self, table: pd.DataFrame) -> dict[str, Any]:
        return sums(table, tuple(self.columns))


class OutOfBounds(Metric):
    """Objects out of bounds; the report lists the furthest."""

    name = "out_of_bounds"
    columns: ClassVar = {
        "objects_out_of_bounds": "objects",
        "objects_drawn_out_of_bounds": "objects",
        "objects_out_of_bounds_avoidable": "objects",
    }

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.entries: list[dict[str, Any]] = []

    def measure(self, pair: Pair) -> dict[str, Any]:
        out = list_out_of_bounds(pair.before, pair.after.xy, pair.wanted, pair.bounds)
        file = Path(pair.before.beatmap.name).name
        self.entries += [{"file": file, **entry} for entry in out]
        return {
            "objects_out_of_bounds": sum(entry["beyond"] > 0 for entry in out),
            "objects_drawn_out_of_bounds": sum(entry["drawn_beyond"] > 0 for entry in out),
            "objects_out_of_bounds_avoidable": sum(not entry["impossible"] for entry in out),
        }

    def summarise(self, table: pd.DataFrame) -> dict[str, Any]:
        return sums(table, tuple(self.columns))

    def judge(self) -> dict[str, Any]:
        worst = sorted(self.entries, key=lambda entry: -entry["beyond"])
        return {"out_of_bounds": worst[:MAX_LISTED]}


class Faults(Metric):
    """Stacks and sliders, and how many of them are broken: see `count_faults`."""

    name = "faults"
    columns: ClassVar = {
        "stacks": "stacks",
        "stacks_broken": "stacks",
        "sliders": "sliders",
        "sliders_long_enough": "sliders",
        "paths_too_short": "sliders",
        "paths_of_other_length": "sliders",
    }

    def measure(self, pair: Pair) -> dict[str, Any]:
        return count_faults(pair.before, pair.after.xy)

    def summarise(self, table: pd.DataFrame) -> dict[str, Any]:
        """How many stacks and sliders there are, and the shares that are broken."""
        result: dict[str, Any] = sums(table, ("stacks", "sliders"))
        for part, whole in (
            ("stacks_broken", "stacks"),
            ("paths_too_short", "sliders_long_enough"),
            ("paths_of_other_length", "sliders"),
        ):
            if table[whole].sum():
                result[f"{part}_share"] = float(table[part].sum() / table[whole].sum())
        return result


class Crossings(Metric):
    """Objects that cross a visible one by a slider's body alone, in the map and in its remap."""

    name = "crossings"
    columns: ClassVar = {
        "objects": "objects",
        "source_objects_crossing": "objects",
        "objects_crossing": "objects",
    }

    def measure(self, pair: Pair) -> dict[str, Any]:
        return {
            "objects": len(pair.before.beatmap.objects),
            "source_objects_crossing": int(crossing_objects(pair.before).sum()),
            "objects_crossing": int(crossing_objects(pair.after).sum()),
        }

    def summarise(self, table: pd.DataFrame) -> dict[str, Any]:
        """Shares of all objects."""
        shares = table[["source_objects_crossing", "objects_crossing"]].sum()
        shares = shares / table["objects"].sum()
        return {f"{name}_share": float(share) for name, share in shares.items()}
