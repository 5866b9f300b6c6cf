"""A `.osu` file as a lossless document: read the hit objects, patch their coordinates.

Reading follows osu!lazer's decoder. Each line is checked and brought into a canonical form here;
the package `slider` parses that text. What it cannot represent (fractions, timing, curves, end
times) comes from the checked line. Writing never prints a parsed beatmap: it replaces single fields
in the original bytes, so that everything that is not understood here stays.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property
from itertools import groupby
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beatmaps.slider_path import (
    MATRIX_POINTS,
    PathSet,
    Segment,
    SliderPath,
    flatten,
    split_segments,
)
from conventions.arrays import FloatArray
from conventions.whole_files import replacing

if TYPE_CHECKING:
    import slider.beatmap

# Our own limits, far above any map that people play, to bound work and memory.
MAX_FILE_BYTES = 64 * 2**20
MAX_LINES = 500_000
MAX_LINE_BYTES = 4 * 2**20
MAX_OBJECTS = 50_000
MAX_TIMING_LINES = 100_000
MAX_UNORDERED_LINES = 10_000  # timing lines that come after one of a later time
MAX_POINTS = 500_000  # of all sliders; a curve letter counts as `LETTER_POINTS`
LETTER_POINTS = 20
MAX_CURVE_WORK = 5e7  # operations to halve once all smooth curves with many points or a high degree

# Limits of the game.
MAX_COORDINATE = 131072  # the game drops an object with a larger coordinate or length
MAX_TIME = 2**31 - 1
MAX_SLIDES = 9000
MIN_VELOCITY, MAX_VELOCITY = 0.1, 10.0  # of a slider, as a multiplier
LATEST_STABLE_VERSION = 14  # what the game assumes for a file without a version line
FIRST_LAZER_VERSION = 128  # from here on coordinates may have fractions
EARLY_VERSION_OFFSET = 24.0  # ms by which the game delays everything in files before v5

SECTIONS = (
    "General",
    "Editor",
    "Metadata",
    "Difficulty",
    "Events",
    "TimingPoints",
    "Colours",
    "HitObjects",
)
_HEADERS = {f"[{name}]" for name in SECTIONS}
_MODES = {1: "osu!taiko", 2: "osu!catch", 3: "osu!mania"}
_CIRCLE, _SLIDER, _NEW_COMBO, _SPINNER, _COMBO_SKIP, _HOLD = 1, 2, 4, 8, 0b01110000, 128
_VERSION_LINE = re.compile(r"\ufeff?\s*osu file format v\s*([+-]?\d{1,9})\s*", re.ASCII)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
# str.splitlines, which slider uses, also splits at these; the game does not.
_EXTRA_LINE_BREAKS = re.compile("[\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r\n]")

NO_POINTS: NDArray[np.float64] = np.empty((0, 2))
Letters = tuple[tuple[int, str], ...]  # (index of a slider's point, curve letter from there on)
Kind = Literal["circle", "slider", "spinner"]


class BeatmapError(ValueError):
    """A file that cannot be used; the message says what, where and what to do."""


class LeftOutError(BeatmapError):
    """A valid beatmap that is left out."""


class GameModeError(LeftOutError):
    """A beatmap of another game mode, which this program does not handle."""


def curve_segments(letters: Letters, points: FloatArray, version: int) -> list[Segment]:
    """Segments of a slider's (n, 2) points; each letter's curve type holds from its point on."""
    segments = []
    stops = [index for index, _ in letters[1:]] + [len(points)]
    for (start, letter), stop in zip(letters, stops, strict=True):
        joined = stop < len(points)  # the point at the next letter ends this curve as well
        part = points[start : stop + joined]
        segments += split_segments(letter, part, version=version, joined=joined)
    return segments


# --- the document ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class HitObject:
    """One hit object as the game sees it, unstacked.

    `time` and `end_time` are in ms. `new_combo` is the combo the player sees: the flag of the
    file, or forced after a spinner, after a break and for the first object. A slider's `points`
    (n, 2) are the control points in file order, head first, doubled points included;
    `letters` gives the curve letter of the file for every point that has one, `((0, "B"),)` for
    an ordinary slider. `length` is in px, None when the game takes the path's natural length;
    `path_length` is the length in px that the game uses.
    """

    line: int
    kind: Kind
    time: float
    end_time: float
    x: float
    y: float
    new_combo: bool
    combo_skip: int
    format_version: int
    points: FloatArray = dataclass_field(default_factory=lambda: NO_POINTS)
    letters: Letters = ()
    slides: int = 1
    length: float | None = None
    path_length: float = 0.0

    @property
    def letter(self) -> str:
        """The slider's first curve letter, such as "B"; empty for circles and spinners."""
        return self.letters[0][1] if self.letters else ""

    @property
    def span_duration(self) -> float:
        """Milliseconds that one slide takes; the whole duration for other objects."""
        return (self.end_time - self.time) / self.slides

    def path(self) -> SliderPath:
        """The path of a slider, trimmed or extended to its pixel length."""
        return SliderPath(flatten(self.segments()), self.length)

    def segments(self) -> list[Segment]:
        """The slider's path split at curve letters and red anchors, as the game splits it."""
        assert self.kind == "slider"
        return curve_segments(self.letters, self.points, self.format_version)


