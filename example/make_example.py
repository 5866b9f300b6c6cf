"""Make the example: a map of a minute, its tune, a hit sound and a background.

    python example/make_example.py

All of it is computed here, so that the example belongs to nobody else and can be changed here. The
same versions of numpy, soundfile and matplotlib write the same bytes. `soundfile` (the encoder) is
needed only here: `pip install soundfile`.

Time is counted in ticks of a quarter beat (80 ms at 187.5 BPM), 16 ticks a measure. Positions are
complex numbers x + iy in osu! pixels: turning is a product, mirroring a conjugate.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

# As a script only this folder is on the path; slider geometry is one level up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from beatmaps.slider_path import SliderPath, slider_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Sound = NDArray[np.float64]  # mono samples
Points = NDArray[np.complex128]  # x + iy in osu! pixels

TICK_MS = 80  # a quarter beat at 187.5 BPM
MEASURE = 16  # ticks
OFFSET_MS = 600  # the first beat
PREEMPT_MS = 600  # at approach rate 9
SLIDER_MULTIPLIER = 1.6
RATE = 44_100  # audio samples a second
CENTRE = 256 + 192j

MAP_NAME = "osu-diffusion - First Steps (osu-diffusion) [Original].osu"
AUDIO_NAME = "first steps.ogg"
BELL_NAME = "soft-hitwhistle2.ogg"
BACKGROUND_NAME = "background.jpg"


# --------------------------------------------------------------------------- what is mapped


@dataclass(frozen=True)
class Section:
    """A part of the tune and how it is mapped; a line of `combos` is a measure and a combo."""

    name: str
    chords: str
    melody: tuple[str, ...]  # a measure each: eight scale degrees, one a half beat
    combos: tuple[str, ...] = ()
    velocity: float = 1.0
    spacing: float = 100.0  # pixels between objects half a beat apart
    volume: int = 60
    sample_set: int = 2  # 1 normal, 2 soft, 3 drum
    sample_index: int = 0
    kiai: bool = False

    @property
    def measures(self) -> int:
        """Length in measures, a chord each."""
        return len(self.chords.split())


# A combo is a list of `tick:shape[length][xslides][turn][*spacing]`: the tick in the measure; the
# shape (a circle `o` or a key of SHAPES, a capital for its mirror image); one span's length in
# ticks; the turn of the movement towards the object in degrees; a factor of the spacing. `@1.3`
# in front sets the slider velocity of that combo relative to the section's.
CHORUS = (
    "0:p2 4:o+70 6:o+110 8:P2+50 12:o+80 14:o+120",
    "0:o 2:o+120 4:o+120 6:l2-60 10:o-100 12:p2-40",
    "0:o 2:o+144 4:o+144 6:o+144 8:o+144 10:s4+40*0.9",
    "0:r4 6:o+60 8:o+90 10:o+90 12:o+90 13:o+20*0.35 14:o+20*0.35",
    "0:l1x3-30 4:o+90 6:o+90 8:L1x3+60 12:o+100 14:o+100",
    "0:o 2:o+90 4:o+90 6:o+90 8:v4+30 14:o-70",
    "@1.3 0:p2 4:P2+30 8:p2+30 12:o+60 14:o+160*0.8",
    "0:o 2:o+140 4:o-140 6:o+140 8:o-140 10:w4+60",
)
CHORUS_AGAIN = (
    "0:P2 4:o-70 6:o-110 8:p2-50 12:o-80 14:o-120",
    "0:l2 4:o+110 6:o+110 8:l2+60 12:o-110 14:o-110",
    "0:o 2:o+120 4:o+120 6:o+0*0 8:u4+50 14:o+80",
    "0:o 2:o+140 4:o-140 6:o+140 8:l1x2+60 12:p2+60",
    "0:r4 6:o-60 8:R4-60 14:o+70",
    "0:o 1:o+15*0.35 2:o+15*0.35 4:p2+40 8:o+100 10:o+100 12:o+100 14:o+100",
    "0:o 2:o+144 4:o+144 6:o+144 8:o+144 10:l1x4+60",
    "@1.3 0:p4 6:o+50 8:s4+50 14:o+90",
)
CHORUS_CHORDS = "G A F#m Bm G A D D"
CHORUS_MELODY = (
    "7 7 9 11 9 7 5 7",
    "8 8 6 8 11 8 6 4",
    "9 9 8 6 4 6 8 6",
    "7 5 7 9 12 9 7 5",
    "10 10 9 7 5 7 9 10",
    "11 11 10 8 6 8 10 11",
    "11 9 7 9 14 11 9 7",
    "14 13 11 9 8 6 4 6",
)

SECTIONS = (
    Section(
        "intro",
        "Bm G D A Bm G D A",
        (
            "5 4 2 4 5 4 2 4",
            "3 5 7 5 3 5 7 5",
            "4 2 4 7 4 2 4 7",
            "6 4 1 4 6 4 8 6",
            "5 4 2 4 5 7 9 7",
            "3 5 7 5 7 9 10 9",
            "9 7 4 7 9 7 11 9",
            "8 6 4 6 8 6 11 8",
        ),
        (
            "0:p4 8:o-40 12:l2+40",
            "0:P4+30 8:o+60 12:l2-30",
            "0:s4 8:o+90 12:o+90",
            "0:c4 8:p4-50 14:o+60",
            "0:u6 8:o+90 10:o+60 12:l2+60",
            "0:p4 6:o-60 8:P4+30 14:o+70",
            "0:l2 4:l2+90 8:l2+90 12:l2+90",
            "0:l2x2 8:o+90 10:o+90 12:l2+90",
        ),
        velocity=0.8,
        spacing=84.0,
        volume=45,
    ),
    Section(
        "verse",
        "Bm G D A Bm G D A",
        (
            "5 5 4 2 4 5 7 5",
            "3 3 5 3 7 5 3 5",
            "4 4 2 4 7 4 2 1",
            "1 1 2 4 6 4 2 1",
            "5 5 4 2 4 5 7 8",
            "7 7 5 3 5 7 9 7",
            "9 8 7 4 7 8 9 11",
            "8 8 6 4 6 8 11 8",
        ),
        (
            "0:o 2:o+60 4:p4+60 10:o-70 12:l2-50",
            "0:P4 6:o+80 8:o+80 10:o+80 12:p2-60",
            "0:o 2:o+90 4:o+90 6:u4-40 12:l2-60",
            "0:r4 6:o+60 8:l1x3+60 12:o+120 14:o+120",
            "0:o 2:o-60 4:P4-60 10:o+70 12:l2+50",
            "0:v4 6:o+60 8:o+100 10:o+100 12:P2-60",
            "0:o 2:o+90 4:o+90 6:s4-40 12:p2-40",
            "0:R4 6:o-60 8:o-110 10:o-110 12:o+90 13:o+20*0.35 14:o+20*0.35",
        ),
        volume=55,
    ),
    Section(
        "build",
        "G G A A",
        (
            "3 3 5 3 5 7 5 7",
            "7 7 5 7 9 7 9 10",
            "11 11 11 11 11 11 11 11",
            "11 11 11 11 13 13 15 15",
        ),
        (
            "0:l1x5 6:o+90 8:o+90 10:o+90 12:l2+60",
            "0:l1x4 6:o-90 8:o-90 10:o-90 12:o-90 13:o-20*0.35 14:o-20*0.35",
            "0:spinner26",
            "",
        ),
        spacing=108.0,
        volume=60,
        sample_set=1,
    ),
    Section(
        "first chorus",
        CHORUS_CHORDS,
        CHORUS_MELODY,
        CHORUS,
        velocity=1.1,
        spacing=118.0,
        volume=75,
        sample_set=1,
        sample_index=1,
        kiai=True,
    ),
    Section(
        "break",
        "Bm G D A",
        ("5 4 2 4 5 4 2 4", "3 5 7 5 3 5 7 5", "4 2 4 7 4 2 4 7", "6 4 1 4 6 4 8 6"),
    ),
    Section(
        "bridge",
        "Em G Bm A",
        ("8 8 10 8 5 5 3 5", "3 5 7 5 10 7 5 3", "9 9 7 5 9 7 5 4", "8 8 6 4 8 6 11 8"),
        (
            "0:c8 12:o+60",
            "0:C6 8:c4+60 14:o+60",
            "@0.8 0:p8 12:o+60 14:o+60",
            "0:w6 8:o+60 10:o+0*0 12:c2+60",
        ),
        velocity=0.75,
        spacing=78.0,
        volume=50,
        sample_index=2,
    ),
    Section(
        "second chorus",
        CHORUS_CHORDS,
        CHORUS_MELODY,
        CHORUS_AGAIN,
        velocity=1.1,
        spacing=118.0,
        volume=80,
        sample_set=1,
        sample_index=1,
        kiai=True,
    ),
    Section(
        "outro",
        "G A D D",
        ("7 7 5 7 9 7 5 7", "8 8 6 4 6 8 11 8", "7 7 7 7 7 7 7 7", "7 7 7 7 7 7 7 7"),
        (
            "0:p4 6:o+50 8:P4+50 14:o+60",
            "0:v4 6:o-60 8:o-90 10:o-90 12:l2x2-40*0.8",
            "4:spinner24",
            "",
        ),
        velocity=0.9,
        spacing=90.0,
        volume=50,
    ),
)


def measures() -> Iterator[tuple[int, Section, int]]:
    """Every measure of the tune: its first tick, its section and its index in that section."""
    number = 0
    for section in SECTIONS:
        for index in range(section.measures):
            yield number * MEASURE, section, index
            number += 1


def to_ms(tick: int) -> int:
    """Time of a tick in the audio, in ms."""
    return OFFSET_MS + tick * TICK_MS


# --------------------------------------------------------------------------- slider shapes


@dataclass(frozen=True)
class Shape:
    """Curve type and control points behind the head, of a slider that sets out along +x."""

    letter: str
    points: tuple[complex, ...]


SHAPES = {
    "l": Shape("L", (1,)),
    "v": Shape("L", (0.55, 1 + 0.3j)),
    "p": Shape("P", (0.5 + 0.14j, 0.87 + 0.5j)),
    "u": Shape("B", (0.4, 0.8 + 0.05j, 0.95 + 0.5j)),
    "s": Shape("B", (0.35 - 0.4j, 0.65 + 0.4j, 1)),
    # A red anchor is the same point twice.
    "r": Shape("B", (0.5, 0.5, 0.72 + 0.02j, 0.85 + 0.4j)),
    "w": Shape("B", (0.17 - 0.2j, 0.33, 0.33, 0.5 + 0.2j, 0.67, 0.67, 0.84 - 0.2j, 1)),
    "c": Shape("C", (0.3 - 0.16j, 0.7 + 0.16j, 1)),
}
SPARE_PX = 2.0  # rounding the points must not leave the path shorter than the slider


def path_of(letter: str, points: Points, pixel_length: float | None = None) -> SliderPath:
    """The game's path for control points given as complex numbers, head first."""
    return slider_path(letter, np.stack([points.real, points.imag], axis=-1), pixel_length)


