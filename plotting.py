"""Pictures of beatmaps: the playfield as a mapper sees it, and before/after comparisons.

matplotlib is used through its object-oriented API only (`Figure`, never pyplot), so that pictures
can be drawn without a display and from several threads. It is imported inside the functions: that
takes about half a second, which programs that draw nothing should not pay.

Objects are drawn in osu! pixels, slider bodies included, so that radii are right in a figure of any
size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np

from atomic import replacing
from beatmap import Beatmap, HitObject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.collections import Collection, LineCollection
    from matplotlib.figure import Figure
    from matplotlib.path import Path

    Shape = tuple[Path, "Colour"]  # a filled area

Colour = tuple[float, float, float, float]  # red, green, blue, alpha in [0, 1]

PLAYFIELD = (512, 384)  # px
STACK_DISTANCE = 3.0  # px
SURROUND = 44  # px shown around the playfield: objects may reach out of it by their radius
DEFAULT_COLOURS = [(255, 192, 0), (0, 202, 0), (18, 124, 255), (242, 24, 57)]
BACKGROUND, FIELD, BORDER, GRID = "#101018", "#181824", "#5a5a72", "#232333"
TEXT, FAINT_TEXT = "#e8e8f0", "#9090a8"
WHITE: Colour = (1.0, 1.0, 1.0, 1.0)

CHORD = 4.0  # px between the vertices of a drawn slider body
MAX_CHORDS = 400  # ... but no more than this many: some sliders are longer than any screen

PICTURE_WIDTH, ROW_HEIGHT, DPI = 16.0, 3.15, 100  # inches, inches, pixels an inch
MAX_COLUMNS = 4
SLICE_OBJECTS = (8, 12)  # a passage ends with the first combo that ends between these numbers


def circle_radius(circle_size: float) -> float:
    """Radius of a hit circle in osu! pixels."""
    return 54.4 - 4.48 * circle_size


def preempt(approach_rate: float) -> float:
    """How long before its time an object appears, in ms."""
    return 1200 + (120 if approach_rate < 5 else 150) * (5 - approach_rate)


# Combos


def combo_numbers(beatmap: Beatmap) -> list[tuple[int, int]]:
    """(number in its combo from 1, index of its colour) of every object, as the game counts.

    A spinner has no number, 0, and never starts a combo; that the object after a spinner or a
    break does, whatever its flag, is already in `HitObject.new_combo`. The first combo takes the
    *second* colour, and a combo's skip count is added to the step of 1. The index is below the
    number of the map's colours, or of the game's default ones where it has none.
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


# Objects in their places


@dataclass(frozen=True)
class Shown:
    """An object of a picture: its index in the map and the line (n, 2) that the cursor follows.

    The line is a slider's path, n >= 2 evenly spaced points; of other objects it is one point.
    """

    index: int
    hit_object: HitObject
    line: np.ndarray

    @property
    def kind(self) -> str:
        """'circle', 'slider' or 'spinner'."""
        return self.hit_object.kind

    @property
    def head(self) -> np.ndarray:
        """(2,) position of the object."""
        return np.asarray(self.line[0])

    @property
    def end(self) -> np.ndarray:
        """(2,) where the cursor leaves: the head again after an even number of slides."""
        return np.asarray(self.line[0 if self.hit_object.slides % 2 == 0 else -1])


def objects_between(beatmap: Beatmap, start_ms: float, end_ms: float) -> list[Shown]:
    """The objects that sound in [start_ms, end_ms], unstacked."""
    return [
        Shown(index, hit_object, _line(hit_object))
        for index, hit_object in enumerate(beatmap.objects)
        if hit_object.end_time >= start_ms and hit_object.time <= end_ms
    ]


def _line(hit_object: HitObject) -> np.ndarray:
    """The line (n, 2) of `Shown`."""
    if hit_object.kind != "slider":
        return np.array([[hit_object.x, hit_object.y]])
    path = hit_object.path()
    chords = int(np.clip(np.ceil(path.length / CHORD), 1, MAX_CHORDS))
    return path.position_at(np.linspace(0, path.length, chords + 1))


def _stacked(shown: Sequence[Shown], beatmap: Beatmap) -> list[Shown]:
    """The objects where the game shows them."""
    within = preempt(beatmap.approach_rate) * beatmap.stack_leniency
    step = circle_radius(beatmap.circle_size) / 10
    heights = stack_heights(shown, within)
    return [
        replace(thing, line=thing.line - height * step)
        for thing, height in zip(shown, heights, strict=True)
    ]


