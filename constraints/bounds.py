"""Where objects may be: on the playfield, or on the editor's screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from beatmaps.game_rules import circle_radius
from conventions.arrays import FloatArray
from conventions.errors import FieldError
from conventions.playfield import PLAYFIELD

if TYPE_CHECKING:  # rules and validation need only `Bounds`, and no reader of beatmaps
    from beatmaps.osu_file import Beatmap


SCREEN = ((-67.0, -60.0), (579.0, 428.0))
"""What the editor counts as on screen, for a position and the circle's radius around it, in px."""


@dataclass(frozen=True)
class Bounds:
    """The rectangle from `low` to `high` (x, y) px that objects' centres and bodies stay in."""

    low: tuple[float, float] = (0.0, 0.0)
    high: tuple[float, float] = PLAYFIELD

    def excess(self, xy: FloatArray) -> FloatArray:
        """(...,) px: how far points xy (..., 2) are outside, by the larger axis; 0 inside."""
        beyond = np.maximum(np.array(self.low) - xy, xy - np.array(self.high)).max(axis=-1)
        return np.maximum(beyond, 0.0)


def bounds_named(name: str, beatmap: Beatmap) -> Bounds | None:
    """The rectangle called "playfield" or "screen" (the editor's limits); None for "off"."""
    if name == "off":
        return None
    if name == "playfield":
        return Bounds()
    if name != "screen":
        raise FieldError("{bounds} {0}: give playfield, screen or off", name)
    radius = circle_radius(beatmap.circle_size)
    (left, top), (right, bottom) = SCREEN
    return Bounds((left + radius, top + radius), (right - radius, bottom - radius))