def at(path: SliderPath, distances: NDArray[np.float64]) -> Points:
    """Positions at arc lengths (n,) in pixels, as complex numbers (n,)."""
    xy = path.position_at(distances)
    return xy[:, 0] + 1j * xy[:, 1]


# --------------------------------------------------------------------------- objects


@dataclass(frozen=True)
class Mapped:
    """One object of the map before rounding; a slider's `points` follow its head."""

    tick: int
    letter: str  # a slider's curve type, empty otherwise
    position: complex = CENTRE
    points: tuple[complex, ...] = ()
    pixel_length: float = 0.0
    span: int = 0  # ticks of one slide, or of the spinner; 0 for a circle
    slides: int = 1
    new_combo: bool = False
    colour_skip: int = 0

    @property
    def is_spinner(self) -> bool:
        """Whether it is a spinner: it lasts without being a slider."""
        return self.span > 0 and not self.letter

    @property
    def end_tick(self) -> int:
        """Tick at which the object ends."""
        return self.tick + self.span * self.slides

    @property
    def sounding_ticks(self) -> list[int]:
        """Ticks of the hit sounds: a circle's own, a slider's edges, a spinner's end."""
        if self.is_spinner:
            return [self.end_tick]
        return [self.tick + self.span * k for k in range(self.slides + 1 if self.letter else 1)]

    def body(self, count: int = 9) -> Points:
        """`count` points along a slider as far as its pixel length; the one point of others."""
        if not self.letter:
            return np.array([self.position])
        return _slider_body(self.letter, (self.position, *self.points), self.pixel_length, count)

    def moved(self, turn: complex, shift: complex, mirror: bool) -> Mapped:
        """The same object mirrored at the x axis (if asked), then turned and shifted."""
        heads = np.array([self.position, *self.points])
        heads = (heads.conjugate() if mirror else heads) * turn + shift
        return replace(self, position=complex(heads[0]), points=tuple(map(complex, heads[1:])))


