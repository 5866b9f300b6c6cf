"""Which objects of a map share a place, and which are clear of each other while both are seen.

Mappers put an object where an earlier one was, or clear of all that is still on screen; what lies
in between looks like clutter. A remap keeps for every pair of objects which of the two it was.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from beatmaps.game_rules import circle_radius, preempt
from beatmaps.osu_file import Beatmap
from conventions.arrays import BoolArray, FloatArray, IntArray

StructureMode = Literal["keep", "clean", "off"]

LOOK_BACK = 16
"""How many objects before it an object is compared with."""
SAME_PLACE = 1.0  # px between objects that share a place
CLEARANCE = 1.03
"""Diameters of distance for clear objects: a little more than 1, as pixels are chosen later."""
NEARBY = 1.2
"""Diameters up to which objects keep their distance; above this, one of that many is enough."""
NEARLY_CLEAR = 1e-3
"""px: a pair that was just parted counts as clear, however its distance is rounded."""
MERGED = 0.3  # of a diameter; nearer than that, unplaced objects are meant to share a place
BODY_SAMPLES = 5


@dataclass(frozen=True)
class Structure:
    """Relations between the O objects of a map, by their indices.

    twins (O,): the latest object at the same place, from two objects before on; -1 for none.
    earlier, later (P,): objects seen together. Sample `points` (P,) of the later one's body, 0 for
    the head, shall be at least `clear` (P,) px away from the earlier one's body.
    """

    twins: IntArray
    earlier: IntArray
    later: IntArray
    points: IntArray
    clear: FloatArray

    def of_heads(self) -> "Structure":
        """The same, but only heads are to be clear, and of objects from two before on.

        Where sliders go, and how far away neighbours are, is decided only at little noise.
        """
        chosen = (self.points == 0) & (self.later - self.earlier > 1)
        pairs = (self.earlier, self.later, self.points, self.clear)
        return Structure(self.twins, *(values[chosen] for values in pairs))


def kept_structure(
    beatmap: Beatmap, heads: FloatArray, bodies: FloatArray, spacing: FloatArray | None = None
) -> Structure:
    """The relations that a map has at heads (O, 2) px and bodies (O, samples, 2) px.

    `spacing` (O,) px is wanted from the end of each object's predecessor, by default what it is.
    """
    diameter = 2 * circle_radius(beatmap.circle_size)
    return _structure(beatmap, heads, bodies, spacing, same=SAME_PLACE, apart=diameter, upto=NEARBY)


def clean_structure(
    beatmap: Beatmap, heads: FloatArray, bodies: FloatArray, spacing: FloatArray | None = None
) -> Structure:
    """The relations that objects near heads (O, 2) px and bodies (O, samples, 2) px should have.

    Those that nearly share a place shall share it; all others that are seen together, be clear.
    `spacing` is as in `kept_structure`.
    """
    diameter = 2 * circle_radius(beatmap.circle_size)
    return _structure(beatmap, heads, bodies, spacing, same=MERGED * diameter, apart=0.0, upto=1.0)


def _structure(
    beatmap: Beatmap,
    heads: FloatArray,
    bodies: FloatArray,
    spacing: FloatArray | None,
    *,
    same: float,
    apart: float,
    upto: float,
) -> Structure:
    """Objects whose heads are less than `same` px apart share a place.

    A head at least `apart` px from an earlier body stays clear of it, as far away as it is, but at
    least one and at most `upto` diameters. If the rest of its slider is at least `apart` px away,
    too, that stays clear by one diameter.

    The object just before counts only if it or this one is a slider and the spacing between them a
    diameter or more: nearer ones are the spacing's, and so is how far away they are at most.
    """
    objects = beatmap.objects
    count = len(objects)
    placed = np.array([hit.kind != "spinner" for hit in objects])
    long = np.array([hit.kind == "slider" for hit in objects])
    times = np.array([hit.time for hit in objects])
    end_times = np.array([hit.end_time for hit in objects])
    lead = preempt(beatmap.approach_rate)
    diameter = 2 * circle_radius(beatmap.circle_size)
    if spacing is None:
        spacing = np.append(0.0, np.hypot(*(heads[1:] - bodies[:-1, -1]).T))
    twins = np.full(count, -1, dtype=np.intp)
    pairs: list[IntArray] = []  # (seen, 3)
    clear: list[FloatArray] = []  # (seen,) px
    for lag in range(1, min(LOOK_BACK, count - 1) + 1):
        later = np.arange(lag, count)
        earlier = later - lag
        both = placed[later] & placed[earlier]
        twin = both & (np.hypot(*(heads[later] - heads[earlier]).T) < same) & (twins[later] < 0)
        twin &= lag > 1
        twins[later[twin]] = earlier[twin]
        seen = both & ~twin & (end_times[earlier] > times[later] - lead)
        if lag == 1:
            seen &= (long[later] | long[earlier]) & (spacing[later] >= diameter)
        away = _nearest(heads[later, None], bodies[earlier])
        heads_clear = np.flatnonzero(seen & (away >= max(apart, same)))
        wanted = CLEARANCE * np.clip(away, diameter, upto * diameter)
        along = heads_clear[long[later[heads_clear]]]
        rest = _nearest(bodies[later[along], 1:], bodies[earlier[along]])
        along = along[rest >= apart]
        for point in range(bodies.shape[1]):
            rows = along if point else heads_clear
            pairs.append(np.stack([earlier[rows], later[rows], 0 * rows + point], axis=1))
            need = np.full(len(rows), CLEARANCE * diameter) if point else wanted[rows]
            clear.append(np.minimum(need, spacing[later[rows]]) if lag == 1 else need)
    nothing = np.empty((0, 3), dtype=np.intp)
    earlier, later, points = np.concatenate([nothing, *pairs]).T
    return Structure(twins, earlier, later, points, np.concatenate([np.empty(0), *clear]))


def _nearest(some: FloatArray, others: FloatArray) -> FloatArray:
    """(P,) px between the nearest of each `some` (P, S, 2) and `others` (P, samples, 2)."""
    offsets = some[:, :, None] - others[:, None]
    return np.sqrt((offsets**2).sum(axis=-1).min(axis=(1, 2)))


@dataclass(frozen=True)
class BodyRelations:
    """A `Structure` for M rigid bodies that several objects may share.

    twins (M,): an earlier body from which this one has a fixed offset, shifts (M, 2) px, or -1;
    groups (M,): the first body of each connected group, group_shifts (M, 2) px from its head.
    earlier, later (P,) bodies to be kept apart: the point of `later` at `points` (P, 2) px from its
    head, `clear` (P,) px from those of `earlier` at `bodies` (P, samples, 2), which are all within
    `reach` (P,) px of `centres` (P, 2).
    """

    twins: IntArray
    shifts: FloatArray
    groups: IntArray
    group_shifts: FloatArray
    earlier: IntArray
    later: IntArray
    points: FloatArray
    bodies: FloatArray
    centres: FloatArray
    reach: FloatArray
    clear: FloatArray

    def meet(self, heads: FloatArray, mobile: FloatArray) -> None:
        """Moves twins together, to their mean; heads (M, 2), in place.

        mobile (M,) is 0 for fixed bodies; if a group has any, the others move to them.
        """
        count = np.bincount(self.groups, minlength=len(heads))
        mine = np.flatnonzero(count[self.groups] > 1)
        if not len(mine):
            return
        groups, free = self.groups[mine], mobile[mine] > 0
        stays = np.bincount(groups[~free], minlength=len(heads))[groups] > 0
        weight = np.where(stays, ~free, 1.0)
        total = np.bincount(groups, weight, len(heads))
        for axis in (0, 1):
            places = heads[mine, axis] - self.group_shifts[mine, axis]
            sums = np.bincount(groups, weight * places, len(heads))
            mean = (sums / np.maximum(total, 1.0))[groups] + self.group_shifts[mine, axis]
            heads[mine, axis] = np.where(free, mean, heads[mine, axis])

    def part_pairs(self, heads: FloatArray, mobile: FloatArray) -> None:
        """Moves bodies out of those that they should be clear of; heads (M, 2), in place.

        All pairs of bodies at once, each where it is nearest: a body moves by the mean of what its
        pairs need.
        """
        # Most are so far apart that their middles show it.
        between = heads[self.later] + self.points - heads[self.earlier] - self.centres
        near = np.flatnonzero(np.hypot(*between.T) < self.reach + self.clear)
        if not len(near):
            return
        a, b, clear = self.earlier[near], self.later[near], self.clear[near]
        places = (heads[b] + self.points[near] - heads[a])[:, None]
        offsets = places - self.bodies[near]  # (near, samples, 2)
        nearest = (offsets**2).sum(axis=-1).argmin(axis=1)
        offset = offsets[np.arange(len(near)), nearest]
        length = np.hypot(*offset.T)
        rows = np.flatnonzero(length < clear - NEARLY_CLEAR)
        # Of each pair of bodies that which is furthest in.
        rows = rows[np.lexsort([(length - clear)[rows], b[rows], a[rows]])]
        rows = rows[(np.diff(a[rows], prepend=-1) != 0) | (np.diff(b[rows], prepend=-1) != 0)]
        a, b, offset, length, clear = (x[rows] for x in (a, b, offset, length, clear))
        # At distance 0 there is no direction to move in; any fixed direction does.
        direction = np.where(
            length[:, None] > 1e-6, offset / np.maximum(length, 1e-6)[:, None], (0.6, 0.8)
        )
        move = direction * ((clear - length) / np.maximum(mobile[a] + mobile[b], 1.0))[:, None]
        bodies = np.concatenate([a, b])
        moves = np.concatenate([-move, move])
        count = np.bincount(bodies, minlength=len(heads))
        for axis in (0, 1):
            total = np.bincount(bodies, moves[:, axis], len(heads))
            heads[:, axis] += mobile * total / np.maximum(count, 1)


def body_relations(
    structure: Structure,
    owners: IntArray,
    offsets: FloatArray,
    bodies: FloatArray,
    fixed: BoolArray,
) -> BodyRelations:
    """The structure for M bodies.

    owners (O,) and offsets (O, 2) px say to which body an object belongs, and where its head is
    relative to that body's; bodies (O, samples, 2) px are points along objects, from the object's
    head; fixed (M,) marks bodies that stay.
    """
    count = len(fixed)
    twins, shifts = np.full(count, -1, dtype=np.intp), np.zeros((count, 2))
    groups, group_shifts = np.arange(count), np.zeros((count, 2))
    for o in np.flatnonzero(structure.twins >= 0).tolist():
        twin = int(structure.twins[o])
        first, second = int(owners[twin]), int(owners[o])
        if first == second or twins[second] >= 0:
            continue
        shift = offsets[twin] - offsets[o]
        twins[second], shifts[second] = first, shift
        groups[second], group_shifts[second] = groups[first], group_shifts[first] + shift
    a, b = owners[structure.earlier], owners[structure.later]
    wanted = (a != b) & ~(fixed[a] & fixed[b]) & (groups[a] != groups[b])
    earlier, later = structure.earlier[wanted], structure.later[wanted]
    centres = bodies.mean(axis=1)
    reach = np.hypot(*np.moveaxis(bodies - centres[:, None], -1, 0)).max(axis=1)
    return BodyRelations(
        twins=twins,
        shifts=shifts,
        groups=groups,
        group_shifts=group_shifts,
        earlier=a[wanted],
        later=b[wanted],
        points=offsets[later] + bodies[later, structure.points[wanted]],
        bodies=offsets[earlier][:, None] + bodies[earlier],
        centres=offsets[earlier] + centres[earlier],
        reach=reach[earlier],
        clear=structure.clear[wanted],
    )
