"""Can a model clean up a pattern? Regular patterns are jittered, and it takes the jitter away.

    python testing/jittered_pattern.py --picture jittered.png

Gaussian noise is added to the patterns of toy_benchmark.py, and the model denoises them from that
noise level: in one pass (its best guess), or with a solver. It is told the pattern's true
distances, or those of the jittered one, as one who cleans up a real map would have to, or, if it
was trained to do without, none. Beside it stand what nothing does, and moving the jittered points
to the true distances without a model.

Reported is how far points are from the clean pattern, in px (mean), and in brackets how far after
the shift and turn that fit best: a pattern that only moved as a whole is still regular.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from figures import save_figure
from tables import claim_table, save_table
from toy_benchmark import FAMILIES, make_patterns, to_beatmap

from beatmaps.sequence import Sequence, beatmap_to_sequence
from checkpoint import LoadedModel, load_model
from constraints.bounds import Bounds
from constraints.rules import Chain, project_spacing, spaced, with_rules
from conventions import command_line
from conventions.arrays import FloatArray
from conventions.bundled import DEFAULT_MODEL
from conventions.errors import naming
from diffusion.parametrisation import Denoise
from diffusion.samplers import sample_dpmpp_2m
from metrics.denoising import unstyled_conditions
from sampling.options import can_lack_distances

SWEEPS = 200  # of projection alone, until nothing moves any more
SIGMA_LIMITS_PX = (0.5, 300.0)
DRAWN = ("nothing", "projection", "one pass, jittered", "one pass, true", "solver, true, met")


# --- ways to clean up -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Jittered:
    """Copies of a pattern: clean (T, 2), jittered (n, T, 2) px, by noise of `sigma` px an axis."""

    sequence: Sequence
    xy: FloatArray
    sigma: float

    def errors(self, xy: FloatArray) -> tuple[float, float]:
        """Mean px from the clean pattern of xy (n, T, 2), as it is and laid on it at its best."""
        clean = self.sequence.xy
        plain = np.linalg.norm(xy - clean, axis=-1)
        laid = np.linalg.norm(lay_on(xy, clean) - clean, axis=-1)
        return float(plain.mean()), float(laid.mean())


def lay_on(xy: FloatArray, target: FloatArray) -> FloatArray:
    """xy (n, T, 2) shifted and turned, each copy by itself, as near to target (T, 2) as can be.

    Source: Kabsch 1976, in the plane, where the best angle has a closed form.
    """
    middle = target.mean(axis=0)
    centred, wanted = xy - xy.mean(axis=1, keepdims=True), target - middle
    cross = (centred[..., 0] * wanted[:, 1] - centred[..., 1] * wanted[:, 0]).sum(axis=1)
    dot = (centred * wanted).sum(axis=(1, 2))
    angle = np.arctan2(cross, dot)[:, None]
    c, s = np.cos(angle), np.sin(angle)
    x, y = centred[..., 0], centred[..., 1]
    result: FloatArray = np.stack([c * x - s * y, s * x + c * y], axis=-1) + middle
    return result


Way = Callable[[Jittered], FloatArray]
"""From jittered copies of a pattern to coordinates (n, T, 2) px."""


def do_nothing(jittered: Jittered) -> FloatArray:
    """What the jitter itself is."""
    return jittered.xy


def true_chain(sequence: Sequence) -> Chain:
    """The pattern's distances, the first one to the playfield's centre, as the model has them."""
    distances = torch.from_numpy(sequence.distances()).float()
    free = torch.zeros(len(sequence), dtype=torch.bool)
    return Chain(distances, free, torch.zeros(len(sequence), 2), lambda xy: xy, Bounds())


def project(jittered: Jittered) -> FloatArray:
    """Moves the points to the true distances, as little as it takes, without a model."""
    xy = torch.from_numpy(jittered.xy)
    return project_spacing(xy, true_chain(jittered.sequence), SWEEPS).numpy()


@dataclass(frozen=True)
class ByModel:
    """Denoises with the model, told distances that are true, jittered or unknown.

    steps of the solver, 1 for a single pass; with `met` distances are met on the way.
    """

    loaded: LoadedModel
    distances: str
    steps: int
    met: bool = False

    def __call__(self, jittered: Jittered) -> FloatArray:
        parametrisation = self.loaded.parametrisation
        device = next(self.loaded.model.parameters()).device
        level = jittered.sigma / float(np.sqrt(np.prod(parametrisation.scale)))
        denoise = self.denoiser(jittered)
        x = parametrisation.from_pixels(torch.from_numpy(jittered.xy).float().to(device))
        with torch.inference_mode():
            if self.steps == 1:
                x = denoise(x, torch.tensor(level, device=device))
            else:
                x = sample_dpmpp_2m(denoise, x, parametrisation.sigmas(self.steps, level))
            return parametrisation.to_pixels(x).cpu().double().numpy()

    def denoiser(self, jittered: Jittered) -> Denoise:
        """`denoise` of all copies, told what is to be told."""
        sequence, count = jittered.sequence, len(jittered.xy)
        told = {
            "true": np.repeat(sequence.distances()[None], count, axis=0),
            "jittered": np.stack([sequence.moved(xy).distances() for xy in jittered.xy]),
            "unknown": np.full((count, len(sequence)), -1.0),
        }
        conditions = unstyled_conditions(self.loaded, sequence, told[self.distances])
        denoise = self.loaded.denoiser(conditions)
        if not self.met:
            return denoise
        rules = [spaced(true_chain(sequence))]
        return with_rules(denoise, self.loaded.parametrisation, rules)


def ways_of(loaded: LoadedModel, steps: int) -> dict[str, Way]:
    """All ways to clean up that a model knows, by the names of the table."""
    ways: dict[str, Way] = {"nothing": do_nothing, "projection": project}
    told = ["true", *(["unknown"] if can_lack_distances(loaded) else []), "jittered"]
    for distances in told:
        ways[f"one pass, {distances}"] = ByModel(loaded, distances, 1)
    for distances in told:
        ways[f"solver, {distances}"] = ByModel(loaded, distances, steps)
    ways["solver, true, met"] = ByModel(loaded, "true", steps, met=True)
    return ways


# --- measuring ------------------------------------------------------------------------------------


def jitter(family: str, number: int, sigma: float, copies: int, seed: int) -> Jittered:
    """Copies of a family's pattern of that number; the noise is the same for every model."""
    pattern = make_patterns(family, number + 1, seed)[number]
    sequence = beatmap_to_sequence(to_beatmap(pattern))
    rng = np.random.default_rng([seed, list(FAMILIES).index(family), number])
    noise = rng.standard_normal((copies, len(sequence), 2))
    return Jittered(sequence, sequence.xy + sigma * noise, sigma)


