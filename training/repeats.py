"""Training windows in which passages come again as exact images of themselves.

Mappers repeat, mirror and turn what they placed: rows of triangles, polygons, motifs from left to
right. Real maps do so rarely and loosely; here a network sees what exactness looks like. In most of
these windows all is known but some objects of images, so that finding the rule is all there is to
learn. That distances and rhythm come again tells the network where to expect images: it does not
put them where they do not.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from conventions.arrays import BoolArray, FloatArray, IntArray
from conventions.playfield import PLAYFIELD_CENTRE, off_playfield
from conventions.point_types import SPINNERS, STARTS
from data_loading import Batch, distances

LONGEST = 8
"""Objects of a passage."""
MOST_OBJECTS = 12
"""Objects of all images of a passage."""
FLATTEST_PX = 40.0
"""Passages of several objects that are smaller are stacks: their images say nothing."""
ANGLES = np.deg2rad([30, 45, 60, 72, 90, 120, 144, 180])
"""Turns that mappers like; half of the motions have one of these."""
ABOUT_CENTRE = 0.8
"""Share of longer passages that are mirrored, or turned by half, about the playfield's centre, as
the editor flips objects. Of all images these are the easiest to learn, and lead to the others."""
SHOWN = 0.75
"""Share of windows with images most of whose points are given. In the others as much is known as in
any window, so that all objects of passages and images may have to be found together."""
TRIES = 8
"""How many motions are drawn for a passage, until one leaves its images on the playfield."""


class Repeated(NamedTuple):
    """A window of T data points made of another: xy (T, 2) px and times (T,) ms.

    sources (T,) are the indices of the points in the other window, known (T,) which of them are
    given.
    """

    xy: FloatArray
    times: FloatArray
    sources: IntArray
    known: BoolArray


@dataclass(frozen=True)
class Motion:
    """An isometry, (..., 2) px -> (..., 2) px: matrix (2, 2), then shift (2,) px.

    `about_centre`: it mirrors the playfield, or turns it by half, so that one known point and its
    image tell which it is.
    """

    matrix: FloatArray
    shift: FloatArray
    about_centre: bool = False

    def images(self, xy: FloatArray, most: int) -> list[FloatArray]:
        """Up to `most` images, each of the one before, as long as they lie on the playfield."""
        found: list[FloatArray] = []
        while len(found) < most:
            xy = xy @ self.matrix.T + self.shift
            if off_playfield(xy).any():
                break
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

        Chosen windows that are padded, or have no passage to repeat, stay as they are. They have
        nothing to show, like those that are not chosen, and one in four of the others.
        """
        shown = torch.zeros(batch.xy.shape[:2], dtype=torch.bool)
        given = batch.conditions
        xy, times, types = batch.xy.clone(), given.times.clone(), given.types.clone()
        spacing = given.distances.clone()
        for row in np.flatnonzero(self.seeds.numpy() >= 0).tolist():
            if given.valid is not None and not bool(given.valid[row].all()):
                continue
            rng = np.random.default_rng(int(self.seeds[row]))
            window = xy[row].double().numpy(), times[row].double().numpy(), types[row].numpy()
            found = with_images(*window, rng)
            if found.known.all():
                continue
            xy[row] = torch.from_numpy(found.xy)
            times[row] = torch.from_numpy(found.times).to(times.dtype)
            types[row] = types[row, torch.from_numpy(found.sources)]
            spacing[row, 1:] = torch.from_numpy(distances(found.xy)[1:]).to(spacing.dtype)
            if rng.random() < SHOWN:
                shown[row] = torch.from_numpy(found.known)
        given = given._replace(times=times, types=types, distances=spacing)
        return batch._replace(xy=xy, conditions=given), shown


