"""Remaps a folder of held-out beatmaps and measures the written files, read back.

Measured are what must not change, spacing, the playfield, shapes and stacks (`fidelity`), how
far the remaps' placement is from that of real maps (`realism`), whether two judges can tell them
apart, one by features of placement (`classifier`), one by bare geometry (`geometry_judge`), and
with --denoising the network alone. --remaps measures files that exist already.
"""

from conventions import requirements_check  # noqa: F401  (first: says what is missing)

# isort: split
import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from beatmaps.osu_file import Beatmap, BeatmapError, parse_beatmap, read_beatmap, write_new_file
from beatmaps.sequence import Sequence, beatmap_to_sequence
from beatmaps.star_rating import star_rating
from checkpoint import LoadedModel, load_model
from constraints.bounds import Bounds, bounds_named
from constraints.spacing import CHOICES, Spacing, wanted_distances
from conventions import command_line
from conventions.bundled import DEFAULT_MODEL
from datasets.sources import find_beatmaps
from diffusion.samplers import SOLVERS
from metrics import classifier
from metrics.denoising import denoising_errors
from metrics.fidelity import count_changes, count_faults, list_out_of_bounds
from metrics.geometry_judge import Geometry, judge_geometry, read_geometry
from metrics.realism import collect, compare, object_features, realism_ratio
from metrics.spacing import measure, spacing_errors, summarise_errors
from sampling.generate import generate
from sampling.options import DEFAULT_STEPS, SampleOptions
from sampling.remap import remapped_file

TABLE, REPORT = "evaluation.csv", "evaluation.json"
MAX_LISTED = 200  # objects out of bounds in the report
TELLING = 8  # features that are printed
COUNTED = (
    *("objects_lost", "objects_moved_in_time", "objects_of_other_kind", "other_bytes_changed"),
    *("objects_out_of_bounds", "objects_drawn_out_of_bounds", "objects_out_of_bounds_avoidable"),
    *("stacks", "sliders"),
)
SHARES = (
    ("stacks_broken_share", "stacks_broken", "stacks"),
    ("paths_too_short_share", "paths_too_short", "sliders_long_enough"),
    ("paths_of_other_length_share", "paths_of_other_length", "sliders"),
)


@dataclass
class Pool:
    """What is measured over all maps together.

    Spacing errors before rounding (raw) and as written, in px; features of the maps and of their
    remaps with the beatmapset of each, and their geometry; objects out of bounds; squared denoising
    errors. Remaps that were read, not sampled, have no raw errors.
    """

    starts: list[np.ndarray] = field(default_factory=list)
    raw: list[np.ndarray] = field(default_factory=list)
    written: list[np.ndarray] = field(default_factory=list)
    real: list[pd.DataFrame] = field(default_factory=list)
    remapped: list[pd.DataFrame] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    real_geometry: list[Geometry] = field(default_factory=list)
    remapped_geometry: list[Geometry] = field(default_factory=list)
    out_of_bounds: list[dict[str, Any]] = field(default_factory=list)
    denoising: dict[float, list[np.ndarray]] = field(default_factory=dict)

    def spacing(self) -> dict[str, float]:
        """Median and p95 over all data points of all maps."""
        starts = np.concatenate(self.starts)
        written = summarise_errors(np.concatenate(self.written), starts)
        if not self.raw:
            return written
        raw = summarise_errors(np.concatenate(self.raw), starts)
        return {f"raw_{name}": value for name, value in raw.items()} | written

    def denoising_rmse(self) -> dict[str, float]:
        """Root mean square over all coordinates of all maps, by noise level, in px."""
        return {
            f"denoising_rmse_at_{level:g}_px": float(np.sqrt(np.concatenate(errors).mean()))
            for level, errors in self.denoising.items()
        }


