"""Slider velocities for sliders of new lengths: the green lines that keep every duration.

A slider lasts slides * length / (100 * slider multiplier * velocity) beats, so one whose length
changes needs a velocity that changes by the same ratio. A velocity is a property of the time, not
of the slider, and holds until the next timing line: this module looks for the fewest edits of
[TimingPoints] that leave every slider, changed or not, within `TOLERANCE` of its duration.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from math import exp, fsum, inf, log
from typing import NamedTuple

from beatmaps.osu_file import (
    MAX_VELOCITY,
    MIN_VELOCITY,
    Beatmap,
    TimingEdits,
    TimingLine,
    line_in_force,
)

TOLERANCE = 1.0  # ms by which a slider's duration may change
FIRST_VERSION = 8  # in older files the velocity also decides how many ticks a slider has
OMIT_BARLINE = 8  # bit of a timing line's effects
_SAMPLE_SETS = {"none": "0", "normal": "1", "soft": "2", "drum": "3"}


class VelocityPlan(NamedTuple):
    """`velocities`: multiplier at the time of each slider, by object index; and how to get them."""

    velocities: dict[int, float]
    edits: TimingEdits


class _Demand(NamedTuple):
    """What the sliders at one time need: the velocity at which the longest keeps its duration."""

    time: float
    velocity: float
    duration: float
    objects: list[int]

    @property
    def interval(self) -> tuple[float, float]:
        """Lowest and highest velocity with which the duration stays within the tolerance."""
        low = self.velocity * self.duration / (self.duration + TOLERANCE)
        if self.duration <= TOLERANCE:
            return low, inf
        return low, self.velocity * self.duration / (self.duration - TOLERANCE)

    def allows(self, velocity: float) -> bool:
        """Whether the sliders keep their duration at this velocity."""
        low, high = self.interval
        return low <= velocity <= high


class _Lines(NamedTuple):
    """The timing lines at one time: the one in force, and the last one's index in the file."""

    time: float
    in_force: TimingLine
    last: int


def earliest_fit(beatmap: Beatmap) -> float:
    """From this time (ms) on a slider may get a velocity of its own; infinity where none may.

    Not before format version 8, and not before the first timing line, where there is none to copy
    and where osu!stable would take a green line for the tempo.
    """
    if beatmap.format_version < FIRST_VERSION:
        return inf
    return min((line.time for line in beatmap.timing_lines), default=inf)


def plan_velocities(beatmap: Beatmap, ratios: Mapping[int, float]) -> VelocityPlan:
    """Velocities for sliders whose length is to change by `ratios`, by object index.

    A slider must get its old length times new over old velocity. That is not exactly the ratio
    asked for where a velocity is limited to 0.1 or 10, where several sliders start at one time, and
    where a neighbour's velocity is near enough. Sliders that are not in `ratios` keep their
    lengths. A green line in force that no other slider uses is changed, else one is added.
    """
    demands = _demands(beatmap, ratios)
    state = _State(beatmap)
    plan = VelocityPlan({}, TimingEdits())
    for index, demand in enumerate(demands):
        state.advance(demand.time)
        if not demand.allows(state.velocity):
            beat_length = -100.0 / _common_velocity(demands, index, state.next_time)
            if state.unused is not None:
                plan.edits.beat_lengths[state.unused.line] = beat_length
            else:
                line, text = state.new_line(demand, beat_length)
                plan.edits.added.setdefault(line, []).append(text)
            state.velocity = 100.0 / -beat_length
        state.unused = None
        plan.velocities.update(dict.fromkeys(demand.objects, state.velocity))
    return plan