def with_images(
    xy: FloatArray, times: FloatArray, types: np.ndarray, rng: np.random.Generator
) -> Repeated:
    """As many points as given, T: passages, each followed by its images.

    xy (T, 2) px, times (T,) ms, types (T,). From a point to the next it takes as long as to the one
    that followed it. All is known but some objects of images.
    """
    length = len(types)
    starts = np.append(np.flatnonzero(np.isin(types, STARTS)), length)
    spins = np.isin(types, SPINNERS)
    places, sources = [xy[: starts[0]]], [np.arange(starts[0])]
    known, first = [np.ones(starts[0], dtype=np.bool_)], 0
    while first + 1 < len(starts) and sum(map(len, sources)) < length:
        count = min(int(rng.integers(1, LONGEST + 1)), len(starts) - 1 - first)
        objects = starts[first : first + count + 1]
        first += count
        start, stop = int(objects[0]), int(objects[-1])
        images: list[FloatArray] = []
        told = count
        if stop < length and not spins[start:stop].any():
            step = float(np.hypot(*(xy[stop] - xy[stop - 1])))
            images, told = _images(xy[start:stop], count, step, rng)
        places += [xy[start:stop], *images]
        sources += [np.arange(start, stop)] * (1 + len(images))
        known.append(_known(objects - start, len(images), told, rng))
    source = np.concatenate(sources)[:length]
    passed = times[source[:-1] + 1] - times[source[:-1]]
    return Repeated(
        np.concatenate(places)[:length],
        np.append(0.0, np.cumsum(passed)),
        source,
        np.concatenate(known)[:length],
    )


def _images(
    xy: FloatArray, count: int, step: float, rng: np.random.Generator
) -> tuple[list[FloatArray], int]:
    """Images of a passage xy (P, 2) px of `count` objects; how many objects tell how it moves.

    There are at least three images of one object, and two of two. Three known objects and their
    images fix a motion, two do up to a reflection, which is what is left to guess where known
    objects lie in a line. There is none if they find no place on the playfield; `step` is as in
    `_motion`.
    """
    if off_playfield(xy).any() or (count > 1 and np.ptp(xy, axis=0).max() < FLATTEST_PX):
        return [], count
    fewest = max(1, 4 - count)
    most = int(rng.integers(fewest, max(fewest, MOST_OBJECTS // count) + 1))
    for _ in range(TRIES):
        motion = _motion(xy, step, count, rng)
        images = motion.images(xy, most)
        if len(images) >= fewest:
            return images, 3 if count == 1 else count + (1 if motion.about_centre else 2)
    return [], count


def _motion(xy: FloatArray, step: float, count: int, rng: np.random.Generator) -> Motion:
    """Of a passage xy (P, 2) px: about the playfield's centre, or to where `step` px lead."""
    if count > 2 and rng.random() < ABOUT_CENTRE:
        matrix = np.diag([(-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)][rng.integers(3)])
        centre = np.array(PLAYFIELD_CENTRE)
        return Motion(matrix, centre - matrix @ centre, about_centre=True)
    angle = rng.uniform(-np.pi, np.pi)
    if rng.random() < 0.5:
        angle = rng.choice(ANGLES) * rng.choice([-1, 1])
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < (0.2 if count == 1 else 0.5):
        matrix = matrix @ np.diag([1.0, -1.0])
    way = rng.uniform(0, 2 * np.pi)
    target = xy[-1] + step * np.array([np.cos(way), np.sin(way)])
    return Motion(matrix, target - matrix @ xy[0])


def _known(inner: IntArray, images: int, told: int, rng: np.random.Generator) -> BoolArray:
    """(P,) which points of a passage and its images are known.

    The passage's objects begin at `inner` (count + 1,), of which the last is its length. The first
    `told` objects are known, fewer than there are with images; of the others one is not, or all
    from it on.
    """
    count, length = len(inner) - 1, int(inner[-1])
    total = count * (images + 1)
    known = np.ones(length * (images + 1), dtype=np.bool_)
    if not images:
        return known
    starts = np.append((np.arange(images + 1)[:, None] * length + inner[:-1]).ravel(), len(known))
    first = int(rng.integers(told, total))
    last = total if rng.random() < 0.5 else first + 1
    known[starts[first] : starts[last]] = False
    return known
