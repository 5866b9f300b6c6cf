"""Which objects of a beatmap are remapped: a range of time, a kind, what the editor selected.

Times and selections are written as osu!'s editor copies them: `00:51:123 (1,2,3) -` is the time of
the first selected object and the combo numbers of all, in the order of time.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from beatmaps.game_rules import combo_numbers, format_time
from beatmaps.osu_file import Beatmap
from beatmaps.sequence import Sequence
from conventions.errors import FieldError

Mask = NDArray[np.bool_]  # (M,) over a beatmap's objects

_STAMP = re.compile(
    r"(?P<sign>-?)(?P<minutes>\d{1,4}):(?P<seconds>[0-5]?\d)[:.](?P<ms>\d{3})"
    r"(?:\s*\((?P<numbers>[^)]*)\))?",
    re.ASCII,
)
KINDS = {"sliders": "slider", "circles": "circle"}
NEARBY = 6  # objects that an error message lists


@dataclass(frozen=True)
class Selection:
    """What the mapper chose; the defaults choose everything.

    time_start and time_end are ms, both included; align widens ("grow") or narrows ("shrink") that
    range to whole combos; only is a key of `KINDS`; objects holds editor selections of what is
    remapped, none for all, keep those of what stays.
    """

    time_start: float | None = None
    time_end: float | None = None
    align: Literal["off", "grow", "shrink"] = "off"
    only: str | None = None
    keep: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        start, end = self.time_start, self.time_end
        if start is not None and end is not None and start > end:
            raise FieldError(
                "{time_start} {0} is after {time_end} {1}", format_time(start), format_time(end)
            )
        if self.align != "off" and start is None and end is None:
            raise FieldError(
                "{align_combos} {0} moves the ends of a range: give {time_start} or {time_end}",
                self.align,
            )

    @property
    def is_everything(self) -> bool:
        """Whether nothing was chosen, so that the whole map is meant."""
        return self == Selection()

    def describe(self) -> str:
        """A few words for the name of a result; empty for everything."""
        parts = [] if self.only is None else [self.only]
        if self.time_start is not None:
            parts.append(f"from {format_time(self.time_start)}")
        if self.time_end is not None:
            parts.append(f"to {format_time(self.time_end)}")
        if self.objects:
            parts.append("objects " + " ".join(" ".join(self.objects).split()))
        if self.keep:
            parts.append("but " + " ".join(" ".join(self.keep).split()))
        return " ".join(parts)


def parse_time(text: str) -> float:
    """ms from "mm:ss:mmm", as the editor copies it, or from a number of ms; else ValueError."""
    stamp = _STAMP.match(text.strip())
    if stamp:
        return _milliseconds(stamp)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(f"{text!r} is no time: give mm:ss:mmm, such as 00:51:123, or ms")
    return value


def parse_range(text: str) -> tuple[float, float]:
    """(start, end) ms of two times as the editor copies them, "00:12:345 - 00:20:000".

    One time alone stands for all from there on. ValueError for anything else.
    """
    stamps = list(_STAMP.finditer(text))
    if len(stamps) not in (1, 2):
        raise ValueError(f"{text!r} is no range: give two times, such as 00:12:345 - 00:20:000")
    start, *rest = map(_milliseconds, stamps)
    end = rest[0] if rest else float("inf")
    if start > end:
        raise ValueError(f"{text!r} is no range: its end is before its start")
    return start, end


def choose_objects(beatmap: Beatmap, selection: Selection) -> Mask:
    """(M,) true for the objects to remap; spinners never are.

    ValueError where nothing is left to remap, or where an editor selection fits no objects; the
    message says which objects are near.
    """
    times = np.floor([hit.time for hit in beatmap.objects])  # the editor cuts fractions
    start, end = selection.time_start, selection.time_end
    chosen = (times >= (-np.inf if start is None else np.floor(start))) & (
        times <= (np.inf if end is None else np.floor(end))
    )
    if selection.align != "off":
        chosen = _align(chosen, combo_starts(beatmap), grow=selection.align == "grow")
    kinds = np.array([hit.kind for hit in beatmap.objects])
    chosen &= kinds != "spinner"
    if selection.only is not None:
        chosen &= kinds == KINDS[selection.only]
    if selection.objects:
        chosen &= _marked(beatmap, selection.objects, "objects")
    chosen &= ~_marked(beatmap, selection.keep, "keep_objects")
    if not chosen.any():
        first, last = (format_time(beatmap.objects[i].time) for i in (0, -1))
        raise ValueError(
            f"nothing to remap {selection.describe() or 'but spinners'}: "
            f"{beatmap.name} has {len(beatmap.objects)} objects from {first} to {last}"
        )
    return chosen


def _marked(beatmap: Beatmap, texts: tuple[str, ...], field: str) -> Mask:
    """(M,) true for the objects of the editor selections in `texts`."""
    marked = np.zeros(len(beatmap.objects), dtype=bool)
    for text in texts:
        marked[selected_objects(beatmap, text, field)] = True
    return marked


def combo_starts(beatmap: Beatmap) -> NDArray[np.intp]:
    """Indices of the objects that begin a combo, the first object's among them."""
    starts = [i for i, (number, _) in enumerate(combo_numbers(beatmap)) if number == 1]
    return np.array(sorted({0, *starts}), dtype=np.intp)


