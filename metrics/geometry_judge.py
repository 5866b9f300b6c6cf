"""Can a small network tell remaps from real maps by plain geometry? Needs only torch.

The other judge, `classifier`, sees 22 hand-made features, and a rule that acts on one of them
improves it by construction. This one sees where objects are: windows of heads, middles and ends of
bodies in whole pixels, together with the rhythm. It is a transformer in which an object attends to
the objects before it, with their relative positions as a bias of the attention (Graphormer, Ying et
al. 2021, arXiv:2106.05234).
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beatmaps.game_rules import circle_radius, preempt
from beatmaps.sequence import Sequence
from conventions.arrays import FloatArray, IntArray
from conventions.playfield import PLAYFIELD
from metrics.classifier import MIN_WINDOW, WINDOW, Judge, area_under_roc, split_sets
from metrics.metric import Pair

KINDS = ("circle", "slider", "spinner")
EVEN, RADIUS, LEAD = 5, 6, 7  # columns of the rhythm
OBJECT, PAIR, RHYTHM = 21, 22, 8  # numbers of an object, of a pair; the rhythm's in each object
LONGEST = 8.0  # beats; longer gaps, durations and times between objects are cut to this
MIN_STEP = 5.0  # px; shorter steps have no direction that a player sees
SCALE = 128.0  # px that become 1
NEAR = (0.2, 1.2, 3.0)  # radii over which nearness decays: stacked, overlapping, side by side
LOOK_BACK = 12  # objects

WIDTH, PAIR_WIDTH, HEADS, LAYERS = 32, 16, 4, 2
EPOCHS, MIN_UPDATES = 14, 300  # few maps get as many epochs as make that many updates
BATCH = 16  # pairs of windows, real and other
PEAK_RATE, DECAY, DROPOUT = 4e-3, 0.05, 0.1
ODDS_SCALE = 2.0  # factor of the network's output, so that it need not grow first
FLIPS = ((1, 1), (-1, 1), (1, -1), (-1, -1))


# --- what is seen ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """All that the judge sees of a map's M objects.

    points (M, 3, 2) are whole px: a head, the middle and the end of its path; a circle's centre
    three times; for a spinner the playfield's middle. rhythm (M, RHYTHM) is what a remap has from
    its source: time since the previous object and its own duration, its kind, whether it ends where
    it begins, the circles' radius, and the time from appearing to being hit; times in units of two
    beats, the radius in units of `SCALE`.
    """

    points: FloatArray
    rhythm: FloatArray


def read_geometry(sequence: Sequence) -> Geometry:
    """The geometry of a map, rounded to whole px, which some file formats exceed."""
    beatmap, topology = sequence.beatmap, sequence.topology
    heads = sequence.xy[np.flatnonzero(sequence.object_starts)]
    points = np.repeat(heads[:, None], 3, axis=1)
    if len(topology.objects):
        points[topology.objects] = sequence.paths.bodies(sequence.xy, 3)
    hits = beatmap.objects
    kinds = np.array([[hit.kind == kind for kind in KINDS] for hit in hits], dtype=np.float64)
    points[kinds[:, 2] == 1] = np.divide(PLAYFIELD, 2)
    times = np.array([hit.time for hit in hits])
    ends = np.array([hit.end_time for hit in hits])
    beats = np.array([beatmap.beat_length_at(time) for time in times])
    gaps = times.copy()
    gaps[1:] -= ends[:-1]
    gaps[0] = 0
    spans = np.stack([gaps, ends - times, np.full(len(hits), preempt(beatmap.approach_rate))], 1)
    spans = np.clip(np.nan_to_num(spans / beats[:, None]), 0, LONGEST) / 2
    even = np.array([hit.slides % 2 == 0 for hit in hits], dtype=np.float64)
    radius = np.full(len(hits), circle_radius(beatmap.circle_size) / SCALE)
    rhythm = np.column_stack([spans[:, :2], kinds, even, radius, spans[:, 2]])
    return Geometry(np.rint(points), rhythm)


def _length(vectors: Tensor) -> Tensor:
    """Lengths (..., 1) of vectors (..., 2)."""
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)


def _in_frame(vectors: Tensor, direction: Tensor) -> Tensor:
    """Components of vectors (..., 2) along and across unit vectors (..., 2), which may be zero."""
    along = (vectors * direction).sum(-1, keepdim=True)
    across = direction[..., :1] * vectors[..., 1:] - direction[..., 1:] * vectors[..., :1]
    return torch.cat([along, across], -1)


def _steps(points: Tensor, rhythm: Tensor) -> tuple[Tensor, Tensor]:
    """Steps (B, n, 2) px from the exit of the previous object to each head, and unit directions.

    The first step of a window is zero; directions are zero where a step is too short to have one.
    """
    even = rhythm[..., EVEN, None]
    exits = even * points[:, :, 0] + (1 - even) * points[:, :, 2]
    steps = F.pad(points[:, 1:, 0] - exits[:, :-1], (0, 0, 1, 0))
    lengths = _length(steps)
    return steps, torch.where(lengths >= MIN_STEP, steps / lengths.clamp(min=1), 0.0)


def describe_objects(points: Tensor, rhythm: Tensor) -> Tensor:
    """Inputs of each object (B, n, 21), from points (B, n, 3, 2) px and rhythm (B, n, 8).

    Its position; its body in x and y, and along and across the step to it; that step; the rhythm.
    """
    steps, direction = _steps(points, rhythm)
    place = points[:, :, 0] / (0.5 * PLAYFIELD[0]) - 1
    body = (points[:, :, 1:] - points[:, :, :1]) / SCALE
    turned = _in_frame(body, direction[:, :, None])
    parts = [place, body.flatten(2), turned.flatten(2), steps / SCALE, _length(steps) / SCALE]
    return torch.cat([*parts, rhythm], -1)


def describe_pairs(points: Tensor, rhythm: Tensor) -> Tensor:
    """The relation of each object to those before it: (B, n, LOOK_BACK, 22), the nearest first.

    The earlier one's position, in x and y and along and across the step to the later one; distances
    of its head, middle and end from the later one's head, in px and as nearness in radii; how many
    objects and beats ago it ended, also as a share of the time that objects are visible; and the
    angle between the steps to both. Values from before the window's first object mean nothing.
    """
    _, direction = _steps(points, rhythm)
    away = _earlier(points) - points[:, :, None, :1]
    rel = away[..., 0, :] / SCALE
    far = _length(away)[..., 0]
    radii = far / (SCALE * rhythm[:, :, None, RADIUS, None])
    near = [torch.exp(-radii / size) for size in NEAR]
    stops = rhythm[..., :2].sum(-1).cumsum(-1)[..., None]
    starts = stops - rhythm[..., 1:2]
    beats = (starts[:, :, None] - _earlier(stops)).clamp(0, LONGEST)
    seen = (beats / rhythm[:, :, None, LEAD, None].clamp(min=0.1)).clamp(0, 2)
    lag = (1 / torch.arange(1.0, 1 + LOOK_BACK))[:, None].expand(beats.shape)
    ahead = direction[:, :, None]
    turned = [_in_frame(rel, ahead), _in_frame(_earlier(direction), ahead)]
    return torch.cat([rel, far / SCALE, *near, lag, lag.sqrt(), beats, seen, *turned], -1)


def _earlier(values: Tensor) -> Tensor:
    """(B, n, LOOK_BACK, ...): values (B, n, ...) of the objects before each, the last one first."""
    index = torch.arange(values.shape[1])[:, None] - torch.arange(1, LOOK_BACK + 1)
    return values[:, index.clamp(min=0)]


# --- the network ----------------------------------------------------------------------------------


class _Layer(nn.Module):
    """Attention to the previous objects, with pairs as bias and as values; then an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.bias = nn.Linear(PAIR_WIDTH, HEADS)
        self.out = nn.Linear(WIDTH + HEADS * PAIR_WIDTH, WIDTH)
        widen, narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.mlp = nn.Sequential(widen, nn.GELU(), narrow)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, pairs: Tensor, exists: Tensor) -> Tensor:
        """x (B, n, WIDTH); pairs (B, n, LOOK_BACK, PAIR_WIDTH), False in `exists` for none."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, HEADS, -1)).unbind(2)
        logits = (q[:, :, None] * _earlier(k)).sum(-1) / q.shape[-1] ** 0.5 + self.bias(pairs)
        # The first object has no previous one: all its weights become zero.
        weights = logits.masked_fill(~exists[..., None], -1e4).softmax(2) * exists[..., None]
        seen = (weights[..., None] * _earlier(v)).sum(2).flatten(2)
        gathered = (weights.transpose(2, 3) @ pairs).flatten(2)
        x = x + self.drop(self.out(torch.cat([seen, gathered], -1)))
        return x + self.drop(self.mlp(self.norm_mlp(x)))


class Network(nn.Module):
    """Windows of objects in; out are the log-odds (B,) that they are not real."""

    def __init__(self) -> None:
        super().__init__()
        self.objects = nn.Sequential(nn.Linear(OBJECT, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        wide, narrow = nn.Linear(PAIR, PAIR_WIDTH), nn.Linear(PAIR_WIDTH, PAIR_WIDTH)
        self.pairs = nn.Sequential(wide, nn.GELU(), narrow, nn.GELU())
        self.around = nn.Linear(PAIR_WIDTH, WIDTH)
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))
        hidden, odds = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        self.odds = nn.Sequential(nn.LayerNorm(WIDTH), hidden, nn.GELU(), odds)

    def forward(self, points: Tensor, rhythm: Tensor, known: Tensor) -> Tensor:
        """points (B, n, 3, 2) px, rhythm (B, n, RHYTHM), known (B, n): False for padding.

        Padding comes last, so that no object attends to it.
        """
        count = points.shape[1]
        exists = torch.arange(count)[:, None] > torch.arange(LOOK_BACK)
        pairs = self.pairs(describe_pairs(points, rhythm)) * exists[..., None]
        # Attention weighs pairs against each other, but the number of near objects needs a sum.
        x = self.objects(describe_objects(points, rhythm)) + self.around(pairs.mean(2))
        for layer in self.layers:
            x = layer(x, pairs, exists)
        return ODDS_SCALE * (self.odds(x)[..., 0] * known).sum(1) / known.sum(1)


# --- the verdict ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GeometryVerdict:
    """Areas under the ROC curve over folds, as `classifier.Verdict` has them; `windows` judged."""

    auc: float
    auc_std: float
    map_auc: float
    map_auc_std: float
    windows: int


@dataclass(frozen=True)
class _Data:
    """Maps one after another: points (2, N, 3, 2) px, real and other, and rhythm (N, RHYTHM)."""

    points: Tensor
    rhythm: Tensor
    begins: IntArray  # (maps + 1,) first object of each map, and their number

    def windows(self, maps: IntArray, offsets: IntArray) -> tuple[Tensor, Tensor, IntArray]:
        """Objects (W, WINDOW), which of them are not padding, and the map of each window.

        Windows of map k begin with its object `offsets[k]`; the last one may be half as long.
        """
        starts: list[int] = []
        stops: list[int] = []
        owners: list[int] = []
        for k in maps:
            first = range(self.begins[k] + offsets[k], self.begins[k + 1] - MIN_WINDOW + 1, WINDOW)
            starts += first
            stops += [self.begins[k + 1]] * len(first)
            owners += [k] * len(first)
        index = torch.tensor(starts, dtype=torch.long)[:, None] + torch.arange(WINDOW)
        stop = torch.tensor(stops, dtype=torch.long)[:, None]
        return torch.minimum(index, stop - 1), index < stop, np.array(owners, dtype=np.intp)

    def flipped(self, objects: Tensor, side: int, flip: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, WINDOW, 3, 2) px of a side, mirrored by +-1 in `flip` (B or 1, 2); rhythm."""
        middle = torch.tensor(PLAYFIELD) / 2
        points = (self.points[side, objects] - middle) * flip[:, None, None] + middle
        return points, self.rhythm[objects]