class TimingLine(NamedTuple):
    """A line of [TimingPoints] that the game accepts: index of the line in the file, ms, ms a beat.

    A green line's `beat_length` is -100 / velocity in most files; NaN and positive numbers occur.
    """

    line: int
    time: float
    beat_length: float
    red: bool

    @property
    def velocity(self) -> float:
        """Slider velocity multiplier that the line asks for, in [0.1, 10]."""
        velocity = 100.0 / -self.beat_length if self.beat_length < 0 else 1.0
        return min(max(velocity, MIN_VELOCITY), MAX_VELOCITY)


@dataclass(frozen=True)
class Timing:
    """Beat lengths (ms a beat) and slider velocities (multipliers) over time, as in the game."""

    beat_times: Sequence[float]
    beat_lengths: Sequence[float]
    velocity_times: Sequence[float]
    velocities: Sequence[float]

    def beat_length_at(self, time: float) -> float:
        """Milliseconds a beat; before the first red line, that line's; without red lines, 1000."""
        if not self.beat_times:
            return 1000.0
        return self.beat_lengths[max(bisect_right(self.beat_times, time) - 1, 0)]

    def slider_velocity_at(self, time: float) -> float:
        """Slider velocity multiplier in [0.1, 10]; 1 before the first line."""
        index = bisect_right(self.velocity_times, time) - 1
        return self.velocities[index] if index >= 0 else 1.0


@dataclass(frozen=True, eq=False)
class Beatmap:
    """A beatmap and the bytes it came from.

    `lines` are the lines of `raw` with their endings, `objects` are in the game's order (by time,
    equal times in file order), `skipped` lists (line number from 1, reason) of every hit object
    line that the game would drop too; such lines stay in the file untouched. `timing_lines` are in
    file order. `artist` and `title` are the romanised ones, `version` is the name of the
    difficulty, IDs of 0 and below say that it was never submitted. `breaks` are (start, end) in
    ms, `colours` the combo colours (R, G, B). `sample_set` and `sample_volume` are what the game
    takes for timing lines that have none of their own.
    """

    name: str
    raw: bytes
    encoding: str
    lines: list[bytes]
    objects: list[HitObject]
    skipped: list[tuple[int, str]]
    timing: Timing
    timing_lines: list[TimingLine]
    breaks: list[tuple[float, float]]
    colours: list[tuple[int, int, int]]
    format_version: int
    artist: str
    title: str
    creator: str
    version: str
    tags: list[str]
    audio_filename: str
    beatmap_id: int
    set_id: int
    circle_size: float
    approach_rate: float
    overall_difficulty: float
    hp_drain_rate: float
    stack_leniency: float
    slider_multiplier: float
    sample_set: str
    sample_volume: int

    @property
    def has_song(self) -> bool:
        """Whether the map names a song; "virtual" says that all sounds are its hitsounds."""
        return self.audio_filename.casefold() not in ("", "virtual")

    @cached_property
    def md5(self) -> str:
        """MD5 of the file, by which the game identifies it."""
        return hashlib.md5(self.raw, usedforsecurity=False).hexdigest()

    def line_text(self, index: int) -> str:
        """A line, counted from 0, without comment and line ending; encoding it is lossless."""
        text = self.lines[index].decode(self.encoding, lossless(self.encoding))
        return text.partition("//")[0].rstrip()

    def beat_length_at(self, time: float) -> float:
        """Milliseconds a beat at `time` ms."""
        return self.timing.beat_length_at(time)

    def slider_velocity_at(self, time: float) -> float:
        """Slider velocity multiplier at `time` ms."""
        return self.timing.slider_velocity_at(time)

    def section(self, name: str) -> list[str]:
        """The lines of a section, such as "TimingPoints", without comments and blank lines."""
        _, texts = _split_lines(self.raw, self.encoding, self.name)
        return [text for _, text in _sections(texts)[name]]


# --- reading --------------------------------------------------------------------------------------


