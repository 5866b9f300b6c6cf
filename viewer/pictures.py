"""Pictures of beatmaps: the playfield as a mapper sees it, before/after, the whole map on a sheet.

Drawn with Pillow, several times too large and then averaged down, which smooths all edges.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import ceil, cos, sin
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from beatmaps.game_rules import Colour, combo_numbers, format_time
from beatmaps.osu_file import Beatmap
from conventions.arrays import FloatArray
from conventions.whole_files import replacing
from viewer.marks import Mark
from viewer.scene import MIDDLE, PLAYFIELD, SPINNER_RADII, Item, Scene, Shown, make_scene

SURROUND = 44  # px shown around the playfield: objects may reach out of it by their radius
BACKGROUND, FIELD = (16, 16, 24), (24, 24, 36)
BORDER, GRID = (90, 90, 114), (35, 35, 51)
TEXT, FAINT_TEXT, WHITE = (232, 232, 240), (144, 144, 168), (255, 255, 255)

MARK, MARK_RADIUS = (255, 84, 112), 1.35  # radius in circle radii
NO_MARKS: Mapping[int, int] = {}

SMOOTH = 3  # times that pictures are drawn larger than they are
MAX_BODIES = 64  # that are kept from frame to frame
ARROW = np.array(  # a chevron that points along x, in radii
    [[0.5, 0], [0, 0.55], [-0.28, 0.55], [0.22, 0], [-0.28, -0.55], [0, -0.55]]
)
DASH = np.array([[-1.6, -0.5], [1.6, -0.5], [1.6, 0.5], [-1.6, 0.5]])  # a follow point

PICTURE_WIDTH = 1600  # pixels
MAX_COLUMNS = 4
SLICE_OBJECTS = (8, 12)  # a passage ends with the first combo that ends between these numbers
SHEET_CELL = 264  # pixels that one playfield of a contact sheet is wide
SHEET_WIDTH = 1600
MAX_SHEET_CELLS = 160  # with more, passages of a contact sheet become longer


class Playfield:
    """Draws the items of a scene as an image `width` pixels wide, playfield and surround.

    `smooth` is how many times larger it is drawn before it is averaged down.
    """

    def __init__(self, scene: Scene, width: int, smooth: int = SMOOTH) -> None:
        across, down = (side + 2 * SURROUND for side in PLAYFIELD)
        self.scene, self.smooth = scene, smooth
        self.scale = width * smooth / across  # drawn pixels in an osu! pixel
        self.size = width * smooth, round(width * down / across) * smooth
        self._bodies: dict[int, tuple[Image.Image, tuple[int, int]]] = {}
        self._empty = self._empty_field()

    def image(
        self,
        items: Iterable[Item],
        *,
        lines: Iterable[tuple[FloatArray, FloatArray, bool]] = (),
        counts: bool = False,
        rings: Iterable[tuple[Shown, int]] = (),
    ) -> Image.Image:
        """The items, drawn in their order over the playfield, and numbered `rings` over them.

        `lines` are (start, stop, faint) below them. With `counts` a slider's head says how often
        it is played where that is more than twice: its own reverse arrow would hide the number.
        """
        canvas = self._empty.copy()
        draw = ImageDraw.Draw(canvas)
        for start, stop, faint in lines:
            ends = [self._at(*start), self._at(*stop)]
            draw.line(ends, fill=(82, 82, 92) if faint else (163, 163, 167), width=self.smooth)
        for item in items:
            thing = self.scene.things[item.thing]
            if item.kind == "body":
                tile, corner = self._body(thing)
            else:
                tile, corner = self._tile(item, thing, counts)
            mask = tile.getchannel("A")
            if item.alpha < 1:
                mask = mask.point([round(item.alpha * value) for value in range(256)])
            canvas.paste(tile.convert("RGB"), corner, mask)
        for thing, number in rings:
            x, y = map(float, thing.head)
            _Pen(draw, self._at(x, y), self.scale).mark(number, self.scene.radius)
        return canvas.reduce(self.smooth)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """Drawn pixels of a position in osu! pixels."""
        return (x + SURROUND) * self.scale, (y + SURROUND) * self.scale

    def _empty_field(self) -> Image.Image:
        """The playfield with its grid and nothing on it."""
        image = Image.new("RGB", self.size, BACKGROUND)
        draw = ImageDraw.Draw(image)
        width, height = PLAYFIELD
        corners = [self._at(0, 0), self._at(width, height)]
        draw.rectangle(corners, fill=FIELD)
        for x in range(64, width, 64):
            draw.line([self._at(x, 0), self._at(x, height)], fill=GRID, width=self.smooth)
        for y in range(64, height, 64):
            draw.line([self._at(0, y), self._at(width, y)], fill=GRID, width=self.smooth)
        draw.rectangle(corners, outline=BORDER, width=self.smooth)
        return image

    def _body(self, thing: Shown) -> tuple[Image.Image, tuple[int, int]]:
        """A slider's body with its border, as far as the image reaches, and its corner."""
        if thing.index not in self._bodies:
            points = (thing.line + SURROUND) * self.scale
            reach = self.scene.radius * self.scale + 1
            low = np.clip(np.floor(points.min(axis=0) - reach), 0, self.size).astype(int)
            high = np.clip(np.ceil(points.max(axis=0) + reach), 0, self.size).astype(int)
            width, height = np.maximum(high - low, 1)
            tile = Image.new("RGBA", (int(width), int(height)))
            draw, colour = ImageDraw.Draw(tile), self.scene.colours[thing.colour]
            shades = [
                (1.0, _shade(colour, 0.8, white=0.35)),
                (0.88, _shade(colour, 0.28)),
                (0.5, _shade(colour, 0.36)),
            ]
            for share, shade in shades:
                _tube(draw, points - low, share * self.scene.radius * self.scale, shade)
            if len(self._bodies) >= MAX_BODIES:
                del self._bodies[next(iter(self._bodies))]
            self._bodies[thing.index] = tile, (int(low[0]), int(low[1]))
        return self._bodies[thing.index]

    def _tile(self, item: Item, thing: Shown, counts: bool) -> tuple[Image.Image, tuple[int, int]]:
        """The image of an item other than a slider's body, and where its corner is."""
        around = max(item.radius, SPINNER_RADII[0] if item.kind == "spinner" else 0)
        reach = ceil((around + 4) * self.scale)
        x, y = self._at(item.x, item.y)
        tile = Image.new("RGBA", (2 * reach + 1, 2 * reach + 1))
        pen = _Pen(ImageDraw.Draw(tile), (reach + x % 1, reach + y % 1), self.scale)
        colour = self.scene.colours[thing.colour]
        if item.kind == "circle":
            hit = thing.hit_object
            pen.circle(thing.number, colour, item.radius, hit.slides if counts else 1)
        elif item.kind == "approach":
            pen.ring(item.radius, 3.5, _shade(colour, 0.9, white=0.2))
        elif item.kind == "arrow":
            pen.polygon(0.8 * item.radius * _turned(ARROW, item.angle), WHITE)
        elif item.kind == "ball":
            pen.ball(colour, item.radius, self.scene.radius)
        elif item.kind == "follow":
            pen.ring(item.radius, 4, (255, 214, 150))
        elif item.kind == "point":
            pen.polygon(item.radius * _turned(DASH, item.angle), (228, 228, 238))
        else:
            pen.spinner(colour, item.radius, item.angle)
        return tile, (int(x // 1) - reach, int(y // 1) - reach)


class _Pen:
    """Draws shapes around one place of a tile; lengths are in osu! pixels."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, centre: tuple[float, float], scale: float
    ) -> None:
        self.draw, self.centre, self.scale = draw, centre, scale

    def _box(self, radius: float) -> list[float]:
        (x, y), reach = self.centre, radius * self.scale
        return [x - reach, y - reach, x + reach, y + reach]

    def disc(self, radius: float, colour: Colour) -> None:
        self.draw.ellipse(self._box(radius), fill=colour)

    def ring(self, radius: float, width: float, colour: Colour) -> None:
        """A ring whose outer edge is half its width outside the radius."""
        thickness = max(round(width * self.scale), 1)
        self.draw.ellipse(self._box(radius + width / 2), outline=colour, width=thickness)

    def polygon(self, points: FloatArray, colour: Colour) -> None:
        corners = points * self.scale + self.centre
        self.draw.polygon([(float(x), float(y)) for x, y in corners], fill=colour)

    def text(self, text: str, height: float, down: float = 0.0) -> None:
        """White text as high as that, its middle `down` px below the place."""
        size = max(height * self.scale * 1.35, 1.0)
        place = self.centre[0], self.centre[1] + down * self.scale
        self.draw.text(
            place,
            text,
            WHITE,
            _font(round(size)),
            "mm",
            stroke_width=round(size / 28),
            stroke_fill=WHITE,
        )

    def circle(self, number: int, colour: Colour, radius: float, slides: int) -> None:
        """A hit circle with its number."""
        self.disc(radius, WHITE)
        self.disc(0.88 * radius, _shade(colour, 0.95))
        self.disc(0.64 * radius, _shade(colour, 0.8))
        height = radius * (0.8 if number < 100 else 0.55)
        if slides <= 2:
            self.text(str(number), height)
        else:
            self.text(str(number), 0.75 * height, down=-0.24 * radius)
            self.text(f"{slides}x", 0.42 * radius, down=0.5 * radius)

    def mark(self, number: int, radius: float) -> None:
        """A ring around an object, and a number to its upper right."""
        self.ring(MARK_RADIUS * radius, 6, MARK)
        (x, y), away = self.centre, MARK_RADIUS * radius * self.scale
        place = x + 0.75 * away, y - 0.75 * away
        font = _font(round(1.1 * radius * self.scale))
        for colour, width in ((BACKGROUND, 5), (MARK, 1)):  # readable on whatever it lies
            thick = round(width * self.scale)
            self.draw.text(
                place, str(number), MARK, font, "lb", stroke_width=thick, stroke_fill=colour
            )

    def ball(self, colour: Colour, radius: float, circle: float) -> None:
        """A slider ball: brighter than the body, with a white rim."""
        self.disc(radius, WHITE)
        self.disc(radius - 0.1 * circle, _shade(colour, 0.75, white=0.25))
        self.disc(0.45 * radius, _shade(colour, 1.0, white=0.5))

    def spinner(self, colour: Colour, radius: float, angle: float) -> None:
        """A disc with a mark that turns, and the ring that closes on its middle."""
        outer, inner = SPINNER_RADII
        self.ring(outer, 3, _shade(colour, 0.5))
        spoke = np.array(
            [[0.25 * outer, -5], [0.85 * outer, -5], [0.85 * outer, 5], [0.25 * outer, 5]]
        )
        for half in (0.0, np.pi):
            self.polygon(_turned(spoke, angle + half), _shade(colour, 0.7))
        self.ring(radius, 5, _shade(colour, 0.9, white=0.2))
        self.disc(inner, WHITE)


def _turned(points: FloatArray, angle: float) -> FloatArray:
    """Points (n, 2) turned clockwise (y points down) around the origin."""
    c, s = cos(angle), sin(angle)
    return points @ np.array([[c, s], [-s, c]])


def _tube(draw: ImageDraw.ImageDraw, points: FloatArray, radius: float, colour: Colour) -> None:
    """Everything within `radius` of a line (n, 2), in drawn pixels."""
    for start, stop in pairwise(points):
        along = stop - start
        length = np.hypot(*along)
        if length > 0:
            across = np.array([-along[1], along[0]]) * radius / length
            corners = [start + across, stop + across, stop - across, start - across]
            draw.polygon([(float(a), float(b)) for a, b in corners], fill=colour)
    for x, y in points:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def _shade(colour: Colour, light: float, white: float = 0.0) -> Colour:
    """The colour times `light`, then mixed with that much `white`."""
    red, green, blue = (round(light * c * (1 - white) + 255 * white) for c in colour)
    return red, green, blue


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: the same on every system."""
    return ImageFont.load_default(size)


# Pictures of time ranges


def passage(
    field: Playfield, start_ms: float, end_ms: float, marks: Mapping[int, int] = NO_MARKS
) -> Image.Image:
    """The objects that sound in [start_ms, end_ms] at once, as an editor would lay them out.

    Earlier objects lie on top. Lines lead from each object to the next, fainter into a new combo.
    Objects whose indices are in `marks` get a ring and the number that stands there.
    """
    scene = field.scene
    shown = scene.between(start_ms, end_ms)
    lines = [
        (before.end, after.head, after.hit_object.new_combo)
        for before, after in pairwise(shown)
        if "spinner" not in (before.kind, after.kind)
    ]
    items = [item for thing in reversed(shown) for item in _laid_out(scene, thing)]
    rings = [(thing, marks[thing.index]) for thing in shown if thing.index in marks]
    return field.image(items, lines=lines, counts=True, rings=rings)


def _laid_out(scene: Scene, thing: Shown) -> list[Item]:
    """The items of one object that is neither early nor late."""
    (x, y), radius = map(float, thing.head), scene.radius
    if thing.kind == "spinner":
        return [Item("spinner", thing.index, *MIDDLE, sum(SPINNER_RADII) / 2, 0.0, 0.6)]
    items = [Item("circle", thing.index, x, y, radius, 0.0, 1.0)]
    if thing.kind == "slider":
        if thing.hit_object.slides > 1:
            (tail_x, tail_y), angle = map(float, thing.line[-1]), thing.back_from(tail=True)
            items.insert(0, Item("arrow", thing.index, tail_x, tail_y, radius, angle, 1.0))
        items.insert(0, Item("body", thing.index, x, y, radius, 0.0, 1.0))
    return items


# Before and after


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


def _slice_end(
    first: int, starts: Sequence[int], count: int, sizes: tuple[int, int] = SLICE_OBJECTS
) -> int:
    """One past the last object of a slice that begins at `first`, at a combo's end if possible."""
    fewest, most = sizes
    ends = [end for end in [*starts, count] if first + fewest <= end <= first + most]
    return ends[0] if ends else min(first + most, count)


def whole_map(beatmap: Beatmap) -> list[tuple[float, float]]:
    """(start, end) ms of passages like those of `time_slices` that together are the whole map.

    They have more objects each where there would be more than `MAX_SHEET_CELLS` of them.
    """
    count = len(beatmap.objects)
    starts = [i for i, (number, _) in enumerate(combo_numbers(beatmap)) if number <= 1]
    wider = max(1, ceil(count / (SLICE_OBJECTS[0] * MAX_SHEET_CELLS)))
    fewest, most = (wider * size for size in SLICE_OBJECTS)
    passages, first = [], 0
    while first < count:
        end = _slice_end(first, starts, count, (fewest, most))
        passages.append((beatmap.objects[first].time, beatmap.objects[end - 1].time))
        first = end
    return passages


def passages_picture(
    maps: Sequence[tuple[str, Beatmap]],
    path: str | os.PathLike[str],
    *,
    start_ms: float | None = None,
    end_ms: float | None = None,
) -> None:
    """Write a PNG, 1600 px wide, that shows passages of maps of one rhythm, a row for each map.

    `maps` are (name, beatmap). The passages are those of `time_slices` of the first one, within the
    range if one is given; a single one is drawn side by side. The file appears complete or not at
    all. Raises ValueError when there is no object in the range.
    """
    slices = time_slices(maps[0][1], start_ms, end_ms)
    columns = len(maps) if len(slices) == 1 else len(slices)
    cells = []
    for name, beatmap in maps:
        field = Playfield(make_scene(beatmap), PICTURE_WIDTH // columns)
        for start, end in slices:
            cells.append(labelled(passage(field, start, end), name, _range_label(start, end)))
    save_picture(in_grid(cells, columns), Path(path))


def contact_sheet(
    maps: Sequence[tuple[str, Beatmap]],
    path: str | os.PathLike[str],
    *,
    progress: bool = True,
    marks: Sequence[Mark] = (),
) -> None:
    """Write a PNG, 1600 px wide, of the whole map: its passages one after another.

    `maps` are (name, beatmap), all of one rhythm; of each passage they stand beside each other.
    `marks` are drawn on the last map, with their places in the list from 1. The
    file appears complete or not at all.
    """
    fields = [(name, Playfield(make_scene(beatmap), SHEET_CELL)) for name, beatmap in maps]
    numbered = {mark.index: number for number, mark in enumerate(marks, 1)}
    cells = []
    for start, end in tqdm(
        whole_map(maps[0][1]), desc="contact sheet", unit="passage", disable=not progress
    ):
        for name, field in fields:
            mine = numbered if field is fields[-1][1] else {}
            image = passage(field, start, end, mine)
            label = name if len(maps) > 1 else ""
            cells.append(labelled(image, label, _range_label(start, end)))
    in_a_row = max(SHEET_WIDTH // (SHEET_CELL * len(maps)), 1) * len(maps)
    save_picture(in_grid(cells, in_a_row), Path(path))


def _range_label(start: float, end: float) -> str:
    return f"{format_time(start)} - {format_time(end)}"


def labelled(image: Image.Image, name: str, note: str) -> Image.Image:
    """The image below a line with a name on its left and a note on its right."""
    size = max(round(image.width / 28), 11)
    strip = round(1.7 * size)
    result = Image.new("RGB", (image.width, image.height + strip), BACKGROUND)
    result.paste(image, (0, strip))
    draw, edge = ImageDraw.Draw(result), SURROUND * image.width / (PLAYFIELD[0] + 2 * SURROUND)
    draw.text((edge, strip / 2), name, TEXT, _font(size), "lm")
    draw.text((image.width - edge, strip / 2), note, FAINT_TEXT, _font(size), "rm")
    return result


def in_grid(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    """Images of one size in rows of that many."""
    width, height = cells[0].size
    rows = ceil(len(cells) / columns)
    grid = Image.new("RGB", (width * min(columns, len(cells)), height * rows), BACKGROUND)
    for place, cell in enumerate(cells):
        grid.paste(cell, (place % columns * width, place // columns * height))
    return grid


def save_picture(image: Image.Image, path: Path) -> None:
    """Write the image as PNG under a temporary name, then rename it."""
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
