"""What a mapper should look at by hand: objects of a remap that are placed as hardly any real ones.

Unusual is what fewer than one in a hundred objects of real maps have, see `metrics/usual.py`, an
object off the playfield, and one that overlaps another which it was clear of in the source.
"""

from collections.abc import Iterator

import numpy as np

from beatmaps.game_rules import circle_radius
from beatmaps.osu_file import Beatmap
from beatmaps.selection import editor_selection
from beatmaps.sequence import Sequence
from constraints.bounds import bounds_named
from conventions.arrays import BoolArray, FloatArray
from metrics.objects import out_of_bounds
from metrics.usual import Values, judged, shares
from viewer.marks import Mark

UNUSUAL = 0.01
"""Share of real maps' objects; what is seldomer is worth a look."""
MOST_MARKS = 12
"""Places that are listed: as many as somebody can go through by hand."""
TOUCHING = 2.0  # radii between objects that just overlap
TOLERANCE = 1e-3  # px off the playfield
NEIGHBOURS = {
    "turning_angle": (-1, 0, 1),
    "flow_into_slider": (-1, 0),
    "flow_out_of_slider": (0, 1),
    "relative_spacing": (-1, 0),
    "off_playfield": (0,),
}
"""Which objects a mark selects, counted from the one that it is about."""
NAMES = {
    "turning_angle": "turn",
    "flow_into_slider": "turn into a slider",
    "flow_out_of_slider": "turn out of a slider",
    "visible_distance": "overlap",
    "relative_spacing": "spacing",
    "off_playfield": "off the playfield",
}


class MarkFinder:
    """Finds the places of remaps that a mapper should look at. The source is measured once."""

    def __init__(self, before: Sequence) -> None:
        self.before = before
        self.source, _ = judged(before)
        self.shares = shares(self.source)

    def find(self, after: Sequence) -> list[Mark]:
        """The marks of one remap: the worst first, `MOST_MARKS` at most.

        Those come first that the source had not at the same objects, then the seldomer ones. Of an
        object only the worst is listed. ValueError where the maps have other objects.
        """
        if len(self.before.beatmap.objects) != len(after.beatmap.objects):
            raise ValueError(
                f"{self.before.beatmap.name} and {after.beatmap.name} have different objects: "
                "give a map and its remap"
            )
        place = _Places(after)
        found = sorted(
            (bool(had), share, index, name)
            for name, odd, rarity, source in self._odd(place)
            for index, share, had in zip(
                np.flatnonzero(odd).tolist(), rarity[odd].tolist(), source[odd], strict=True
            )
        )
        worst: dict[int, Mark] = {}
        for had, share, index, name in found:
            if index not in worst and len(worst) < MOST_MARKS:
                worst[index] = Mark(
                    editor_selection(after.beatmap, place.selected(name, index)),
                    index,
                    NAMES[name],
                    place.describe(name, index),
                    round(share, 4),
                    had,
                )
        return list(worst.values())

    def _odd(self, place: "_Places") -> Iterator[tuple[str, BoolArray, FloatArray, BoolArray]]:
        """By kind: which objects are odd, how seldom that is, where the source was odd, (M,) each.

        What is odd without being seldom counts by its share in real maps all the same.
        """
        for name, rarity in shares(place.found).items():
            odd, had = rarity < UNUSUAL, self.shares[name] < UNUSUAL
            there, here = self.source[name].values, place.found[name].values
            if name == "visible_distance":
                had = there < TOUCHING
                odd |= (here < TOUCHING) & ~had
            elif name == "off_playfield":
                odd, had = here > TOLERANCE, there > TOLERANCE
            yield name, odd, np.where(np.isnan(rarity), 1.0, rarity), had


class _Places:
    """What was measured of a remap, and how it is told."""

    def __init__(self, sequence: Sequence) -> None:
        self.beatmap: Beatmap = sequence.beatmap
        self.found: dict[str, Values]
        self.found, self.columns = judged(sequence)
        screen = bounds_named("screen", sequence.beatmap)
        assert screen is not None
        self.off_screen = np.maximum(*out_of_bounds(sequence, sequence.xy, screen))

    def selected(self, name: str, index: int) -> list[int]:
        """The objects that a mark of object `index` selects."""
        if name == "visible_distance":
            return [index - int(self.columns["visible_lag"][index]), index]
        return [index + step for step in NEIGHBOURS[name]]

    def describe(self, name: str, index: int) -> str:
        """What is odd about an object, in words."""
        value = float(self.found[name].values[index])
        if name == "visible_distance":
            radius = circle_radius(self.beatmap.circle_size)
            return (
                f"{value * radius:.0f} px from an object that is still seen, "
                f"clear of it from {TOUCHING * radius:.0f} px on"
            )
        if name == "relative_spacing":
            return f"{value:.1f} times as far as steps of its rhythm are in this map"
        if name == "off_playfield":
            beyond = float(self.off_screen[index])
            return f"{beyond:.1f} px off the screen" if beyond > TOLERANCE else f"by {value:.1f} px"
        verb = "turns" if name == "turning_angle" else NAMES[name].replace("turn", "turns", 1)
        return f"{verb} by {np.degrees(value):.0f} degrees"