def evaluate_one(
    loaded: LoadedModel,
    path: Path,
    options: SampleOptions,
    pool: Pool,
    output: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """One row of the table: a remap of the beatmap at `path`, measured on the file it gives.

    What is judged over all maps is added to `pool`; the file is written to `output`, if given.
    """
    beatmap = read_beatmap(path)
    sequence = beatmap_to_sequence(beatmap)
    started = time.perf_counter()
    raw, placed = generate(loaded, beatmap, sequence, options)
    seconds = time.perf_counter() - started
    version = f"{beatmap.version} (AI remap)"
    data = remapped_file(beatmap, sequence, placed[0], version, options.seed)
    wanted = wanted_distances(beatmap, sequence, options.spacing)
    row: dict[str, Any] = {"file": path.name, "points": len(sequence)}
    row |= {f"raw_{k}": v for k, v in measure(sequence, raw[0], wanted).items()}
    row |= measure_file(beatmap, sequence, parse_beatmap(data, path.name), options, pool)
    row["seconds_per_1000_points"] = 1000 * seconds / len(sequence)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_new_file(output, data, overwrite=overwrite)
    pool.raw.append(spacing_errors(sequence, raw[0], wanted))
    return row


def evaluate_existing(
    path: Path, remap: Path, options: SampleOptions, pool: Pool
) -> dict[str, Any]:
    """The row of `evaluate_one` for a remap that exists, without what only sampling tells.

    Raises BeatmapError where the file `remap` is no remap of the beatmap at `path`.
    """
    beatmap, after = read_beatmap(path), read_beatmap(remap)
    changes = count_changes(beatmap, after)
    names = ("objects_lost", "objects_moved_in_time", "objects_of_other_kind")
    sequence = beatmap_to_sequence(beatmap)
    if any(changes[name] for name in names) or len(beatmap_to_sequence(after)) != len(sequence):
        raise BeatmapError(f"{remap} is no remap of {path}: its objects are not the same")
    row: dict[str, Any] = {"file": path.name, "points": len(sequence)}
    return row | measure_file(beatmap, sequence, after, options, pool)


def measure_file(
    beatmap: Beatmap, sequence: Sequence, after: Beatmap, options: SampleOptions, pool: Pool
) -> dict[str, Any]:
    """What is measured on a remap, `after`, read back from its file; `pool` is added to."""
    written = beatmap_to_sequence(after)
    wanted = wanted_distances(beatmap, sequence, options.spacing)
    row: dict[str, Any] = dict(measure(sequence, written.xy, wanted))
    row |= count_changes(beatmap, after)
    row |= count_faults(beatmap, sequence, written.xy)
    bounds = bounds_named(options.bounds, beatmap) or Bounds()
    out = list_out_of_bounds(beatmap, sequence, written.xy, wanted, bounds)
    row["objects_out_of_bounds"] = sum(entry["beyond"] > 0 for entry in out)
    row["objects_drawn_out_of_bounds"] = sum(entry["drawn_beyond"] > 0 for entry in out)
    row["objects_out_of_bounds_avoidable"] = sum(not entry["impossible"] for entry in out)
    stars = star_rating(beatmap.raw), star_rating(after.raw)
    row["stars_before"], row["stars_after"] = stars
    if stars[0] and stars[1] is not None:
        row["star_rating_change"] = stars[1] / stars[0] - 1
    pool.starts.append(sequence.object_starts)
    pool.written.append(spacing_errors(sequence, written.xy, wanted))
    pool.out_of_bounds += [{"file": Path(beatmap.name).name, **entry} for entry in out]
    pool.real.append(object_features(beatmap, sequence))
    pool.remapped.append(object_features(after, written))
    pool.real_geometry.append(read_geometry(beatmap, sequence))
    pool.remapped_geometry.append(read_geometry(after, written))
    # Difficulties that were never submitted belong to the song by its name.
    submitted = beatmap.set_id > 0
    pool.sets.append(str(beatmap.set_id) if submitted else f"{beatmap.artist} - {beatmap.title}")
    return row


def denoise_one(loaded: LoadedModel, path: Path, options: SampleOptions, pool: Pool) -> None:
    """Adds the denoising errors of the beatmap at `path` to `pool`; the noise is the seed's."""
    beatmap = read_beatmap(path)
    generator = torch.Generator().manual_seed(int(beatmap.md5[:12], 16) + options.seed)
    errors = denoising_errors(
        loaded, beatmap_to_sequence(beatmap), generator, half_window=options.half_window
    )
    for level, squares in errors.items():
        pool.denoising.setdefault(level, []).append(squares)


def summarise(table: pd.DataFrame, pool: Pool) -> dict[str, float]:
    """Spacing over all points; shares weighted by points; sums of what must not happen."""
    weight = table["points"] / table["points"].sum()
    result: dict[str, float] = {"maps": len(table), "points": int(table["points"].sum())}
    result |= pool.spacing()
    for name in ("raw_points", "raw_centres", "points", "centres"):
        name += "_off_playfield"
        if name in table:
            result[name] = float((table[name] * weight).sum())
    for name in COUNTED:
        if name in table:
            result[name] = int(table[name].sum())
    for name, part, whole in SHARES:
        if part in table and table[whole].sum():
            result[name] = float(table[part].sum() / table[whole].sum())
    if "star_rating_change" in table:
        change = table["star_rating_change"]
        result["star_rating_change_median"] = float(change.median())
        result["star_rating_change_median_absolute"] = float(change.abs().median())
    if "seconds_per_1000_points" in table:
        result["seconds_per_1000_points"] = float(table["seconds_per_1000_points"].median())
    return result


def judge(pool: Pool, seed: int) -> dict[str, Any]:
    """The distances to real maps by feature, and what two judges make of the remaps."""
    real = collect(pool.real, pool.real, pool.sets)
    distances = compare(real, collect(pool.remapped, pool.real, pool.sets), seed=seed)
    few: dict[str, Any] = {"skipped": "too few beatmapsets"}
    verdict: dict[str, Any] = {"skipped": "scikit-learn is not installed"}
    if classifier.available():
        found = classifier.classify(pool.real, pool.remapped, pool.sets, seed)
        verdict = few if found is None else asdict(found)
    geometry = judge_geometry(pool.real_geometry, pool.remapped_geometry, pool.sets, seed)
    ratio = realism_ratio(distances)
    return {
        "realism_ratio": ratio if np.isfinite(ratio) else None,
        "realism": distances,
        "classifier": verdict,
        "geometry_judge": few if geometry is None else asdict(geometry),
    }


def print_judgement(judgement: dict[str, Any]) -> None:
    """The table of distances and what the judges found."""
    print("\ndistances of distributions: remaps to their sources; to maps of other beatmapsets;")
    print("real maps to maps of other beatmapsets (conditional: within bins of spacing and rhythm)")
    table: pd.DataFrame = judgement["realism"]
    print(table.to_string(float_format="{:.4g}".format, na_rep="-"))
    if judgement["realism_ratio"] is not None:
        print(f"{'realism_ratio':<42} {judgement['realism_ratio']:>12.4f}")
    for judge_name in ("classifier", "geometry_judge"):
        verdict = judgement[judge_name]
        if "skipped" in verdict:
            print(f"{judge_name} skipped: {verdict['skipped']}")
        for name in ("auc", "map_auc", "auc_without_rules", "map_auc_without_rules"):
            if name in verdict:
                label = f"{judge_name}_{name}"
                print(f"{label:<42} {verdict[name]:>12.4f} +- {verdict[name + '_std']:.4f}")
        for name, drop in list(verdict.get("importance", {}).items())[:TELLING]:
            print(f"  without {name:<32} {-drop:>12.4f}")


def make_parser() -> argparse.ArgumentParser:
    """The command line of evaluate.py."""
    parser = argparse.ArgumentParser(
        usage="python evaluate.py FOLDER [flags]",
        description=__doc__,
        formatter_class=command_line.HelpFormatter,
    )
    add, boolean = parser.add_argument, command_line.BooleanFlag
    add("folder", type=Path, help="folder of .osu files (recursive)")
    add("--ckpt", type=Path, default=DEFAULT_MODEL, help="model: .safetensors or .pt")
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


def parse_args() -> argparse.Namespace:
    return make_parser().parse_args()


def choose_paths(folder: Path, limit: int | None) -> list[Path]:
    """The beatmap files of a folder, or `limit` of them, evenly spread."""
    paths = [source.path for source in find_beatmaps(folder) if not source.is_archive]
    if limit:
        chosen = np.linspace(0, len(paths) - 1, min(limit, len(paths))).round().astype(int)
        paths = [paths[i] for i in chosen]
    return paths


def prepare_output(args: argparse.Namespace) -> None:
    """Makes the output folder; ValueError where it would mix with the maps or replace tables."""
    if args.output.resolve().is_relative_to(args.folder.resolve()):
        raise ValueError(
            f"--output {args.output} lies in the folder that is evaluated: choose another"
        )
    for name in (TABLE, REPORT):
        command_line.claim_output(args.output / name, args.overwrite)


def report_results(
    output: Path,
    report: dict[str, Any],
    rows: list[dict[str, Any]],
    pool: Pool,
    failed: list[dict[str, str]],
) -> None:
    """Prints what was found and writes the tables to `output`; `report` has what was run."""
    table = pd.DataFrame(rows)
    summary = summarise(table, pool) if rows else {}
    summary |= pool.denoising_rmse() | {"failed": len(failed)}
    for name, value in summary.items():
        print(
            f"{name:<42} {value:>12.4f}" if isinstance(value, float) else f"{name:<42} {value:>12}"
        )
    for entry in failed:
        print(f"failed: {entry['file']}: {entry['reason']}")
    report = report | {"summary": summary, "failed": failed}
    if rows:
        judgement = judge(pool, report["options"]["seed"])
        print_judgement(judgement)
        # NaN is not JSON; pandas writes null.
        judgement["realism"] = json.loads(judgement["realism"].to_json(orient="index"))
        worst = sorted(pool.out_of_bounds, key=lambda entry: -entry["beyond"])
        report |= judgement | {"out_of_bounds": worst[:MAX_LISTED]}
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
    loaded: LoadedModel | None,
    paths: list[Path],
    options: SampleOptions,
    args: argparse.Namespace,
    pool: Pool,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows of the table, and the maps that failed with the reason. Without a model: --remaps."""
    rows, failed = [], []
    for path in tqdm(paths, desc="evaluating", unit="map", file=sys.stderr):
        place = path.relative_to(args.folder)
        try:
            if loaded is None:
                rows.append(evaluate_existing(path, args.remaps / place, options, pool))
                continue
            output = args.output / place if args.save_maps else None
            if args.denoising:
                denoise_one(loaded, path, options, pool)
            if args.sampling:
                rows.append(evaluate_one(loaded, path, options, pool, output, args.overwrite))
        except BeatmapError as error:
            failed.append({"file": str(path), "reason": str(error)})
    return rows, failed


def main() -> int:
    args = parse_args()
    check_flags(args)
    loaded = None if args.remaps else load_model(args.ckpt, command_line.pick_device(args.device))
    options = SampleOptions(
        steps=args.num_sampling_steps,
        sampler=args.sampler,
        seed=args.seed,
        spacing=Spacing.parse(args.spacing),
        bounds=args.bounds,
        half_window=args.half_window,
    )
    paths = choose_paths(args.folder, args.limit)
    prepare_output(args)
    pool = Pool()
    rows, failed = evaluate_paths(loaded, paths, options, args, pool)
    if not (rows or pool.denoising):
        raise ValueError(f"no beatmap could be evaluated in {args.folder}")
    report: dict[str, Any] = {"options": asdict(options)}
    if loaded is not None:
        report = {"checkpoint": {"file": loaded.path.name, "sha256": loaded.sha256}} | report
    report_results(args.output, report, rows, pool, failed)
    return 1 if failed else 0


if __name__ == "__main__":
    command_line.run(main)
