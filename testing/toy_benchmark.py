"""Does a model continue a pattern? The last object of made-up patterns is to be predicted.

    python testing/toy_benchmark.py --ckpt results/000-DiT-XS/model.safetensors

All other objects and the distance to the last one are known (in-painting). A prediction within
30 px is a hit. Beside the share of hits stands what guessing a direction at that distance gets.
Solvers that add noise anew do better here: a point alone among known ones, put in a wrong place at
high noise, stays there otherwise (docs/notes/patterns.md).
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

# As a script only this folder is on the path; the project is one level up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from beatmaps.osu_file import Beatmap, parse_beatmap
from beatmaps.sequence import Sequence, beatmap_to_sequence
from checkpoint import LoadedModel, load_model
from constraints.rules import with_rules
from conventions import command_line, playfield
from conventions.arrays import FloatArray
from conventions.bundled import DEFAULT_MODEL
from conventions.errors import naming
from diffusion.guidance import guided_by_weak
from diffusion.parametrisation import Denoise
from diffusion.samplers import SOLVERS
from metrics.denoising import unstyled_conditions
from sampling.options import DEFAULT_GUIDANCE

HIT_PX = 30.0
BEAT_MS = 340
MARGIN_PX = 16.0
PLAYFIELD = np.array(playfield.PLAYFIELD)
CENTRE = PLAYFIELD / 2
HEADER = """osu file format v14

[General]
Mode: 0

[Metadata]
Title:Pattern
Artist:-
Creator:-
Version:Toy

[Difficulty]
CircleSize:4
ApproachRate:9
SliderMultiplier:1.7

[TimingPoints]
0,340,4,1,0,100,1,0

[HitObjects]
"""


# --- patterns -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    """Places (n, 2) px of circles, `beats` (n - 1,) from each to the next; perhaps a slider first.

    `slider` is the end (2,) of a straight slider of two beats at the first place, else None.
    """

    places: FloatArray
    beats: FloatArray
    slider: FloatArray | None = None


def _turned(places: FloatArray, angle: float) -> FloatArray:
    """Places (n, 2) turned about the origin."""
    c, s = np.cos(angle), np.sin(angle)
    return places @ np.array([[c, s], [-s, c]])


def _somewhere(places: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A pattern turned, mirrored at random and moved to a random place on the playfield."""
    places = _turned(places * rng.choice([(1, 1), (1, -1)]), rng.uniform(0, 2 * np.pi))
    low, high = MARGIN_PX - places.min(axis=0), PLAYFIELD - MARGIN_PX - places.max(axis=0)
    return places + rng.uniform(np.minimum(low, high), np.maximum(low, high))


def polygon(rng: np.random.Generator) -> Pattern:
    """A lap round a regular polygon of four to eight corners or a star; a corner is missing."""
    corners, step = [(4, 1), (5, 1), (6, 1), (7, 1), (8, 1), (5, 2), (7, 3)][rng.integers(7)]
    angles = 2 * np.pi * step / corners * np.arange(corners)
    places = rng.uniform(70, 140) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Pattern(_somewhere(places, rng), np.full(corners - 1, 0.5))


def stream(rng: np.random.Generator) -> Pattern:
    """Twelve to eighteen circles a quarter beat apart along a line, an arc, a wave or a spiral."""
    count, spacing = int(rng.integers(12, 19)), rng.uniform(16, 36)
    k = np.arange(count - 1)
    turns = [
        np.zeros(count - 1),
        np.full(count - 1, rng.uniform(0.1, 0.4)),
        rng.uniform(0.2, 0.4) * np.sin(2 * np.pi * k / rng.uniform(8, 14)),
        rng.uniform(0.1, 0.2) * (1 + k / count),
    ][rng.integers(4)]
    headings = np.cumsum(turns)
    steps = spacing * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    places = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return Pattern(_somewhere(places, rng), np.full(count - 1, 0.25))


def symmetry(rng: np.random.Generator) -> Pattern:
    """A motif of five circles, then its image: mirrored left to right, upside down, or both."""
    places = rng.uniform(MARGIN_PX, PLAYFIELD - MARGIN_PX, (5, 2))
    signs = np.array([(-1, 1), (1, -1), (-1, -1)][rng.integers(3)])
    image = CENTRE + (places - CENTRE) * signs
    beats = np.full(9, 0.5)
    beats[4] = 1.0
    return Pattern(np.concatenate([places, image]), beats)