@lru_cache(maxsize=4096)
def _slider_body(letter: str, points: tuple[complex, ...], length: float, count: int) -> Points:
    """`count` points from a slider's head to its end."""
    return at(path_of(letter, np.array(points), length), np.linspace(0, length, count))


TOKEN = re.compile(
    r"(?P<tick>\d+):(?P<shape>spinner|[olvpusrwcLVPUSRWC])(?P<span>\d*)(x(?P<slides>\d))?"
    r"(?P<turn>[+-]\d+)?(\*(?P<factor>[\d.]+))?"
)


def make_object(token: re.Match[str], tick: int, velocity: float) -> Mapped:
    """The object that a token asks for, its head at the origin and setting out along +x."""
    if token["shape"] == "spinner":
        return Mapped(tick, "", span=int(token["span"]))
    if token["shape"] == "o":
        return Mapped(tick, "", 0j)
    shape = SHAPES[token["shape"].lower()]
    length = velocity * SLIDER_MULTIPLIER * 100 * int(token["span"]) / 4
    # Close to its size first: how finely the game flattens a curve depends on that.
    curve = length * np.array([0, *shape.points], dtype=np.complex128)
    if token["shape"].isupper():
        curve = curve.conjugate()
    curve *= (length + SPARE_PX) / path_of(shape.letter, curve).natural_length
    points = tuple(map(complex, curve[1:]))
    span, slides = int(token["span"]), int(token["slides"] or 1)
    return Mapped(tick, shape.letter, 0j, points, length, span, slides)


def leaving(mapped: Mapped, heading: complex) -> tuple[complex, complex]:
    """Where the cursor leaves an object it reached along `heading`, and in which direction."""
    if not mapped.letter:
        return mapped.position, heading
    body = mapped.body(33)
    if mapped.slides % 2 == 0:
        body = body[::-1]
    return complex(body[-1]), complex((body[-1] - body[-2]) / abs(body[-1] - body[-2]))


def distance(ticks: int, spacing: float) -> float:
    """Pixels to move in a time; less than proportional, so that long gaps stay on the screen."""
    return spacing * min(max(ticks / 2, 1.0), 3.0) ** 0.6


# --------------------------------------------------------------------------- their places

MARGIN = 28  # pixels between an object's centre line and the edge of the playfield
CLEARANCE = 80.0  # pixels between centres that still look apart; a circle is 73 wide
STACK_COST = 8.0  # of lying exactly on an earlier object
LOOK_BACK = 24  # ticks; older objects have left the screen
BEAM = 24  # unfinished maps that are followed
CHILDREN = 4  # of each of them that may be followed further
TURNS = np.arange(-165, 181, 15)  # degrees beyond the turn that is written
TWISTS = np.arange(-60, 61, 15)  # degrees between the movement and the slider's direction


@dataclass(frozen=True)
class State:
    """An unfinished map: its objects, where the cursor is and goes, and what it cost so far."""

    cost: float = 0.0
    objects: tuple[Mapped, ...] = ()
    here: complex = CENTRE
    heading: complex = 1 + 0j
    side: int = 1  # -1 while a combo is mirrored

    @property
    def end_tick(self) -> int:
        """Tick at which the last object ends."""
        return self.objects[-1].end_tick if self.objects else 0