def _align(chosen: Mask, starts: NDArray[np.intp], *, grow: bool) -> Mask:
    """`chosen` with whole combos: all that it touches, or only those that are in it completely."""
    aligned = chosen.copy()
    for low, high in pairwise([*starts.tolist(), len(chosen)]):
        combo = chosen[low:high]
        aligned[low:high] = combo.any() if grow else combo.all()
    return aligned


def selected_objects(beatmap: Beatmap, text: str, field: str = "keep_objects") -> list[int]:
    """Indices of the objects of the editor selections in `text`, any number of them.

    Like the editor, takes for each combo number the first object after the one before; the first
    must be at the time given. A time without numbers stands for the objects at that time. Errors
    name the `field` that the text is of.
    """
    stamps = list(_STAMP.finditer(text))
    if not stamps:
        raise FieldError(
            f"{{{field}}} {{0!r}}: give what osu!'s editor copies, such as '00:51:123 (1,2) -'",
            text,
        )
    return [index for stamp in stamps for index in _resolve(beatmap, stamp, field)]


def editor_selection(beatmap: Beatmap, indices: list[int]) -> str:
    """What the editor copies when the objects of `indices`, in order, are selected.

    Pasted into the editor it selects them. Where other objects have the same combo numbers it
    could select those instead: then it is the last object alone.
    """
    numbers = editor_numbers(beatmap)
    listed = ",".join(str(numbers[index]) for index in indices)
    text = f"{format_time(beatmap.objects[indices[0]].time)} ({listed}) - "
    if len(indices) == 1 or selected_objects(beatmap, text) == indices:
        return text
    return editor_selection(beatmap, indices[-1:])


def _milliseconds(stamp: re.Match[str]) -> float:
    value = 60_000 * int(stamp["minutes"]) + 1000 * int(stamp["seconds"]) + int(stamp["ms"])
    return float(-value if stamp["sign"] else value)


def _resolve(beatmap: Beatmap, stamp: re.Match[str], field: str) -> list[int]:
    """Indices of the objects of one editor selection."""

    def no_match(why: str, time: float) -> FieldError:
        near = _listed_near(beatmap, time)
        return FieldError(f"{{{field}}} {{0!r}}: {{1}}; near it are {{2}}", stamp[0], why, near)

    time = _milliseconds(stamp)
    times = [float(np.floor(hit.time)) for hit in beatmap.objects]
    at_time = [i for i, t in enumerate(times) if t == time]
    if stamp["numbers"] is None:
        if not at_time:
            raise no_match("no object is there", time)
        return at_time
    numbers = _combo_list(stamp, field)
    listed = editor_numbers(beatmap)
    first = next((i for i in at_time if listed[i] == numbers[0]), None)
    if first is None:
        raise no_match(f"no object {numbers[0]} is there", time)
    found = [first]
    for number in numbers[1:]:
        later = range(found[-1] + 1, len(times))
        index = next((i for i in later if listed[i] == number), None)
        if index is None:
            raise no_match(f"no object {number} follows", times[found[-1]])
        found.append(index)
    return found


def editor_numbers(beatmap: Beatmap) -> list[int]:
    """The combo numbers that the editor copies: a spinner, which shows none, has the next one."""
    numbers: list[int] = []
    for number, _ in combo_numbers(beatmap):
        numbers.append(number or (numbers[-1] if numbers else 0) + 1)
    return numbers


def _combo_list(stamp: re.Match[str], field: str) -> list[int]:
    """The combo numbers in the parentheses."""
    try:
        return [int(part) for part in stamp["numbers"].split(",")]
    except ValueError:
        hint = " (that is a selection of osu!mania)" if "|" in stamp["numbers"] else ""
        raise FieldError(
            f"{{{field}}} {{0!r}}: give combo numbers such as (1,2,3){{1}}", stamp[0], hint
        ) from None


def _listed_near(beatmap: Beatmap, time: float) -> str:
    """The objects around a time, for an error."""
    numbers = editor_numbers(beatmap)
    at = bisect_left([hit.time for hit in beatmap.objects], time)
    near = range(max(0, at - NEARBY // 2), min(len(numbers), at + NEARBY // 2))
    return ", ".join(f"{format_time(beatmap.objects[i].time)} ({numbers[i]})" for i in near)


def hull(chosen: Mask, margin: int, points: NDArray[np.int32]) -> tuple[int, int]:
    """The range [first, stop) of objects that sampling must see.

    It holds all of `chosen` (M,), and whole objects with `margin` data points on either side;
    `points` (T,) are the object indices of the data points.
    """
    inside = np.flatnonzero(chosen[points])
    low = max(int(inside[0]) - margin, 0)
    high = min(int(inside[-1]) + margin, len(points) - 1)
    return int(points[low]), int(points[high]) + 1


def excerpt(sequence: Sequence, first: int, stop: int) -> tuple[Sequence, slice]:
    """The objects first to stop - 1 as a map of their own, and the slice of their data points."""
    low, high = np.searchsorted(sequence.objects, (first, stop)).tolist()
    points = slice(low, high)
    part = Sequence(
        times=sequence.times[points],
        xy=sequence.xy[points],
        types=sequence.types[points],
        objects=sequence.objects[points] - np.int32(first),
        anchors=sequence.anchors[points],
        beatmap=replace(sequence.beatmap, objects=sequence.beatmap.objects[first:stop]),
    )
    return part, points
