"""From sampled coordinates to whole pixels: every slider keeps its shape, every distance is met.

Formats before v128 hold integers. Rounding each point by itself would spoil the spacing that the
sampler kept. So shapes are rounded first, relative to their heads. A slider that then moves by
whole pixels keeps its end relative to its head, and heads can be chosen one after the other.
"""

from dataclasses import replace

import numpy as np

from beatmaps.game_rules import stack_shifts
from beatmaps.sequence import END, Sequence, separate
from constraints.bodies import ORIGIN, Bodies
from constraints.bounds import Bounds
from constraints.lines import DIRECTION_SAMPLES, Directions, lines_near
from constraints.pixel_search import choose_pixels
from constraints.shapes import SliderShapes
from constraints.structure import (
    BODY_SAMPLES,
    Structure,
    StructureMode,
    body_relations,
    clean_structure,
    kept_structure,
)
from conventions.arrays import BoolArray, FloatArray
from conventions.playfield import PLAYFIELD

FITS = 6
SETTLING_SWEEPS = 60
STACKING_PASSES = 4
FAR_OFF = 2.0  # px of distance error from which on another way is searched
REACH = 6  # bodies that may change their places for one that is far off
NEARNESS = 0.01  # cost, in px of distance error, of a px away from the old place
_COARSE = np.array([(x, y) for x in range(0, 513, 16) for y in range(0, 385, 16)], dtype=np.float64)
ROUNDING_ROOM = 2.0  # px by which a slider may grow when it is rounded
_BY_SIZE = np.radians(sorted(range(-180, 180, 5), key=abs))
_TURNS = np.array([[[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]] for a in _BY_SIZE])


