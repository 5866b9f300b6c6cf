"""The playfield of osu!standard, in px, the unit of maps, network and pictures."""

import numpy as np

from conventions.arrays import BoolArray, FloatArray

PLAYFIELD = (512.0, 384.0)  # px
PLAYFIELD_CENTRE = (256.0, 192.0)


def off_playfield(xy: FloatArray) -> BoolArray:
    """(T,) which of the points xy (T, 2) px are off the playfield."""
    return np.any((xy < 0) | (xy > PLAYFIELD), axis=1)