def _gather(real: list[Geometry], other: list[Geometry]) -> _Data:
    """Both collections as tensors; ValueError if they differ in more than positions."""
    for a, b in zip(real, other, strict=True):
        if a.rhythm.shape != b.rhythm.shape or not np.allclose(a.rhythm, b.rhythm, atol=1e-2):
            raise ValueError("the judge compares places: both maps must have the same rhythm")
    points = np.stack([np.concatenate([g.points for g in side]) for side in (real, other)])
    rhythm = np.concatenate([g.rhythm for g in real])
    begins = np.cumsum([0, *(len(g.points) for g in real)])
    return _Data(torch.from_numpy(points).float(), torch.from_numpy(rhythm).float(), begins)


def _batches(data: _Data, maps: IntArray, rng: np.random.Generator) -> Iterator[tuple[Tensor, ...]]:
    """One epoch: points, rhythm, known and labels of shuffled windows, each with its remap.

    Windows begin elsewhere in every epoch. A pair gets the same flip and differs only in positions.
    """
    offsets = rng.integers(0, WINDOW, len(data.begins) - 1)
    sizes = np.diff(data.begins)
    objects, known, _ = data.windows(maps, np.minimum(offsets, np.maximum(sizes - WINDOW, 0)))
    order = torch.from_numpy(rng.permutation(len(objects)))
    for chosen in order.split(BATCH):
        flip = torch.from_numpy(rng.choice((-1, 1), (len(chosen), 2)))
        sides = [data.flipped(objects[chosen], side, flip) for side in (0, 1)]
        points, rhythm = (torch.cat(parts) for parts in zip(*sides, strict=True))
        labels = torch.arange(2).repeat_interleave(len(chosen)).float()
        yield points, rhythm, known[chosen].repeat(2, 1), labels


