"""Measures whether a style arrives: two-alternative trials on held-out beatmaps.

For each of N held-out maps S (the style) another mapper's map is remapped: without a style, in the
embedding learnt from S, and as much as that, in a class of the training set. A trial asks whether
the result's features are nearer to those of S than to those of a random other held-out map; 50 %
is chance. The features describe positions given rhythm and spacing, which the source dictates:
turning angles within bins of spacing and time, slider shapes within bins of length, overlaps, the
distribution over the playfield. They are standardised over the training maps.

A source that is by chance nearer to the style's map, or further from it, than to most others would
hide what the style does. So pairs are chosen in which it is neither: of a few sources drawn for a
style, and of a few classes drawn for a source, that whose own share is nearest to a half.

A trained class is judged by its own map, which must be in --train. How real the remaps look is
measured beside (`metrics.realism`).
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from beatmaps.osu_file import Beatmap, BeatmapError, read_beatmap, write_new_file
from beatmaps.sequence import Sequence, beatmap_to_sequence
from checkpoint import LoadedModel, load_model
from constraints.bounds import Bounds
from conventions import command_line
from conventions.bundled import DEFAULT_MODEL
from conventions.errors import naming
from conventions.playfield import PLAYFIELD_CENTRE
from metrics.metric import Pair
from metrics.realism_metric import RealismDistances
from sampling.generate import SampleOptions, generate
from sampling.map_inputs import MapInputs
from sampling.style import Style, read_index
from sampling.style_learning import Learning, embeddings_of, learn_embedding

Features = NDArray[np.float64]  # (F,), NaN where a map has too few cases

SPACING_BINS = (8.0, 50.0, 100.0, 160.0, 1000.0)  # px
GAP_BINS = (0.0, 190.0, 420.0, 3000.0)  # ms: streams, jumps, slower
LENGTH_BINS = (0.0, 90.0, 180.0, 100_000.0)  # px from a slider's head to its last anchor, by path
FEW = 8  # fewer cases than this say nothing
OVERLAP_PX = (12.0, 40.0)
RECENT = 8  # objects back to which an overlap is looked for
CANDIDATES = 12  # sources of a style, and classes of a source, of which the fairest is taken


def features(sequence: Sequence) -> Features:
    """How a map places its objects, given its rhythm and spacing."""
    starts = np.flatnonzero(sequence.object_starts)
    ends = np.append(starts[1:], len(sequence)) - 1
    return np.concatenate(
        [
            _turning(sequence, starts, ends),
            _slider_shapes(sequence, starts, ends),
            _overlaps(sequence.xy[starts]),
            _positions(sequence.xy[starts]),
        ]
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) >= FEW else float("nan")


def _turning(sequence: Sequence, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> Features:
    """Mean cosine, mean |sine| and sameness of rotation of turns, by spacing and time gap.

    A turn is between the jump to an object and the jump on from its end.
    """
    jumps = sequence.xy[starts[1:]] - sequence.xy[ends[:-1]]  # (M - 1, 2)
    length = np.hypot(*jumps.T)
    angle = np.arctan2(jumps[:, 1], jumps[:, 0])
    turn = (np.diff(angle) + np.pi) % (2 * np.pi) - np.pi  # (M - 2,)
    gap = sequence.times[starts[1:]] - sequence.times[ends[:-1]]
    same = np.sign(turn[1:]) * np.sign(turn[:-1])
    spacing = np.digitize(np.minimum(length[1:], length[:-1]), SPACING_BINS)
    rhythm = np.digitize(np.maximum(gap[1:], gap[:-1]), GAP_BINS)
    result = []
    for s in range(1, len(SPACING_BINS)):
        for r in range(1, len(GAP_BINS)):
            here = (spacing == s) & (rhythm == r)
            result += [_mean(np.cos(turn[here])), _mean(np.abs(np.sin(turn[here])))]
            result.append(_mean(same[here[1:]]))
    return np.array(result)


def _slider_shapes(
    sequence: Sequence, starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> Features:
    """Straightness, bend and direction to the previous jump of sliders, by length."""
    rows = []
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        points = sequence.xy[start:end]  # head to last anchor
        if len(points) < 2 or sequence.types[start] not in (4, 5) or i == 0:
            continue
        steps = np.diff(points, axis=0)
        length = np.hypot(*steps.T).sum()
        chord = points[-1] - points[0]
        jump = points[0] - sequence.xy[ends[i - 1]]
        size = np.hypot(*chord) * np.hypot(*jump)
        heading = np.arctan2(steps[:, 1], steps[:, 0])
        bend = np.abs((np.diff(heading) + np.pi) % (2 * np.pi) - np.pi).sum()
        along = float(chord @ jump) / size if size > 1 else float("nan")
        rows.append((length, np.hypot(*chord) / max(length, 1.0), bend, along, len(points)))
    table = np.array(rows).reshape(-1, 5)
    result = []
    for low, high in pairwise(LENGTH_BINS):
        here = table[(table[:, 0] >= low) & (table[:, 0] < high)]
        curved = here[here[:, 4] > 2]
        result += [_mean(curved[:, 1]), _mean(curved[:, 2])]
        result.append(_mean(here[np.isfinite(here[:, 3]), 3]))
    return np.array(result)


def _overlaps(heads: NDArray[np.float64]) -> Features:
    """Shares of objects on, and near, one of the recent objects but the last two."""
    nearest = np.full(len(heads), np.inf)
    for back in range(3, RECENT + 1):
        if len(heads) > back:
            apart = np.hypot(*(heads[back:] - heads[:-back]).T)
            nearest[back:] = np.minimum(nearest[back:], apart)
    return np.array([float((nearest < px).mean()) for px in OVERLAP_PX])


def _positions(heads: NDArray[np.float64]) -> Features:
    """Mean distance and spread about the playfield's centre, by axis, and the outer share."""
    away = np.abs(heads - PLAYFIELD_CENTRE)
    outer = (away > (170.0, 125.0)).mean(axis=0)
    return np.concatenate([away.mean(axis=0), away.std(axis=0), outer, heads.mean(axis=0)])


