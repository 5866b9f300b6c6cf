"""What differs between a remap and its source: a mapper's proof that nothing else was touched.

The two files are compared line by line as they are stored, line endings and comments included; only
an object's coordinates, and the metadata that says that the map is machine-made, may differ. When
objects begin and end in the game is compared as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import NamedTuple

from beatmaps.osu_file import SECTIONS, Beatmap, HitObject

LISTED = 50
"""How many changes are printed; more are only counted."""
MAX_ALIGNED = 1000  # lines that are matched to others; comparing more takes minutes
SHOWN = 60  # characters of a line
MEANT = ("Version", "Tags", "BeatmapID", "BeatmapSetID")
OBJECT_FIELDS = (
    "times",
    "kinds and flags",
    "hitsounds",
    "curve types and anchors",
    "slides",
    "slider lengths",
    "ends of spinners",
    "begin and end in play",
)
"""Aspects of hit objects that have rows of their own."""

_NUMBER = r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*"
_COORDINATE = re.compile(_NUMBER)
_POINT = re.compile(rf"{_NUMBER}:{_NUMBER}")
_HONEST_TAG = re.compile(r"osu-diffusion|ai-generated|seed-?\d+")
_TOLERANCE = 1e-3  # ms and px: rounding of sums in another order


class Change(NamedTuple):
    """Something that differs: where (lines from 1, None where there is none), what, and how.

    `meant` is whether a remap is supposed to change it.
    """

    before: int | None
    after: int | None
    what: str
    how: str
    meant: bool


class Line(NamedTuple):
    """A line of a file: its section, its text with the ending, and what is compared of it.

    `key` leaves out what may differ. `hit` is the hit object that the game reads in it.
    """

    number: int
    section: str
    text: str
    key: str
    hit: HitObject | None


@dataclass
class Proof:
    """The comparison: how many lines or objects of each kind there are, and all that differs.

    `moved` of the `objects` have other coordinates.
    """

    counts: dict[str, int]
    objects: int
    moved: int
    changes: list[Change] = field(default_factory=list)

    @property
    def others(self) -> list[Change]:
        """Differences that a remap must not make."""
        return [change for change in self.changes if not change.meant]

    def table(self) -> Iterator[str]:
        """The comparison as one table, and below it the other changes, with line numbers."""
        meant = Counter(change.what for change in self.changes if change.meant)
        other = Counter(change.what for change in self.others)
        width = max(len(what) for what in self.counts) + 1
        yield f"{'lines of':<{width}}{'number':>7}  compared"
        for what in [*self.counts, *(name for name in other if name not in self.counts)]:
            result = f"{other[what]} CHANGED" if other[what] else "the same"
            if meant[what]:
                result += f" but for {meant[what]} meant to change"
            yield f"{what:<{width}}{self.counts.get(what, 0):>7}  {result}"
        moved = f"{self.moved} moved, as they are meant to"
        yield f"{'objects: coordinates':<{width}}{self.objects:>7}  {moved}"
        for change in self.changes:
            if change.meant:
                yield f"meant to change: {_where(change)}: {change.how}"
        yield from self._verdict()

    def _verdict(self) -> Iterator[str]:
        others = self.others
        for change in others[:LISTED]:
            yield f"CHANGED: {_where(change)}, {change.what}: {change.how}"
        if len(others) > LISTED:
            yield f"CHANGED: {len(others) - LISTED} more"
        changes = f"{len(others)} other change{'s' * (len(others) != 1)}"
        yield f"{changes} found" if others else "nothing else changed"


def _where(change: Change) -> str:
    if change.before is None:
        return f"added line {change.after}"
    if change.after is None:
        return f"removed line {change.before}"
    now = f" (now {change.after})" if change.before != change.after else ""
    return f"line {change.before}{now}"


def compare(before: Beatmap, after: Beatmap) -> Proof:
    """All that differs between a beatmap and one that should be a remap of it."""
    lines = [_read_lines(beatmap) for beatmap in (before, after)]
    counts = dict.fromkeys(["the file's head", *(f"[{name}]" for name in SECTIONS)], 0)
    counts |= Counter(line.section for line in lines[0])
    del counts["[HitObjects]"]
    sliders = sum(hit.kind == "slider" for hit in before.objects)
    of_sliders = {"curve types and anchors": sliders, "slides": sliders, "slider lengths": sliders}
    of_others = {"ends of spinners": sum(hit.kind == "spinner" for hit in before.objects)}
    for aspect in OBJECT_FIELDS:
        number = (of_sliders | of_others).get(aspect, len(before.objects))
        counts[f"objects: {aspect}"] = number
    counts["[HitObjects], other lines"] = sum(
        line.section == "[HitObjects]" and line.hit is None for line in lines[0]
    )
    proof = Proof(counts, len(before.objects), 0)
    if before.encoding != after.encoding:
        how = f"{before.encoding} has become {after.encoding}"
        proof.changes.append(Change(1, 1, "the file's head", how, meant=False))
    for old, new in _aligned(*lines):
        proof.moved += _compare_lines(old, new, proof.changes, before, after)
    proof.changes += _in_the_game(before, after)
    return proof


# --- lines ----------------------------------------------------------------------------------------


def _read_lines(beatmap: Beatmap) -> list[Line]:
    hits = {hit.line: hit for hit in beatmap.objects}
    errors = "surrogateescape" if beatmap.encoding == "utf-8" else "surrogatepass"
    texts = [line.decode(beatmap.encoding, errors) for line in beatmap.lines]
    sections, section = [], "the file's head"
    for text in texts:
        body = text.strip()
        if body.startswith("[") and body.endswith("]"):
            section = body
        sections.append(section)
    # Of a repeated key the last line counts, and a remap edits that one.
    edited = {
        name: index
        for index, text in enumerate(texts)
        if sections[index] == "[Metadata]"
        and (name := text.partition(":")[0].strip("\ufeff \t")) in MEANT
    }
    lines = []
    for index, text in enumerate(texts):
        hit = hits.get(index)
        key = text if hit is None else ",".join((*_without_coordinates(text), _rest(text)))
        name = text.partition(":")[0].strip("\ufeff \t")
        if edited.get(name) == index:
            key = name
        lines.append(Line(index + 1, sections[index], text, key, hit))
    return lines


def _without_coordinates(text: str) -> list[str]:
    """The fields of a hit object's line with nothing in the place of its coordinates."""
    fields = _fields(text)
    fields[:2] = ["" if _COORDINATE.fullmatch(value) else value for value in fields[:2]]
    if len(fields) > 5 and "|" in fields[5]:
        tokens = fields[5].split("|")
        fields[5] = "|".join(":" if _POINT.fullmatch(token) else token for token in tokens)
    return fields