def choreograph() -> list[Mapped]:
    """All objects in their places: a beam search, object by object, for the lowest cost.

    Turns are kept as written (all of a combo's mirrored, perhaps) unless that leads out of the
    playfield or onto objects that are still on the screen.
    """
    beam = [State()]
    for start, section, index in measures():
        velocity, combo = split_velocity(section, index)
        for number, text in enumerate(combo.split()):
            token = TOKEN.fullmatch(text)
            assert token is not None, f"not a token: {text}"
            # A chorus begins with a jump in colour.
            skip = 1 if section.kiai and index == 0 and number == 0 else 0
            thing = make_object(token, start + int(token["tick"]), velocity)
            thing = replace(thing, new_combo=number == 0, colour_skip=skip)
            turn, factor = float(token["turn"] or 0), float(token["factor"] or 1)
            beam = extended(beam, thing, turn, factor * section.spacing)
    return list(beam[0].objects)


def extended(beam: list[State], thing: Mapped, turn: float, spacing: float) -> list[State]:
    """The best ways to go on from the states of a beam with one more object, best first."""
    if thing.is_spinner:
        return [replace(state, objects=(*state.objects, thing), here=CENTRE) for state in beam]
    if thing.tick - beam[0].end_tick > MEASURE:  # after a break the cursor may be anywhere
        beam = [replace(state, here=CENTRE) for state in beam]
    found = []
    for state in beam:
        sides = (1, -1) if thing.new_combo else (state.side,)
        children = [
            child for side in sides for child in placings(state, thing, turn, spacing, side)
        ]
        found += sorted(children, key=lambda child: child[0])[:CHILDREN]
    found.sort(key=lambda child: child[0])
    return [follow(*child) for child in found[:BEAM]]


Child = tuple[float, State, Mapped, complex, complex, int]


def placings(state: State, thing: Mapped, turn: float, spacing: float, side: int) -> list[Child]:
    """Candidates (cost, state, object, position, direction, side) for the next object."""
    grid = np.meshgrid(TURNS, TWISTS if thing.letter else np.zeros(1))
    turns, twists = grid[0].ravel(), grid[1].ravel()  # (K,) each
    travel = state.heading * np.exp(1j * np.radians(side * turn + turns))
    direction = travel * np.exp(1j * np.radians(twists))
    position = state.here + distance(thing.tick - state.end_tick, spacing) * travel
    body = thing.body() if side == 1 else thing.body().conjugate()
    points = np.outer(direction, body) + position[:, None]  # (K, P)
    # Combos may begin in any direction, rather ahead than back.
    effort = np.abs(turns) / (30 if thing.new_combo else 10) + np.abs(twists) / 12
    cost = state.cost + effort + _outside(points) + _crowding(points, thing.tick, state.objects)
    cost -= 0.01 * np.abs(points.mean(axis=1) - _recent_centre(state.objects))
    best = np.argsort(cost, kind="stable")[:CHILDREN]
    return [
        (float(cost[k]), state, thing, complex(position[k]), complex(direction[k]), side)
        for k in best
    ]


def follow(
    cost: float, state: State, thing: Mapped, position: complex, direction: complex, side: int
) -> State:
    """The state behind an object that is put at a position, in a direction."""
    placed = thing.moved(direction, position, mirror=side == -1)
    here, heading = leaving(placed, direction)
    return State(cost, (*state.objects, placed), here, heading, side)


def _outside(points: Points) -> NDArray[np.float64]:
    """(K, P) -> (K,): a large cost for leaving the playfield, a small one for hugging its edge."""
    edge = np.minimum(
        np.minimum(points.real, 512 - points.real), np.minimum(points.imag, 384 - points.imag)
    ).min(axis=1)
    return 20 * np.maximum(MARGIN - edge, 0) + 0.1 * np.maximum(56 - edge, 0)


def _crowding(points: Points, tick: int, before: tuple[Mapped, ...]) -> NDArray[np.float64]:
    """(K, P) -> (K,): the cost of covering objects on the screen, other than in a stream."""
    cost = np.zeros(len(points))
    for other in before[-12:]:
        age = tick - other.end_tick
        if not 1 < age < LOOK_BACK or other.is_spinner:
            continue
        gap = np.abs(points[:, :, None] - other.body()).min(axis=(1, 2))
        weight = 0.6 if age < LOOK_BACK / 2 else 0.25
        cost += np.where(gap > 1, weight * np.maximum(CLEARANCE - gap, 0), STACK_COST)
    return cost


def _recent_centre(before: tuple[Mapped, ...]) -> complex:
    """Mean position of the last dozen objects, the playfield's centre at first."""
    return complex(np.mean([CENTRE, *(m.body().mean() for m in before[-12:])]))


def split_velocity(section: Section, index: int) -> tuple[float, str]:
    """Slider velocity and tokens of a section's measure."""
    combo = section.combos[index] if section.combos else ""
    if not combo.startswith("@"):
        return section.velocity, combo
    factor, tokens = combo[1:].split(maxsplit=1)
    return section.velocity * float(factor), tokens


# --------------------------------------------------------------------------- the .osu file

WHISTLE, FINISH, CLAP = 2, 4, 8
NORMAL_SET, SOFT_SET, DRUM_SET = 1, 2, 3
KIAI = 1
COLOURS = ("255,168,88", "112,204,255", "255,124,160", "152,232,144")