class Judge:
    """Distances between maps by standardised features."""

    def __init__(self, train: list[Features]) -> None:
        table = np.stack(train)
        known = np.isfinite(table)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, table, 0).sum(axis=0) / count
        self.std = np.sqrt((np.where(known, table - mean, 0) ** 2).sum(axis=0) / count)
        self.used = self.std > 1e-9

    def distance(self, a: Features, b: Features) -> float:
        """Mean squared difference in standard deviations over the features that both have."""
        difference = ((a - b) / np.where(self.used, self.std, 1.0))[self.used]
        difference = np.clip(difference[np.isfinite(difference)], -4, 4)
        return float((difference**2).mean())

    def share_nearer(self, result: Features, style: Features, others: list[Features]) -> float:
        """Share of `others` that the result is further from than from the style."""
        own = self.distance(result, style)
        return float(np.mean([own < self.distance(result, other) for other in others]))


def read_maps(paths: list[Path]) -> list[tuple[Beatmap, Sequence]]:
    """The beatmaps that can be read, with their data points."""
    maps = []
    for path in tqdm(paths, desc="reading", unit="map", file=sys.stderr):
        try:
            beatmap = read_beatmap(path)
            maps.append((beatmap, beatmap_to_sequence(beatmap)))
        except BeatmapError as error:
            print(f"skipped {path.name}: {error}", file=sys.stderr)
    return maps


@dataclass(frozen=True)
class Setting:
    """What all trials share: the model, the maps and their features, how to learn and sample."""

    loaded: LoadedModel
    held_out: list[tuple[Beatmap, Sequence]]
    train: list[tuple[Beatmap, Sequence]]
    held_out_features: list[Features]
    train_features: list[Features]
    judge: Judge
    index: dict[int, int]
    learning: Learning
    ways: list[SampleOptions]
    max_points: int
    learn: bool = True
    realism: dict[str, RealismDistances] = field(default_factory=dict)

    def others(self, *mappers: str) -> list[Features]:
        """Features of the held-out maps that none of these mappers made."""
        pairs = zip(self.held_out, self.held_out_features, strict=True)
        return [found for (beatmap, _), found in pairs if beatmap.creator not in mappers]

    def remapped(
        self, name: str, source: tuple[Beatmap, Sequence], style: Style, options: SampleOptions
    ) -> Features:
        """Features of a source map in a style; its realism counts under `name`."""
        _, sequence = source
        _, placed = generate(self.loaded, sequence, options, inputs=MapInputs(style=style))
        after = sequence.moved(placed[0])
        pair = Pair(sequence, after, sequence.distances(), Bounds())
        self.realism.setdefault(name, RealismDistances()).measure(pair)
        return features(after)

    def fair_source(self, k: int, rng: np.random.Generator) -> int:
        """A map of another mapper that is not nearer to held-out map k than to the others."""
        mapper = self.held_out[k][0].creator
        fitting = [
            i
            for i, (beatmap, sequence) in enumerate(self.held_out)
            if beatmap.creator != mapper and len(sequence) <= self.max_points
        ]
        drawn = rng.permutation(fitting)[:CANDIDATES]
        target = self.held_out_features[k]

        def unfairness(i: int) -> float:
            others = self.others(mapper, self.held_out[i][0].creator)
            return abs(self.judge.share_nearer(self.held_out_features[i], target, others) - 0.5)

        return int(min(drawn, key=unfairness))

    def fair_class(self, source: Features, rng: np.random.Generator) -> int:
        """The row of a training map whose class is known and that is as near as the others."""
        rows = [i for i, (b, _) in enumerate(self.train) if b.beatmap_id in self.index]
        drawn = rng.permutation(rows)[:CANDIDATES]
        return int(min(drawn, key=lambda i: abs(self.share_to_class(source, i) - 0.5)))

    def share_to_class(self, result: Features, row: int) -> float:
        """Share of the training maps that a result is further from than from that of `row`."""
        others = [found for i, found in enumerate(self.train_features) if i != row]
        return self.judge.share_nearer(result, self.train_features[row], others)

    def trial(self, k: int, rng: np.random.Generator) -> dict[str, float]:
        """Shares of other maps further away than the style's: held-out map k, and a class."""
        chosen = self.fair_source(k, rng)
        source, own = self.held_out[chosen], self.held_out_features[chosen]
        row = self.fair_class(own, rng)
        others = self.others(self.held_out[k][0].creator, source[0].creator)
        target = self.held_out_features[k]

        def to_map(result: Features) -> float:
            return self.judge.share_nearer(result, target, others)

        result = {"source, to the held-out map": to_map(own)}
        result["source, to the trained map"] = self.share_to_class(own, row)
        plain = self.remapped("no style", source, Style(), replace(self.ways[0], cfg_scale=1.0))
        result["no style, to the held-out map"] = to_map(plain)
        result["no style, to the trained map"] = self.share_to_class(plain, row)
        trained = embeddings_of(self.loaded)[self.index[self.train[row][0].beatmap_id]]
        for way in self.ways:
            name = f"trained class, {described(way)}"
            found = self.remapped(name, source, Style(trained), way)
            result[name] = self.share_to_class(found, row)
        if self.learn:
            started = time.perf_counter()
            learnt = learn_embedding(self.loaded, [self.held_out[k][1]], self.learning)
            result["seconds of learning"] = time.perf_counter() - started
            for way in self.ways:
                name = f"learnt, {described(way)}"
                result[name] = to_map(self.remapped(name, source, Style(learnt), way))
        return result