def _fields(text: str) -> list[str]:
    return text.partition("//")[0].rstrip().split(",")


def _rest(text: str) -> str:
    """What stands behind the fields of a line: a comment, and its ending."""
    return text[len(text.partition("//")[0].rstrip()) :]


Pair = tuple[Line | None, Line | None]


def _aligned(before: Sequence[Line], after: Sequence[Line]) -> Iterator[Pair]:
    """Which line has become which; None where one was added or removed."""
    start, shorter = 0, min(len(before), len(after))
    while start < shorter and before[start].key == after[start].key:
        start += 1
    tail = 0
    while tail < shorter - start and before[-1 - tail].key == after[-1 - tail].key:
        tail += 1
    yield from zip(before[:start], after[:start], strict=True)
    old, new = before[start : len(before) - tail], after[start : len(after) - tail]
    if len(old) > MAX_ALIGNED or len(new) > MAX_ALIGNED:
        yield from zip_longest(old, new)
    else:
        keys = [[line.key for line in lines] for lines in (old, new)]
        matcher = SequenceMatcher(None, keys[0], keys[1], autojunk=False)
        for _, i, j, k, m in matcher.get_opcodes():
            yield from zip_longest(old[i:j], new[k:m])
    yield from zip(before[len(before) - tail :], after[len(after) - tail :], strict=True)


def _compare_lines(
    old: Line | None, new: Line | None, changes: list[Change], before: Beatmap, after: Beatmap
) -> bool:
    """Adds what differs between two lines to `changes`; returns whether an object has moved."""
    if old is None or new is None:
        changes.append(_one_sided(old, new, before))
        return False
    if old.text == new.text and old.section == new.section:
        return False
    numbers = (old.number, new.number)
    if old.key == new.key in MEANT and old.section == new.section == "[Metadata]":
        meant = _is_meant(old.key, _value(old), _value(new)) and _frame(old) == _frame(new)
        how = f"{old.key} {_value(old)[:SHOWN]!r} has become {_value(new)[:SHOWN]!r}"
        changes.append(Change(*numbers, old.section, how, meant))
        return False
    if old.hit is None or new.hit is None:
        how = f"{_short(old.text)} has become {_short(new.text)}"
        changes.append(Change(*numbers, _kind_of(old), how, meant=False))
        return False
    changes += _compare_fields(old, new, old.hit, new.hit)
    return _coordinates(old.text) != _coordinates(new.text)


