"""Training windows in which passages come again as exact images of themselves.

Mappers repeat, mirror and turn what they placed: rows of triangles, polygons, motifs from left to
right. Real maps do so rarely and loosely; here a network sees what exactness looks like. Only some
objects of images are unknown: a window without known points says nothing about images, and a
network that was shown such windows would put them everywhere.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from conventions.arrays import BoolArray, FloatArray, IntArray
from conventions.playfield import PLAYFIELD, PLAYFIELD_CENTRE
from conventions.point_types import SPINNERS, STARTS
from data_loading import Batch

LONGEST = 8
"""Objects of a passage."""
MOST_OBJECTS = 12
"""Objects of all images of a passage."""
FLATTEST_PX = 40.0
"""Passages of several objects that are smaller are stacks: their images say nothing."""
TRIES = 8
ANGLES = np.deg2rad([30, 45, 60, 72, 90, 120, 144, 180])


class Points(NamedTuple):
    """Data points: xy (T, 2) px, times (T,) ms, and where in a window (T,) they come from."""

    xy: FloatArray
    times: FloatArray
    sources: IntArray


@dataclass(frozen=True)
class Motion:
    """Turns, reflects and moves: (..., 2) px -> (..., 2) px. `about_centre` of the playfield."""

    matrix: FloatArray
    shift: FloatArray
    about_centre: bool = False

    def __call__(self, xy: FloatArray) -> FloatArray:
        moved: FloatArray = xy @ self.matrix.T + self.shift
        return moved

    def images(self, xy: FloatArray, most: int) -> list[FloatArray]:
        """Up to `most` images, each of the one before, as long as they lie on the playfield."""
        found: list[FloatArray] = []
        while len(found) < most and _on_playfield(xy := self(xy)):
            found.append(xy)
        return found


@dataclass(frozen=True)
class Repeats:
    """Which of N windows get passages that come again: seeds (N,) int64, -1 for none."""

    seeds: Tensor

    @classmethod
    def draw(cls, n: int, share: float, generator: torch.Generator) -> "Repeats":
        """In a fraction `share` of the windows."""
        chosen = torch.rand(n, generator=generator) < share
        seeds = torch.randint(0, 2**62, (n,), generator=generator)
        return cls(torch.where(chosen, seeds, -1))

    def part(self, chosen: slice) -> "Repeats":
        """The same for some of the windows."""
        return Repeats(self.seeds[chosen])

    def __call__(self, batch: Batch) -> tuple[Batch, Tensor]:
        """The windows with images in the chosen ones; (N, T) bool: which of their points to show.

        Windows that are too short, or padded, and all others have nothing to show.
        """
        shown = torch.zeros(batch.xy.shape[:2], dtype=torch.bool)
        rows = np.flatnonzero(self.seeds.numpy() >= 0).tolist()
        if not rows:
            return batch, shown
        given = batch.conditions
        xy, times, types = batch.xy.clone(), given.times.clone(), given.types.clone()
        distances = given.distances.clone()
        for row in rows:
            if given.valid is not None and not bool(given.valid[row].all()):
                continue
            rng = np.random.default_rng(int(self.seeds[row]))
            window = Points(
                xy[row].double().numpy(), times[row].double().numpy(), np.arange(len(xy[row]))
            )
            points, known = with_images(window, types[row].numpy(), rng)
            xy[row] = torch.from_numpy(points.xy)
            times[row] = torch.from_numpy(points.times).to(times.dtype)
            types[row] = types[row, torch.from_numpy(points.sources)]
            steps = np.hypot(*np.diff(points.xy, axis=0).T)
            distances[row, 1:] = torch.from_numpy(steps).to(distances.dtype)
            shown[row] = torch.from_numpy(known)
        given = given._replace(times=times, types=types, distances=distances)
        return batch._replace(xy=xy, conditions=given), shown


def with_images(
    window: Points, types: np.ndarray, rng: np.random.Generator
) -> tuple[Points, BoolArray]:
    """As many points of passages of the window, each followed by its images; which are known (T,).

    types (T,) are those of the window's points. What belongs to no passage is known.
    """
    starts = np.append(np.flatnonzero(np.isin(types, STARTS)), len(types))
    parts, known = [_piece(window, 0, int(starts[0]))], [np.ones(starts[0], dtype=np.bool_)]
    first = 0
    while sum(map(len, known)) < len(types) and first + 1 < len(starts):
        count = min(int((LONGEST + 1) ** rng.random()), len(starts) - 1 - first)
        objects = starts[first : first + count + 1]
        first += count
        passage = _piece(window, int(objects[0]), int(objects[-1]))
        inner = objects - objects[0]
        images, motion = _images(passage, count, window, types, rng)
        parts += [passage, *images]
        known.append(_known(inner, len(images), motion, rng))
    return _joined(parts, window, np.concatenate(known))


def _piece(window: Points, start: int, stop: int) -> Points:
    return Points(window.xy[start:stop], window.times[start:stop], window.sources[start:stop])


def _images(
    passage: Points, count: int, window: Points, types: np.ndarray, rng: np.random.Generator
) -> tuple[list[Points], Motion | None]:
    """Images of a passage of `count` objects, and the motion from each to the next; perhaps none.

    It takes three images of one object, and two of two, to see a motion.
    """
    after = int(passage.sources[-1]) + 1
    small = count > 1 and np.ptp(passage.xy, axis=0).max() < FLATTEST_PX
    spins = np.isin(types[passage.sources], SPINNERS).any()
    if after == len(types) or small or spins or not _on_playfield(passage.xy):
        return [], None
    fewest = max(1, 4 - count)
    most = int(rng.integers(fewest, max(fewest, MOST_OBJECTS // count) + 1))
    step = float(np.hypot(*(window.xy[after] - window.xy[after - 1])))
    for _ in range(TRIES):
        motion = _motion(passage.xy, step, count, rng)
        images = motion.images(passage.xy, most)
        if len(images) >= fewest:
            return [passage._replace(xy=xy) for xy in images], motion
    return [], None


def _motion(xy: FloatArray, step: float, count: int, rng: np.random.Generator) -> Motion:
    """Of a passage xy (P, 2) px: about the playfield's centre, or to where `step` px lead."""
    if count > 2 and rng.random() < 0.5:
        matrix = np.diag([(-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)][rng.integers(3)])
        centre = np.array(PLAYFIELD_CENTRE)
        return Motion(matrix, centre - matrix @ centre, about_centre=True)
    angle = rng.choice(ANGLES) * rng.choice([-1, 1]) if rng.random() < 0.5 else rng.uniform(0, 7)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < (0.2 if count == 1 else 0.5):
        matrix = matrix @ np.diag([1.0, -1.0])
    way = rng.uniform(0, 2 * np.pi)
    target = xy[-1] + step * np.array([np.cos(way), np.sin(way)])
    return Motion(matrix, target - matrix @ xy[0])