def read_beatmap(path: str | os.PathLike[str]) -> Beatmap:
    """Read a `.osu` file; `BeatmapError` if there is no osu!standard beatmap in it."""
    path = Path(path)
    try:
        if path.is_dir():
            raise BeatmapError(f"{path} is a folder: name one .osu file in it")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BeatmapError(
                f"{path} has {size} bytes, more than the limit of {MAX_FILE_BYTES}: "
                "is it really a .osu file?"
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise BeatmapError(f"{path} does not exist: check the path") from None
    except OSError as error:
        reason = error.strerror or error
        raise BeatmapError(f"{path} cannot be read: {reason}: check the file") from error
    return parse_beatmap(data, str(path))


def parse_beatmap(data: bytes, name: str) -> Beatmap:
    """Parse the bytes of a `.osu` file; `name` is what error messages call it.

    Raises `BeatmapError` for an empty file, something that is not a beatmap, another game mode
    and a beatmap in which the game finds no hit object.
    """
    if not data.strip(b"\0 \t\r\n"):
        raise BeatmapError(f"{name} is empty: choose another file")
    if len(data) > MAX_FILE_BYTES:
        raise BeatmapError(f"{name} has {len(data)} bytes, more than {MAX_FILE_BYTES}")
    encoding = _encoding(data)
    lines, texts = _split_lines(data, encoding, name)
    version = _format_version(texts)
    sections = _sections(texts)
    if version is None and not any(sections.values()):
        raise BeatmapError(f"{name} is not an osu! beatmap: it has no section such as [HitObjects]")
    version = LATEST_STABLE_VERSION if version is None else version
    _require_standard(sections["General"], name)

    offset = EARLY_VERSION_OFFSET if version < 5 else 0.0
    rows, skipped = _read_rows(sections["HitObjects"], version, offset, name)
    if not rows:
        raise BeatmapError(f"{name} {_why_empty(texts, skipped)}: choose a finished beatmap")
    _check_curves(rows, version, name)
    import slider.beatmap  # not needed for training on packed data

    parsed = slider.beatmap.Beatmap.parse(_canonical_text(sections, version, rows))
    timing_lines = _read_timing_lines(sections["TimingPoints"], offset, name)
    timing = _read_timing(timing_lines)
    general = _pairs(sections["General"])
    breaks = _read_breaks(sections["Events"], offset)
    return Beatmap(
        name=name,
        raw=data,
        encoding=encoding,
        lines=lines,
        objects=_build_objects(rows, parsed, timing, breaks, version),
        skipped=skipped,
        timing=timing,
        timing_lines=timing_lines,
        breaks=breaks,
        colours=_read_colours(sections["Colours"]),
        format_version=version,
        artist=parsed.artist,
        title=parsed.title,
        creator=parsed.creator,
        version=parsed.version,
        tags=parsed.tags,
        audio_filename=parsed.audio_filename,
        beatmap_id=parsed.beatmap_id,
        set_id=parsed.beatmap_set_id,
        circle_size=parsed.circle_size,
        approach_rate=parsed.approach_rate,
        overall_difficulty=parsed.overall_difficulty,
        hp_drain_rate=parsed.hp_drain_rate,
        stack_leniency=parsed.stack_leniency,
        slider_multiplier=parsed.slider_multiplier,
        sample_set=general.get("SampleSet", "Normal"),
        sample_volume=int(_number(general, "SampleVolume", 100)),
    )


def _encoding(data: bytes) -> str:
    """UTF-8, as the game reads, unless a byte order mark says UTF-16."""
    if data.startswith(codecs.BOM_UTF16_LE):
        return "utf-16-le"
    if data.startswith(codecs.BOM_UTF16_BE):
        return "utf-16-be"
    return "utf-8"


def _split_lines(data: bytes, encoding: str, name: str) -> tuple[list[bytes], list[str]]:
    """Byte lines with their endings (LF, CRLF or a lone CR) and the text of each without."""
    if data.count(b"\n") + data.count(b"\r") > 2 * MAX_LINES:
        raise BeatmapError(f"{name} has more than {MAX_LINES} lines: is it really a .osu file?")
    if encoding == "utf-8":
        lines = data.splitlines(keepends=True)
        texts = [line.decode("utf-8", "replace").rstrip("\r\n") for line in lines]
    else:
        if len(data) % 2:
            raise BeatmapError(f"{name} is UTF-16 text with half a character at its end: repair it")
        pieces = _LINE.findall(data.decode(encoding, "surrogatepass"))
        lines = [piece.encode(encoding, "surrogatepass") for piece in pieces]
        texts = [piece.rstrip("\r\n") for piece in pieces]
    assert b"".join(lines) == data, name
    longest = max(range(len(lines)), key=lambda index: len(lines[index]))
    if len(lines[longest]) > MAX_LINE_BYTES:
        raise BeatmapError(
            f"{name} line {longest + 1} has {len(lines[longest])} bytes, more than the limit of "
            f"{MAX_LINE_BYTES}: is it really a .osu file?"
        )
    if texts and texts[0].startswith("\ufeff"):
        texts[0] = texts[0][1:]
    return lines, texts


def _format_version(texts: list[str]) -> int | None:
    """The version of the first line that is not blank; None where it is not a version line."""
    for text in texts:
        if text.strip():
            match = _VERSION_LINE.fullmatch(text)
            return int(match[1]) if match else None
    return None


Section = list[tuple[int, str]]


def _sections(texts: list[str]) -> dict[str, Section]:
    """(line index, text) of every line that is not blank or a comment, by section.

    A section that occurs twice is continued. Comments end a line except in [Metadata], where a
    title may contain `//`.
    """
    sections: dict[str, Section] = {name: [] for name in SECTIONS}
    current: Section | None = None
    metadata = sections["Metadata"]
    for index, text in enumerate(texts):
        if current is not metadata:
            comment = text.find("//")
            if comment > 0:
                text = text[:comment]
        text = text.rstrip()
        if not text or text.lstrip().startswith("//"):
            continue
        if text[0] == "[" and text[-1] == "]":
            current = sections.get(text[1:-1])
        elif current is not None:
            current.append((index, text))
    return sections


def _pairs(section: Section) -> dict[str, str]:
    """The `key: value` lines of a section; the last line of a repeated key counts."""
    pairs = {}
    for _, text in section:
        key, _, value = text.partition(":")
        pairs[key.strip()] = _EXTRA_LINE_BREAKS.sub(" ", value).strip()
    return pairs


def _require_standard(general: Section, name: str) -> None:
    """Refuse the other game modes by name."""
    value = _pairs(general).get("Mode", "0")
    try:
        mode = _int(value)
    except ValueError:
        mode = 0  # what the game falls back to
    if mode != 0:
        known = _MODES.get(mode, f"unknown mode {mode}")
        raise GameModeError(f"{name} is an {known} beatmap: only osu!standard is supported")


def _float(text: str, limit: float = MAX_TIME) -> float:
    """A finite number within the game's limit, in the notation the game accepts."""
    value = float(text)
    if "_" in text or not text.isascii():  # Python's own notations
        raise ValueError(f"{text!r} is not a number")
    if not -limit <= value <= limit:
        raise ValueError(f"{text} is outside [-{limit}, {limit}]")
    return value


def _int(text: str) -> int:
    """A 32-bit integer in the notation the game accepts (no fraction)."""
    value = int(text)
    if "_" in text or not text.isascii() or not -MAX_TIME - 1 <= value <= MAX_TIME:
        raise ValueError(f"{text!r} is not a 32-bit integer")
    return value


@dataclass(slots=True)
class _Row:
    """The checked fields of one hit object line; curve fields only for sliders."""

    line: int
    x: float
    y: float
    time: float
    flags: int
    sound: int
    end_time: float = 0.0
    coordinates: list[float] = dataclass_field(default_factory=list)
    letters: Letters = ()
    slides: int = 1
    length: float | None = None

    def canonical(self) -> str:
        """The line in the form that `slider` reads; fractions and the curve stay here."""
        head = f"{int(self.x)},{int(self.y)},{int(self.time)},{self.flags},{self.sound}"
        if self.flags & _CIRCLE:
            return f"{head},0:0:0:0:"
        if self.flags & _SLIDER:
            return f"{head},L,{self.slides},{self.length or 0.0},,,0:0:0:0:"
        return f"{head},{int(self.end_time)},0:0:0:0:"


def _read_rows(
    section: Section, version: int, offset: float, name: str
) -> tuple[list[_Row], list[tuple[int, str]]]:
    """The hit objects in file order, and (line number, reason) for lines the game rejects."""
    rows: list[_Row] = []
    skipped, points = [], 0
    for index, text in section:
        try:
            row = _read_row(index, text.split(",", 8), version, offset)
        except ValueError as error:
            skipped.append((index + 1, str(error)))
            continue
        rows.append(row)
        points += len(row.coordinates) // 2 + LETTER_POINTS * max(len(row.letters) - 1, 0)
        if len(rows) > MAX_OBJECTS or points > MAX_POINTS:
            raise BeatmapError(
                f"{name} line {index + 1}: more than {MAX_OBJECTS} objects or {MAX_POINTS} slider "
                "points up to here, too many for this program"
            )
    return rows, skipped


def _why_empty(texts: list[str], skipped: list[tuple[int, str]]) -> str:
    """What is wrong with a file without hit objects, and where."""
    if skipped:
        return f"has no hit objects; line {skipped[0][0]}: {skipped[0][1]}"
    headers = [number for number, text in enumerate(texts, 1) if text.rstrip() == "[HitObjects]"]
    where = f"after line {headers[0]}, [HitObjects]" if headers else "and no section [HitObjects]"
    return f"has no hit objects {where}"


def _check_curves(rows: list[_Row], version: int, name: str) -> None:
    """Refuse a map whose smooth curves, of many points or high degree, would take minutes."""
    work = 0.0
    for row in rows:
        spline = any(len(letter) > 1 for _, letter in row.letters)
        if len(row.coordinates) <= 2 * MATRIX_POINTS and not spline:
            continue
        points = np.array(row.coordinates).reshape(-1, 2)
        for part in curve_segments(row.letters, points, version):
            n = float(len(part.points))
            if part.kind == "B" and part.degree is not None:
                work += n * min(part.degree, n) ** 3
            elif part.kind == "B" and n > MATRIX_POINTS:
                work += n**2
        if work > MAX_CURVE_WORK:
            raise BeatmapError(
                f"{name} line {row.line + 1}: smooth curves up to here have too many points, or "
                "too high a degree, for this program"
            )


def _read_row(index: int, fields: list[str], version: int, offset: float) -> _Row:
    """Check one hit object line; `ValueError` says why the game would drop it."""
    if len(fields) < 5:
        raise ValueError(f"a hit object has 5 fields or more, here are {len(fields)}")
    x, y = _float(fields[0], MAX_COORDINATE), _float(fields[1], MAX_COORDINATE)
    if version < FIRST_LAZER_VERSION:
        x, y = float(int(x)), float(int(y))
    time = _float(fields[2]) + offset
    row = _Row(index, x, y, time, _int(fields[3]), _int(fields[4]), time)
    if row.flags & _CIRCLE:
        return row
    if row.flags & _SLIDER:
        _read_curve(row, fields, version)
    elif row.flags & (_SPINNER | _HOLD):
        # osu!standard plays the hold note of another mode as a spinner.
        if len(fields) < 6:
            raise ValueError("a spinner without an end time")
        end = fields[5] if row.flags & _SPINNER else fields[5].partition(":")[0]
        row.end_time = max(_float(end) + offset, time)
        row.flags = row.flags & ~_HOLD | _SPINNER
    else:
        raise ValueError(f"unknown hit object type {row.flags}")
    return row


def _read_curve(row: _Row, fields: list[str], version: int) -> None:
    """Fill in the slider fields: curve, slides and length."""
    if len(fields) < 7:
        raise ValueError("a slider without a curve and a number of slides")
    row.letters, row.coordinates = _parse_curve(fields[5], row.x, row.y, version)
    slides = _int(fields[6])
    if slides > MAX_SLIDES:
        raise ValueError(f"{slides} slides, more than the game's limit of {MAX_SLIDES}")
    row.slides = max(slides, 1)
    if len(fields) > 7:
        length = _float(fields[7], MAX_COORDINATE)
        row.length = length if length > 0 else None


def _parse_curve(text: str, x: float, y: float, version: int) -> tuple[Letters, list[float]]:
    """Curve letters and the coordinates x0, y0, x1, y1, ... with the head first."""
    letters: list[tuple[int, str]] = []
    coordinates = [x, y]
    truncate = version < FIRST_LAZER_VERSION
    for token in text.split("|"):
        if token[:1].isalpha():
            # A letter starts a segment at the point that follows it; the first one at the head.
            letters.append((len(coordinates) // 2 if letters else 0, token))
            continue
        px, _, rest = token.partition(":")
        for number in (px, rest.partition(":")[0]):
            value = _float(number, MAX_COORDINATE)
            coordinates.append(float(int(value)) if truncate else value)
    if not letters or letters[0][0] != 0:
        raise ValueError(f"a slider whose curve {text[:20]!r} does not start with a letter")
    if letters[-1][0] >= len(coordinates) // 2:
        raise ValueError(f"a slider whose curve {text[-20:]!r} ends with a letter")
    return tuple(letters), coordinates


# key: (default, lowest, highest), as the game has them
_DIFFICULTY = {
    "HPDrainRate": (5.0, 0.0, 10.0),
    "CircleSize": (5.0, 0.0, 10.0),
    "OverallDifficulty": (5.0, 0.0, 10.0),
    "ApproachRate": (5.0, 0.0, 10.0),
    "SliderMultiplier": (1.4, 0.4, 3.6),
    "SliderTickRate": (1.0, 0.5, 8.0),
}


def _canonical_text(sections: dict[str, Section], version: int, rows: list[_Row]) -> str:
    """A complete file that `slider` reads without error, with only what it reads correctly.

    The single red line stands in for the timing points: slider's durations are not used.
    """
    general, metadata = _pairs(sections["General"]), _pairs(sections["Metadata"])
    difficulty = _difficulty(_pairs(sections["Difficulty"]))
    leniency = _number(general, "StackLeniency", 0.7)
    ids = {key: _number(metadata, key, -1) for key in ("BeatmapID", "BeatmapSetID")}
    text_fields = ("Title", "Artist", "Creator", "Version", "Tags")
    lines = [
        f"osu file format v{max(version, 0)}",
        "[General]",
        f"AudioFilename:{general.get('AudioFilename', '')}",
        f"StackLeniency:{leniency}",
        "[Metadata]",
        *(f"{key}:{metadata.get(key, '')}" for key in text_fields),
        *(f"{key}:{int(value)}" for key, value in ids.items()),
        "[Difficulty]",
        *(f"{key}:{value}" for key, value in difficulty.items()),
        "[TimingPoints]",
        "0,500,4,1,0,100,1,0",
        "[HitObjects]",
        *(row.canonical() for row in rows),
    ]
    return "\n".join(lines)


def _difficulty(pairs: dict[str, str]) -> dict[str, float]:
    """The values of [Difficulty], limited as in the game."""
    values: dict[str, float] = {}
    for key, (default, low, high) in _DIFFICULTY.items():
        if key == "ApproachRate":  # files before v8 have no approach rate
            default = values["OverallDifficulty"]
        values[key] = min(max(_number(pairs, key, default), low), high)
    return values


def _number(pairs: dict[str, str], key: str, default: float) -> float:
    """The number of a `key: value` line; the default where the game cannot read one."""
    try:
        return _float(pairs[key])
    except (KeyError, ValueError):
        return default


def _build_objects(
    rows: list[_Row],
    parsed: slider.beatmap.Beatmap,
    timing: Timing,
    breaks: list[tuple[float, float]],
    version: int,
) -> list[HitObject]:
    """Join what `slider` parsed with what the rows hold exactly; sort as the game does."""
    import slider.beatmap

    originals = parsed.hit_objects(stacking=False)
    assert len(originals) == len(rows)
    combos = _new_combos(rows, originals, breaks)
    lengths = _path_lengths(rows, version)
    built = []
    for row, original, new_combo in zip(rows, originals, combos, strict=True):
        kind: Kind = "circle"
        path_length = lengths.get(row.line, row.length or 0.0)
        if isinstance(original, slider.beatmap.Slider):
            kind = "slider"
            velocity = 100 * parsed.slider_multiplier * timing.slider_velocity_at(row.time)
            beats = row.slides * path_length / velocity
            row.end_time = row.time + beats * timing.beat_length_at(row.time)
        elif isinstance(original, slider.beatmap.Spinner):
            kind = "spinner"
        built.append(
            HitObject(
                line=row.line,
                kind=kind,
                time=row.time,
                end_time=row.end_time,
                x=row.x,
                y=row.y,
                new_combo=new_combo,
                combo_skip=original.combo_skip,
                format_version=version,
                points=np.array(row.coordinates).reshape(-1, 2) if row.letters else NO_POINTS,
                letters=row.letters,
                slides=row.slides,
                length=row.length,
                path_length=path_length,
            )
        )
    built.sort(key=lambda hit_object: hit_object.time)
    return built


def _path_lengths(rows: list[_Row], version: int) -> dict[int, float]:
    """Lengths in px, by line, of sliders whose length the game may take from the path itself.

    These are sliders without a length, and those whose last two points coincide.
    """
    lines, sliders, points, count = [], [], [], 0
    for row in rows:
        tail = row.coordinates[-4:]
        if not row.letters or (row.length is not None and len(tail) > 2 and tail[:2] != tail[2:]):
            continue
        parts = []
        array = np.array(row.coordinates).reshape(-1, 2)
        for part in curve_segments(row.letters, array, version):
            points.append(part.points)
            indices = np.arange(count, count + len(part.points))
            parts.append((part.kind, part.degree, indices))
            count += len(indices)
        sliders.append((parts, row.length))
        lines.append(row.line)
    if not lines:
        return {}
    lengths = PathSet(sliders).lengths(np.concatenate(points))
    return dict(zip(lines, lengths.tolist(), strict=True))


def _new_combos(
    rows: list[_Row],
    originals: Sequence[slider.beatmap.HitObject],
    breaks: list[tuple[float, float]],
) -> list[bool]:
    """New combos in file order: flags, and those the game forces."""
    import slider.beatmap

    combos = []
    after_spinner = True  # the first object starts a combo too
    for original in originals:
        spinner = isinstance(original, slider.beatmap.Spinner)
        combos.append(original.new_combo or (after_spinner and not spinner))
        after_spinner = spinner
    over = 0
    for index in sorted(range(len(rows)), key=lambda i: rows[i].time):
        while over < len(breaks) and breaks[over][1] < rows[index].time:
            combos[index] = True
            over += 1
    return combos


def _read_timing_lines(section: Section, offset: float, name: str) -> list[TimingLine]:
    """The lines of [TimingPoints] in file order; those that the game rejects are left out."""
    lines: list[TimingLine] = []
    latest, unordered = -inf, 0
    for index, text in section:
        try:
            line = _read_timing_line(index, text, offset)
        except ValueError:
            continue
        lines.append(line)
        unordered += line.time < latest
        latest = max(latest, line.time)
        if len(lines) > MAX_TIMING_LINES or unordered > MAX_UNORDERED_LINES:
            raise BeatmapError(
                f"{name} line {index + 1}: more than {MAX_TIMING_LINES} timing points, or "
                f"{MAX_UNORDERED_LINES} out of order, up to here, too many for this program"
            )
    return lines


def _read_timing_line(index: int, text: str, offset: float) -> TimingLine:
    """Check one timing line; `ValueError` where the game rejects it."""
    fields = text.split(",", 8)
    if len(fields) < 2:
        raise ValueError("a timing point has 2 fields or more")
    time = _float(fields[0]) + offset
    not_a_number = fields[1].strip().lower() == "nan"
    beat_length = float("nan") if not_a_number else _float(fields[1])
    if len(fields) > 2 and not fields[2].startswith("0") and _int(fields[2]) < 1:
        raise ValueError("a timing point with less than one beat a bar")
    for number in fields[3:6] + fields[7:8]:
        _int(number)
    red = len(fields) < 7 or fields[6].startswith("1")
    if red and not_a_number:
        raise ValueError("a red line whose beat length is not a number")
    return TimingLine(index, time, beat_length, red)


def _read_timing(lines: list[TimingLine]) -> Timing:
    """Timing as the game keeps it."""
    beats: dict[float, float] = {}
    velocities = _VelocityList()
    for time, group in groupby(lines, key=lambda line: line.time):
        together = list(group)
        reds = [line for line in together if line.red]
        if reds:
            beats[time] = min(max(reds[0].beat_length, 6.0), 60000.0)
        velocities.add(time, line_in_force(together).velocity)
    times = sorted(beats)
    return Timing(times, [beats[t] for t in times], velocities.times, velocities.values)


def line_in_force(together: Sequence[TimingLine]) -> TimingLine:
    """The line that counts of those at one time: the last green one, else the first red one."""
    greens = [line for line in together if not line.red]
    return greens[-1] if greens else together[0]


class _VelocityList:
    """Velocities by time, filled in file order.

    Like the game, it drops a point that does not change the velocity *when it is read*; that
    matters only in files whose lines are not in time order.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.values: list[float] = []

    def add(self, time: float, velocity: float) -> None:
        index = bisect_right(self.times, time)
        before = self.values[index - 1] if index else 1.0
        if velocity == before:
            return
        if index and self.times[index - 1] == time:
            self.values[index - 1] = velocity
        else:
            self.times.insert(index, time)
            self.values.insert(index, velocity)


def _read_breaks(section: Section, offset: float) -> list[tuple[float, float]]:
    """(start, end) ms of the breaks, in file order."""
    breaks = []
    for _, text in section:
        fields = text.split(",")
        if fields[0] not in ("2", "Break") or len(fields) < 3:
            continue
        try:
            start = _float(fields[1]) + offset
            breaks.append((start, max(start, _float(fields[2]) + offset)))
        except ValueError:
            continue  # the game ignores the line as well
    return breaks


def _read_colours(section: Section) -> list[tuple[int, int, int]]:
    """The combo colours in file order, red, green and blue in 0..255."""
    colours = []
    for key, value in _pairs(section).items():
        if not key.startswith("Combo"):
            continue
        try:
            channels = [_int(channel) for channel in value.split(",")[:3]]
        except ValueError:
            continue
        if len(channels) == 3 and all(0 <= channel <= 255 for channel in channels):
            colours.append((channels[0], channels[1], channels[2]))
    return colours


# --- writing --------------------------------------------------------------------------------------


class Change(NamedTuple):
    """New coordinates of a hit object: its position, for a slider all points of the file.

    `points` (n, 2) start with the head, at `position`. A `length` is written as the slider's
    pixel length; None leaves the length alone.
    """

    position: tuple[float, float]
    points: FloatArray | None = None
    length: float | None = None


@dataclass(frozen=True)
class TimingEdits:
    """What changes in [TimingPoints], by index of a line in the file.

    `beat_lengths` are written in that line, `added` lines come right after it.
    """

    beat_lengths: dict[int, float] = dataclass_field(default_factory=dict)
    added: dict[int, list[str]] = dataclass_field(default_factory=dict)


def patch_objects(
    beatmap: Beatmap, changes: Mapping[int, Change], timing: TimingEdits | None = None
) -> bytes:
    """The file with new coordinates for the objects in `changes`, by index; other bytes stay.

    A number that has not changed keeps its text. Coordinates are rounded to integers before
    version 128. Raises `ValueError` for one that is not finite or beyond what the game loads.
    """
    timing = timing or TimingEdits()
    lines = list(beatmap.lines)
    errors = lossless(beatmap.encoding)
    for index, change in changes.items():
        hit = beatmap.objects[index]
        text = lines[hit.line].decode(beatmap.encoding, errors)
        body = beatmap.line_text(hit.line)
        try:
            patched = _patch_line(body, hit, change) + text[len(body) :]
        except ValueError as error:
            raise ValueError(f"{beatmap.name} line {hit.line + 1}: {error}") from None
        lines[hit.line] = patched.encode(beatmap.encoding, errors)
    for index, beat_length in timing.beat_lengths.items():
        fields = lines[index].decode(beatmap.encoding, errors).split(",", 2)
        fields[1] = repr(beat_length)
        lines[index] = ",".join(fields).encode(beatmap.encoding, errors)
    return _insert_lines(
        lines, beatmap.encoding, {line + 1: block for line, block in timing.added.items()}
    )


def _patch_line(body: str, hit: HitObject, change: Change) -> str:
    """A hit object line, without comment and line ending, with the numbers of `change`."""
    fields = body.split(",")
    number = _number_writer(hit.format_version)
    fields[0] = number(fields[0], hit.x, change.position[0])
    fields[1] = number(fields[1], hit.y, change.position[1])
    if hit.kind == "slider":
        assert change.points is not None
        assert change.points.shape == hit.points.shape
        assert tuple(change.points[0]) == tuple(change.position)
        fields[5] = _patch_curve(fields[5], hit.points, change.points, number)
        if change.length is not None:
            fields[7:8] = [repr(float(change.length))]
    return ",".join(fields)


NumberWriter = Callable[[str, float, float], str]


def _number_writer(version: int) -> NumberWriter:
    """A function of (text in the file, its value, new value) that gives the new text."""

    def write(text: str, old: float, new: float) -> str:
        if not -MAX_COORDINATE <= new <= MAX_COORDINATE:
            raise ValueError(f"coordinate {new} is outside +-{MAX_COORDINATE}")
        if version < FIRST_LAZER_VERSION:
            new = float(round(new))
        if new == old:
            return text
        if new.is_integer():
            return str(int(new))
        # The game reads 32-bit floats: these are the shortest digits that identify this one.
        return np.format_float_positional(np.float32(new), trim="-")

    return write


def _patch_curve(text: str, old: FloatArray, new: FloatArray, number: NumberWriter) -> str:
    """The curve field with the numbers of `new` (n, 2) in place of `old`; letters stay."""
    tokens = text.split("|")
    index = 1
    for position, token in enumerate(tokens):
        if token[:1].isalpha():
            continue
        pair = token.split(":")
        for axis in (0, 1):
            pair[axis] = number(pair[axis], float(old[index, axis]), float(new[index, axis]))
        tokens[position] = ":".join(pair)
        index += 1
    assert index == len(new), text
    return "|".join(tokens)


def edit_metadata(
    data: bytes,
    *,
    version: str,
    beatmap_id: int = 0,
    set_id: int | None = None,
    add_tags: Sequence[str] = (),
) -> bytes:
    """The file with another difficulty name, IDs and more tags; every other byte stays.

    One line is replaced for each and keeps its line ending; a missing line is added to
    [Metadata]. The set ID stays unless one is given. Tags that are there already are not added
    again. Raises `ValueError` for a difficulty name or tag that does not fit on its line.
    """
    if not version.strip() or _EXTRA_LINE_BREAKS.search(version):
        raise ValueError(f"difficulty name {version!r}: it must be one line that is not blank")
    for tag in add_tags:
        if not tag or tag.split() != [tag]:
            raise ValueError(f"tag {tag!r}: it must be one word")
    data = _edit_value(data, "Version", lambda _: version.strip())
    data = _edit_value(data, "BeatmapID", lambda _: str(beatmap_id))
    if set_id is not None:
        data = _edit_value(data, "BeatmapSetID", lambda _: str(set_id))
    if not add_tags:
        return data
    return _edit_value(data, "Tags", lambda old: _join_tags(old, add_tags))


def _join_tags(old: str, tags: Sequence[str]) -> str:
    """`old` unchanged, then those of `tags` that are not in it."""
    new = [tag for tag in dict.fromkeys(tags) if tag not in old.split()]
    return " ".join([old, *new] if old else new)


def _edit_value(data: bytes, key: str, edit: Callable[[str], str]) -> bytes:
    """Replace the value in the last [Metadata] line of this key, which counts, or add a line."""
    encoding = _encoding(data)
    lines, texts = _split_lines(data, encoding, "the beatmap")
    errors = lossless(encoding)
    metadata = _sections(texts)["Metadata"]
    for index, text in reversed(metadata):
        if text.partition(":")[0].strip() == key:
            line = lines[index].decode(encoding, errors)
            body = line.rstrip("\r\n")
            name, _, value = body.partition(":")
            blank = value[: len(value) - len(value.lstrip())]
            new = f"{name}:{blank}{edit(value.strip())}{line[len(body) :]}"
            lines[index] = new.encode(encoding, errors)
            return b"".join(lines)
    added = f"{key}:{edit('')}"
    headers = [i for i, text in enumerate(texts) if text.strip() in _HEADERS]
    titles = [i for i in headers if texts[i].strip() == "[Metadata]"]
    if metadata or titles:
        at = 1 + max([i for i, _ in metadata] + titles)
        block = [added]
    else:
        at = headers[0] if headers else len(lines)
        block = ["[Metadata]", added, ""]
    return _insert_lines(lines, encoding, {at: block})


def _insert_lines(lines: list[bytes], encoding: str, blocks: Mapping[int, list[str]]) -> bytes:
    """The document with each block before its line, with the line ending of the line before."""
    pieces, done = [], 0
    for at in sorted(blocks):
        before = lines[at - 1].decode(encoding, lossless(encoding)) if at else "\n"
        ending = before[len(before.rstrip("\r\n")) :]
        text = "".join(line + (ending or "\n") for line in blocks[at])
        if not ending:  # the last line of the file
            text = "\n" + text
        pieces += [*lines[done:at], text.encode(encoding)]
        done = at
    return b"".join(pieces + lines[done:])


def lossless(encoding: str) -> str:
    """The error handler with which any bytes survive decoding and encoding."""
    return "surrogateescape" if encoding == "utf-8" else "surrogatepass"


def write_new_file(path: str | os.PathLike[str], data: bytes, *, overwrite: bool) -> None:
    """Write a whole file or nothing: under a temporary name in the same folder, then renamed.

    Raises `BeatmapError` when the file exists and `overwrite` is false, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise BeatmapError(f"{path} exists already: choose another name, or allow overwriting")
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        reason = error.strerror or error
        raise BeatmapError(f"{path} cannot be written: {reason}: choose another place") from error