def _one_sided(old: Line | None, new: Line | None, before: Beatmap) -> Change:
    """A line that was added or removed; a remap adds metadata that was not there."""
    line = old or new
    assert line is not None
    numbers = (old.number if old else None, new.number if new else None)
    meant = new is not None and new.key in MEANT and _is_meant(new.key, "", _value(new))
    if new is not None and not before.section("Metadata") and new.section == "[Metadata]":
        meant = meant or new.text.strip() in ("", "[Metadata]")
    return Change(*numbers, _kind_of(line), _short(line.text), meant)


def _kind_of(line: Line) -> str:
    """The row of the table in which a line counts."""
    if line.section != "[HitObjects]":
        return line.section
    return "objects: times" if line.hit else "[HitObjects], other lines"


def _short(text: str) -> str:
    """The beginning of a line, for the report."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def _value(line: Line) -> str:
    return line.text.partition(":")[2].strip()


def _frame(line: Line) -> tuple[str, str]:
    """A metadata line without its value: key and blanks before it, and what ends it."""
    start, _, value = line.text.partition(":")
    return start + value[: len(value) - len(value.lstrip(" \t"))], _ending(line.text)


def _ending(text: str) -> str:
    return text[len(text.rstrip("\r\n")) :]


def _is_meant(name: str, old: str, new: str) -> bool:
    """Whether a remap changes a metadata value in this way."""
    if name == "Tags":
        added = new.removeprefix(old).split()
        return new.startswith(old) and all(_HONEST_TAG.fullmatch(tag) for tag in added)
    if name == "Version":
        return new.startswith(f"{old} (AI remap".lstrip())
    return new == {"BeatmapID": "0", "BeatmapSetID": "-1"}[name]


# --- hit objects ----------------------------------------------------------------------------------


def _coordinates(text: str) -> list[str]:
    """What stands in the place of coordinates in a hit object's line."""
    fields = _fields(text)
    points = fields[5].split("|") if len(fields) > 5 and "|" in fields[5] else []
    return [*fields[:2], *(point for point in points if _POINT.fullmatch(point))]


def _compare_fields(old: Line, new: Line, before: HitObject, after: HitObject) -> Iterator[Change]:
    """What differs between the lines of two hit objects apart from coordinates, by field."""
    if _rest(old.text) != _rest(new.text):
        how = f"{_short(_rest(old.text))} has become {_short(_rest(new.text))}"
        yield Change(old.number, new.number, "[HitObjects], other lines", how, meant=False)
    pairs = zip_longest(_without_coordinates(old.text), _without_coordinates(new.text))
    for index, (was, now) in enumerate(pairs):
        if was == now:
            continue
        what = f"objects: {_aspect(index, before.kind)}"
        how = f"at {round(before.time)} ms {_short(was or '')} has become {_short(now or '')}"
        meant = (
            index == 7 and before.kind == "slider" and _only_says_length(was, now, before, after)
        )
        yield Change(old.number, new.number, what, how, meant)


def _aspect(index: int, kind: str) -> str:
    """What a field of a hit object's line, counted from 0, says."""
    if kind == "slider":
        names = {5: "curve types and anchors", 6: "slides", 7: "slider lengths"}
    else:
        names = {5: "ends of spinners"} if kind == "spinner" else {}
    names |= {0: "kinds and flags", 1: "kinds and flags", 2: "times", 3: "kinds and flags"}
    return names.get(index, "hitsounds")


def _only_says_length(
    was: str | None, now: str | None, before: HitObject, after: HitObject
) -> bool:
    """Whether a length that the game did not take from the file is now one that it took."""
    try:
        taken = float(was or "nan") == before.path_length
        written = float(now or "nan")
    except ValueError:
        return False
    return not taken and abs(written - before.path_length) <= _TOLERANCE >= abs(
        after.path_length - before.path_length
    )


def _in_the_game(before: Beatmap, after: Beatmap) -> Iterator[Change]:
    """How objects differ in the game: in their times and kinds."""
    what = "objects: begin and end in play"
    if len(before.objects) != len(after.objects):
        how = f"{len(before.objects)} objects have become {len(after.objects)}"
        yield Change(1, 1, what, how, meant=False)
        return
    for old, new in zip(before.objects, after.objects, strict=True):
        times = (abs(old.time - new.time), abs(old.end_time - new.end_time))
        facts = [(hit.kind, hit.slides, hit.new_combo, hit.combo_skip) for hit in (old, new)]
        if max(times) > _TOLERANCE or facts[0] != facts[1]:
            shown = [
                f"{hit.kind} from {hit.time:g} to {hit.end_time:g} ms"
                f"{', new combo' * hit.new_combo}"
                for hit in (old, new)
            ]
            how = f"{shown[0]} has become {shown[1]}"
            yield Change(old.line + 1, new.line + 1, what, how, meant=False)