class Placement:
    """A map's objects as rigid bodies: moves sampled objects into place, and onto whole pixels.

    `distances` (T,) px are wanted to the previous data point, None where objects are to stay where
    they were sampled; with `fitted` sliders get their shapes. Points in `kept` (T,) stay where the
    sequence has them. Within `bounds` objects are also where the game draws them after stacking.
    The structure that is kept is that of the sequence, or of its points at `structure_of` (T, 2);
    with any, and with distances, what is nearly in line comes onto a line when pixels are chosen.
    """

    def __init__(
        self,
        sequence: Sequence,
        shapes: SliderShapes,
        distances: FloatArray | None,
        kept: BoolArray,
        bounds: Bounds | None,
        *,
        fitted: bool = True,
        structure: StructureMode = "off",
        structure_of: FloatArray | None = None,
    ) -> None:
        self.beatmap, self.sequence, self.shapes = sequence.beatmap, sequence, shapes
        self.kept, self.bounds, self.fitted = kept, bounds, fitted
        self.starts = np.flatnonzero(sequence.object_starts)
        # The last point of each object; the next object's distance is measured from there.
        self.stops = np.append(self.starts[1:], len(sequence)) - 1
        self.distances = None if distances is None else distances[self.starts]
        self.stacking = self._stacking(sequence.xy)
        self.mode = structure
        self.structure: Structure | None = None  # the source's, if it is kept
        if structure == "keep":
            xy = sequence.xy if structure_of is None else structure_of
            samples = self._samples(xy)
            places = xy[self.starts]
            self.structure = kept_structure(self.beatmap, places, samples, self.distances)

    def settle(self, xy: FloatArray, fits: int, sweeps: int) -> FloatArray:
        """xy (T, 2) with slider shapes fitted and objects moved to their distances and bounds."""
        shaped = self.shapes.fit(xy, fits)
        bodies = self._bodies(shaped, shaped[self.starts], [self.stacking], whole=False)
        return self._moved(shaped, bodies, _settle(bodies, sweeps))

    def place(self, xy: FloatArray) -> FloatArray:
        """Whole-pixel coordinates (T, 2) near `xy` (T, 2), slider ends where the game has them.

        With distances, every object is as near as integers allow to its distance from the previous
        object's end. If this makes new stacks, which the game would move out of bounds, all is
        placed again.
        """
        xy = np.where(self.kept[:, None], self.sequence.xy, xy)
        if self.fitted:
            xy = self._turned_to_fit(self.shapes.fit(xy, FITS))
        shaped = self._whole_shapes(xy)
        stacking = [self.stacking]
        for _ in range(STACKING_PASSES):
            bodies = self._bodies(shaped, xy[self.starts], stacking, whole=True)
            if self.distances is not None:
                bodies = replace(bodies, heads=_settle(bodies, SETTLING_SWEEPS))
                if self.mode != "off":
                    bodies = self._in_line(bodies, shaped)
                heads = _rerouted(bodies, choose_pixels(bodies, bodies.heads))
            else:
                heads = np.clip(np.rint(bodies.heads), *bodies.whole_range())
                heads = np.where(bodies.fixed[:, None], bodies.heads, heads)
            placed = self._moved(shaped, bodies, heads)
            stacking.append(self._stacking(placed))
            if (np.max(stacking[:-1], axis=0) >= stacking[-1]).all():
                break
        return placed

    def arrange(self, xy: FloatArray, sweeps: int, *, heads_alone: bool) -> FloatArray:
        """xy (T, 2) with objects on one place or clear of each other; ignores their distances.

        `heads_alone` leaves out where sliders go, which is a guess at much noise.
        """
        bodies = self._bodies(
            xy, xy[self.starts], [self.stacking], whole=False, heads_alone=heads_alone
        )
        assert bodies.relations is not None
        heads, mobile = bodies.heads.copy(), (~bodies.fixed).astype(np.float64)
        for _ in range(sweeps):
            bodies.relations.part_pairs(heads, mobile)
            bodies.relations.meet(heads, mobile)
        return self._moved(xy, bodies, heads)

    def _samples(self, xy: FloatArray) -> FloatArray:
        """(O, samples, 2) px points along the objects; for a circle its centre, repeated."""
        samples = np.repeat(xy[self.starts][:, None], BODY_SAMPLES, axis=1)
        if len(self.shapes.heads):
            sliders = self.sequence.objects[self.shapes.heads]
            samples[sliders] = self.shapes.paths.bodies(xy, BODY_SAMPLES)
        return samples

    def _turned_to_fit(self, xy: FloatArray) -> FloatArray:
        """xy (T, 2); sliders too large for the bounds are turned by the least angle that helps."""
        if self.bounds is None:
            return xy
        room = np.subtract(self.bounds.high, self.bounds.low) - ROUNDING_ROOM
        low, high = self.shapes.paths.extents(xy)
        xy = xy.copy()
        for slider in np.flatnonzero((high - low > room).any(axis=1)):
            head, end = self.shapes.heads[slider], self.shapes.ends[slider]
            if self.kept[head]:
                continue
            turned = xy[head] + (xy[head:end] - xy[head]) @ _TURNS  # (turns, points, 2)
            shifts = np.arange(len(_TURNS)) * (end - head) - head
            copies = self.shapes.paths.copies(np.full(len(_TURNS), slider), shifts)
            low_turned, high_turned = copies.extents(turned.reshape(-1, 2))
            excess = np.maximum(high_turned - low_turned - room, 0).max(axis=1)
            xy[head:end] = turned[np.argmin(excess)]
        return self.shapes.with_ends(xy)

    def _whole_shapes(self, xy: FloatArray) -> FloatArray:
        """xy (T, 2) with heads and anchors on whole pixels, slider ends in place."""
        heads = xy[self.starts]
        shift = (np.rint(heads) - heads)[self.sequence.objects]
        shifted = np.where(self.kept[:, None], xy, xy + shift)
        pixels = np.where(self.kept[:, None], xy, np.rint(shifted))
        pixels = _separated(self.sequence, pixels, shifted)
        if self.fitted:
            pixels = self.shapes.improve(pixels, shifted)
        return self.shapes.with_ends(pixels)

    def _stacking(self, xy: FloatArray) -> FloatArray:
        """(O,) px that the game moves each object up and left by at coordinates xy (T, 2)."""
        return stack_shifts(self.beatmap, xy[self.starts], xy[self.stops])

    def _moved(self, xy: FloatArray, bodies: Bodies, heads: FloatArray) -> FloatArray:
        """xy (T, 2) with the bodies' heads at `heads` (M, 2)."""
        wanted = heads[bodies.owners] + bodies.offsets
        moved = xy + (wanted - xy[self.starts])[self.sequence.objects]
        return np.where(self.kept[:, None], self.sequence.xy, moved)

    def _bodies(
        self,
        xy: FloatArray,
        heads: FloatArray,
        stacking: list[FloatArray],
        *,
        whole: bool,
        heads_alone: bool = False,
    ) -> Bodies:
        """The bodies with the shapes of xy (T, 2), slider ends in place, and objects at `heads`.

        Bounds hold also where the game moves objects by any of the `stacking`, each (O,) px. With
        `whole` the objects of a stack are whole pixels apart. With `heads_alone` their relations
        are those of `Structure.of_heads`.
        """
        ends = xy[self.stops] - xy[self.starts]
        fixed = self.kept[self.starts]
        distances = np.ones(len(heads)) if self.distances is None else self.distances
        joined = (distances == 0) & ~fixed
        joined[0] = False
        first = np.flatnonzero(~joined)
        owners = np.cumsum(~joined) - 1
        steps = np.rint(ends) if whole else ends
        travelled = np.cumsum(steps, axis=0) - steps
        offsets = travelled - travelled[first][owners]
        last = np.append(first[1:], len(heads)) - 1
        low, high = self._head_range(xy, stacking)
        relations = None
        if self.mode != "off":
            places, samples = xy[self.starts], self._samples(xy)
            structure = self.structure or clean_structure(
                self.beatmap, places, samples, self.distances
            )
            if heads_alone:
                structure = structure.of_heads()
            bodies = samples - places[:, None]
            relations = body_relations(structure, owners, offsets, bodies, fixed[first])
        return Bodies(
            heads=heads[first],
            ends=offsets[last] + ends[last],
            low=np.maximum.reduceat(low - offsets, first),
            high=np.minimum.reduceat(high - offsets, first),
            fixed=fixed[first],
            distances=distances[first],
            owners=owners,
            offsets=offsets,
            relations=relations,
        )

    def _in_line(self, bodies: Bodies, xy: FloatArray) -> Bodies:
        """Settled bodies, moved onto the lines that they nearly keep; xy (T, 2) has their shapes.

        Looked for among settled bodies, as distances and bounds may bend what was sampled.
        """
        first = np.flatnonzero(np.diff(bodies.owners, prepend=-1))
        alone = np.bincount(bodies.owners) == 1
        hits = [self.beatmap.objects[i] for i in first]
        slider = np.array([hit.kind == "slider" for hit in hits])
        ways = np.full((2, len(self.starts), 2), np.nan)
        if slider.any():
            samples = self.shapes.paths.bodies(xy, DIRECTION_SAMPLES)
            chords = np.stack([samples[:, 1] - samples[:, 0], samples[:, -1] - samples[:, -2]])
            lengths = np.hypot(chords[..., 0], chords[..., 1])
            with np.errstate(invalid="ignore"):
                ways[:, self.sequence.objects[self.shapes.heads]] = chords / lengths[..., None]
        enters, leaves = np.where(alone[:, None], ways[:, first], np.nan)
        facing = Directions(
            circles=alone & np.array([hit.kind == "circle" for hit in hits]),
            placed=np.array([hit.kind != "spinner" for hit in hits]),
            returns=slider & np.array([hit.slides % 2 == 0 for hit in hits]),
            enters=enters,
            leaves=leaves,
        )
        bodies = replace(bodies, lines=lines_near(bodies.heads, bodies.ends, facing))
        return replace(bodies, heads=_settle(bodies, SETTLING_SWEEPS))

    def _head_range(
        self, xy: FloatArray, stacking: list[FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest places (O, 2) of objects' heads that keep all within bounds."""
        lowest, highest = np.zeros((2, len(self.starts), 2))
        if self.bounds is None:
            return lowest - np.inf, highest + np.inf
        objects = self.sequence.objects[self.shapes.heads]
        heads = xy[self.shapes.heads]
        low, high = self.shapes.paths.extents(xy)
        lowest[objects], highest[objects] = low - heads, high - heads
        up = np.maximum(0, np.max(stacking, axis=0))[:, None]
        down = np.minimum(0, np.min(stacking, axis=0))[:, None]
        edge_low, edge_high = np.array(self.bounds.low), np.array(self.bounds.high)
        low, high = edge_low - lowest + up, edge_high - highest + down
        fits = low <= high  # by axis; of a body larger than the playfield the head stays on it
        return np.where(fits, low, edge_low), np.where(fits, high, edge_high)


def _separated(sequence: Sequence, rounded: FloatArray, wanted: FloatArray) -> FloatArray:
    """`rounded` (T, 2) with no two neighbouring points of a slider on one pixel."""
    same = (rounded[1:] == rounded[:-1]).all(axis=1) & (sequence.anchors[1:] > 0)
    result = rounded.copy()
    for index in np.unique(sequence.objects[1:][same]):
        mine = np.flatnonzero((sequence.objects == index) & (sequence.anchors != END))
        result[mine] = separate(rounded[mine], wanted[mine])
    return result


def _settle(bodies: Bodies, sweeps: int, origin: FloatArray = ORIGIN) -> FloatArray:
    """Heads (M, 2) moved until distances and bounds agree, unrounded.

    Position-based dynamics of rigid bodies that do not turn, as in `rules.project_spacing`;
    the first distance is measured from `origin`.
    """
    heads = np.concatenate([origin[None], bodies.heads])
    ends = np.concatenate([np.zeros((1, 2)), bodies.ends])
    mobile = np.concatenate([[0.0], (~bodies.fixed).astype(np.float64)])[:, None]
    low, high = bodies.range()
    for sweep in range(sweeps):
        # In the second half only distances and twins act, so they are met in the end.
        early = sweep < sweeps // 2
        if early and bodies.lines is not None:
            bodies.lines.straighten(heads[1:], bodies.ends, mobile[1:, 0])
        if bodies.relations is not None:
            if early:
                bodies.relations.part_pairs(heads[1:], mobile[1:, 0])
            bodies.relations.meet(heads[1:], mobile[1:, 0])
        for parity in (0, 1):
            half = slice(parity, None, 2)
            first, second = heads[:-1][half], heads[1:][half]  # views
            masses = np.maximum(mobile[:-1][half] + mobile[1:][half], 1.0)
            offset = second - (first + ends[:-1][half])
            length = np.hypot(*offset.T)[:, None]
            wanted = bodies.distances[half][:, None]
            excess = np.where(length > 1e-6, 1 - wanted / np.maximum(length, 1e-6), 0.0)
            correction = offset * excess / masses
            first += correction * mobile[:-1][half]
            second -= correction * mobile[1:][half]
        heads[1:] = np.where(bodies.fixed[:, None], heads[1:], np.clip(heads[1:], low, high))
    return heads[1:]


def _rerouted(bodies: Bodies, heads: FloatArray) -> FloatArray:
    """heads (M, 2) in which bodies far off their distance, and some before them, take another way.

    Choosing pixels one body after the other cannot plan: before a fixed body, or for a jump that
    only the corners of the playfield allow, the last few bodies must head for it together.
    """
    heads = heads.copy()
    for i in np.flatnonzero(bodies.errors(heads, ORIGIN) > FAR_OFF).tolist():
        stop = i if bodies.fixed[i] else i + 1
        first = stop
        while first > max(stop - REACH, 0) and not bodies.fixed[first - 1]:
            first -= 1
        if first == stop:
            continue  # both bodies are fixed
        origin = heads[first - 1] + bodies.ends[first - 1] if first else ORIGIN
        part = bodies.between(first, stop, heads)
        route = replace(part, heads=_best_route(part, stop - first, origin))
        tried = choose_pixels(route, _settle(route, SETTLING_SWEEPS, origin), origin)
        if part.errors(tried, origin).max() < part.errors(part.heads, origin).max():
            heads[first:stop] = tried[: stop - first]
    return heads


def _best_route(part: Bodies, count: int, origin: FloatArray) -> FloatArray:
    """Heads (M, 2), the first `count` on a coarse grid where their distances fit best.

    Dynamic programming over the places of one body after the other; moving away costs a little.
    """
    low, high = part.range()
    low, high = np.clip(low, 0, PLAYFIELD), np.clip(high, 0, PLAYFIELD)
    places = [np.clip(_COARSE, low[j], high[j]) for j in range(count)]  # each (K, 2)
    near = [NEARNESS * np.hypot(*(p - part.heads[j]).T) for j, p in enumerate(places)]
    cost = np.abs(np.hypot(*(places[0] - origin).T) - part.distances[0]) + near[0]
    came_from = []
    for j in range(1, count):
        ends = places[j - 1] + part.ends[j - 1]
        away = np.hypot(*(places[j][:, None] - ends[None]).transpose(2, 0, 1))  # (K, K)
        total = cost[None] + np.abs(away - part.distances[j])
        came_from.append(total.argmin(axis=1))
        cost = total.min(axis=1) + near[j]
    if count < len(part.heads):
        ends = places[-1] + part.ends[count - 1]
        cost = cost + np.abs(np.hypot(*(part.heads[count] - ends).T) - part.distances[count])
    heads, best = part.heads.copy(), int(cost.argmin())
    for j in range(count - 1, -1, -1):
        heads[j] = places[j][best]
        best = int(came_from[j - 1][best]) if j else best
    return heads