def _train(data: _Data, maps: IntArray, seed: int) -> Network:
    """A network trained on these maps and their remaps; all randomness is from the seed."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the weights and dropout
        windows = int((np.diff(data.begins)[maps] // WINDOW).clip(1).sum())
        epochs = max(EPOCHS, math.ceil(MIN_UPDATES / math.ceil(windows / BATCH)))
        network = Network().train()
        decayed = [p for p in network.parameters() if p.ndim > 1]
        rest = [p for p in network.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed},
            {"params": rest, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=PEAK_RATE, weight_decay=DECAY)
        for epoch in range(epochs):
            batches = list(_batches(data, maps, rng))
            for k, (points, rhythm, known, labels) in enumerate(batches):
                done = (epoch + k / len(batches)) / epochs
                for group in optimiser.param_groups:
                    group["lr"] = PEAK_RATE * min(1.0, 10 * done + 0.02) * (1 - done)
                loss = F.binary_cross_entropy_with_logits(network(points, rhythm, known), labels)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
    return network.eval()


def _odds(network: Network, data: _Data, objects: Tensor, known: Tensor, side: int) -> FloatArray:
    """(W,) log-odds of windows, means over the four flips."""
    found = []
    with torch.inference_mode():
        for chosen, mask in zip(objects.split(4 * BATCH), known.split(4 * BATCH), strict=True):
            views = [data.flipped(chosen, side, torch.tensor([flip])) for flip in FLIPS]
            found.append(torch.stack([network(*view, mask) for view in views]).mean(0))
    return torch.cat(found).double().numpy()


def judge_geometry(
    real: list[Geometry], other: list[Geometry], sets: list[str], seed: int = 0
) -> GeometryVerdict | None:
    """Tells `other` from `real`; map k of both has the same rhythm and is of set `sets[k]`.

    Cross-validated by beatmapset with the folds of `classifier.classify`. None if fewer than two
    beatmapsets have a window. Raises ValueError if a pair of maps differs in its rhythm.
    """
    data = _gather(real, other)
    long_enough = np.flatnonzero(np.diff(data.begins) >= MIN_WINDOW)
    folds = split_sets([sets[k] for k in long_enough], seed)
    scores, map_scores, windows = [], [], 0
    for held_out in folds:
        tested = np.array([sets[k] in held_out for k in long_enough])
        network = _train(data, long_enough[~tested], seed)
        begin = np.zeros(len(real), dtype=np.intp)
        objects, known, owners = data.windows(long_enough[tested], begin)
        odds = [_odds(network, data, objects, known, side) for side in (0, 1)]
        scores.append(area_under_roc(*odds))
        means = [np.bincount(owners, o)[long_enough[tested]] for o in odds]
        counts = np.bincount(owners)[long_enough[tested]]
        map_scores.append(area_under_roc(*(m / counts for m in means)))
        windows += 2 * len(objects)
    if not folds:
        return None
    return GeometryVerdict(
        auc=float(np.mean(scores)),
        auc_std=float(np.std(scores)),
        map_auc=float(np.mean(map_scores)),
        map_auc_std=float(np.std(map_scores)),
        windows=windows,
    )


class GeometryJudge(Judge):
    """The network that sees bare geometry."""

    name = "geometry_judge"

    def look_at(self, pair: Pair) -> tuple[Any, Any]:
        return read_geometry(pair.before), read_geometry(pair.after)

    def decide(self) -> dict[str, Any] | None:
        found = judge_geometry(self.real, self.remapped, self.sets, self.seed)
        return None if found is None else asdict(found)
