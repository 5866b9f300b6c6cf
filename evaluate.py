"""Remaps a folder of held-out beatmaps and measures the written files, read back.

Measured are what must not change, spacing, the playfield, shapes and stacks (`fidelity`), how
far the remaps' placement is from that of real maps (`realism`), whether two judges can tell them
apart, one by features of placement (`classifier`), one by bare geometry (`geometry_judge`), and
with --denoising the network alone. --remaps measures files that exist already.
"""

from conventions import requirements_check  # (first: says what is missing)

if __name__ == "__main__":
    requirements_check.announce()

# isort: split
import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from beatmaps.osu_file import BeatmapError, read_beatmap, write_new_file
from beatmaps.sequence import beatmap_to_sequence
from checkpoint import LoadedModel, load_model
from constraints.bounds import Bounds, bounds_named
from constraints.spacing import CHOICES, Spacing, wanted_distances
from conventions import command_line
from conventions.bundled import DEFAULT_MODEL
from conventions.errors import naming
from datasets.sources import find_beatmaps
from diffusion.samplers import SOLVERS
from metrics.denoising import Denoising
from metrics.fidelity import count_changes
from metrics.metric import Pair
from metrics.registry import METRICS
from sampling.loaded_models import Models
from sampling.options import DEFAULT_STEPS, SampleOptions
from sampling.remap import remap
from sampling.request import RemapRequest

TABLE, REPORT = "evaluation.csv", "evaluation.json"
NAMES = command_line.flag_names(steps="--num-sampling-steps")


class Evaluation:
    """All metrics, and the rows of their table, one for each map and its remap."""

    def __init__(self, options: SampleOptions) -> None:
        self.options = options
        self.metrics = [metric(options.seed) for metric in METRICS]
        self.denoising = Denoising()
        self.rows: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []

    def add_remap(
        self, loaded: LoadedModel, path: Path, output: Path | None = None, overwrite: bool = False
    ) -> None:
        """Remaps the beatmap at `path` and measures the resulting file, written to `output`."""
        beatmap = read_beatmap(path)
        request = RemapRequest(options=self.options)
        (made,) = remap(Models(loaded), beatmap, [f"{beatmap.version} (AI remap)"], request)
        sequence = beatmap_to_sequence(beatmap)
        wanted = wanted_distances(sequence, self.options.spacing)
        bounds = bounds_named(self.options.bounds, beatmap) or Bounds()
        after = beatmap_to_sequence(made.beatmap)
        self._measure(path, Pair(sequence, after, wanted, bounds, made.raw, made.seconds))
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_new_file(output, made.data, overwrite=overwrite)

    def add_existing(self, path: Path, remap_path: Path) -> None:
        """Measures an existing remap, without what only sampling gives.

        Raises BeatmapError if it is not a remap of the beatmap at `path`.
        """
        sequence, after = (beatmap_to_sequence(read_beatmap(p)) for p in (path, remap_path))
        changes = count_changes(sequence.beatmap, after.beatmap)
        names = ("objects_lost", "objects_moved_in_time", "objects_of_other_kind")
        if any(changes[name] for name in names) or len(after) != len(sequence):
            raise BeatmapError(f"{remap_path} is no remap of {path}: its objects are not the same")
        wanted = wanted_distances(sequence, self.options.spacing)
        bounds = bounds_named(self.options.bounds, sequence.beatmap) or Bounds()
        self._measure(path, Pair(sequence, after, wanted, bounds))

    def _measure(self, path: Path, pair: Pair) -> None:
        row: dict[str, Any] = {"file": path.name, "points": len(pair.before)}
        for metric in self.metrics:
            row |= metric.measure(pair)
        self.rows.append(row)

    def summarise(self) -> dict[str, Any]:
        """The numbers of all maps."""
        table, result = self.table, {}
        if self.rows:
            result = {"maps": len(table), "points": int(table["points"].sum())}
            for metric in self.metrics:
                result |= metric.summarise(table)
        return result | self.denoising.summarise() | {"failed": len(self.failed)}

    @property
    def table(self) -> pd.DataFrame:
        """A row a map, a column a number."""
        return pd.DataFrame(self.rows)


def make_parser() -> argparse.ArgumentParser:
    """The command line of evaluate.py."""
    parser = argparse.ArgumentParser(
        usage="python evaluate.py FOLDER [flags]",
        description=__doc__,
        formatter_class=command_line.HelpFormatter,
    )
    add, boolean = parser.add_argument, command_line.BooleanFlag
    add("folder", type=Path, help="folder of .osu files (recursive)")
    add(
        "--ckpt", type=Path, default=DEFAULT_MODEL, help="model: .safetensors, .pt or hf:OWNER/NAME"
    )
    add("--output", type=Path, default=Path("results/evaluation"), help="folder for the tables")
    add("--save-maps", action=boolean, default=False, help="also write the remapped files there")
    add("--overwrite", action=boolean, default=False, help="replace existing tables and maps")
    add(
        "--remaps",
        type=Path,
        help="measure the remaps in this folder, of the same names (--save-maps), and sample none",
    )
    add("--limit", type=int, help="only so many maps, evenly spread")
    add("--seed", type=int, default=0, help="of the remaps and of what is drawn at random")
    add("--num-sampling-steps", type=int, default=DEFAULT_STEPS, help="as for sample.py")
    add("--sampler", choices=["auto", *SOLVERS], default="auto", help="as for sample.py")
    add("--spacing", default="keep", help=f"as for sample.py: {CHOICES}")
    add("--structure", choices=["keep", "clean", "off"], default="keep", help="as for sample.py")
    add("--guidance", type=float, metavar="WEIGHT", help="as for sample.py")
    add(
        "--bounds",
        choices=["playfield", "screen", "off"],
        default="playfield",
        help="as for sample.py",
    )
    add("--half-window", type=int, help="attention half window; default: the model's")
    add("--denoising", action=boolean, default=False, help="also measure the network alone")
    add("--sampling", action=boolean, default=True, help="remap; off with --denoising alone")
    add("--device", default="auto", help="cuda, mps, cpu or auto")
    return parser