def described(way: SampleOptions) -> str:
    """What is tried, in the words of the flags."""
    guidance = "" if way.guidance is None else f", guidance {way.guidance:g}"
    return f"cfg {way.cfg_scale:g}{guidance}"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=command_line.HelpFormatter
    )
    add = parser.add_argument
    add("held_out", type=Path, help="folder of held-out .osu files")
    add("--train", type=Path, required=True, help="folder of the .osu files trained on")
    add("--ckpt", type=Path, default=DEFAULT_MODEL)
    add("--maps", type=int, default=30, help="style maps")
    add("--train-limit", type=int, default=400, help="training maps to standardise over")
    add("--cfg-scale", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    add("--guidance", type=float, nargs="+", default=[None], help="default: the model's")
    add(
        "--learn",
        action=command_line.BooleanFlag,
        default=True,
        help="also learn styles of held-out maps",
    )
    add("--steps", type=int, default=Learning.steps, help="of learning")
    add("--lr", type=float, default=Learning.lr)
    add("--windows", type=int, default=Learning.windows)
    add("--nearest", type=int, default=Learning.nearest)
    add("--candidates", type=int, default=Learning.candidates)
    add("--seed", type=int, default=0)
    add("--max-points", type=int, default=1500, help="longer source maps are not used")
    add("--output", type=Path, help="JSON file for the figures")
    add("--device", default="auto")
    return parser.parse_args()


def make_setting(args: argparse.Namespace, rng: np.random.Generator) -> Setting:
    """Reads the model and the maps."""
    loaded = load_model(args.ckpt, command_line.pick_device(args.device))
    held_out = read_maps(sorted(args.held_out.rglob("*.osu")))
    paths = sorted(args.train.rglob("*.osu"))
    train = read_maps([paths[i] for i in rng.permutation(len(paths))[: args.train_limit]])
    if len(held_out) < 3 or len(train) < 2:
        raise ValueError("at least 3 held-out and 2 training maps are needed")
    train_features = [features(sequence) for _, sequence in train]
    learning = Learning(args.steps, args.windows, args.lr, args.seed, args.candidates, args.nearest)
    ways = [
        SampleOptions(seed=args.seed, cfg_scale=scale, guidance=guidance)
        for scale, guidance in product(args.cfg_scale, args.guidance)
    ]
    return Setting(
        loaded,
        held_out,
        train,
        [features(sequence) for _, sequence in held_out],
        train_features,
        Judge(train_features),
        read_index(loaded, None),
        learning,
        ways,
        args.max_points,
        args.learn,
    )


@naming(command_line.flag_names())
def main() -> int:
    args = parse_args()
    rng = np.random.default_rng(args.seed)
    setting = make_setting(args, rng)
    rows: list[dict[str, float]] = []
    for k in tqdm(rng.permutation(len(setting.held_out))[: args.maps], file=sys.stderr):
        rows.append(setting.trial(int(k), rng))
        print(json.dumps(rows[-1]), file=sys.stderr)
    report: dict[str, Any] = {
        "checkpoint": setting.loaded.sha256,
        "learning": str(setting.learning),
    }
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        error = values.std() / np.sqrt(len(values))
        report[name] = f"{values.mean():.3f} +- {error:.3f}, median {np.median(values):.3f}"
    for name, metric in setting.realism.items():
        report[f"realism ratio: {name}"] = metric.judge()["realism_ratio"]
    text = json.dumps(report, indent=1)
    print(text)
    if args.output is not None:
        write_new_file(args.output, text.encode("utf-8"), overwrite=True)
    return 0


if __name__ == "__main__":
    command_line.run(main)
