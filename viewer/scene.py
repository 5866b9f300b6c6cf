"""What the game shows of a beatmap: where after stacking, in which combo, when and how faint.

Nothing is drawn here. `pictures`, `animation` and the player's `player/scene.js` draw the items
that `frame` lists; the script lists the same ones from the data that `viewer/player_page.py` ships.

Positions and radii are in osu! pixels, times in ms, angles in radians clockwise (y points down).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import atan2, ceil, hypot
from typing import Literal, NamedTuple

import numpy as np

from beatmaps.game_rules import (
    DEFAULT_COLOURS,
    Colour,
    circle_radius,
    combo_numbers,
    preempt,
    stack_heights,
)
from beatmaps.osu_file import Beatmap, HitObject
from conventions import playfield
from conventions.arrays import FloatArray

PLAYFIELD = (int(playfield.PLAYFIELD[0]), int(playfield.PLAYFIELD[1]))  # px
MIDDLE = playfield.PLAYFIELD_CENTRE  # where spinners are, whatever the file says

LINE_TOLERANCE = 0.1  # px by which a drawn slider may leave its path
MAX_LINE_POINTS = 2000  # of one slider; only paths that leave every screen have more

HIT_FADE = 240.0  # ms in which an object vanishes after its end
HIT_GROWTH = 0.4  # share of its radius that a circle grows by meanwhile
SHORTEST_PREEMPT = 450.0  # ms, at approach rate 10; faster maps fade in faster
FADE_IN = 400.0  # ms
APPROACH_SCALE = 4.0  # radius of an approach circle when it appears, in circle radii
APPROACH_ALPHA = 0.9
FOLLOW_RADIUS = 2.4  # of the circle around the slider ball, in circle radii
FOLLOW_FADE = 100.0  # ms in which it grows
POINT_SPACING, FIRST_POINT, LAST_POINT = 32.0, 48.0, 32.0  # px between follow points, from the ends
POINT_RADIUS = 3.0  # px, half the size of a follow point
POINT_LEAD = 800.0  # ms between a follow point's appearing and its vanishing
MAX_POINTS = 64  # between two objects
SPINNER_RADII = (180.0, 12.0)  # px of the closing ring when a spinner begins and ends
SPINNER_SPEED = 0.03  # radians a ms


# Objects in their places


@dataclass(frozen=True)
class Shown:
    """An object as it is shown: its index in the map, its combo, and the line (n, 2) it lies on.

    The line is a slider's path, n >= 2 points within `LINE_TOLERANCE` of it; of other objects it is
    one point.
    """

    index: int
    hit_object: HitObject
    line: FloatArray
    number: int
    colour: int

    @property
    def kind(self) -> str:
        """'circle', 'slider' or 'spinner'."""
        return self.hit_object.kind

    @property
    def head(self) -> FloatArray:
        """(2,) position of the object."""
        return np.asarray(self.line[0])

    @property
    def end(self) -> FloatArray:
        """(2,) where the cursor leaves: the head again after an even number of slides."""
        return np.asarray(self.line[0 if self.hit_object.slides % 2 == 0 else -1])

    @cached_property
    def _lengths(self) -> FloatArray:
        """(n,) arc length from the head to each point of the line."""
        steps = np.hypot(*np.diff(self.line, axis=0).T)
        return np.concatenate([[0.0], np.cumsum(steps)])

    def slides_at(self, time: float) -> float:
        """How many slides are over at `time`, with the fraction of the one that goes on."""
        hit = self.hit_object
        if time < hit.time:
            return 0.0
        if hit.span_duration <= 0:
            return float(hit.slides)
        return min((time - hit.time) / hit.span_duration, float(hit.slides))

    def ball_at(self, time: float) -> FloatArray:
        """(2,) position of the slider ball, outside its time where it starts or ends."""
        slides = self.slides_at(time)
        span = min(int(slides), self.hit_object.slides - 1)
        fraction = slides - span
        length = (1 - fraction if span % 2 else fraction) * self._lengths[-1]
        return np.array([np.interp(length, self._lengths, self.line[:, axis]) for axis in (0, 1)])

    def back_from(self, tail: bool) -> float:
        """Angle in which the path goes back into the slider from its tail, or from its head."""
        line = self.line[::-1] if tail else self.line
        steps = line - line[0]
        apart = np.flatnonzero(np.hypot(steps[:, 0], steps[:, 1]) > 1e-3)
        dx, dy = steps[apart[0]] if len(apart) else (1.0, 0.0)
        return atan2(dy, dx)


def simplified(line: FloatArray, tolerance: float = LINE_TOLERANCE) -> FloatArray:
    """The fewest points (m, 2) of a line (n, 2) that Douglas and Peucker's method needs.

    No point that is left out lies farther than `tolerance` px from the line; both ends stay.
    """
    kept = np.zeros(len(line), dtype=bool)
    kept[[0, -1]] = True
    spans = [(0, len(line) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        away = _distances(line[first + 1 : last], line[first], line[last])
        farthest = int(np.argmax(away))
        if away[farthest] > tolerance:
            middle = first + 1 + farthest
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    return line[kept]


def _distances(points: FloatArray, start: FloatArray, stop: FloatArray) -> FloatArray:
    """(n,) distances of points (n, 2) to the chord from start to stop (2,)."""
    chord, offset = stop - start, points - start
    squared = float(chord @ chord)
    along = np.clip(offset @ chord / squared, 0, 1) if squared > 0 else np.zeros(len(points))
    away = offset - along[:, None] * chord
    return np.asarray(np.hypot(away[:, 0], away[:, 1]))


def _line(hit_object: HitObject) -> FloatArray:
    """The line (n, 2) of `Shown`, unstacked."""
    if hit_object.kind == "spinner":
        return np.array([MIDDLE])
    if hit_object.kind == "circle":
        return np.array([[hit_object.x, hit_object.y]])
    line = hit_object.path().polyline()
    if len(line) > MAX_LINE_POINTS:
        line = line[np.linspace(0, len(line) - 1, MAX_LINE_POINTS).astype(np.intp)]
    return simplified(line if len(line) > 1 else np.repeat(line, 2, axis=0))


@dataclass(frozen=True)
class Scene:
    """All objects of a beatmap where the game shows them, and what it times their appearing by."""

    radius: float
    preempt: float
    fade_in: float
    colours: list[Colour]
    things: list[Shown]

    def between(self, start_ms: float, end_ms: float) -> list[Shown]:
        """The objects that sound in [start_ms, end_ms]."""
        return [
            thing
            for thing in self.things
            if thing.hit_object.end_time >= start_ms and thing.hit_object.time <= end_ms
        ]


def make_scene(beatmap: Beatmap) -> Scene:
    """The objects of a beatmap with their combos, stacked."""
    lead, radius = preempt(beatmap.approach_rate), circle_radius(beatmap.circle_size)
    numbers = combo_numbers(beatmap)
    flat = [
        Shown(index, hit_object, _line(hit_object), *numbers[index])
        for index, hit_object in enumerate(beatmap.objects)
    ]
    heads, tails = (np.array([t.line[k] for t in flat]).reshape(-1, 2) for k in (0, -1))
    heights = stack_heights(beatmap, heads, tails)
    return Scene(
        radius=radius,
        preempt=lead,
        fade_in=FADE_IN * min(1.0, lead / SHORTEST_PREEMPT),
        colours=beatmap.colours or DEFAULT_COLOURS,
        things=[
            Shown(t.index, t.hit_object, t.line - height * radius / 10, t.number, t.colour)
            if height and t.kind != "spinner"
            else t
            for t, height in zip(flat, heights, strict=True)
        ],
    )


# One moment

ItemKind = Literal["point", "body", "arrow", "circle", "ball", "follow", "spinner", "approach"]


class Item(NamedTuple):
    """One shape to draw: of which object (its index), where, how large, how turned, how opaque.

    A "point" is a follow point before the object; a "spinner" has the radius of its closing ring;
    a "body" lies where its object's line does.
    """

    kind: ItemKind
    thing: int
    x: float
    y: float
    radius: float
    angle: float
    alpha: float


def frame(scene: Scene, time: float) -> list[Item]:
    """What is shown at `time` when everything is hit on time, from the bottom to the top.

    Earlier objects lie on later ones, approach circles on all objects, follow points below them.
    """
    points, objects, approaches = [], [], []
    for thing in reversed(scene.things):
        if thing.index:
            points += _follow_points(scene, scene.things[thing.index - 1], thing, time)
        fade_in = _fade_in(scene, thing, time)
        if fade_in <= 0 or time >= thing.hit_object.end_time + HIT_FADE:
            continue
        if thing.kind == "spinner":
            objects.append(_spinner(thing, time, fade_in))
            continue
        draw = _slider if thing.kind == "slider" else _circle
        objects += draw(scene, thing, time, fade_in)
        approaches += _approach(scene, thing, time)
    return points + objects + approaches


def _ramp(value: float) -> float:
    """`value` limited to [0, 1]."""
    return min(max(value, 0.0), 1.0)


def _fade_in(scene: Scene, thing: Shown, time: float) -> float:
    """How far an object has faded in; spinners appear only just before their time."""
    lead = scene.fade_in if thing.kind == "spinner" else scene.preempt
    return _ramp((time - thing.hit_object.time + lead) / scene.fade_in)


def _fade_out(end: float, time: float) -> float:
    """What is left of an object after its end."""
    return 1 - _ramp((time - end) / HIT_FADE)


def _spinner(thing: Shown, time: float, fade_in: float) -> Item:
    """The closing ring, turning from the spinner's beginning to its end."""
    hit = thing.hit_object
    duration = hit.end_time - hit.time
    done = _ramp((time - hit.time) / duration) if duration > 0 else float(time >= hit.time)
    first, last = SPINNER_RADII
    angle = SPINNER_SPEED * min(max(time - hit.time, 0.0), duration)
    alpha = min(fade_in, _fade_out(hit.end_time, time))
    return Item("spinner", thing.index, *MIDDLE, first + (last - first) * done, angle, alpha)