def choose_paths(folder: Path, limit: int | None) -> list[Path]:
    """The beatmap files of a folder, or `limit` of them, evenly spread."""
    paths = [source.path for source in find_beatmaps(folder) if not source.is_archive]
    if limit:
        chosen = np.linspace(0, len(paths) - 1, min(limit, len(paths))).round().astype(int)
        paths = [paths[i] for i in chosen]
    return paths


def prepare_output(args: argparse.Namespace) -> None:
    """Makes the output folder; ValueError if it would mix with the maps or replace tables."""
    if args.output.resolve().is_relative_to(args.folder.resolve()):
        raise ValueError(
            f"--output {args.output} lies in the folder that is evaluated: choose another"
        )
    for name in (TABLE, REPORT):
        command_line.claim_output(args.output / name, args.overwrite)


def report_results(output: Path, report: dict[str, Any], evaluation: Evaluation) -> None:
    """Prints the results and writes the tables to `output`; `report` says what was run."""
    summary = evaluation.summarise()
    for name, value in summary.items():
        print(
            f"{name:<42} {value:>12.4f}" if isinstance(value, float) else f"{name:<42} {value:>12}"
        )
    for entry in evaluation.failed:
        print(f"failed: {entry['file']}: {entry['reason']}")
    report = report | {"summary": summary, "failed": evaluation.failed}
    if evaluation.rows:
        for metric in evaluation.metrics:
            report |= metric.judge()
            for line in metric.lines():
                print(line)
        table = evaluation.table
        table.to_csv(output / TABLE, index=False, encoding="utf-8", errors="backslashreplace")
    text = json.dumps(report, indent=1, ensure_ascii=False)
    write_new_file(output / REPORT, text.encode("utf-8", "backslashreplace"), overwrite=True)


def check_flags(args: argparse.Namespace) -> None:
    """ValueError for flags that contradict each other."""
    if args.remaps is not None and (args.denoising or args.save_maps):
        raise ValueError("--remaps samples nothing: leave out --denoising and --save-maps")
    if args.remaps is not None and not args.remaps.is_dir():
        raise ValueError(f"--remaps {args.remaps} is not a folder")
    if not (args.sampling or args.denoising):
        raise ValueError("--no-sampling leaves nothing to do: add --denoising")


def evaluate_paths(
    loaded: LoadedModel | None, paths: list[Path], evaluation: Evaluation, args: argparse.Namespace
) -> None:
    """Measures the maps, or records why it failed. Without a model: those of --remaps."""
    seed, half_window = evaluation.options.seed, evaluation.options.half_window
    for path in tqdm(paths, desc="evaluating", unit="map", file=sys.stderr):
        place = path.relative_to(args.folder)
        try:
            if loaded is None:
                evaluation.add_existing(path, args.remaps / place)
                continue
            output = args.output / place if args.save_maps else None
            if args.denoising:
                sequence = beatmap_to_sequence(read_beatmap(path))
                evaluation.denoising.add(loaded, sequence, seed, half_window)
            if args.sampling:
                evaluation.add_remap(loaded, path, output, args.overwrite)
        except BeatmapError as error:
            evaluation.failed.append({"file": str(path), "reason": str(error)})


@naming(NAMES)
def main() -> int:
    args = make_parser().parse_args()
    check_flags(args)
    loaded = None if args.remaps else load_model(args.ckpt, command_line.pick_device(args.device))
    options = SampleOptions(
        steps=args.num_sampling_steps,
        sampler=args.sampler,
        seed=args.seed,
        spacing=Spacing.parse(args.spacing),
        bounds=args.bounds,
        structure=args.structure,
        guidance=args.guidance,
        half_window=args.half_window,
    )
    paths = choose_paths(args.folder, args.limit)
    prepare_output(args)
    evaluation = Evaluation(options)
    evaluate_paths(loaded, paths, evaluation, args)
    if not (evaluation.rows or evaluation.denoising.errors):
        raise ValueError(f"no beatmap could be evaluated in {args.folder}")
    report: dict[str, Any] = {"options": asdict(options)}
    if loaded is not None:
        report = {"checkpoint": {"file": loaded.path.name, "sha256": loaded.sha256}} | report
    report_results(args.output, report, evaluation)
    return 1 if evaluation.failed else 0


if __name__ == "__main__":
    command_line.run(main)