def _demands(beatmap: Beatmap, ratios: Mapping[int, float]) -> list[_Demand]:
    """What the sliders need, in the order of time; those that last no time need nothing."""
    sliders = [
        (index, hit)
        for index, hit in enumerate(beatmap.objects)
        if hit.kind == "slider" and hit.end_time > hit.time
    ]
    demands = []
    for time, group in groupby(sliders, key=lambda pair: pair[1].time):
        together = list(group)
        objects = [index for index, _ in together]
        velocity = beatmap.slider_velocity_at(time)
        if all(index in ratios for index in objects):
            needs = [_limited(velocity * ratios[index]) for index in objects]
            velocity = exp(fsum(map(log, needs)) / len(needs)) if len(needs) > 1 else needs[0]
        duration = max(hit.end_time - hit.time for _, hit in together)
        demands.append(_Demand(time, velocity, duration, objects))
    return demands


def _limited(velocity: float) -> float:
    """The nearest velocity that the game has."""
    return min(max(velocity, MIN_VELOCITY), MAX_VELOCITY)


def _common_velocity(demands: Sequence[_Demand], index: int, until: float) -> float:
    """The velocity for a demand and for as many of the next ones as one velocity can serve.

    Each further demand narrows the interval of velocities that all of them allow. The greedy
    choice gives the fewest changes (interval stabbing).
    """
    low, high = demands[index].interval
    for following in range(index + 1, len(demands)):
        lowest, highest = demands[following].interval
        if demands[following].time >= until or max(low, lowest) > min(high, highest):
            break
        low, high = max(low, lowest), min(high, highest)
    return _limited(min(max(demands[index].velocity, low), high))


class _State:
    """The timing of a beatmap while time advances, with the edits made so far.

    `velocity` is in force now; `unused` is the green line that set it, if no slider uses it yet.
    """

    def __init__(self, beatmap: Beatmap) -> None:
        self._beatmap = beatmap
        lines = beatmap.timing_lines
        self._groups = [
            _Lines(time, line_in_force(together), together[-1].line)
            for time, group in groupby(sorted(lines, key=_time), key=_time)
            for together in [list(group)]
        ]
        self._in_order = all(first.time <= second.time for first, second in pairwise(lines))
        if self._in_order:
            self._times = [group.time for group in self._groups]
            self._velocities = [group.in_force.velocity for group in self._groups]
        else:  # the game forgets some of the lines, depending on the order in which it reads them
            self._times = list(beatmap.timing.velocity_times)
            self._velocities = list(beatmap.timing.velocities)
        self._next = 0
        self.velocity = 1.0
        self.unused: TimingLine | None = None

    @property
    def next_time(self) -> float:
        """When a line of the file sets the velocity again."""
        return self._times[self._next] if self._next < len(self._times) else inf

    def advance(self, time: float) -> None:
        """Go on to `time`, never back."""
        while self.next_time <= time:
            self.velocity = self._velocities[self._next]
            if self._in_order:
                line = self._groups[self._next].in_force
                self.unused = None if line.red else line
            self._next += 1

    def new_line(self, demand: _Demand, beat_length: float) -> tuple[int, str]:
        """A green line at the time of a demand, and the index of the line after which it belongs.

        All but the velocity is copied from the line in force. In a file out of order the line comes
        last: read after all others, it has the same effect whatever their order.
        """
        beatmap = self._beatmap
        group = self._groups[bisect_right(self._groups, demand.time, key=_time) - 1]
        fields = [text.strip() for text in beatmap.line_text(group.in_force.line).split(",", 8)]
        sample_set = _SAMPLE_SETS.get(beatmap.sample_set.lower(), "1")
        defaults = ["4", sample_set, "0", str(beatmap.sample_volume), "1", "0"]
        fields = fields[:8] + defaults[len(fields) - 2 :]
        time = beatmap.line_text(beatmap.objects[demand.objects[0]].line).split(",", 3)[2].strip()
        samples = ",".join(fields[2:6])
        text = f"{time},{beat_length!r},{samples},0,{int(fields[7]) & ~OMIT_BARLINE}"
        return group.last if self._in_order else beatmap.timing_lines[-1].line, text


def _time(lines: TimingLine | _Lines) -> float:
    return lines.time