def visual_spacing(rng: np.random.Generator) -> Pattern:
    """Objects on screen together at one distance: a strip of triangles, an orbit, a slider's side.

    The next object's distance from the one before the last is as telling as that from the last.
    """
    gap = rng.uniform(55, 95)
    kind = rng.integers(3)
    if kind == 0:
        k = np.arange(rng.integers(6, 9))
        places = gap * np.stack([k / 2, (k % 2) * np.sqrt(0.75)], axis=1)
        return Pattern(_somewhere(places, rng), np.full(len(k) - 1, 0.5))
    if kind == 1:
        angles = np.pi / 3 * np.arange(6)
        orbit = gap * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        places = np.concatenate([np.zeros((1, 2)), orbit])
        return Pattern(_somewhere(places, rng), np.full(6, 0.5))
    # Back along a slider, at the same distance from it all the way.
    along = 340.0 * np.linspace(1, 0, 5)
    row = np.stack([along, np.full(5, gap)], axis=1)
    places = _somewhere(np.concatenate([[[0, 0], [340, 0]], row]), rng)
    return Pattern(np.delete(places, 1, axis=0), np.array([2.5, 0.5, 0.5, 0.5, 0.5]), places[1])


FAMILIES: dict[str, Callable[[np.random.Generator], Pattern]] = {
    "polygon": polygon,
    "stream": stream,
    "symmetry": symmetry,
    "visual-spacing": visual_spacing,
}


def make_patterns(family: str, count: int, seed: int) -> list[Pattern]:
    """`count` patterns of a family that lie on the playfield, the same for every model."""
    rng = np.random.default_rng([seed, list(FAMILIES).index(family)])
    found: list[Pattern] = []
    while len(found) < count:
        pattern = FAMILIES[family](rng)
        if ((pattern.places >= 0) & (pattern.places <= PLAYFIELD)).all():
            found.append(pattern)
    return found


def to_beatmap(pattern: Pattern) -> Beatmap:
    """The pattern as a beatmap in memory, at whole pixels, from the first beat on."""
    times = np.rint(BEAT_MS * (4 + np.concatenate([[0], np.cumsum(pattern.beats)]))).astype(int)
    places = np.rint(pattern.places).astype(int)
    lines = []
    for k, (time, (x, y)) in enumerate(zip(times, places, strict=True)):
        kind = 5 if k == 0 else 1
        lines.append(f"{x},{y},{time},{kind},0,0:0:0:0:")
    if pattern.slider is not None:
        x, y = np.rint(pattern.slider).astype(int)
        lines[0] = f"{places[0][0]},{places[0][1]},{times[0]},6,0,L|{x}:{y},1,340"
    return parse_beatmap((HEADER + "\n".join(lines) + "\n").encode(), "pattern")


# --- predictions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """How to predict: samples a pattern, solver and its steps, whether the distance is met."""

    count: int = 16
    steps: int = 24
    sampler: str = "ancestral"
    keep_spacing: bool = True
    guidance: float = DEFAULT_GUIDANCE
    seed: int = 0


def predict_last(loaded: LoadedModel, sequence: Sequence, options: Options) -> FloatArray:
    """(count, 2) px: samples of the last data point, all others being known.

    With `keep_spacing` every prediction of it is moved to its distance from the last known point,
    at all noise levels, for that point is known exactly.
    """
    previous, distance = sequence.xy[-2], float(sequence.distances()[-1])
    known = torch.from_numpy(sequence.xy).float()

    def others_known(xy: Tensor, sigma: float) -> Tensor:
        last = xy[:, -1].cpu().double().numpy()
        if options.keep_spacing:
            last = at_distance(last, previous, distance)
        return torch.cat(
            [known[:-1].to(xy).expand(len(xy), -1, 2), torch.from_numpy(last)[:, None].to(xy)],
            dim=1,
        )

    denoise = complete(loaded, sequence, options)
    denoise = with_rules(denoise, loaded.parametrisation, [others_known])
    solver = SOLVERS[options.sampler]
    sigmas = solver.levels(loaded.parametrisation, options.steps)
    generator = torch.Generator().manual_seed(options.seed)
    noise = torch.randn(options.count, len(sequence), 2, generator=generator).to(loaded.device)
    x = noise * float((sigmas[0] ** 2 + 1).sqrt())

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    with torch.inference_mode():
        x = solver(denoise, x, sigmas, lambda step, x0: None, draw)
        return loaded.parametrisation.to_pixels(x[:, -1]).cpu().double().numpy()