def _circle(scene: Scene, thing: Shown, time: float, fade_in: float) -> list[Item]:
    """A hit circle or a slider's head; it grows and vanishes once it is hit."""
    hit = 1 - _fade_out(thing.hit_object.time, time)
    if hit >= 1:
        return []
    x, y = map(float, thing.head)
    radius, alpha = scene.radius * (1 + HIT_GROWTH * hit), min(fade_in, 1 - hit)
    return [Item("circle", thing.index, x, y, radius, 0.0, alpha)]


def _approach(scene: Scene, thing: Shown, time: float) -> list[Item]:
    """The ring that closes upon an object until its time."""
    left = thing.hit_object.time - time
    if left <= 0:
        return []
    x, y = map(float, thing.head)
    radius = scene.radius * (1 + (APPROACH_SCALE - 1) * left / scene.preempt)
    alpha = APPROACH_ALPHA * _ramp((scene.preempt - left) / min(2 * scene.fade_in, scene.preempt))
    return [Item("approach", thing.index, x, y, radius, 0.0, alpha)]


def _slider(scene: Scene, thing: Shown, time: float, fade_in: float) -> list[Item]:
    """Body, reverse arrows, head, and while it is played the ball and the circle around it."""
    hit = thing.hit_object
    alpha = min(fade_in, _fade_out(hit.end_time, time))
    x, y = map(float, thing.head)
    items = [Item("body", thing.index, x, y, scene.radius, 0.0, alpha)]
    items += _arrows(scene, thing, time, fade_in)
    items += _circle(scene, thing, time, fade_in)
    if hit.time <= time <= hit.end_time:
        ball_x, ball_y = map(float, thing.ball_at(time))
        grown = _ramp((time - hit.time) / FOLLOW_FADE)
        around = scene.radius * (1 + (FOLLOW_RADIUS - 1) * grown)
        items.append(Item("ball", thing.index, ball_x, ball_y, scene.radius, 0.0, 1.0))
        items.append(Item("follow", thing.index, ball_x, ball_y, around, 0.0, grown))
    return items


