"""The packed dataset: one memory-mapped array of data points, and the windows drawn from it.

A dataset is a folder of immutable files named by their hash and `dataset.json`, which is written
last, by rename: whoever opens the folder sees the old dataset or the new one, never half of one.
The order of windows depends only on (seed, epoch), so any number of ranks sees the same batches
and a run can continue from any (epoch, batch).

torch is imported only where a batch is made: packing and its worker processes do not need it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from conventions.arrays import FloatArray
from conventions.playfield import PLAYFIELD, PLAYFIELD_CENTRE
from conventions.point_types import SPINNERS

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from models import Conditions

FORMAT_VERSION = 1
POINT_DTYPE = np.dtype([("time", "<f8"), ("x", "<f4"), ("y", "<f4"), ("type", "u1")])
"""One data point: ms, px, px, one of the 16 types."""

COLUMNS = [
    "class_index",
    "offset",
    "count",
    "md5",
    "beatmap_id",
    "set_id",
    "artist",
    "title",
    "creator",
    "version",
    "tags",
    "circle_size",
    "star_rating",
    "user_id",
    "descriptors",
]
TEXT_COLUMNS = ("md5", "artist", "title", "creator", "version", "tags", "descriptors")
LATER_COLUMNS: dict[str, Any] = {"user_id": 0, "descriptors": ""}
"""Columns that older datasets lack, with the value that means "unknown" there.

`user_id` is the user ID of the difficulty's mapper, `descriptors` are names separated by commas.
"""
MARGIN_PX = 256.0
"""Points further than this outside the playfield (in a few gimmick maps) are not trained on."""


class MapPoints(Protocol):
    """The T data points of a map, read or packed: times (T,) ms, xy (T, 2) px, types (T,)."""

    @property
    def times(self) -> FloatArray: ...
    @property
    def xy(self) -> FloatArray: ...
    @property
    def types(self) -> NDArray[np.uint8]: ...

    def distances(self) -> FloatArray:
        """(T,) px to the previous point; for the first one, to the playfield's centre."""


def distances(xy: FloatArray) -> FloatArray:
    """Distances (T,) px of xy (T, 2) to the previous point; the first one to the centre."""
    found: FloatArray = np.linalg.norm(np.diff(xy, axis=0, prepend=[PLAYFIELD_CENTRE]), axis=1)
    return found


@dataclass(frozen=True, eq=False)
class PackedPoints:
    """The data points of a map as a dataset stores them: packed (T,) of POINT_DTYPE."""

    packed: np.ndarray

    @property
    def times(self) -> FloatArray:
        """(T,) ms."""
        return np.array(self.packed["time"])

    @cached_property
    def xy(self) -> FloatArray:
        """(T, 2) px."""
        return np.stack([self.packed["x"], self.packed["y"]], axis=1).astype(np.float64)

    @property
    def types(self) -> NDArray[np.uint8]:
        """(T,) of 0..15."""
        return np.array(self.packed["type"])

    def distances(self) -> FloatArray:
        """(T,) px to the previous point; for the first one, to the playfield's centre."""
        return distances(self.xy)


def packed_points(points: MapPoints) -> np.ndarray:
    """The data points of a map as a dataset stores them: (T,) of POINT_DTYPE."""
    packed = np.empty(len(points.times), POINT_DTYPE)
    packed["time"], packed["type"] = points.times, points.types
    packed["x"], packed["y"] = points.xy.T
    return packed


def conditions_of(
    points: MapPoints,
    classes: Tensor,
    *,
    times: FloatArray | None = None,
    distances: FloatArray | None = None,
) -> Conditions:
    """Conditions (1, T) of a map or of a part of it, on the device of `classes` but for the times.

    Unless given, times (T,) ms count from the first point, and distances (T,) px are the map's own.
    """
    from models import Conditions

    return Conditions.of_arrays(
        points.times - points.times[0] if times is None else times,
        points.distances() if distances is None else distances,
        points.types,
        classes,
    )


def near_playfield(xy: np.ndarray) -> np.ndarray:
    """(...) bool: which points (..., 2) px are within `MARGIN_PX` of the playfield."""
    inside = (xy >= -MARGIN_PX) & (xy <= np.add(PLAYFIELD, MARGIN_PX))
    return np.asarray(inside.all(axis=-1))


