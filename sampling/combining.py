"""One result from parts of several variants, by ranges of time, with the joints mended.

Within a variant every distance is the one that was asked for. Where two variants meet, the object
before the border is placed by the one and the object after it by the other, so that this distance
can be anything. A few objects around each border are then moved until it is met again, and what
remains of the difference is reported.
"""

import hashlib
import re
from collections.abc import Sequence as Many
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from beatmaps.game_rules import format_time
from beatmaps.osu_file import Beatmap
from beatmaps.selection import Mask, choose_objects, excerpt, parse_range
from beatmaps.sequence import Sequence, beatmap_to_sequence
from constraints.rounding import Placement
from constraints.structure import StructureMode
from conventions.arrays import FloatArray, IntArray
from conventions.errors import FieldError
from metrics.spacing import spacing_errors
from sampling.generate import kept_and_wanted, make_placement
from sampling.network import Part
from sampling.options import SampleOptions, structure_mode
from sampling.remap import finish, result_version, to_remap
from sampling.request import RemapRequest

REACHES = (3, 6, 12)
"""Objects on either side of a border that may be moved, more where fewer do not suffice."""
AROUND = 16
"""Objects beyond those that are seen, so that nothing is moved onto them."""
MET_PX = 1.0
"""px off its distance up to which a joint counts as mended: whole pixels allow hardly less."""

_LINE = re.compile(r"(?P<range>.+?)\s*(?:->|→)\s*(?:variant\s*)?#?(?P<number>\d{1,3})", re.I)


@dataclass(frozen=True)
class TimePart:
    """From `start` to `end` ms, both included, the objects are those of `variant`, from 0."""

    start: float
    end: float
    variant: int


@dataclass(frozen=True)
class Joint:
    """Where one variant follows another: the time in ms of the first object of the second.

    `before_px` is how far the distances around it would be off, `after_px` how far they are with
    `moved` objects moved; None where no distances were asked for.
    """

    time: float
    variants: tuple[int, int]
    before_px: float | None
    after_px: float | None
    moved: int


@dataclass(frozen=True)
class Combined:
    """A new difficulty made of parts: its name, file and content, its figures and its joints."""

    version: str
    data: bytes
    beatmap: Beatmap
    written: dict[str, float]
    joints: list[Joint]


def parse_parts(text: str, count: int) -> tuple[TimePart, ...]:
    """The parts of lines such as "00:12:345 - 00:20:000 -> 2", in the order of time.

    A part without an end reaches to that of the map. Where a part begins at the end of another
    one, the object there belongs to it. Variants are counted from 1 to `count`. ValueError says
    which line cannot be.
    """
    parts: list[TimePart] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            parts.append(_parse_line(number, line.strip(), count))
    if not parts:
        raise FieldError("{parts}: give a range and a variant, such as 00:12:345 - 00:20:000 -> 2")
    parts.sort(key=lambda part: part.start)
    for first, second in pairwise(parts):
        if second.start < first.end or second.start == first.start:
            raise FieldError(
                "{parts}: the one from {0} begins before the one from {1} ends",
                *(format_time(second.start), format_time(first.start)),
            )
    return tuple(parts)


def _parse_line(number: int, line: str, count: int) -> TimePart:
    match = _LINE.fullmatch(line)
    if match is None:
        raise FieldError(
            "{parts}, line {0} {1!r}: give a range and a variant, such as "
            "00:12:345 - 00:20:000 -> 2",
            *(number, line),
        )
    variant = int(match["number"])
    if not 1 <= variant <= count:
        raise FieldError("{parts}, line {0}: there are variants 1 to {1}", number, count)
    try:
        return TimePart(*parse_range(match["range"]), variant - 1)
    except ValueError as error:
        raise FieldError("{parts}, line {0}: {1}", number, error) from None


def owners(beatmap: Beatmap, parts: Many[TimePart], rest: int) -> IntArray:
    """(M,) the variant that each object is taken from; `rest` outside of all parts."""
    times = np.floor([hit.time for hit in beatmap.objects])  # the editor cuts fractions
    found = np.full(len(times), rest)
    for part in parts:  # in the order of time: at a shared end the later one counts
        found[(times >= part.start) & (times <= part.end)] = part.variant
    return found