def _known(
    inner: IntArray, images: int, motion: Motion | None, rng: np.random.Generator
) -> BoolArray:
    """(P,) which points of a passage and its images are known.

    Objects begin at `inner` (count + 1,) of the passage, where it ends is the last of them. One
    object of an image is known, or two where that does not tell how it was moved; of the rest one
    or all up to the last.
    """
    count, length = len(inner) - 1, int(inner[-1])
    known = np.ones(length * (images + 1), dtype=np.bool_)
    if motion is None:
        return known
    total = count * (images + 1)
    starts = np.append((np.arange(images + 1)[:, None] * length + inner[:-1]).ravel(), len(known))
    told = 3 if count == 1 else min(count + (1 if motion.about_centre else 2), total - 1)
    first = int(rng.integers(told, total))
    last = total if rng.random() < 0.5 else first + 1
    known[starts[first] : starts[last]] = False
    return known


def _joined(parts: list[Points], window: Points, known: BoolArray) -> tuple[Points, BoolArray]:
    """The parts one after the other, cut to as many points as the window has; known likewise.

    Each begins as long after the one before as what follows that one in the window.
    """
    length = len(window.times)
    clock, times = 0.0, []
    for part in parts:
        if len(part.times):
            times.append(clock + part.times - part.times[0])
            after = min(int(part.sources[-1]) + 1, length - 1)
            clock = times[-1][-1] + window.times[after] - part.times[-1]
    joined = Points(
        np.concatenate([part.xy for part in parts])[:length],
        np.concatenate(times)[:length],
        np.concatenate([part.sources for part in parts])[:length],
    )
    return joined, known[:length]


def _on_playfield(xy: FloatArray) -> bool:
    return bool(((xy >= 0) & (xy <= PLAYFIELD)).all())