class Batch(NamedTuple):
    """Windows of data points on the CPU: xy (N, T, 2) float32 px, and their conditions.

    `valid` of the conditions is False for padding of a short map and for points more than
    `MARGIN_PX` outside the playfield.
    """

    xy: Tensor
    conditions: Conditions

    def part(self, chosen: slice) -> Batch:
        """Some of the windows."""
        return Batch(self.xy[chosen], self.conditions.map(lambda tensor: tensor[chosen]))


class PackedDataset:
    """A packed dataset opened for reading; the points stay on disk until a window needs them.

    ValueError for a folder that is no packed dataset, or has another format version.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        description = self.folder / "dataset.json"
        if not description.is_file():
            raise ValueError(
                f"{self.folder} is not a packed dataset (no dataset.json): "
                "make one with create_dataset.py"
            )
        self.description = json.loads(description.read_text(encoding="utf-8"))
        version = self.description.get("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{self.folder} has dataset format {version}, this version reads "
                f"{FORMAT_VERSION}: pack it again with create_dataset.py"
            )
        files = self.description["files"]
        self.points: np.ndarray = np.load(self.folder / files["points"], mmap_mode="r")
        assert self.points.dtype == POINT_DTYPE
        import pandas as pd  # takes half a second, and sampling does not need it

        self.beatmaps = pd.read_csv(
            self.folder / files["beatmaps"],
            dtype=dict.fromkeys(TEXT_COLUMNS, str),
            keep_default_na=False,
            # Adding maps writes these values again. pandas' own parser would not read them exactly.
            converters=dict.fromkeys(("circle_size", "star_rating"), _float_or_nan),
        )
        self.beatmaps = with_all_columns(self.beatmaps)

    def __len__(self) -> int:
        return len(self.beatmaps)

    @property
    def num_classes(self) -> int:
        """Number of style classes, including those whose beatmap was removed later."""
        used = int(self.beatmaps["class_index"].max()) + 1 if len(self) else 0
        return max(used, int(self.description.get("num_classes", 0)))

    def beatmap_idx(self) -> dict[int, int]:
        """Beatmap ID -> class index, for the beatmaps that have an ID.

        If two versions of a beatmap have the same ID, it leads to the first one's class.
        """
        known = self.beatmaps[self.beatmaps["beatmap_id"] > 0][::-1]
        ids, classes = known["beatmap_id"].tolist(), known["class_index"].tolist()
        return dict(zip(ids, classes, strict=True))

    def split_by_set(self, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Rows for training and for validation; about `fraction` of the beatmapsets are held out.

        A set is never split, and its side depends on its identity and the seed alone: adding maps
        does not move it.
        """
        keys = set_keys(self.beatmaps)
        chosen = {key: _unit_hash(f"{seed}/{key}") < fraction for key in set(keys)}
        held_out = np.array([chosen[key] for key in keys], dtype=bool)
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def with_all_columns(beatmaps: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns that an older dataset lacks."""
    missing = {name: v for name, v in LATER_COLUMNS.items() if name not in beatmaps}
    return beatmaps.assign(**missing)


def set_keys(beatmaps: pd.DataFrame) -> list[str]:
    """A key for each row's beatmapset: its ID, or artist, title and creator where it has none."""
    # As lists: iterating over pandas' rows takes six times as long.
    columns = (beatmaps[name].tolist() for name in ("set_id", "artist", "title", "creator"))
    return [str(i) if i > 0 else f"{a}/{t}/{c}" for i, a, t, c in zip(*columns, strict=True)]


def _float_or_nan(text: str) -> float:
    return float(text or "nan")


def _unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def similarities(n: int, turn: float, stretch: float, rng: np.random.Generator) -> np.ndarray:
    """(n, 2, 2) float32 matrices: turns of up to `turn` degrees, scales of 2 ** N(0, stretch^2).

    The normal number is cut at two deviations. If both are 0, these are identities, and nothing
    is drawn from `rng`.
    """
    if not turn and not stretch:
        return np.broadcast_to(np.eye(2, dtype=np.float32), (n, 2, 2))
    angles = np.deg2rad(rng.uniform(-turn, turn, n))
    scales = 2 ** (stretch * rng.normal(size=n).clip(-2, 2))
    c, s = scales * np.cos(angles), scales * np.sin(angles)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], axis=-2).astype(np.float32)


