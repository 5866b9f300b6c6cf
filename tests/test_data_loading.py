"""The packed dataset and its windows: what is read back, the order, the shards, beatmap indices."""

import hashlib
import pickle
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from data_loading import (
    COLUMNS,
    POINT_DTYPE,
    Batch,
    PackedDataset,
    WindowLoader,
    Windows,
    set_keys,
    similarities,
    turn_within,
)
from datasets.class_tables import load_beatmap_idx, save_beatmap_idx
from datasets.writer import write_dataset

COUNTS = [100, 10, 64, 33]
CENTRE = torch.tensor([256.0, 192.0])


def made_up_points(counts: list[int]) -> np.ndarray:
    """Data points whose time is their index in the whole array, so that each is known."""
    rng = np.random.default_rng(1)
    points = np.empty(sum(counts), POINT_DTYPE)
    points["time"] = np.arange(len(points))
    points["x"], points["y"] = rng.uniform(0, 512, len(points)), rng.uniform(0, 384, len(points))
    points["type"] = rng.integers(0, 16, len(points))
    return points


def made_up_table(counts: list[int], set_ids: list[int] | None = None) -> pd.DataFrame:
    """Rows for maps of so many data points; names that a CSV reader may take for something else."""
    n = len(counts)
    table = pd.DataFrame(
        {
            "class_index": range(n),
            "offset": np.cumsum(counts) - counts,
            "count": counts,
            "md5": [f"{k:032d}" for k in range(n)],
            "beatmap_id": [101 + k if k % 2 == 0 else 0 for k in range(n)],
            "set_id": set_ids or [11 + k for k in range(n)],
            "artist": ["NA", 'say "hi", you', "null", "1e5"] * (n // 4) + ["x"] * (n % 4),
            "title": [f"夜空 {k}" for k in range(n)],
            "creator": "",
            "version": "01",
            "tags": "null",
            "circle_size": 4.2,
            "star_rating": None,
            "user_id": 7,
            "descriptors": "clean,grid snap",
        }
    )
    return table[COLUMNS]


@pytest.fixture
def dataset(tmp_path: Path) -> PackedDataset:
    write_dataset(tmp_path, made_up_points(COUNTS), made_up_table(COUNTS), {"skipped": []})
    return PackedDataset(tmp_path)


def loader(dataset: PackedDataset, **changes: Any) -> WindowLoader:
    rows = changes.pop("rows", np.arange(len(dataset)))
    options: dict[str, Any] = {"seq_len": 32, "stride": 4, "batch_size": 4, "seed": 7}
    return WindowLoader(dataset, rows, **{**options, **changes})


def equal(a: Batch, b: Batch) -> bool:
    tensors, others = ([batch.xy, *batch.conditions] for batch in (a, b))
    assert a.conditions.known is None and b.conditions.known is None
    pairs = zip(tensors[:-1], others[:-1], strict=True)
    return all(x is not None and y is not None and torch.equal(x, y) for x, y in pairs)


# --- the folder -----------------------------------------------------------------------------------


def test_a_packed_dataset_is_read_as_it_was_written(dataset: PackedDataset) -> None:
    assert np.array_equal(dataset.points, made_up_points(COUNTS))
    assert isinstance(dataset.points, np.memmap)
    expected = made_up_table(COUNTS)
    for name in (column for column in COLUMNS if column != "star_rating"):
        assert dataset.beatmaps[name].tolist() == expected[name].tolist(), name
    assert dataset.beatmaps["star_rating"].isna().all()
    assert (len(dataset), dataset.num_classes) == (4, 4)
    assert dataset.beatmap_idx() == {101: 0, 103: 2}


def test_names_with_any_character_survive_the_table(tmp_path: Path) -> None:
    table = made_up_table([5])
    table["title"], table["creator"] = 'a\0b, "c"; #d', " e\\"
    write_dataset(tmp_path, made_up_points([5]), table, {})
    read = PackedDataset(tmp_path).beatmaps
    assert (read["title"][0], read["creator"][0]) == ('a\0b, "c"; #d', " e\\")


@pytest.mark.parametrize("name", ["points-", "beatmaps-", "dataset.json"])
def test_an_interrupted_write_leaves_the_old_dataset(
    dataset: PackedDataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whichever of the three files the write dies at, half of it on the disk."""
    replace_file = Path.replace

    def die(self: Path, target: Path) -> Path:
        if target.name.startswith(name):
            raise KeyboardInterrupt
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(dataset.folder, made_up_points([50]), made_up_table([50]), {})
    monkeypatch.undo()
    again = PackedDataset(dataset.folder)
    assert again.beatmaps["count"].tolist() == COUNTS
    assert np.array_equal(again.points, made_up_points(COUNTS))
    assert not list(dataset.folder.glob("*.tmp"))
    write_dataset(dataset.folder, made_up_points([50]), made_up_table([50]), {})
    assert PackedDataset(dataset.folder).beatmaps["count"].tolist() == [50]
    assert np.array_equal(dataset.points, made_up_points(COUNTS))  # opened before, still readable


def test_a_folder_that_is_no_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"create_dataset\.py"):
        PackedDataset(tmp_path)


def test_another_format_version_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.writer.FORMAT_VERSION", 99)
    write_dataset(tmp_path, made_up_points([5]), made_up_table([5]), {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"format 99.*reads 1"):
        PackedDataset(tmp_path)


# --- the split ------------------------------------------------------------------------------------


def test_a_split_keeps_sets_whole_and_stays_when_maps_are_added(tmp_path: Path) -> None:
    """Also of sets without an ID, which go by their names."""

    def split(n: int) -> tuple[set[int], set[int], PackedDataset]:
        table = made_up_table([3] * n, [k // 3 + 1 if k < n // 2 else -1 for k in range(n)])
        table["set_id"] = [k // 3 + 1 if k % 2 else -1 for k in range(n)]
        table["title"] = [f"title {k // 10}" for k in range(n)]
        table["artist"] = "artist"
        write_dataset(tmp_path / str(n), made_up_points([3] * n), table, {})
        dataset = PackedDataset(tmp_path / str(n))
        train, held_out = dataset.split_by_set(0.3)
        return set(train.tolist()), set(held_out.tolist()), dataset

    train, held_out, dataset = split(300)
    assert train | held_out == set(range(300)) and not train & held_out
    assert 0.15 < len(held_out) / 300 < 0.45
    keys = set_keys(dataset.beatmaps)
    assert len(set(keys)) < 150
    assert not {keys[k] for k in train} & {keys[k] for k in held_out}
    more_train, more_held_out, _ = split(600)
    assert train <= more_train and held_out <= more_held_out
    assert set(dataset.split_by_set(0.3, seed=1)[1].tolist()) != held_out
    assert len(dataset.split_by_set(0.0)[1]) == 0


def test_a_split_goes_by_the_hash_of_each_set(tmp_path: Path) -> None:
    """Row by row, whatever is remembered of sets: which maps a run trains on must not change."""
    table = made_up_table([3] * 60, [k // 3 if k % 2 else -1 for k in range(60)])
    write_dataset(tmp_path, made_up_points([3] * 60), table, {})
    dataset = PackedDataset(tmp_path)
    held_out = []
    for row, m in enumerate(dataset.beatmaps.to_dict("records")):
        names = f"{m['artist']}/{m['title']}/{m['creator']}"
        key = f"5/{m['set_id'] if m['set_id'] > 0 else names}"
        number = int(hashlib.sha256(key.encode("utf-8")).hexdigest()[:16], 16)
        if number < 0.3 * 2**64:
            held_out.append(row)
    assert 5 < len(held_out) < 40
    assert dataset.split_by_set(0.3, seed=5)[1].tolist() == held_out


# --- the order of windows -------------------------------------------------------------------------


def test_every_window_of_an_epoch_comes_once(dataset: PackedDataset) -> None:
    """As many windows a map as strides fit into it, all within it, none longer than the map."""
    windows = loader(dataset).windows(3)
    assert np.bincount(windows.rows).tolist() == [18, 1, 9, 2]  # ceil(free / 4) + 1
    assert windows.flips.shape == (30, 2)
    for row, count in enumerate(COUNTS):
        starts = np.sort(windows.starts[windows.rows == row])
        assert starts.min() >= 0 and starts.max() <= max(count - 32, 0)
        assert (np.diff(starts) <= 4).all()
        assert starts[0] <= 3


def test_all_positions_are_seen_over_epochs(dataset: PackedDataset) -> None:
    train = loader(dataset, rows=np.array([0]))
    seen = {int(start) for epoch in range(30) for start in train.windows(epoch).starts}
    assert seen == set(range(100 - 32 + 1))


def test_the_order_depends_on_seed_and_epoch_alone(dataset: PackedDataset) -> None:
    first, again = loader(dataset), loader(dataset)
    again.batch(5, 0)  # another epoch before
    assert equal(first.batch(2, 1), again.batch(2, 1))
    assert not np.array_equal(first.windows(2).starts, first.windows(3).starts)
    assert not np.array_equal(first.windows(2).rows, first.windows(3).rows)
    other = loader(dataset, seed=8)
    assert not np.array_equal(first.windows(2).rows, other.windows(2).rows)


def plain_windows(train: WindowLoader, epoch: int) -> Windows:
    """The order of windows, array by array and in int64: what runs that go on rely on."""
    rng = np.random.default_rng([train.seed, epoch])
    counts = train.dataset.beatmaps["count"].to_numpy()[train.rows]
    each = -(-np.maximum(counts - train.seq_len, 0) // train.stride) + 1
    maps = np.repeat(np.arange(len(train.rows)), each)
    index = np.concatenate([np.arange(n) for n in each])
    shift = rng.integers(0, train.stride, len(train.rows))
    last = np.maximum(counts - train.seq_len, 0)[maps]
    starts = np.clip(index * train.stride - shift[maps], 0, last)
    order = rng.permutation(len(maps))
    flips = rng.random((len(maps), 2)) < (0.5 if train.flip else 0.0)
    turns = similarities(len(maps), train.turn, train.stretch, rng)
    return Windows(train.rows[maps[order]], starts[order], flips, turns)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seed": 3, "stride": 1, "flip": False},
        {"rows": np.array([3, 0]), "turn": 20.0, "stretch": 0.2},
        {"stride": 2**33},
    ],
)
def test_the_order_is_that_of_the_plain_formula(
    dataset: PackedDataset, options: dict[str, Any]
) -> None:
    """Also in another epoch of the same loader; a window is kept in 10 bytes."""
    train = loader(dataset, **options)
    for epoch in (0, 1, 12):
        windows, expected = train.windows(epoch), plain_windows(train, epoch)
        for name in ("rows", "starts", "flips", "turns"):
            np.testing.assert_array_equal(getattr(windows, name), getattr(expected, name))
        kept = windows.rows.nbytes + windows.starts.nbytes + windows.flips.nbytes
        assert kept == 10 * len(windows.rows)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_batches_of_all_ranks_are_the_global_batch(
    dataset: PackedDataset, world_size: int
) -> None:
    whole = loader(dataset)
    ranks = [loader(dataset, rank=r, world_size=world_size) for r in range(world_size)]
    for index in range(whole.batches_per_epoch):
        parts = [rank.batch(1, index) for rank in ranks]
        joined = whole.batch(1, index)
        assert len(joined.xy) == sum(len(part.xy) for part in parts)
        first = 0
        for part in parts:
            assert equal(part, joined.part(slice(first, first + len(part.xy))))
            first += len(part.xy)


@pytest.mark.parametrize("first", [1, 6, 7, 15])
def test_resuming_at_any_step_gives_the_same_batches(dataset: PackedDataset, first: int) -> None:
    assert loader(dataset).batches_per_epoch == 7
    whole = list(islice(loader(dataset).batches(), first + 9))[first:]
    resumed = list(islice(loader(dataset).batches(first), 9))
    assert [step for step, _ in resumed] == list(range(first, first + 9))
    for (step, expected), (again, batch) in zip(whole, resumed, strict=True):
        assert step == again and equal(expected, batch)


def test_options_without_a_batch_are_errors(dataset: PackedDataset) -> None:
    with pytest.raises(ValueError, match=r"30 windows.*batch size 31"):
        loader(dataset, batch_size=31)
    with pytest.raises(ValueError, match="30 windows"):
        loader(dataset, batch_size=32, stride=4)
    with pytest.raises(ValueError, match="batch size 4 leaves some of 5 processes"):
        loader(dataset, world_size=5)
    with pytest.raises(ValueError, match="seq-len 1"):
        loader(dataset, seq_len=1)
    with pytest.raises(ValueError, match="0 windows"):
        loader(dataset, rows=np.array([], dtype=np.int64))


# --- what a window holds --------------------------------------------------------------------------


def gather(dataset: PackedDataset, row: int, start: int, flip: tuple[bool, bool]) -> Batch:
    identity = np.eye(2, dtype=np.float32)[None]
    windows = Windows(np.array([row]), np.array([start]), np.array([flip]), identity)
    return loader(dataset, batch_size=1).gather(windows)


def valid_of(batch: Batch) -> Tensor:
    assert batch.conditions.valid is not None
    return batch.conditions.valid


def test_a_window_holds_the_points_of_its_map(dataset: PackedDataset) -> None:
    batch = gather(dataset, 2, 5, (False, False))
    points = made_up_points(COUNTS)[115 : 115 + 32]
    assert batch.conditions.times[0].tolist() == points["time"].tolist()
    assert batch.conditions.times.dtype == torch.float64
    assert batch.conditions.types[0].tolist() == points["type"].tolist()
    expected = torch.from_numpy(np.stack([points["x"], points["y"]], -1))
    torch.testing.assert_close(batch.xy[0], expected)
    assert (
        batch.conditions.classes.tolist() == [2] and batch.conditions.classes.dtype == torch.int64
    )
    assert valid_of(batch).all()


def test_the_first_distance_of_a_window_is_to_the_point_before(dataset: PackedDataset) -> None:
    points = made_up_points(COUNTS)
    xy = np.stack([points["x"], points["y"]], -1)
    batch = gather(dataset, 2, 5, (False, False))
    expected = np.hypot(*(xy[115:147] - xy[114:146]).T)
    np.testing.assert_allclose(batch.conditions.distances[0], expected, rtol=1e-6)


def test_the_first_distance_of_a_map_is_to_the_centre(dataset: PackedDataset) -> None:
    """Not to the last point of the map before."""
    points = made_up_points(COUNTS)
    batch = gather(dataset, 2, 0, (False, False))
    expected = np.hypot(points["x"][110] - 256, points["y"][110] - 192)
    assert batch.conditions.distances[0, 0].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("flip", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("start", [0, 5])
def test_a_flip_mirrors_about_the_centre_and_keeps_distances(
    dataset: PackedDataset, flip: tuple[bool, bool], start: int
) -> None:
    plain, flipped = gather(dataset, 0, start, (False, False)), gather(dataset, 0, start, flip)
    for axis in (0, 1):
        from_centre = plain.xy[..., axis] - CENTRE[axis]
        expected = CENTRE[axis] + (-from_centre if flip[axis] else from_centre)
        torch.testing.assert_close(flipped.xy[..., axis], expected)
    torch.testing.assert_close(flipped.conditions.distances, plain.conditions.distances)
    assert torch.equal(flipped.conditions.times, plain.conditions.times) and torch.equal(
        flipped.conditions.types, plain.conditions.types
    )


def test_flips_can_be_turned_off_and_are_even(dataset: PackedDataset) -> None:
    assert not loader(dataset, flip=False).windows(0).flips.any()
    flips = np.concatenate([loader(dataset).windows(epoch).flips for epoch in range(40)])
    assert np.all(np.abs(flips.mean(axis=0) - 0.5) < 0.06)  # 1200 windows: 4 deviations


def test_the_padding_of_a_short_map_is_masked(dataset: PackedDataset) -> None:
    batch = gather(dataset, 1, 0, (True, False))
    assert valid_of(batch)[0].tolist() == [True] * 10 + [False] * 22
    assert batch.conditions.times[0, :10].tolist() == list(range(100, 110))
    assert batch.xy.isfinite().all() and batch.conditions.distances.isfinite().all()
    assert batch.conditions.times[0, 10:].eq(109).all()  # nothing of the next map


def test_points_absurdly_far_away_are_masked(tmp_path: Path) -> None:
    """And brought near, so that they spoil nothing where they are seen as context."""
    points = made_up_points([40])
    points["x"][3], points["y"][20], points["x"][21] = 1e5, -300, 767
    write_dataset(tmp_path, points, made_up_table([40]), {})
    batch = gather(PackedDataset(tmp_path), 0, 0, (False, False))
    assert np.flatnonzero(~valid_of(batch)[0].numpy()).tolist() == [3, 20]
    near = [batch.xy[0, 3, 0], batch.xy[0, 20, 1], batch.xy[0, 21, 0]]
    assert [value.item() for value in near] == [768, -256, 767]
    assert batch.conditions.distances.max() < 1300


# --- windows turned and scaled --------------------------------------------------------------------

SPINNERS = (2, 3)


def differences(xy: np.ndarray) -> np.ndarray:
    """(N, T, T) distances between all points of xy (N, T, 2)."""
    return np.linalg.norm(xy[:, :, None].astype(float) - xy[:, None], axis=-1)


def test_similarities_turn_and_scale() -> None:
    matrices = similarities(20_000, 30.0, 0.2, np.random.default_rng(0)).astype(float)
    scales = np.sqrt(np.linalg.det(matrices))
    units = matrices / scales[:, None, None]
    np.testing.assert_allclose(
        units @ units.transpose(0, 2, 1), np.broadcast_to(np.eye(2), units.shape), atol=1e-6
    )
    angles = np.rad2deg(np.arctan2(units[:, 1, 0], units[:, 0, 0]))
    assert 29.9 < np.abs(angles).max() <= 30.001 and abs(angles.mean()) < 0.5
    assert angles.std() == pytest.approx(60 / np.sqrt(12), rel=0.02)
    octaves = np.log2(scales) / 0.2
    assert np.abs(octaves).max() == pytest.approx(2, abs=1e-3)  # cut at two deviations
    assert abs(octaves.mean()) < 0.03 and 0.93 < octaves.std() < 1


def test_no_similarity_draws_no_number() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert (similarities(5, 0.0, 0.0, rng) == np.eye(2)).all()
    assert rng.bit_generator.state == before
    assert np.linalg.det(similarities(50, 40.0, 0.0, rng)) == pytest.approx(np.ones(50))
    assert (similarities(50, 0.0, 0.3, rng)[:, 0, 1] == 0).all()


@pytest.mark.parametrize("outside", [0.0, 60.0])
def test_turned_windows_keep_their_proportions_and_their_place(outside: float) -> None:
    """All or nothing, about the mean; none reaches further beyond the playfield than it did."""
    rng = np.random.default_rng(1)
    size = np.array([512, 384])
    centre = rng.uniform((80, 80), size - 80, (300, 1, 2))
    xy = (centre + rng.normal(0, 60, (300, 20, 2))).clip(-outside, size + outside)
    xy = xy.astype(np.float32)
    moved = rng.random((300, 20)) < 0.8
    turns = similarities(300, 180.0, 0.3, rng)
    turned = turn_within(xy, moved, turns)
    assert turned.dtype == np.float32
    assert (turned[~moved] == xy[~moved]).all()
    changed = (turned != xy).any(axis=(1, 2))
    assert 0.1 < changed.mean() < 0.95
    low, high = np.minimum(xy.min(axis=1), 0), np.maximum(xy.max(axis=1), size)
    assert (turned >= low[:, None]).all() and (turned <= high[:, None]).all()
    scales = np.sqrt(np.linalg.det(turns.astype(float)))
    for i in np.flatnonzero(changed):
        mine = moved[i]
        before, after = (differences(x[i][None, mine]) for x in (xy, turned))
        np.testing.assert_allclose(after, before * scales[i], rtol=1e-4, atol=2e-3)
        mean = xy[i][mine].mean(axis=0)
        np.testing.assert_allclose(turned[i][mine].mean(axis=0), mean, atol=1e-3)
        expected = (xy[i][mine] - mean) @ turns[i].T + mean
        np.testing.assert_allclose(turned[i][mine], expected, atol=2e-3)


def test_windows_that_do_not_fit_turned_stay_as_they_are() -> None:
    """A row across the whole playfield stands on end for a quarter turn; half of it fits."""
    row = np.stack([np.linspace(0, 512, 9), np.full(9, 192.0)], axis=1).astype(np.float32)
    quarter = np.array([[[0.0, -1.0], [1.0, 0.0]]], dtype=np.float32)
    every = np.ones((1, 9), dtype=bool)
    assert (turn_within(row[None], every, quarter)[0] == row).all()
    half = row / (2, 1)
    expected = np.stack([np.full(9, 128.0), half[:, 0] - 128 + 192], axis=1)
    np.testing.assert_allclose(turn_within(half[None], every, quarter)[0], expected, atol=1e-3)


def test_a_window_of_nothing_that_moves_is_left_alone() -> None:
    xy = np.full((1, 4, 2), 100.0, np.float32)
    turns = similarities(1, 90.0, 0.5, np.random.default_rng(0))
    assert (turn_within(xy, np.zeros((1, 4), dtype=bool), turns) == xy).all()


def small_map(tmp_path: Path, count: int = 90) -> PackedDataset:
    """A map in the middle of the playfield, with spinners at its centre."""
    points = made_up_points([count])
    points["x"], points["y"] = 186 + points["x"] % 140, 122 + points["y"] % 140
    for i in range(7, count - 1, 20):
        points["type"][i : i + 2] = SPINNERS
    spinner = np.isin(points["type"], SPINNERS)
    points["x"][spinner], points["y"][spinner] = CENTRE.tolist()
    write_dataset(tmp_path, points, made_up_table([count]), {})
    return PackedDataset(tmp_path)


def test_windows_turn_and_the_distances_with_them(tmp_path: Path) -> None:
    """All but spinners, which stay at the centre; the point in front is turned, too."""
    dataset = small_map(tmp_path)
    options: dict[str, Any] = {"batch_size": 8, "flip": False}
    plain = loader(dataset, **options)
    turning = loader(dataset, **options, turn=180.0, stretch=0.2)
    windows = turning.windows(1)
    before, after = plain.gather(plain.windows(1)), turning.gather(windows)
    spinner = torch.from_numpy(np.isin(before.conditions.types.numpy(), SPINNERS))
    assert spinner.any() and torch.equal(after.xy[spinner], before.xy[spinner])
    changed = (after.xy != before.xy).any(-1) | spinner
    assert changed.all()  # all of it fits
    steps = (after.xy[:, 1:] - after.xy[:, :-1]).norm(dim=-1)
    torch.testing.assert_close(after.conditions.distances[:, 1:], steps)
    scales = torch.from_numpy(np.sqrt(np.linalg.det(windows.turns)))[:, None]
    free = ~spinner[:, 1:] & ~spinner[:, :-1]
    expected = (before.conditions.distances * scales)[:, 1:]
    found = after.conditions.distances[:, 1:]
    torch.testing.assert_close(found[free], expected[free], rtol=1e-4, atol=2e-3)
    # The point in front of a window belongs to it; what is before a map's first point stays.
    begins = torch.from_numpy(windows.starts == 0)
    assert begins.any() and not begins.all()
    first, told = after.conditions.distances[:, 0], (before.conditions.distances * scales)[:, 0]
    inner = (
        ~begins
        & ~spinner[:, 0]
        & torch.from_numpy(
            ~np.isin(dataset.points["type"][np.maximum(windows.starts - 1, 0)], SPINNERS)
        )
    )
    torch.testing.assert_close(first[inner], told[inner], rtol=1e-4, atol=2e-3)
    from_centre = (after.xy[:, 0] - CENTRE).norm(dim=-1)
    torch.testing.assert_close(first[begins], from_centre[begins])
    assert torch.equal(after.conditions.times, before.conditions.times)


def test_turned_windows_depend_on_seed_and_epoch_alone(dataset: PackedDataset) -> None:
    options = {"turn": 20.0, "stretch": 0.2}
    first, again = loader(dataset, **options), loader(dataset, **options)
    again.batch(5, 0)  # another epoch before
    assert equal(first.batch(2, 1), again.batch(2, 1))
    assert not np.array_equal(first.windows(2).turns, first.windows(3).turns)
    other = loader(dataset, **options, seed=8)
    assert not np.array_equal(first.windows(2).turns, other.windows(2).turns)
    parts = [loader(dataset, **options, rank=r, world_size=2).batch(1, 0) for r in (0, 1)]
    assert equal(parts[1], first.batch(1, 0).part(slice(2, 4)))


def test_without_turns_windows_are_the_points_to_the_bit(dataset: PackedDataset) -> None:
    """Mirrored alone; the order and the mirroring are those of windows that turn."""
    plain, turning = loader(dataset), loader(dataset, turn=20.0)
    for name in ("rows", "starts", "flips"):
        assert np.array_equal(getattr(plain.windows(4), name), getattr(turning.windows(4), name))
    windows, points = plain.windows(4), made_up_points(COUNTS)
    assert (windows.turns == np.eye(2)).all()
    offsets = np.cumsum(COUNTS) - COUNTS
    batch = plain.gather(windows)
    for i, (row, start, flip) in enumerate(
        zip(windows.rows, windows.starts, windows.flips, strict=True)
    ):
        count = min(COUNTS[row] - start, 32)
        mine = points[offsets[row] + start :][:count]
        for axis, (name, size) in enumerate((("x", 512), ("y", 384))):
            expected = np.float32(size) - mine[name] if flip[axis] else mine[name]
            assert (batch.xy[i, :count, axis].numpy() == expected).all()
    assert not torch.equal(turning.gather(turning.windows(4)).xy, batch.xy)


# --- the beatmap index ----------------------------------------------------------------------------


def test_a_beatmap_index_is_read_as_it_was_written(tmp_path: Path) -> None:
    index = {int(np.int64(5)): 0, 2**40: 7}
    save_beatmap_idx(tmp_path / "index.pickle", {np.int64(5): np.int64(0), 2**40: 7})  # type: ignore[dict-item]
    assert load_beatmap_idx(tmp_path / "index.pickle") == index
    assert pickle.loads((tmp_path / "index.pickle").read_bytes()) == index  # as the reference does


class Malicious:
    """Runs a function where an ordinary unpickler reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    path, trace = tmp_path / "index.pickle", tmp_path / "executed"
    path.write_bytes(pickle.dumps({1: 2, 3: Malicious(trace)}))
    with pytest.raises(ValueError, match="not allowed"):
        load_beatmap_idx(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # it would have been


@pytest.mark.parametrize(
    "content", [[1, 2], {1: 2.0}, {1: True}, {"1": 2}, {1: [2]}, 5, None, {1: -1}]
)
def test_anything_but_a_dict_of_ints_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "index.pickle"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"index\.pickle is not a beatmap index"):
        load_beatmap_idx(path)


def test_garbage_is_refused_with_a_clear_error(tmp_path: Path) -> None:
    """Random bytes, pickles cut short and pickles with one byte changed."""
    path = tmp_path / "index.pickle"
    whole = pickle.dumps({k: k + 1 for k in range(300, 320)}, protocol=2)
    rng = np.random.default_rng(0)
    files = [rng.bytes(n) for n in rng.integers(0, 40, 150)]
    files += [whole[:n] for n in range(len(whole))]
    for position in rng.integers(0, len(whole), 200):
        files.append(whole[:position] + rng.bytes(1) + whole[position + 1 :])
    files.append(b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.")  # a frame of 2^63 bytes
    files.append(b"}r\xff\xff\xff\x7f.")  # a memo of 2^31 entries
    refused = 0
    for data in files:
        path.write_bytes(data)
        try:
            index = load_beatmap_idx(path)
        except ValueError as error:
            assert "is not a beatmap index" in str(error)
            refused += 1
        else:
            assert all(type(k) is int and type(v) is int for k, v in index.items())
    assert refused > 250


def test_a_missing_or_huge_index_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.pickle"
    with pytest.raises(ValueError, match="no beatmap index at"):
        load_beatmap_idx(path)
    save_beatmap_idx(path, {1: 2})
    monkeypatch.setattr("datasets.class_tables.MAX_INDEX_BYTES", 4)
    with pytest.raises(ValueError, match="larger than"):
        load_beatmap_idx(path)


def test_replace_is_not_confused_by_batches_of_one_window(dataset: PackedDataset) -> None:
    """A plan with other flips gives the same windows mirrored, whatever the batch size."""
    train = loader(dataset, batch_size=1)
    plan = train.windows(0)
    mirrored = replace(plan, flips=~plan.flips)
    a, b = train.gather(plan[:3]), train.gather(mirrored[:3])
    torch.testing.assert_close(a.xy + b.xy, (2 * CENTRE).expand_as(a.xy))