def _arrows(scene: Scene, thing: Shown, time: float, fade_in: float) -> list[Item]:
    """The next reverse arrow at the tail, and at the head once that is hit."""
    hit, passed = thing.hit_object, int(thing.slides_at(time))
    arrows = []
    for repeat in (passed + 1, passed + 2):
        at_tail = repeat % 2 == 1
        if repeat >= hit.slides or (not at_tail and time < hit.time):
            continue
        x, y = map(float, thing.line[-1 if at_tail else 0])
        angle = thing.back_from(at_tail)
        arrows.append(Item("arrow", thing.index, x, y, scene.radius, angle, fade_in))
    return arrows


def _follow_points(scene: Scene, before: Shown, after: Shown, time: float) -> list[Item]:
    """The dots that lead from an object's end to the next one of its combo."""
    if after.hit_object.new_combo or "spinner" in (before.kind, after.kind):
        return []
    start, stop = before.hit_object.end_time, after.hit_object.time
    lead = POINT_LEAD * min(1.0, scene.preempt / SHORTEST_PREEMPT)
    if not start - lead < time < stop + scene.fade_in:
        return []
    (x, y), (dx, dy) = before.end, after.head - before.end
    distance, angle = hypot(dx, dy), atan2(dy, dx)
    room = (distance - LAST_POINT - FIRST_POINT) / POINT_SPACING
    points = []
    for k in range(min(max(ceil(room), 0), MAX_POINTS)):
        fraction = (FIRST_POINT + k * POINT_SPACING) / distance
        vanishes = start + fraction * (stop - start)
        alpha = min(
            _ramp((time - vanishes + lead) / scene.fade_in),
            1 - _ramp((time - vanishes) / scene.fade_in),
        )
        if alpha > 0:
            place = float(x + fraction * dx), float(y + fraction * dy)
            points.append(Item("point", after.index, *place, POINT_RADIUS, angle, alpha))
    return points