def measure(ways: dict[str, Way], args: argparse.Namespace) -> pd.DataFrame:
    """A row for each family, noise level and way: the errors, means over patterns and copies."""
    rows = []
    cases = [(family, sigma) for family in args.tests for sigma in args.sigma]
    for family, sigma in tqdm(cases, desc="cleaning", unit="case", file=sys.stderr):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(args.patterns):
            jittered = jitter(family, number, sigma, args.copies, args.seed)
            for name, way in ways.items():
                found[name].append(jittered.errors(way(jittered)))
        for name, errors in found.items():
            error, shape_error = np.mean(errors, axis=0)
            rows.append((family, sigma, name, float(error), float(shape_error)))
    return pd.DataFrame(rows, columns=["family", "sigma", "way", "error", "shape_error"])


def print_table(table: pd.DataFrame) -> None:
    """The errors, ways as rows, families and levels as columns."""
    errors = zip(table["error"], table["shape_error"], strict=True)
    cells = table.assign(cell=[f"{error:.1f} ({shape:.1f})" for error, shape in errors])
    for family, rows in cells.groupby("family", sort=False):
        wide = rows.pivot(index="way", columns="sigma", values="cell")
        wide = wide.loc[rows["way"].unique()]
        wide.columns = pd.Index([f"{sigma:g} px" for sigma in wide.columns], name=family)
        wide.index.name = None
        print(wide.to_string(), end="\n\n")