def stack_heights(shown: Sequence[Shown], within_ms: float) -> list[int]:
    """How many steps up and left the game moves each object, so that stacked ones stay visible.

    Objects less than 3 px apart stack when not more than `within_ms` lies between them, which is
    the preempt time by the map's stack leniency. What begins at the end of an earlier slider
    moves down and right instead. These are the rules for file format v6 and later.
    """
    heights = [0] * len(shown)
    for last in reversed(range(len(shown))):
        if heights[last] or shown[last].kind == "spinner":
            continue
        is_circle, base = shown[last].kind == "circle", last
        for k in reversed(range(last)):
            other, start = shown[k], shown[base].hit_object.time
            if other.kind == "spinner":
                continue
            if (
                start - (other.hit_object.end_time if is_circle else other.hit_object.time)
                > within_ms
            ):
                break
            if is_circle and other.kind == "slider" and _coincide(other.end, shown[base].head):
                below = [j for j in range(k + 1, last + 1) if _coincide(other.end, shown[j].head)]
                drop = heights[base] - heights[k] + 1
                for j in below:
                    heights[j] -= drop
                break
            if _coincide(other.head if is_circle else other.end, shown[base].head):
                heights[k] = heights[base] + 1
                base = k
    return heights


def _coincide(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two positions (2,) are close enough to stack."""
    return bool(np.hypot(*(a - b)) < STACK_DISTANCE)


# Shapes of objects


def _disc(centre: np.ndarray, radius: float) -> Path:
    """A circle around `centre` (2,)."""
    from matplotlib.path import Path

    return Path.circle((float(centre[0]), float(centre[1])), radius)


@lru_cache(maxsize=1)
def _tube_class() -> Callable[..., LineCollection]:
    """A collection of lines with round ends whose widths are in data units, not in points.

    A class made by a function, because its base class is imported late.
    """
    from matplotlib.collections import LineCollection

    class Tubes(LineCollection):
        """Lines (n, 2), each drawn as the area within its radius in data units."""

        def __init__(self, lines: list[np.ndarray], radii: list[float], **style: Any) -> None:
            super().__init__(lines, capstyle="round", joinstyle="round", **style)
            self.radii = np.array(radii)

        def draw(self, renderer: RendererBase) -> None:
            assert self.axes is not None
            scale = self.axes.transData.transform([(0, 0), (1, 0)])  # one data unit in pixels
            self.set_linewidth(2 * self.radii * (scale[1, 0] - scale[0, 0]) * 72 / self.figure.dpi)
            super().draw(renderer)

    return Tubes


@lru_cache(maxsize=1024)
def _glyphs(text: str) -> Path:
    """Outlines of a text of height 1 around the origin, upright where y points down."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    outline = TextPath((0, 0), text, size=1.0, prop=FontProperties(weight="bold"))
    box, height = outline.get_extents(), TextPath((0, 0), "8", size=1.0).get_extents().height
    middle = [(box.x0 + box.x1) / 2, height / 2]
    return Path((np.asarray(outline.vertices) - middle) * [1, -1] / height, outline.codes)


def _text(text: str, centre: np.ndarray, height: float) -> Path:
    """Outlines of a text of that height (px) around `centre` (2,)."""
    from matplotlib.path import Path

    glyphs = _glyphs(text)
    return Path(np.asarray(glyphs.vertices) * height + centre, glyphs.codes)


def _arrow(tip_towards: np.ndarray, centre: np.ndarray, radius: float) -> Path:
    """A chevron at `centre` (2,) that points along the vector `tip_towards` (2,)."""
    from matplotlib.path import Path

    forward = tip_towards / max(float(np.hypot(*tip_towards)), 1e-9)
    across = np.array([-forward[1], forward[0]])
    corners = np.array(
        [[0.5, 0], [0, 0.55], [-0.28, 0.55], [0.22, 0], [-0.28, -0.55], [0, -0.55], [0.5, 0]]
    )
    points = centre + radius * (corners[:, :1] * forward + corners[:, 1:] * across)
    return Path(points, closed=True)


def _head_shapes(thing: Shown, number: int, colour: Colour, radius: float) -> list[Shape]:
    """A hit circle with its number."""
    centre = thing.head
    height = radius * (0.8 if number < 100 else 0.55)
    shapes = [
        (_disc(centre, radius), WHITE),
        (_disc(centre, 0.88 * radius), _shade(colour, 0.95)),
        (_disc(centre, 0.64 * radius), _shade(colour, 0.8)),
    ]
    if thing.hit_object.slides > 2:
        # The head's own reverse arrow would hide the number: the count of slides stands for it.
        count = f"{thing.hit_object.slides}\N{MULTIPLICATION SIGN}"
        down = np.array([0, radius])
        shapes.append((_text(count, centre + 0.5 * down, 0.42 * radius), WHITE))
        centre, height = centre - 0.24 * down, 0.75 * height
    return [*shapes, (_text(str(number), centre, height), WHITE)]


def _slider_shapes(thing: Shown, number: int, colour: Colour, radius: float) -> list[Shape]:
    """Tail, reverse arrow and head of a slider."""
    before_tail, tail = thing.line[-2:]
    shapes = [
        (_disc(tail, 0.88 * radius), _shade(colour, 0.46)),
        (_disc(tail, 0.8 * radius), _shade(colour, 0.3)),
    ]
    if thing.hit_object.slides > 1:
        shapes.append((_arrow(before_tail - tail, tail, 0.8 * radius), WHITE))
    return shapes + _head_shapes(thing, number, colour, radius)


def _slider_body(line: np.ndarray, colour: Colour, radius: float) -> LineCollection:
    """Border, body and a lighter core along a line (n, 2), one over the other."""
    shades = [_shade(colour, 0.8, white=0.35), _shade(colour, 0.28), _shade(colour, 0.36)]
    radii = [radius, 0.88 * radius, 0.5 * radius]
    return _tube_class()([line] * 3, radii, colors=shades, zorder=3)


def _spinner_shapes(colour: Colour) -> list[Shape]:
    """Faint discs around the middle of the playfield, where spinners are whatever the file says."""
    centre = np.array(PLAYFIELD) / 2
    veils = [(_disc(centre, r), (*colour[:3], alpha)) for r, alpha in ((150, 0.07), (90, 0.1))]
    return [*veils, (_disc(centre, 7), (*colour[:3], 0.9))]


def _shade(colour: Colour, light: float, white: float = 0.0) -> Colour:
    """The colour times `light`, then mixed with that much `white`."""
    red, green, blue = (light * channel * (1 - white) + white for channel in colour[:3])
    return red, green, blue, colour[3]


# Drawing


def draw_playfield(axes: Axes, beatmap: Beatmap, start_ms: float, end_ms: float) -> None:
    """Draw the objects that sound in [start_ms, end_ms] as they lie on the playfield.

    Earlier objects lie on top, stacks are fanned out as in the game. An object with index I in
    `beatmap.objects` is a collection with the gid "object I"; a slider has its body in another one
    below that, "body I". The lines from object to object are "follow lines".
    """
    from matplotlib.collections import PathCollection

    _prepare_playfield(axes)
    shown = _stacked(objects_between(beatmap, start_ms, end_ms), beatmap)
    _draw_follow_lines(axes, shown)
    numbers = combo_numbers(beatmap)
    palette = [_rgba(rgb) for rgb in beatmap.colours or DEFAULT_COLOURS]
    radius = circle_radius(beatmap.circle_size)
    for thing in reversed(shown):
        number, colour = numbers[thing.index]
        shapes = _object_shapes(thing, number, palette[colour], radius)
        paths, faces = [path for path, _ in shapes], [face for _, face in shapes]
        parts: list[tuple[str, Collection]] = []
        if thing.kind == "slider":
            parts.append(("body", _slider_body(thing.line, palette[colour], radius)))
        parts.append(("object", PathCollection(paths, facecolors=faces, linewidths=0, zorder=3)))
        for name, collection in parts:
            collection.set_gid(f"{name} {thing.index}")
            axes.add_collection(collection, autolim=False)


def _rgba(rgb: tuple[int, int, int]) -> Colour:
    """A colour of a beatmap file for drawing."""
    return rgb[0] / 255, rgb[1] / 255, rgb[2] / 255, 1.0


def _object_shapes(thing: Shown, number: int, colour: Colour, radius: float) -> list[Shape]:
    """What an object looks like, from the bottom to the top, but for a slider's body."""
    if thing.kind == "slider":
        return _slider_shapes(thing, number, colour, radius)
    if thing.kind == "spinner":
        return _spinner_shapes(colour)
    return _head_shapes(thing, number, colour, radius)


def _prepare_playfield(axes: Axes) -> None:
    """Limits, aspect, grid and border of an empty playfield; y points down."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    width, height = PLAYFIELD
    axes.set_aspect("equal")
    axes.set_xlim(-SURROUND, width + SURROUND)
    axes.set_ylim(height + SURROUND, -SURROUND)
    axes.set_facecolor(BACKGROUND)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.add_patch(Rectangle((0, 0), width, height, facecolor=FIELD, edgecolor=BORDER, zorder=1))
    grid = [[(x, 0), (x, height)] for x in range(64, width, 64)]
    grid += [[(0, y), (width, y)] for y in range(64, height, 64)]
    axes.add_collection(LineCollection(grid, colors=GRID, linewidths=0.8, zorder=1), autolim=False)


def _draw_follow_lines(axes: Axes, shown: Sequence[Shown]) -> None:
    """Thin lines from where an object ends to where the next begins, fainter into a new combo."""
    from matplotlib.collections import LineCollection

    lines, colours = [], []
    for before, after in pairwise(shown):
        if "spinner" in (before.kind, after.kind):
            continue
        lines.append(np.array([before.end, after.head]))
        colours.append((1.0, 1.0, 1.0, 0.25 if after.hit_object.new_combo else 0.6))
    collection = LineCollection(lines, colors=colours, linewidths=1.2, zorder=2)
    collection.set_gid("follow lines")
    axes.add_collection(collection, autolim=False)


# Before and after


def editor_time(ms: float) -> str:
    """A time as the editor writes it, mm:ss:mmm."""
    total = round(abs(ms))
    sign = "-" if ms < 0 and total else ""
    return f"{sign}{total // 60000:02d}:{total // 1000 % 60:02d}:{total % 1000:03d}"


def time_slices(
    beatmap: Beatmap, start_ms: float | None = None, end_ms: float | None = None
) -> list[tuple[float, float]]:
    """Up to MAX_COLUMNS (start, end) ms of short passages, spread evenly over the range.

    A passage starts at a new combo and ends where one ends, after 8 to 12 objects (fewer where
    the map is short). Without a range it is the whole map. Raises ValueError when there is no
    object in it.
    """
    low = -np.inf if start_ms is None else start_ms
    high = np.inf if end_ms is None else end_ms
    objects = [o for o in beatmap.objects if o.end_time >= low and o.time <= high]
    if not objects:
        raise ValueError(
            f"{beatmap.name}: no object between {start_ms} and {end_ms} ms; "
            "choose a range that holds some"
        )
    columns = int(np.clip(len(objects) // SLICE_OBJECTS[1], 1, MAX_COLUMNS))
    numbers = dict(zip(map(id, beatmap.objects), combo_numbers(beatmap), strict=True))
    starts = [i for i, o in enumerate(objects) if numbers[id(o)][0] <= 1 or i == 0]
    slices, used = [], 0
    for column in range(columns):
        wanted = (column + 0.5) / columns * len(objects) - sum(SLICE_OBJECTS) / 4
        first = min((i for i in starts if i >= used), key=lambda i: abs(i - wanted), default=used)
        if first >= len(objects):
            break
        used = _slice_end(first, starts, len(objects))
        slices.append((objects[first].time, objects[used - 1].time))
    return slices


def _slice_end(first: int, starts: Sequence[int], count: int) -> int:
    """One past the last object of a slice that begins at `first`."""
    fewest, most = SLICE_OBJECTS
    ends = [end for end in [*starts, count] if first + fewest <= end <= first + most]
    return ends[0] if ends else min(first + most, count)


def before_after(
    before: Beatmap,
    after: Beatmap,
    path: str | os.PathLike[str],
    *,
    start_ms: float | None = None,
    end_ms: float | None = None,
) -> None:
    """Write a PNG, 1600 px wide, that shows passages of both maps, `before` above `after`.

    The passages are those of `time_slices` of `before`, within the range if one is given; a single
    one is drawn side by side. The file appears complete or not at all. Raises ValueError when
    there is no object in the range.
    """
    from matplotlib.figure import Figure

    slices = time_slices(before, start_ms, end_ms)
    side_by_side = len(slices) == 1
    rows, columns = (1, 2) if side_by_side else (2, len(slices))
    height = rows * ROW_HEIGHT * MAX_COLUMNS / columns
    figure = Figure(figsize=(PICTURE_WIDTH, height), dpi=DPI, facecolor=BACKGROUND)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    for row, (name, beatmap) in enumerate((("before", before), ("after", after))):
        for column, (start, end) in enumerate(slices):
            axes = grid[0, row] if side_by_side else grid[row, column]
            draw_playfield(axes, beatmap, start, end)
            _label(axes, name, f"{editor_time(start)} \N{EN DASH} {editor_time(end)}")
    _save(figure, FilePath(path))


def _label(axes: Axes, name: str, times: str) -> None:
    """Which map it is and which passage, above the playfield's corners."""
    y = 10 - SURROUND
    axes.text(0, y, name, color=TEXT, fontsize=11, weight="bold", va="top")
    axes.text(PLAYFIELD[0], y, times, color=FAINT_TEXT, fontsize=10, ha="right", va="top")


def _save(figure: Figure, path: FilePath) -> None:
    """Write the figure as PNG under a temporary name, then rename it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