def combine(
    beatmap: Beatmap,
    variants: Many[Beatmap],
    request: RemapRequest,
    parts: Many[TimePart],
    rest: int,
) -> Combined:
    """One new difficulty from parts of the variants that `request` has made of a beatmap.

    What is in no part comes from the variant `rest`. ValueError where all comes from one variant.
    """
    options = request.options
    if options.slider_velocity == "fit":
        raise FieldError(
            "{slider_velocity} fit gives every variant green lines of its own: parts of several "
            "do not go together"
        )
    selection = request.selection
    chosen = None if selection.is_everything else choose_objects(beatmap, selection)
    sequence, chosen = to_remap(beatmap, options, chosen)
    owner = owners(sequence.beatmap, parts, rest)
    order = [int(owner[0]), *owner[1:][np.diff(owner) != 0].tolist()]
    if len(order) == 1:
        raise FieldError("{parts}: all objects come from variant {0}", order[0] + 1)
    placed = np.stack([beatmap_to_sequence(variant).xy for variant in variants])
    xy = placed[owner[sequence.objects], np.arange(len(sequence))]
    kept, wanted = kept_and_wanted(sequence, options.spacing, chosen)
    xy, joints = mend(sequence, xy, owner, kept, wanted, options)
    version = f"{result_version(beatmap, request)} {_describe(order, parts, rest)}"
    data, written, errors = finish(sequence, xy, wanted, version, request)
    return Combined(version, data, written.beatmap, errors, joints)


def _describe(order: list[int], parts: Many[TimePart], rest: int) -> str:
    """The variants that take turns, and a few digits by which other borders differ."""
    text = repr((tuple(parts), rest))
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()[:4]
    names = [f"#{k + 1}" for k in order]
    shown = names if len(names) <= 5 else [*names[:4], "..."]
    return f"{'+'.join(shown)} {digest}"


# --- the joints -----------------------------------------------------------------------------------


def mend(
    sequence: Sequence,
    xy: FloatArray,
    owner: IntArray,
    kept: Mask,
    wanted: FloatArray,
    options: SampleOptions,
) -> tuple[FloatArray, list[Joint]]:
    """xy (T, 2) px with the joints between the owners (M,) of its objects mended, and the joints.

    Points `kept` (T,) stay; the others are moved to their distances `wanted` (T,) px, where the
    options keep distances.
    """
    borders = np.flatnonzero(np.diff(owner)) + 1
    free = np.isin(np.arange(len(owner)), sequence.objects[~kept])
    joined = xy
    reaches = [REACHES[0]] * len(borders)
    for k, border in enumerate(borders.tolist() if options.spacing.kept else []):
        xy, reaches[k] = _mend_one(sequence, xy, wanted, free, border, options)
    moved = np.zeros(len(owner), dtype=bool)
    moved[sequence.objects[(xy != joined).any(axis=1)]] = True
    joints = []
    for border, reach in zip(borders.tolist(), reaches, strict=True):
        known = options.spacing.mode != "free"
        off = [worst(sequence, at, wanted, border, reach) for at in (joined, xy)]
        near = moved[max(border - reach, 0) : border + reach]
        joints.append(
            Joint(
                sequence.beatmap.objects[border].time,
                (int(owner[border - 1]), int(owner[border])),
                off[0] if known else None,
                off[1] if known else None,
                int(near.sum()),
            )
        )
    return xy, joints


def _mend_one(
    sequence: Sequence,
    xy: FloatArray,
    wanted: FloatArray,
    free: Mask,
    border: int,
    options: SampleOptions,
) -> tuple[FloatArray, int]:
    """xy (T, 2) px with the objects around one border moved, and how far around it.

    Where many objects or the structure do not help, the try that is off least counts.
    """
    best, best_reach = xy, REACHES[0]
    least = worst(sequence, xy, wanted, border, best_reach)
    modes: list[StructureMode] = [structure_mode(options), "off"]
    for reach, mode in ((reach, mode) for reach in REACHES for mode in modes):
        if least <= MET_PX:
            break
        movable = np.zeros_like(free)
        movable[max(border - reach, 0) : border + reach] = True
        movable &= free
        if not movable.any():
            continue
        placement, points = _placement_around(sequence, xy, wanted, movable, options, mode)
        tried = xy.copy()
        tried[points] = placement.place(xy[points])
        # What a shorter reach does not see may be off for reasons of its own.
        off = worst(sequence, tried, wanted, border, reach)
        if off < least:
            best, best_reach, least = tried, reach, off
    return best, best_reach


def worst(sequence: Sequence, xy: FloatArray, wanted: FloatArray, border: int, reach: int) -> float:
    """px by which the objects around a border are off their distances at most, at xy (T, 2)."""
    errors = spacing_errors(sequence, xy, wanted)[sequence.object_starts]
    # The object behind those that are moved has its distance to the last of them.
    return float(errors[max(border - reach, 0) : border + reach + 1].max())


def _placement_around(
    sequence: Sequence,
    xy: FloatArray,
    wanted: FloatArray,
    movable: Mask,
    options: SampleOptions,
    mode: StructureMode,
) -> tuple[Placement, slice]:
    """What moves the objects of `movable` (M,), the rest at xy (T, 2) px, and its data points."""
    first, last = np.flatnonzero(movable)[[0, -1]].tolist()
    stop = min(last + 1 + AROUND, len(movable))
    source, points = excerpt(sequence, max(first - AROUND, 0), stop)
    kept = ~movable[sequence.objects[points]]
    times = source.times - sequence.times[0]
    part = Part(source.moved(xy[points]), times, wanted[points], kept)
    return make_placement(part, options, mode=mode, structure_of=source.xy), points