def draw(ways: dict[str, Way], args: argparse.Namespace) -> Figure:
    """A pattern of each family, jittered and cleaned up in some ways; the clean one is grey."""
    sigma = args.sigma[len(args.sigma) // 2]
    shown = {name: way for name, way in ways.items() if name in DRAWN}
    size = (2.4 * len(shown), 2.5 * len(args.tests) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"patterns jittered by {sigma:g} px (grey: clean)", fontsize=10)
    panels = figure.subplots(len(args.tests), len(shown), squeeze=False)
    for row, family in zip(panels, args.tests, strict=True):
        jittered = jitter(family, 0, sigma, 1, args.seed)
        clean = jittered.sequence.xy
        both = np.concatenate([clean, jittered.xy[0]])
        # A square around the pattern, so that all panels are of one size.
        middle, half = (both.min(axis=0) + both.max(axis=0)) / 2, np.ptp(both, axis=0).max() / 2
        low, high = middle - half - 10, middle + half + 10
        for axes, (name, way) in zip(row, shown.items(), strict=True):
            cleaned = way(jittered)
            axes.plot(*clean.T, "o-", color="#bbbbbb", markersize=7, linewidth=1)
            axes.plot(*cleaned[0].T, "o-", color="#d62728", markersize=3, linewidth=0.8)
            axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), xticks=[], yticks=[])
            axes.set_aspect("equal")
            axes.set_title(f"{name}: {jittered.errors(cleaned)[0]:.1f} px", fontsize=8)
        row[0].set_ylabel(family, fontsize=9)
    return figure


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=command_line.HelpFormatter
    )
    add = parser.add_argument
    add("--ckpt", type=Path, default=DEFAULT_MODEL, help="model: .safetensors or .pt")
    add("--tests", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    levels = [5.0, 10.0, 20.0, 40.0]
    add("--sigma", nargs="+", type=float, default=levels, help="jitter, px an axis")
    add("--patterns", type=int, default=10, help="patterns a family")
    add("--copies", type=int, default=8, help="jittered copies of a pattern")
    add("--num-sampling-steps", type=int, default=12, help="of the solver")
    add("--seed", type=int, default=0)
    add("--output", type=Path, help="also write the table: .csv, .parquet or .pkl")
    add("--picture", type=Path, default=Path("jittered.png"), help="before and after, PNG")
    add(
        "--overwrite", action=command_line.BooleanFlag, default=False, help="replace existing files"
    )
    add("--device", default="auto", help="cuda (also for AMD's ROCm), mps, cpu, or auto")
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    """Refuses numbers that mean nothing, and files that are in the way."""
    low, high = SIGMA_LIMITS_PX
    if not all(low <= sigma <= high for sigma in args.sigma):
        raise ValueError(f"--sigma: give numbers from {low:g} to {high:g} px")
    for name, least in (("patterns", 1), ("copies", 1), ("num_sampling_steps", 2)):
        if getattr(args, name) < least:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} {getattr(args, name)}: give a number from {least} on")
    command_line.claim_output(args.picture, args.overwrite)
    claim_table(args.output, args.overwrite)


@naming(command_line.flag_names())
def main() -> int:
    args = parse_args()
    check_args(args)
    loaded = load_model(args.ckpt, command_line.pick_device(args.device))
    ways = ways_of(loaded, args.num_sampling_steps)
    table = measure(ways, args)
    print_table(table)
    save_figure(args.picture, draw(ways, args))
    print(f"wrote {args.picture}")
    save_table(args.output, table)
    return 0


if __name__ == "__main__":
    command_line.run(main)
