"""Passages that come again: exact images, the time and order of windows, what is shown of them."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from conventions.arrays import FloatArray, IntArray
from conventions.playfield import off_playfield
from conventions.point_types import STARTS
from data_loading import Batch, PackedDataset
from diffusion.parametrisation import EDM
from models import Conditions, Context, DiTConfig
from tests.conftest import call_train
from training.objective import Noise, Objective
from training.repeats import (
    MOST_OBJECTS,
    SHOWN,
    Repeated,
    Repeats,
    _images,
    _known,
    with_images,
)

LENGTH = 128
SEEDS = pytest.mark.parametrize("seed", range(20))


class Window(NamedTuple):
    """xy (T, 2) px, times (T,) ms and types (T,) of data points."""

    xy: FloatArray
    times: FloatArray
    types: np.ndarray

    def repeated(self, seed: int) -> Repeated:
        return with_images(*self, np.random.default_rng(seed))


def made_up(seed: int, length: int = LENGTH) -> Window:
    """Circles and sliders anywhere on the playfield, cut within an object."""
    rng = np.random.default_rng(seed)
    types: list[int] = [6, 11]
    while len(types) < length:
        types += [[0], [1], [4, 6, 11], [0], [5, 9, 10, 12]][rng.integers(5)]
    xy = rng.uniform(20, (492, 364), (length, 2))
    times = np.cumsum(rng.integers(1, 5, length) * 85.0) - 85
    return Window(xy, times, np.array(types[:length], dtype=np.uint8))


def batch_of(windows: list[Window]) -> Batch:
    xy = torch.from_numpy(np.stack([window.xy for window in windows])).float()
    steps = (xy[:, 1:] - xy[:, :-1]).norm(dim=-1)
    return Batch(
        xy,
        Conditions(
            torch.from_numpy(np.stack([window.times for window in windows])),
            torch.cat([torch.full((len(xy), 1), 77.0), steps], dim=1),
            torch.from_numpy(np.stack([window.types for window in windows])),
            torch.arange(len(xy)),
            torch.ones(xy.shape[:2], dtype=torch.bool),
        ),
    )


def runs_of_copies(sources: IntArray) -> list[tuple[int, int, int]]:
    """(start, length of one copy, end) of the copies of each passage that comes again."""
    found: list[tuple[int, int, int]] = []
    cuts = np.flatnonzero(np.diff(sources) <= 0) + 1
    for cut in cuts.tolist():
        start = int(np.flatnonzero(sources[:cut] == sources[cut])[-1])
        end = cut
        while end < len(sources) and sources[end] == sources[end - (cut - start)]:
            end += 1
        if not found or start >= found[-1][2]:
            found.append((start, cut - start, end))
    return found


def is_isometry(before: FloatArray, after: FloatArray) -> bool:
    """Whether one motion takes each point of `before` (P, 2) to that of `after` (P, 2)."""
    mine, others = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (before, after))
    return bool(np.allclose(mine, others, atol=1e-6))


@SEEDS
def test_one_motion_leads_from_each_copy_to_the_next(seed: int) -> None:
    window = made_up(seed)
    found = window.repeated(seed)
    runs = runs_of_copies(found.sources)
    assert len(found.xy) == len(found.times) == len(found.known) == LENGTH and runs
    for start, length, end in runs:
        assert is_isometry(found.xy[start : end - length], found.xy[start + length : end])
        np.testing.assert_array_equal(
            found.xy[start : start + length], window.xy[found.sources[start : start + length]]
        )
    assert not off_playfield(found.xy).any()


@SEEDS
def test_times_go_on_as_in_the_window(seed: int) -> None:
    """From each point to the next it takes as long as to the one after it in the window."""
    window = made_up(seed)
    found = window.repeated(seed)
    after = found.sources[:-1] + 1
    expected = window.times[after] - window.times[found.sources[:-1]]
    np.testing.assert_allclose(np.diff(found.times), expected)


@pytest.mark.parametrize("seed", range(40))
def test_whole_objects_are_unknown_and_came_before(seed: int) -> None:
    window = made_up(seed)
    found = window.repeated(seed)
    unknown = np.flatnonzero(~found.known)
    assert 0 < len(unknown) < LENGTH / 2
    for index in unknown:
        assert found.sources[index] in found.sources[:index]
    starts = np.isin(window.types[found.sources], STARTS)
    assert (starts | (np.diff(found.known, prepend=True) == 0)).all()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_so_much_is_known_that_the_motion_is(count: int) -> None:
    """Three places of one object; of several, two and their images, one where that is enough."""
    rng = np.random.default_rng(count)
    lengths = set()
    for _ in range(400):
        passage = rng.uniform(100, 280, (count, 2))
        images, told = _images(passage, count, 80.0, rng)
        if not images:
            assert told == count
            continue
        centre = np.array([256.0, 192.0])
        about_centre = np.allclose(abs(images[0] - centre), abs(passage - centre))
        assert told == (3 if count == 1 else count + (1 if about_centre else 2))
        assert len(images) >= {1: 3, 2: 2}.get(count, 1)
        known = _known(np.arange(count + 1), len(images), told, rng)
        assert len(known) == count * (len(images) + 1) and not known.all()
        first = int(np.flatnonzero(~known)[0])
        assert first >= told
        lengths.add("one" if (~known).sum() == 1 else "rest" if not known[first:].any() else "")
    assert lengths == {"one", "rest"}


def test_at_most_so_many_objects_are_images() -> None:
    for seed in range(40):
        window = made_up(seed)
        found = window.repeated(seed)
        heads = found.sources[np.isin(window.types[found.sources], STARTS)]
        assert np.unique(heads, return_counts=True)[1].max() <= MOST_OBJECTS + 1


def test_spinners_and_what_lies_outside_the_playfield_never_come_again() -> None:
    window = made_up(3)
    outside = window._replace(xy=window.xy + np.array([600, 0]))
    spinners = window._replace(types=np.tile(np.array([2, 3], np.uint8), LENGTH // 2))
    for given in (outside, spinners):
        found = given.repeated(0)
        assert found.known.all()
        np.testing.assert_array_equal(found.xy, given.xy)
        np.testing.assert_array_equal(found.times, given.times)
        np.testing.assert_array_equal(found.sources, np.arange(LENGTH))


def test_of_stacks_only_single_objects_come_again() -> None:
    """A stack as a passage looks the same however it is turned."""
    window = made_up(3)
    stacks = Window(100 + window.xy / 20, window.times, np.zeros(LENGTH, np.uint8))
    found = stacks.repeated(0)
    assert not found.known.all()
    again = np.diff(found.sources) <= 0
    assert again.any() and (np.diff(found.sources)[again] == 0).all()


def test_the_whole_batch_is_told_what_belongs_to_it() -> None:
    windows = [made_up(seed) for seed in range(7)]
    windows[6] = windows[6]._replace(types=np.full(LENGTH, 6, np.uint8))  # one slider, cut off
    batch = batch_of(windows)
    seeds = torch.tensor([5, -1, 7, -1, 9, 11, 13])
    valid = batch.conditions.valid
    assert valid is not None
    valid[5, 100:] = False  # a padded window stays as it is
    changed, shown = Repeats(seeds)(batch)
    for row, repeated in enumerate([True, False, True, False, True, False, False]):
        assert torch.equal(changed.xy[row], batch.xy[row]) != repeated
        assert repeated or not shown[row].any()
    steps = (changed.xy[:, 1:] - changed.xy[:, :-1]).norm(dim=-1)
    torch.testing.assert_close(changed.conditions.distances[:, 1:], steps, atol=1e-3, rtol=0)
    assert (changed.conditions.distances[:, 0] == 77).all()
    again, _ = Repeats(seeds[2:3])(batch.part(slice(2, 3)))
    for one, other in zip(again.conditions, changed.part(slice(2, 3)).conditions, strict=True):
        assert one is other or (one is not None and other is not None and torch.equal(one, other))


def test_of_some_windows_with_images_no_more_is_known_than_of_others() -> None:
    batch = batch_of([made_up(0)] * 400)
    changed, shown = Repeats(torch.arange(400))(batch)
    assert (changed.xy != batch.xy).any(dim=(1, 2)).all()
    assert abs(shown.any(1).float().mean() - SHOWN) < 0.06


def test_a_share_of_windows_is_chosen_and_parts_fit() -> None:
    whole = Repeats.draw(4000, 0.3, torch.Generator().manual_seed(0))
    assert abs((whole.seeds >= 0).float().mean() - 0.3) < 0.03
    assert torch.equal(whole.part(slice(10, 20)).seeds, whole.seeds[10:20])


def test_the_loss_is_of_what_is_not_shown() -> None:
    """By hand, of a network that answers with nothing; other windows keep what they were given."""
    n = 12
    batch = batch_of([made_up(seed) for seed in range(n)])
    config = DiTConfig(width=8, depth=1, heads=2, num_classes=n, known_points=True)
    objective = Objective(EDM(), config, torch.device("cpu"), torch.float32, LENGTH, amp=False)
    shares: dict[str, Any] = {"known_points": 0.7, "repeats": 0.5}
    noise = Noise.draw(EDM(), (n, LENGTH), (0, 1), class_dropout=0, distance_dropout=0, **shares)
    assert noise.repeats is not None
    changed, shown = noise.repeats(batch)
    repeated = shown.any(1)
    drawn = noise.known.mask(changed.conditions.types, torch.ones(n, LENGTH, dtype=torch.bool))
    expected = torch.where(repeated[:, None], shown, drawn)
    assert 0 < repeated.sum() < n and 0 < drawn[~repeated].any(1).sum() < (~repeated).sum()
    told: list[Context] = []

    def network(x: Tensor, _: Tensor, context: Context, __: int) -> Tensor:
        told.append(context)
        return torch.zeros_like(x)

    losses = objective.losses(network, batch, noise)
    known = told[0].known
    assert known is not None and torch.equal(~known[..., 0].isnan(), expected)
    x0 = EDM().from_pixels(changed.xy)
    torch.testing.assert_close(known[expected], x0[expected])
    plain = EDM().loss(lambda x, _: torch.zeros_like(x), x0, noise.levels, noise.eps, ~expected)
    torch.testing.assert_close(losses, plain * (LENGTH / (~expected).sum(1)).sqrt())
    parts = [slice(0, 5), slice(5, n)]
    torch.testing.assert_close(
        losses,
        torch.cat([objective.losses(network, batch.part(p), noise.part(p)) for p in parts]),
    )


def test_a_share_that_makes_no_sense_is_refused(packed: PackedDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--augment-repeats 1\.5: give 0 to 1"):
        call_train(packed.folder, tmp_path, "--augment-repeats", 1.5)


@pytest.mark.parametrize("flags", [("--known-points", 0), ("--architecture", "reference")])
def test_a_model_that_is_given_no_points_cannot_learn_from_them(
    packed: PackedDataset, tmp_path: Path, flags: tuple[object, ...]
) -> None:
    with pytest.raises(ValueError, match="--augment-repeats is for models that can"):
        call_train(packed.folder, tmp_path, "--augment-repeats", 0.5, *flags)
