"""Which distances a remap shall have: the source's, scaled ones, ones from the rhythm, or none."""

import math
import re
from dataclasses import dataclass

import numpy as np

from beatmaps.sequence import Sequence
from conventions.arrays import FloatArray
from conventions.errors import FieldError
from conventions.playfield import PLAYFIELD
from conventions.point_types import PointType

PLAIN = ("keep", "model", "free")
WITH_FACTOR = ("scale", "snap")
FACTOR_LIMITS = {"scale": 10.0, "snap": 1000.0}
LONGEST_SNAP = PLAYFIELD[0] / 2
"""px: half the playfield's width, which every place on it can reach."""


@dataclass(frozen=True)
class Spacing:
    """Which distances between objects to ask for, and whether to meet them.

    keep: those of the source; model: the same, but the network's positions are not corrected;
    scale: `factor` times the source's; snap: `factor` px per beat since the previous object's end;
    free: none, the network chooses. Slider lengths, and so distances within sliders, stay.
    """

    mode: str = "keep"
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in PLAIN + WITH_FACTOR:
            raise FieldError("{spacing} {0}: give {1}", self.mode, CHOICES)
        limit = FACTOR_LIMITS.get(self.mode, math.inf)
        if not 0 < self.factor <= limit:
            raise FieldError(
                "{spacing} {0}:{1:g}: the number must be above 0 and at most {2:g}",
                *(self.mode, self.factor, limit),
            )

    @classmethod
    def parse(cls, text: str) -> "Spacing":
        """The spacing of a text: keep, model, free, scale:1.2 or snap:120; else ValueError."""
        mode, *rest = re.split(r"[:\s]+", text.strip())
        if mode in WITH_FACTOR and len(rest) == 1:
            try:
                return cls(mode, float(rest[0]))
            except ValueError as error:
                if "could not convert" not in str(error):
                    raise
        elif mode in PLAIN and not rest:
            return cls(mode)
        raise FieldError("{spacing} {0}: give {1}", text, CHOICES)

    def __str__(self) -> str:
        """What `parse` takes."""
        return f"{self.mode}:{self.factor:g}" if self.mode in WITH_FACTOR else self.mode

    @property
    def kept(self) -> bool:
        """Whether sampled coordinates are moved to meet the distances."""
        return self.mode not in ("model", "free")


KEEP = Spacing()
CHOICES = "keep, model, free, scale:FACTOR or snap:PX (px a beat)"


def wanted_distances(sequence: Sequence, spacing: Spacing) -> FloatArray:
    """(T,) px wanted from each data point to the previous one; -1 where none is wanted.

    Only the distances of points that start an object depend on the mode, unless it is free. With
    `snap` the first object keeps its own, and no other is longer than `LONGEST_SNAP`.
    """
    distances = sequence.distances()
    if spacing.mode == "free":
        return np.full_like(distances, -1.0)
    starts = np.flatnonzero(sequence.object_starts)
    if spacing.mode == "scale":
        distances[starts] *= spacing.factor
    if spacing.mode == "snap":
        beatmap = sequence.beatmap
        before, after = beatmap.objects[:-1], beatmap.objects[1:]
        beats = [
            max(0.0, b.time - a.end_time) / beatmap.beat_length_at(a.end_time)
            for a, b in zip(before, after, strict=True)
        ]
        distances[starts[1:]] = np.minimum(spacing.factor * np.array(beats), LONGEST_SNAP)
    return distances


def suggestion(sequence: Sequence, spacing: Spacing) -> str | None:
    """Advice for a map that has most of its objects on one another; None for other maps."""
    starts = sequence.object_starts & (sequence.types != PointType.SPINNER)
    starts[0] = False  # its distance is to the playfield's centre
    if spacing.mode not in ("keep", "model", "scale") or not starts.any():
        return None
    share = float((sequence.distances()[starts] == 0).mean())
    if share <= 0.5:
        return None
    return (
        f"{share:.0%} of the objects lie on the one before, and are kept there: for a map that has "
        "only its rhythm add --spacing snap:120 (px a beat)"
    )