def section_at(tick: int) -> tuple[Section, int]:
    """Section of a tick and the measure in it; the last one also after its end."""
    whole = list(measures())
    _, section, index = whole[min(tick // MEASURE, len(whole) - 1)]
    return section, index


def hit_sound(tick: int) -> tuple[int, int, int]:
    """Sound bits, sample set and addition set (0: as the timing point says) of a tick."""
    section, index = section_at(tick)
    beat = tick % MEASURE
    if beat == 0 and index % 4 == 0:
        return FINISH, 0, 0
    if beat in (4, 12):
        return CLAP, 0, DRUM_SET if section.kiai else 0
    if beat % 2:
        return 0, DRUM_SET, 0  # fills between the half beats, like the snare in the tune
    pitches = [int(pitch) for pitch in section.melody[index].split()]
    if beat == 0 or pitches[beat // 2] == max(pitches):
        return WHISTLE, 0, SOFT_SET if section.kiai else 0
    return 0, 0, 0


def object_line(mapped: Mapped) -> str:
    """The object as a line of [HitObjects], its coordinates rounded."""
    sounds = [hit_sound(tick) for tick in mapped.sounding_ticks]
    kind = 8 if mapped.is_spinner else 2 if mapped.letter else 1
    flags = kind | (4 if mapped.new_combo else 0) | mapped.colour_skip << 4
    x, y = round(mapped.position.real), round(mapped.position.imag)
    start = f"{x},{y},{to_ms(mapped.tick)},{flags}"
    if mapped.is_spinner:
        return f"{start},{FINISH},{to_ms(mapped.end_tick)},0:0:0:0:"
    if not mapped.letter:
        bits, normal, addition = sounds[0]
        return f"{start},{bits},{normal}:{addition}:{circle_sample(mapped)}"
    curve = "|".join(f"{round(z.real)}:{round(z.imag)}" for z in mapped.points)
    edges = "|".join(str(bits) for bits, _, _ in sounds)
    sets = "|".join(f"{normal}:{addition}" for _, normal, addition in sounds)
    shape = f"{mapped.letter}|{curve},{mapped.slides},{mapped.pixel_length:.12g}"
    return f"{start},0,{shape},{edges},{sets},0:0:0:0:"


def circle_sample(mapped: Mapped) -> str:
    """Sample index, volume and file of a circle: the bridge's circles play the bell by name."""
    return f"0:70:{BELL_NAME}" if section_at(mapped.tick)[0].sample_index == 2 else "0:0:"


def timing_lines() -> list[str]:
    """The tempo, and a green line wherever velocity, samples, volume or kiai change."""
    first = SECTIONS[0]
    lines = [f"{OFFSET_MS},{4 * TICK_MS},4,{first.sample_set},0,{first.volume},1,0"]
    state = ""
    for start, section, index in measures():
        velocity, _ = split_velocity(section, index)
        samples = f"{section.sample_set},{section.sample_index},{section.volume}"
        new_state = f"{-100 / velocity:.12g},4,{samples},0,{KIAI if section.kiai else 0}"
        if new_state != state:
            lines.append(f"{to_ms(start)},{new_state}")
        state = new_state
    return lines


def break_lines(objects: list[Mapped]) -> list[str]:
    """A break in every gap between objects that is longer than two measures."""
    lines = []
    for last, following in pairwise(objects):
        if following.tick - last.end_tick > 2 * MEASURE:
            lines.append(f"2,{to_ms(last.end_tick) + 200},{to_ms(following.tick) - PREEMPT_MS}")
    return lines


MAP = """osu file format v14

[General]
AudioFilename: {audio}
AudioLeadIn: 0
PreviewTime: {preview}
Countdown: 0
SampleSet: Soft
StackLeniency: 0.7
Mode: 0
LetterboxInBreaks: 0
WidescreenStoryboard: 1

[Editor]
Bookmarks: {bookmarks}
DistanceSpacing: 1.2
BeatDivisor: 4
GridSize: 4
TimelineZoom: 2

[Metadata]
Title:First Steps
TitleUnicode:First Steps
Artist:osu-diffusion
ArtistUnicode:osu-diffusion
Creator:osu-diffusion
Version:Original
Source:
Tags:example synthesised instrumental
BeatmapID:0
BeatmapSetID:-1

[Difficulty]
HPDrainRate:5
CircleSize:4
OverallDifficulty:8
ApproachRate:9
SliderMultiplier:{multiplier}
SliderTickRate:1

[Events]
//Background and Video events
0,0,"{background}",0,0
//Break Periods
{breaks}
//Storyboard Layer 0 (Background)
//Storyboard Layer 1 (Fail)
//Storyboard Layer 2 (Pass)
//Storyboard Layer 3 (Foreground)
//Storyboard Layer 4 (Overlay)
//Storyboard Sound Samples

[TimingPoints]
{timing}


[Colours]
{colours}

[HitObjects]
{objects}
"""


def map_text(objects: list[Mapped]) -> str:
    """The whole .osu file, with the line endings of the game."""
    starts = {section.name: to_ms(start) for start, section, index in measures() if index == 0}
    text = MAP.format(
        audio=AUDIO_NAME,
        preview=starts["first chorus"],
        bookmarks=",".join(map(str, starts.values())),
        multiplier=SLIDER_MULTIPLIER,
        background=BACKGROUND_NAME,
        breaks="\n".join(break_lines(objects)),
        timing="\n".join(timing_lines()),
        colours="\n".join(f"Combo{n} : {rgb}" for n, rgb in enumerate(COLOURS, 1)),
        objects="\n".join(object_line(mapped) for mapped in objects),
    )
    return text.replace("\n", "\r\n")


# --------------------------------------------------------------------------- instruments

SCALE = (0, 2, 4, 5, 7, 9, 11)  # D major, in semitones above D
CHORDS = {
    "D": (0, 4, 7),
    "Em": (2, 5, 9),
    "F#m": (4, 7, 11),
    "G": (5, 9, 12),
    "A": (7, 11, 14),
    "Bm": (9, 12, 16),
}
D2, D3, D4 = 38, 50, 62  # MIDI note numbers


def hertz(note: float) -> float:
    """Frequency of a MIDI note number."""
    return 440.0 * 2 ** ((note - 69) / 12)


def seconds_axis(seconds: float) -> Sound:
    """Times of the samples of a sound, in seconds."""
    return np.arange(int(seconds * RATE)) / RATE


def faded(sound: Sound, attack: float, release: float) -> Sound:
    """Ramps of `attack` and `release` seconds at both ends, so that nothing clicks."""
    t = seconds_axis(len(sound) / RATE)[: len(sound)]
    t = np.arange(len(sound)) / RATE
    return sound * np.clip(t / attack, 0, 1) * np.clip((t[-1] - t) / release, 0, 1)


def lead(note: float, seconds: float) -> Sound:
    """A soft square wave with a little vibrato: the melody."""
    t = seconds_axis(seconds + 0.06)
    phase = 2 * np.pi * hertz(note) * t + 0.1 * np.sin(2 * np.pi * 5.5 * t) * np.clip(4 * t, 0, 1)
    wave = sum(gain * np.sin(k * phase) for k, gain in ((1, 1), (2, 0.25), (3, 0.3), (5, 0.1)))
    return faded(wave * (0.45 + 0.55 * np.exp(-6 * t)), 0.006, 0.06)


def pluck(note: float, seconds: float = 0.5) -> Sound:
    """A string whose higher harmonics die first: arpeggios."""
    t = seconds_axis(seconds)
    phase = 2 * np.pi * hertz(note) * t
    wave = sum(np.sin(k * phase) * np.exp(-(5 + 4 * k) * t) / k for k in range(1, 7))
    return faded(np.asarray(wave), 0.002, 0.05)


def bell(note: float, seconds: float = 0.9) -> Sound:
    """Inharmonic partials over a long tail."""
    t = seconds_axis(seconds)
    partials = ((1, 1.0, 4), (2.76, 0.4, 7), (5.4, 0.2, 12))
    wave = sum(g * np.sin(2 * np.pi * hertz(note) * k * t) * np.exp(-d * t) for k, g, d in partials)
    return faded(np.asarray(wave), 0.002, 0.1)


def bass(note: float, seconds: float) -> Sound:
    """A round low string."""
    t = seconds_axis(seconds)
    phase = 2 * np.pi * hertz(note) * t
    wave = np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.15 * np.sin(3 * phase)
    return faded(wave * np.exp(-2.5 * t), 0.005, 0.03)


def pad(note: float, seconds: float, detune: float) -> Sound:
    """A slow warm tone, `detune` semitones off."""
    t = seconds_axis(seconds)
    phase = 2 * np.pi * hertz(note + detune) * t
    return faded(np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.12 * np.sin(3 * phase), 0.12, 0.25)


def kick() -> Sound:
    """A sine that falls from 150 to 45 Hz."""
    t = seconds_axis(0.28)
    phase = 2 * np.pi * (45 * t + 105 / 32 * (1 - np.exp(-32 * t)))
    return faded(np.sin(phase) * np.exp(-11 * t), 0.001, 0.05)


def noise(seconds: float, decay: float, seed: int, brightness: int = 1) -> Sound:
    """Decaying noise; every difference (`brightness`) takes away more of the lows."""
    samples = np.random.default_rng(seed).standard_normal(int(seconds * RATE) + brightness)
    samples = np.diff(samples, n=brightness) / 2**brightness
    return faded(samples * np.exp(-decay * seconds_axis(seconds)), 0.001, 0.02)


def snare() -> Sound:
    """Noise over a short drum tone."""
    t = seconds_axis(0.2)
    tone = np.sin(2 * np.pi * 190 * t) * np.exp(-28 * t)
    return 0.7 * faded(tone, 0.001, 0.02) + 0.8 * noise(0.2, 20, seed=1)


# --------------------------------------------------------------------------- the tune

DRUMS = {
    "kick": (kick(), 0.9),
    "snare": (snare(), 0.55),
    "hat": (noise(0.06, 70, seed=2, brightness=3), 0.35),
    "open": (noise(0.2, 16, seed=3, brightness=3), 0.25),
}
GROOVES = {  # a character a tick
    "intro": {"hat": "x...x...x...x..."},
    "verse": {"kick": "x.....x.x.......", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
    "build": {"kick": "x...x...x...x...", "snare": "x.x.x.x.x.x.xxxx"},
    "chorus": {
        "kick": "x.....x.x.x.....",
        "snare": "....x.......x..x",
        "hat": "x.x.x.x.x.x.x.x.",
        "open": "..x...x...x...x.",
    },
    "break": {"kick": "x.........x.....", "snare": "........x......."},
    "bridge": {"hat": "....x.......x...", "kick": "x..............."},
    "outro": {"kick": "x.....x.x.......", "snare": "....x.......x...", "hat": "x.x.x.x.x.x.x.x."},
}


class Mix:
    """A stereo recording that sounds are laid over."""

    def __init__(self, seconds: float) -> None:
        """Silence of that length."""
        self.samples = np.zeros((int(seconds * RATE), 2))

    def add(self, sound: Sound, tick: float, gain: float, pan: float = 0.0) -> None:
        """Add a sound at a tick; `pan` is -1 on the left, 1 on the right, at constant power."""
        start = round((OFFSET_MS + tick * TICK_MS) / 1000 * RATE)
        sound = sound[: len(self.samples) - start]
        angle = (pan + 1) * math.pi / 4
        sides = np.array([math.cos(angle), math.sin(angle)])
        self.samples[start : start + len(sound)] += gain * sound[:, None] * sides


def compose(objects: list[Mapped]) -> Sound:
    """The tune (n, 2) at RATE: its melody sounds where the map is to be hit."""
    last = sum(section.measures for section in SECTIONS) * MEASURE
    mix = Mix((to_ms(last) + 2000) / 1000)
    for start, section, index in measures():
        if section.name == "outro" and index == 3:
            continue  # the last chord rings over both measures
        play_chord(mix, start, section, index)
        play_drums(mix, start, section, index)
    play_melody(mix, objects)
    mix.add(noise(2.4, 1.5, seed=5, brightness=2), last - 2 * MEASURE, 0.3, 0.2)
    samples = np.tanh(1.1 * mix.samples)
    samples *= 0.8 / np.abs(samples).max()
    fade = np.clip((len(samples) - np.arange(len(samples))) / (1.5 * RATE), 0, 1)
    return np.asarray(samples * fade[:, None])


def play_chord(mix: Mix, start: int, section: Section, index: int) -> None:
    """Pad, bass and arpeggio of one measure."""
    chord = CHORDS[section.chords.split()[index]]
    final = section.name == "outro" and index >= 2
    seconds = (2 if final else 1) * MEASURE * TICK_MS / 1000
    loud = 1.3 if section.kiai else 1.0
    for k, semitones in enumerate(chord):
        for detune, pan in ((-0.06, -0.7), (0.06, 0.7)):
            mix.add(pad(D3 + semitones, seconds + 0.15, detune), start, 0.05 * loud, pan)
        if final:
            mix.add(bell(D4 + semitones, 2.4), start + k, 0.12, 0.4 * (k - 1))
    if final or section.name == "break":
        mix.add(bass(D2 + chord[0] % 12, seconds), start, 0.3)
        return
    if section.name != "intro" or index >= 4:
        for tick in range(0, MEASURE, 2):
            octave = 12 if section.kiai and tick % 4 == 2 else 0
            mix.add(bass(D2 + chord[0] % 12 + octave, 0.15), start + tick, 0.26)
    order = (0, 1, 2, 1)
    for tick in range(0, MEASURE, 1 if section.kiai else 2):
        semitones = chord[order[tick // (1 if section.kiai else 2) % 4]]
        pan = 0.5 if tick // 2 % 2 else -0.5
        mix.add(pluck(D4 + semitones), start + tick, 0.08 * loud, pan)


def play_drums(mix: Mix, start: int, section: Section, index: int) -> None:
    """One measure of the section's groove, and a cymbal as it begins."""
    name = section.name.split()[-1]
    final = name == "outro" and index >= 2
    if final or (name == "intro" and index < 4):
        return
    if index == 0 and name in ("verse", "chorus", "outro"):
        mix.add(noise(1.6, 3.0, seed=4, brightness=2), start, 0.35, 0.2)
    swell = (index + 1) / section.measures if name == "build" else 1.0
    for drum, pattern in GROOVES[name].items():
        sound, gain = DRUMS[drum]
        for tick, mark in enumerate(pattern):
            if mark == "x":
                mix.add(sound, start + tick, gain * swell, 0.25 if drum in ("hat", "open") else 0.0)


def play_melody(mix: Mix, objects: list[Mapped]) -> None:
    """A note at every head, edge and tail; bells where nothing is mapped."""
    degrees = [[int(d) for d in section.melody[index].split()] for _, section, index in measures()]
    sounding = {tick for m in objects if not m.is_spinner for tick in m.sounding_ticks}
    sustained = {m.tick + k * m.span: m.span for m in objects if m.letter for k in range(m.slides)}
    for start, section, _ in measures():
        melody = [D4 + 12 * (d // 7) + SCALE[d % 7] for d in degrees[start // MEASURE]]
        mapped = [tick for tick in range(start, start + MEASURE) if tick in sounding]
        if not mapped and section.name != "outro":
            for tick in (0, 3, 6, 8, 11, 14):
                mix.add(bell(melody[tick // 2] + 12), start + tick, 0.11, 0.3)
        for tick in mapped:
            note, ticks = melody[(tick - start) // 2], sustained.get(tick, 1.5)
            sound = lead(note, ticks * TICK_MS / 1000)
            if section.kiai:
                sound = sound + 0.4 * lead(note + 12, ticks * TICK_MS / 1000)
            mix.add(sound, tick, 0.16, 0.1)
            mix.add(sound, tick + 3, 0.045, -0.6)  # an echo
            mix.add(sound, tick + 6, 0.018, 0.6)


# --------------------------------------------------------------------------- audio files


def encode(samples: Sound, quality: float) -> bytes:
    """Ogg Vorbis bytes of (n,) or (n, 2) samples; `quality` in [0, 1].

    Raises SystemExit with the remedy when `soundfile` is not installed.
    """
    try:
        import soundfile  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise SystemExit("the encoder is missing: pip install soundfile") from None
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        samplerate=RATE,
        channels=channels,
        format="OGG",
        subtype="VORBIS",
        compression_level=1 - quality,
    ) as file:
        for start in range(0, len(samples), RATE):  # libsndfile overflows its stack on long blocks
            file.write(samples[start : start + RATE])
    return with_fixed_serial(buffer.getvalue())


def with_fixed_serial(ogg: bytes, serial: int = 1) -> bytes:
    """The same Ogg stream under a fixed serial number: the encoder draws one at random.

    Pages and their checksum (CRC-32, polynomial 0x04c11db7, zero while computing): RFC 3533.
    """
    table = []
    for value in range(256):
        crc = value << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(crc)
    pages, start = [], 0
    while start < len(ogg):
        segments = ogg[start + 27 : start + 27 + ogg[start + 26]]
        page = bytearray(ogg[start : start + 27 + len(segments) + sum(segments)])
        start += len(page)
        page[14:18], page[22:26] = serial.to_bytes(4, "little"), bytes(4)
        crc = 0
        for byte in page:
            crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
        page[22:26] = crc.to_bytes(4, "little")
        pages.append(bytes(page))
    return b"".join(pages)


# --------------------------------------------------------------------------- background


def draw_background(path: Path) -> None:
    """Hit circles as stepping stones that lead over hills into the evening, 1280 x 720."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.8, 7.2), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1280)
    axes.set_ylim(0, 720)
    draw_sky(axes)
    draw_hills(axes)
    draw_steps(axes)
    figure.savefig(path, pil_kwargs={"quality": 86, "optimize": True})


def draw_sky(axes: Axes) -> None:
    """A gradient from night to dusk, and stars."""
    stops = np.array([[0.99, 0.66, 0.53], [0.72, 0.38, 0.56], [0.26, 0.2, 0.44], [0.08, 0.08, 0.2]])
    height = np.linspace(0, 3, 256)
    gradient = np.stack([np.interp(height, range(4), stops[:, c]) for c in range(3)], axis=-1)
    axes.imshow(gradient[:, None], extent=(0, 1280, 150, 720), origin="lower", aspect="auto")
    axes.set_xlim(0, 1280)
    axes.set_ylim(0, 720)
    random = np.random.default_rng(7)
    x, y = random.uniform(0, 1280, 150), 720 - 330 * random.uniform(0, 1, 150) ** 1.5
    axes.scatter(x, y, s=random.uniform(0.3, 5, 150), c="white", alpha=0.7, linewidths=0)


def draw_hills(axes: Axes) -> None:
    """Three ranges of hills, darker the nearer they are."""
    x = np.linspace(0, 1280, 400)
    for k, colour in enumerate(("#7c3f6c", "#4b2a58", "#241a3c")):
        waves = 40 * np.sin(x / (210 - 30 * k) + 2 * k) + 22 * np.sin(x / 83 + 5 * k)
        axes.fill_between(x, 0, 300 - 75 * k + waves, color=colour, linewidth=0, zorder=2 + k)


def draw_steps(axes: Axes) -> None:
    """Five numbered circles along a rising curve, the last within its approach circle."""
    from matplotlib.patches import Circle

    t = np.linspace(0, 1, 5)
    places = np.stack([160 + 900 * t, 110 + 400 * t**1.6 + 50 * np.sin(5 * t)], axis=-1)
    axes.plot(places[:, 0], places[:, 1], color="white", alpha=0.25, linewidth=2, zorder=5)
    for k, (x, y) in enumerate(places):
        radius = 62 - 6 * k
        red, green, blue = (int(c) / 255 for c in COLOURS[k % len(COLOURS)].split(","))
        axes.add_patch(Circle((x, y), radius + 5, color="white", zorder=6))
        axes.add_patch(Circle((x, y), radius, color=(red, green, blue), zorder=6))
        axes.text(
            x, y - 2, str(k + 1), color="white", fontsize=0.62 * radius, ha="center", va="center",
            weight="bold", zorder=7,
        )  # fmt: skip
    axes.add_patch(Circle((x, y), 90, fill=False, edgecolor="white", linewidth=3, zorder=6))


# --------------------------------------------------------------------------- all of it


def main() -> None:
    """Write the four files of the example."""
    parser = argparse.ArgumentParser(description="Make the example beatmap, tune and background.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent, help="folder to write to"
    )
    parser.add_argument("--map-only", action="store_true", help="only the .osu file")
    arguments = parser.parse_args()
    objects = choreograph()
    (arguments.out / MAP_NAME).write_bytes(map_text(objects).encode("utf-8"))
    if arguments.map_only:
        return
    (arguments.out / AUDIO_NAME).write_bytes(encode(compose(objects), quality=0.15))
    (arguments.out / BELL_NAME).write_bytes(encode(0.5 * bell(D4 + 24), quality=0.3))
    draw_background(arguments.out / BACKGROUND_NAME)


if __name__ == "__main__":
    main()