def turn_within(xy: np.ndarray, moved: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """xy (N, T, 2) px, the points of `moved` (N, T) times `turns` (N, 2, 2) about their mean.

    A window that would leave the playfield, or go further outside it, stays as it is: models learn
    where a map may lie, too.
    """
    weights = moved[..., None] / np.maximum(moved.sum(axis=1), 1)[:, None, None]
    mean = (xy * weights).sum(axis=1, keepdims=True, dtype=np.float32)
    turned = np.where(moved[..., None], (xy - mean) @ turns.transpose(0, 2, 1) + mean, xy)
    size = np.array(PLAYFIELD, np.float32)
    low = np.minimum(xy.min(axis=1), 0)
    high = np.maximum(xy.max(axis=1), size)
    fits = ((turned >= low[:, None]) & (turned <= high[:, None])).all(axis=(1, 2))
    return np.where(fits[:, None, None], turned, xy).astype(np.float32)


PLANNED = np.dtype([("row", "<i4"), ("start", "<i4")])
"""A window while the order of an epoch is made: together as large as one int64."""


@dataclass(frozen=True)
class Windows:
    """One epoch's windows in training order: rows of the dataset, first points, flips, turns."""

    rows: np.ndarray  # (W,) int32
    starts: np.ndarray  # (W,) int32, within the map
    flips: np.ndarray  # (W, 2) bool: mirror x, mirror y
    turns: np.ndarray  # (W, 2, 2) float32: matrices that turn and scale a window

    def __getitem__(self, chosen: slice) -> Windows:
        return Windows(
            self.rows[chosen], self.starts[chosen], self.flips[chosen], self.turns[chosen]
        )


class ByRow(Protocol):
    """A value for every beatmap of a dataset: indexing with rows (N,) gives (N, ...)."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


class WindowLoader:
    """Batches of windows; each batch is read by one fancy indexing of the memory map.

    `rows` selects beatmaps; `batch_size` is that over all ranks, of which this one takes its slice.
    `turn` and `stretch` go to `similarities`. `classes` gives `Conditions.classes` of rows of the
    dataset, by default class indices. ValueError if there are fewer windows than one batch takes,
    or a smaller batch than ranks.
    """

    def __init__(
        self,
        dataset: PackedDataset,
        rows: np.ndarray,
        *,
        seq_len: int,
        stride: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        flip: bool = True,
        turn: float = 0.0,
        stretch: float = 0.0,
        classes: ByRow | None = None,
    ) -> None:
        if batch_size < world_size:
            raise ValueError(
                f"global batch size {batch_size} leaves some of {world_size} processes without a "
                "window: use a larger batch or fewer processes"
            )
        if seq_len < 2 or stride < 1:
            raise ValueError(f"seq-len {seq_len} must be at least 2 and stride {stride} at least 1")
        self.dataset, self.rows = dataset, np.asarray(rows)
        self.seq_len, self.stride, self.batch_size = seq_len, stride, batch_size
        self.seed, self.rank, self.world_size, self.flip = seed, rank, world_size, flip
        self.turn, self.stretch = turn, stretch
        self._all_counts = dataset.beatmaps["count"].to_numpy()
        self._counts = self._all_counts[self.rows]
        self._offsets = dataset.beatmaps["offset"].to_numpy()
        indices = dataset.beatmaps["class_index"].to_numpy()
        self._classes: ByRow = indices if classes is None else classes
        # numpy gathers bytes ten times as fast as it gathers structs.
        self._bytes = dataset.points.view(np.ndarray).view(f"V{POINT_DTYPE.itemsize}")
        free = np.maximum(self._counts - seq_len, 0)
        self._windows_per_map = -(-free // stride) + 1
        self._epoch: int | None = None
        self._plan: Windows | None = None
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"the dataset has {int(self._windows_per_map.sum())} windows, fewer than the "
                f"global batch size {batch_size}: use a smaller batch or stride, or more maps"
            )

    @property
    def num_points(self) -> int:
        """Data points of the chosen beatmaps."""
        return int(self._counts.sum())

    @property
    def batches_per_epoch(self) -> int:
        """Full batches; the windows left over differ from epoch to epoch."""
        return int(self._windows_per_map.sum()) // self.batch_size

    def windows(self, epoch: int) -> Windows:
        """All windows of an epoch; they depend on (seed, epoch) alone."""
        if self._epoch != epoch or self._plan is None:
            self._plan = None  # two of them need not be in memory at once
            rng = np.random.default_rng([self.seed, epoch])
            # Each epoch shifts every map's windows, so that all positions are learnt from.
            plan = self._in_order(rng.integers(0, self.stride, len(self.rows)))
            # numpy shuffles numbers of eight bytes in place: no order is kept, nor looked up in.
            rng.shuffle(plan.view(np.int64))
            flips = rng.random((len(plan), 2)) < (0.5 if self.flip else 0.0)
            self._epoch = epoch
            turns = similarities(len(plan), self.turn, self.stretch, rng)
            self._plan = Windows(plan["row"], plan["start"], flips, turns)
        return self._plan

    def _in_order(self, shift: np.ndarray) -> np.ndarray:
        """The windows (W,) of PLANNED, map by map, those of each map moved `shift` points back."""
        each = self._windows_per_map
        first = np.cumsum(each) - each
        plan = np.empty(int(each.sum()), PLANNED)
        plan["row"] = np.repeat(self.rows, each)
        # In place: of very many maps each array that is not needed counts.
        starts = np.arange(len(plan), dtype=np.int64)
        starts -= np.repeat(first, each)
        starts *= self.stride
        starts -= np.repeat(shift, each)
        last = np.repeat(np.maximum(self._counts - self.seq_len, 0), each)
        plan["start"] = np.clip(starts, 0, last, out=starts)
        return plan

    def batch(self, epoch: int, index: int) -> Batch:
        """This rank's slice of batch `index` of an epoch."""
        from conventions.ranks import share_of

        plan = self.windows(epoch)
        share = share_of(self.batch_size, self.rank, self.world_size)
        first = index * self.batch_size
        chosen = slice(first + share.start, first + share.stop)
        return self.gather(plan[chosen])

    def batches(self, first: int = 0) -> Iterator[tuple[int, Batch]]:
        """Endless (step, batch) from global step `first` on."""
        step = first
        while True:
            epoch, index = divmod(step, self.batches_per_epoch)
            yield step, self.batch(epoch, index)
            step += 1

    def gather(self, windows: Windows) -> Batch:
        """The data points of N windows, mirrored, turned and scaled."""
        import torch

        from models import Conditions

        rows, starts, flips = windows.rows, windows.starts, windows.flips

        counts = self._all_counts[rows]
        # One point more in front: the distance of a window's first point needs its predecessor.
        inside = starts[:, None] + np.arange(-1, self.seq_len)  # (N, T + 1)
        valid: np.ndarray = inside[:, 1:] < counts[:, None]
        index = self._offsets[rows][:, None] + np.clip(inside, 0, counts[:, None] - 1)
        points = self._bytes.take(index).view(POINT_DTYPE)
        xy = np.empty((*index.shape, 2), np.float32)
        for axis, (name, size) in enumerate(zip("xy", PLAYFIELD, strict=True)):
            low, high = np.float32(-MARGIN_PX), np.float32(size + MARGIN_PX)
            given = points[name]  # (N, T + 1)
            values = np.clip(given, low, high)
            valid &= values[:, 1:] == given[:, 1:]
            values[starts == 0, 0] = size / 2  # the first point's distance is to the centre
            np.negative(values, out=values, where=flips[:, axis, None])
            values += np.float32(size) * flips[:, axis, None]
            xy[:, :, axis] = values
        if self.turn or self.stretch:
            # Spinners, and the centre that stands before a map's first point, do not turn.
            central = np.isin(points["type"], SPINNERS)
            central[:, 0] |= starts == 0
            xy = turn_within(
                xy, np.pad(valid, ((0, 0), (1, 0)), mode="edge") & ~central, windows.turns
            )
        squares = sum(np.square(np.diff(xy[:, :, axis], axis=1)) for axis in range(2))
        conditions = Conditions(
            torch.from_numpy(np.ascontiguousarray(points["time"][:, 1:])),
            torch.from_numpy(np.sqrt(squares)),
            torch.from_numpy(np.ascontiguousarray(points["type"][:, 1:])),
            torch.from_numpy(self._classes[rows]),
            torch.from_numpy(valid),
        )
        return Batch(torch.from_numpy(np.ascontiguousarray(xy[:, 1:])), conditions)