def complete(loaded: LoadedModel, sequence: Sequence, options: Options) -> Denoise:
    """`denoise` of a sequence all of which but its last data point is known, if models can be told.

    Guided by the weak model where there is one and the options ask for it.
    """

    def by(model: LoadedModel) -> Denoise:
        conditions = unstyled_conditions(model, sequence)
        if model.model.config.known_points:
            xy = model.parametrisation.from_pixels(torch.from_numpy(sequence.xy).float())
            xy[-1] = torch.nan
            conditions = conditions._replace(known=xy[None].to(model.device))
        return model.denoiser(conditions.repeat(options.count))

    if loaded.weak is None or options.guidance == 1:
        return by(loaded)
    return guided_by_weak(by(loaded), by(loaded.weak), options.guidance)


def at_distance(predictions: FloatArray, previous: FloatArray, distance: float) -> FloatArray:
    """Predictions (n, 2) moved to `distance` from `previous` (2,), their directions kept."""
    offsets = predictions - previous
    lengths = np.maximum(np.hypot(*offsets.T), 1e-9)[:, None]
    moved: FloatArray = previous + offsets * distance / lengths
    return moved


def chance(distance: float) -> float:
    """Probability that a random direction at `distance` px from the previous object is a hit.

    Two places at that distance and at an angle a are 2 distance sin(a / 2) apart.
    """
    if distance <= HIT_PX / 2:
        return 1.0
    return float(2 * np.arcsin(HIT_PX / 2 / distance) / np.pi)


def chance_on_playfield(previous: FloatArray, target: FloatArray) -> float:
    """The same among the directions that lead to the playfield, counted over 7,200 of them."""
    angles = np.linspace(0, 2 * np.pi, 7200, endpoint=False)
    distance = np.hypot(*(target - previous))
    places = previous + distance * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    possible = places[((places >= 0) & (places <= PLAYFIELD)).all(axis=1)]
    return float((np.hypot(*(possible - target).T) < HIT_PX).mean())


def run_family(
    loaded: LoadedModel, family: str, patterns: int, options: Options
) -> dict[str, float]:
    """Shares of hits over all predictions of a family, and those of guessing."""
    rows = []
    for k, pattern in enumerate(make_patterns(family, patterns, options.seed)):
        sequence = beatmap_to_sequence(to_beatmap(pattern))
        previous, target = sequence.xy[-2], sequence.xy[-1]
        sampled = predict_last(loaded, sequence, replace(options, seed=options.seed + k))
        errors = np.hypot(*(sampled - target).T)
        rows.append(
            {
                "hits": (errors < HIT_PX).mean(),
                "chance": chance(float(sequence.distances()[-1])),
                "chance_on_playfield": chance_on_playfield(previous, target),
                "error_median": np.median(errors),
            }
        )
    return {"patterns": len(rows), **pd.DataFrame(rows).mean().to_dict()}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=command_line.HelpFormatter
    )
    add = parser.add_argument
    add("--ckpt", type=Path, default=DEFAULT_MODEL, help="model: .safetensors or .pt")
    add("--tests", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    add("--patterns", type=int, default=40, help="patterns a family")
    add("--num-predictions", type=int, default=Options.count, help="samples a pattern")
    add("--num-sampling-steps", type=int, default=Options.steps)
    add("--sampler", choices=list(SOLVERS), default=Options.sampler)
    add("--spacing", choices=["keep", "model"], default="keep", help="keep: meet the distance")
    add("--guidance", type=float, default=Options.guidance, help="by the weak model; 1: without")
    add("--seed", type=int, default=Options.seed)
    add("--device", default="auto", help="cuda (also for AMD's ROCm), mps, cpu, or auto")
    return parser.parse_args()


@naming(command_line.flag_names())
def main() -> int:
    args = parse_args()
    loaded = load_model(args.ckpt, command_line.pick_device(args.device))
    options = Options(
        count=args.num_predictions,
        steps=args.num_sampling_steps,
        sampler=args.sampler,
        keep_spacing=args.spacing == "keep",
        guidance=args.guidance,
        seed=args.seed,
    )
    table = {
        family: run_family(loaded, family, args.patterns, options)
        for family in tqdm(args.tests, desc="patterns", file=sys.stderr)
    }
    print(pd.DataFrame.from_dict(table, orient="index").to_string(float_format="{:.3f}".format))
    return 0


if __name__ == "__main__":
    command_line.run(main)
