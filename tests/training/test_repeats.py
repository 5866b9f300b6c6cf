"""Passages that come again: exact images, the time and order of windows, what is shown of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conventions.arrays import FloatArray
from conventions.point_types import STARTS
from data_loading import Batch, PackedDataset
from diffusion.parametrisation import EDM
from models import Conditions, Context, DiTConfig
from tests.conftest import call_train
from training.objective import Noise, Objective
from training.repeats import MOST_OBJECTS, Points, Repeats, with_images

LENGTH = 128


def made_up(seed: int, length: int = LENGTH) -> tuple[Points, np.ndarray]:
    """A window of circles and sliders anywhere on the playfield, cut within an object."""
    rng = np.random.default_rng(seed)
    types: list[int] = [6, 11]
    while len(types) < length:
        types += [[0], [1], [4, 6, 11], [0], [5, 9, 10, 12]][rng.integers(5)]
    xy = rng.uniform(20, (492, 364), (length, 2))
    times = np.cumsum(rng.integers(1, 5, length) * 85.0) - 85
    return Points(xy, times, np.arange(length)), np.array(types[:length], dtype=np.uint8)


def batch_of(windows: list[tuple[Points, np.ndarray]]) -> Batch:
    xy = torch.from_numpy(np.stack([points.xy for points, _ in windows])).float()
    steps = (xy[:, 1:] - xy[:, :-1]).norm(dim=-1)
    return Batch(
        xy,
        Conditions(
            torch.from_numpy(np.stack([points.times for points, _ in windows])),
            torch.cat([torch.full((len(xy), 1), 77.0), steps], dim=1),
            torch.from_numpy(np.stack([types for _, types in windows])),
            torch.arange(len(xy)),
            torch.ones(xy.shape[:2], dtype=torch.bool),
        ),
    )


def is_image(a: FloatArray, b: FloatArray) -> bool:
    """Whether all distances between points of a (P, 2) are those of b (P, 2)."""
    mine, others = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (a, b))
    return bool(np.allclose(mine, others, atol=1e-6))


def passages(points: Points) -> list[tuple[slice, slice]]:
    """Neighbouring parts of the same points of the window, the later as far as it goes."""
    found, start = [], 0
    cuts = np.flatnonzero(np.diff(points.sources) <= 0) + 1
    for cut, end in zip(cuts, [*cuts[1:], len(points.sources)], strict=True):
        start = int(np.flatnonzero(points.sources[:cut] == points.sources[cut])[-1])
        length = min(end - cut, cut - start)
        found.append((slice(start, start + length), slice(cut, cut + length)))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_images_are_exact_and_on_the_playfield(seed: int) -> None:
    window, types = made_up(seed)
    points, known = with_images(window, types, np.random.default_rng(seed))
    assert len(points.xy) == len(points.times) == len(known) == LENGTH
    pairs = passages(points)
    assert pairs
    for first, second in pairs:
        assert (points.sources[first] == points.sources[second]).all()
        assert is_image(points.xy[first], points.xy[second])
    assert ((points.xy >= 0) & (points.xy <= (512, 384))).all()


@pytest.mark.parametrize("seed", range(20))
def test_times_go_on_as_in_the_window(seed: int) -> None:
    """From each point to the next it takes as long as to the one after it in the window."""
    window, types = made_up(seed)
    points, _ = with_images(window, types, np.random.default_rng(seed))
    after = points.sources[:-1] + 1
    assert after.max() < LENGTH
    expected = window.times[after] - window.times[points.sources[:-1]]
    np.testing.assert_allclose(np.diff(points.times), expected)


@pytest.mark.parametrize("seed", range(40))
def test_unknown_are_whole_objects_of_images_after_what_tells_how_they_move(seed: int) -> None:
    window, types = made_up(seed)
    points, known = with_images(window, types, np.random.default_rng(seed))
    unknown = np.flatnonzero(~known)
    assert 0 < len(unknown) < LENGTH / 2
    for index in unknown:
        # The same point came before, and some of its image is known.
        assert points.sources[index] in points.sources[:index]
    starts = np.isin(types[points.sources], STARTS)
    assert (starts | (np.diff(known, prepend=True) == 0)).all()


def test_at_most_so_many_objects_are_images() -> None:
    for seed in range(40):
        window, types = made_up(seed)
        points, _ = with_images(window, types, np.random.default_rng(seed))
        heads = points.sources[np.isin(types[points.sources], STARTS)]
        assert np.unique(heads, return_counts=True)[1].max() <= MOST_OBJECTS + 1


def test_spinners_and_what_lies_outside_the_playfield_never_come_again() -> None:
    window, types = made_up(3)
    outside = window._replace(xy=window.xy + np.array([600, 0]))
    spinners = np.tile(np.array([2, 3], np.uint8), LENGTH // 2)
    for given, kinds in ((outside, types), (window, spinners)):
        points, known = with_images(given, kinds, np.random.default_rng(0))
        assert known.all()
        for mine, whole in zip(points, given, strict=True):
            np.testing.assert_array_equal(mine, whole)


def test_of_stacks_only_single_objects_come_again() -> None:
    """A stack as a passage looks the same however it is turned."""
    window, _ = made_up(3)
    stacks = window._replace(xy=100 + window.xy / 20)
    points, known = with_images(stacks, np.zeros(LENGTH, np.uint8), np.random.default_rng(0))
    assert not known.all()
    again = np.diff(points.sources) <= 0
    assert again.any() and (np.diff(points.sources)[again] == 0).all()


def test_the_whole_batch_is_told_what_belongs_to_it() -> None:
    batch = batch_of([made_up(seed) for seed in range(6)])
    seeds = torch.tensor([5, -1, 7, -1, 9, 11])
    valid = batch.conditions.valid
    assert valid is not None
    valid[5, 100:] = False  # a padded window stays as it is
    changed, shown = Repeats(seeds)(batch)
    for row, repeated in enumerate([True, False, True, False, True, False]):
        same = torch.equal(changed.xy[row], batch.xy[row])
        assert shown[row].any() == repeated == (not same)
    steps = (changed.xy[:, 1:] - changed.xy[:, :-1]).norm(dim=-1)
    torch.testing.assert_close(changed.conditions.distances[:, 1:], steps, atol=1e-3, rtol=0)
    assert (changed.conditions.distances[:, 0] == 77).all()
    again, _ = Repeats(seeds[2:3])(batch.part(slice(2, 3)))
    for one, other in zip(again.conditions, changed.part(slice(2, 3)).conditions, strict=True):
        assert one is other or (one is not None and other is not None and torch.equal(one, other))


def test_a_share_of_windows_is_chosen_and_parts_fit() -> None:
    whole = Repeats.draw(4000, 0.3, torch.Generator().manual_seed(0))
    assert abs((whole.seeds >= 0).float().mean() - 0.3) < 0.03
    assert torch.equal(whole.part(slice(10, 20)).seeds, whole.seeds[10:20])


def test_the_loss_is_of_what_is_not_shown() -> None:
    """By hand: of a network that answers with nothing, the mean over unknown points, weighted."""
    batch = batch_of([made_up(seed) for seed in range(4)])
    config = DiTConfig(width=8, depth=1, heads=2, num_classes=9, known_points=True)
    objective = Objective(EDM(), config, torch.device("cpu"), torch.float32, LENGTH, amp=False)
    noise = Noise.draw(
        EDM(), (4, LENGTH), (0, 1), class_dropout=0, distance_dropout=0, known_points=0.0, repeats=1
    )
    assert noise.repeats is not None
    changed, shown = noise.repeats(batch)
    told: list[Context] = []

    def network(x: Tensor, _: Tensor, context: Context, __: int) -> Tensor:
        told.append(context)
        return torch.zeros_like(x)

    losses = objective.losses(network, batch, noise)
    known = told[0].known
    assert known is not None and torch.equal(~known[..., 0].isnan(), shown)
    x0 = EDM().from_pixels(changed.xy)
    torch.testing.assert_close(known[shown], x0[shown])
    plain = EDM().loss(lambda x, _: torch.zeros_like(x), x0, noise.levels, noise.eps, ~shown)
    torch.testing.assert_close(losses, plain * (LENGTH / (~shown).sum(1)).sqrt())


def test_a_share_that_makes_no_sense_is_refused(packed: PackedDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--augment-repeats 1\.5: give 0 to 1"):
        call_train(packed.folder, tmp_path, "--augment-repeats", 1.5)


@pytest.mark.parametrize("flags", [("--known-points", 0), ("--architecture", "reference")])
def test_a_model_that_is_given_no_points_cannot_learn_from_them(
    packed: PackedDataset, tmp_path: Path, flags: tuple[object, ...]
) -> None:
    with pytest.raises(ValueError, match="--augment-repeats"):
        call_train(packed.folder, tmp_path, "--augment-repeats", 0.5, *flags)
