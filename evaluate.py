"""Remaps a folder of held-out beatmaps and measures the written files, read back."""

import argparse
import json
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

import cli
from beatmap import Beatmap, BeatmapError, parse_beatmap, read_beatmap, write_new_file
from checkpoint import LoadedModel, load_model
from diffusion.samplers import SAMPLERS
from fidelity import count_faults, out_of_bounds
from generation import (
    DEFAULT_STEPS,
    SampleOptions,
    generate,
    measure,
    spacing_errors,
    summarise_errors,
)
from playfield import Bounds, bounds_named
from sample import DEFAULT_MODEL, remapped_file
from sequence import Sequence, beatmap_to_sequence
from sources import find_beatmaps
from spacing import CHOICES, Spacing, wanted_distances
from star_rating import star_rating

COUNTS = (
    "objects_lost",
    "objects_moved_in_time",
    "objects_of_other_kind",
    "objects_out_of_bounds",
    "objects_drawn_out_of_bounds",
    "stacks",
    "stacks_broken",
    "sliders",
    "sliders_long_enough",
    "paths_too_short",
    "paths_of_other_length",
)
SHARES = (
    ("stacks_broken_share", "stacks_broken", "stacks"),
    ("paths_too_short_share", "paths_too_short", "sliders_long_enough"),
    ("paths_of_other_length_share", "paths_of_other_length", "sliders"),
)
MARGIN = 1e-3  # px, for what rounding of floats puts out of bounds
TABLE, REPORT = "evaluation.csv", "evaluation.json"
EDITED = re.compile(rb"\s*(Version|BeatmapID|Tags)\s*:")


def skeleton(data: bytes, object_lines: set[int]) -> list[bytes]:
    """The lines of a file without what a remap may change.

    Left out are the metadata lines that it edits, and in hit-object lines (numbers in
    `object_lines`) the coordinates; of a curve its letters and number of points remain.
    """
    lines = []
    for number, line in enumerate(data.splitlines(keepends=True)):
        if number in object_lines:
            fields = line.split(b",")
            fields[:2] = [b"", b""]
            if len(fields) > 5 and b"|" in fields[5]:
                fields[5] = re.sub(rb"-?[\d.]+:-?[\d.]+", b":", fields[5])
            lines.append(b",".join(fields))
        elif not EDITED.match(line):
            lines.append(line)
    return lines


def count_changes(before: Beatmap, after: Beatmap) -> dict[str, int]:
    """What a remap must not change, and how often it did: all should be 0."""
    lines = [
        skeleton(b.raw, {hit_object.line for hit_object in b.objects}) for b in (before, after)
    ]
    pairs = list(zip(before.objects, after.objects, strict=False))
    return {
        "objects_lost": abs(len(before.objects) - len(after.objects)),
        "objects_moved_in_time": sum(
            a.time != b.time or abs(a.end_time - b.end_time) > 0.5 for a, b in pairs
        ),
        "objects_of_other_kind": sum(
            (a.kind, a.slides, a.new_combo) != (b.kind, b.slides, b.new_combo) for a, b in pairs
        ),
        "other_bytes_changed": sum(a != b for a, b in zip(*lines, strict=False))
        + abs(len(lines[0]) - len(lines[1])),
    }


@dataclass
class Pool:
    """Spacing errors of all maps together, before rounding (raw) and as written, in px."""

    starts: list[np.ndarray] = field(default_factory=list)
    raw: list[np.ndarray] = field(default_factory=list)
    written: list[np.ndarray] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Median and p95 over all data points of all maps."""
        starts = np.concatenate(self.starts)
        raw = summarise_errors(np.concatenate(self.raw), starts)
        written = summarise_errors(np.concatenate(self.written), starts)
        return {f"raw_{name}": value for name, value in raw.items()} | written


def evaluate_one(
    loaded: LoadedModel,
    path: Path,
    options: SampleOptions,
    pool: Pool,
    output: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """One row of the table: a remap of the beatmap at `path`, measured on the file it gives.

    The errors of its points are added to `pool`; the file is written to `output`, if given.
    """
    beatmap = read_beatmap(path)
    sequence = beatmap_to_sequence(beatmap)
    started = time.perf_counter()
    raw, placed = generate(loaded, beatmap, sequence, options)
    seconds = time.perf_counter() - started
    version = f"{beatmap.version} (AI remap)"
    data = remapped_file(beatmap, sequence, placed[0], version, options.seed)
    after = parse_beatmap(data, path.name)
    written: Sequence = beatmap_to_sequence(after)
    row: dict[str, Any] = {"file": path.name, "points": len(sequence)}
    wanted = wanted_distances(beatmap, sequence, options.spacing)
    row |= {f"raw_{k}": v for k, v in measure(sequence, raw[0], wanted).items()}
    row |= measure(sequence, written.xy, wanted)
    row |= count_changes(beatmap, after)
    row |= count_faults(beatmap, sequence, written.xy)
    bounds = bounds_named(options.bounds, beatmap) or Bounds()
    plain, drawn = out_of_bounds(beatmap, sequence, written.xy, bounds)
    row["objects_out_of_bounds"] = int((plain > MARGIN).sum())
    row["objects_drawn_out_of_bounds"] = int((drawn > MARGIN).sum())
    row["out_of_bounds"] = list_objects(beatmap, np.maximum(plain, drawn))
    stars = star_rating(beatmap.raw), star_rating(data)
    row["stars_before"], row["stars_after"] = stars
    if stars[0] and stars[1] is not None:
        row["star_rating_change"] = stars[1] / stars[0] - 1
    row["seconds_per_1000_points"] = 1000 * seconds / len(sequence)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_new_file(output, data, overwrite=overwrite)
    pool.starts.append(sequence.object_starts)
    pool.raw.append(spacing_errors(sequence, raw[0], wanted))
    pool.written.append(spacing_errors(sequence, written.xy, wanted))
    return row


def list_objects(beatmap: Beatmap, excess: np.ndarray) -> str:
    """Times in ms of the objects that are out of bounds, and by how many px, for the table."""
    found = np.flatnonzero(excess > MARGIN)
    return " ".join(f"{beatmap.objects[i].time:.0f}:{excess[i]:.2f}px" for i in found)


def summarise(table: pd.DataFrame, pool: Pool) -> dict[str, float]:
    """Spacing over all points; shares weighted by points; sums of what must not happen."""
    weight = table["points"] / table["points"].sum()
    result: dict[str, float] = {"maps": len(table), "points": int(table["points"].sum())}
    result |= pool.summary()
    for name in table.columns:
        if "off_playfield" in name:
            result[name] = float((table[name] * weight).sum())
    for name in COUNTS:
        result[name] = int(table[name].sum())
    for share, fault, whole in SHARES:
        result[share] = result[fault] / max(1, result[whole])
    result["other_bytes_changed"] = int(table["other_bytes_changed"].sum())
    if "star_rating_change" in table:
        change = table["star_rating_change"]
        result["star_rating_change_median"] = float(change.median())
        result["star_rating_change_median_absolute"] = float(change.abs().median())
    result["seconds_per_1000_points"] = float(table["seconds_per_1000_points"].median())
    return result


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add, boolean = parser.add_argument, cli.BooleanFlag
    add("folder", type=Path, help="folder of .osu files (recursive)")
    add("--ckpt", type=Path, default=DEFAULT_MODEL, help="model: .safetensors or .pt")
    add("--output", type=Path, default=Path("results/evaluation"), help="folder for the tables")
    add("--save-maps", action=boolean, default=False, help="also write the remapped files there")
    add("--overwrite", action=boolean, default=False, help="replace existing tables and maps")
    add("--limit", type=int, help="only so many maps, evenly spread")
    add("--seed", type=int, default=0)
    add("--num-sampling-steps", type=int, default=DEFAULT_STEPS)
    add("--sampler", choices=["auto", *SAMPLERS], default="auto")
    add("--spacing", default="keep", help=CHOICES)
    add("--bounds", choices=["playfield", "screen", "off"], default="playfield")
    add("--half-window", type=int, help="attention half window; default: the model's")
    add("--device", default="auto", help="cuda, mps, cpu or auto")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    loaded = load_model(args.ckpt, cli.pick_device(args.device))
    options = SampleOptions(
        steps=args.num_sampling_steps,
        sampler=args.sampler,
        seed=args.seed,
        spacing=Spacing.parse(args.spacing),
        bounds=args.bounds,
        half_window=args.half_window,
    )
    sources = find_beatmaps(args.folder)
    paths = [source.path for source in sources if not source.is_archive]
    if args.limit:
        chosen = np.linspace(0, len(paths) - 1, min(args.limit, len(paths))).round().astype(int)
        paths = [paths[i] for i in chosen]
    if args.output.resolve().is_relative_to(args.folder.resolve()):
        raise ValueError(
            f"--output {args.output} lies in the folder that is evaluated: choose another"
        )
    existing = [args.output / name for name in (TABLE, REPORT) if (args.output / name).exists()]
    if existing and not args.overwrite:
        raise ValueError(f"{existing[0]} exists: add --overwrite or choose another --output")
    args.output.mkdir(parents=True, exist_ok=True)
    rows, failed, pool = [], [], Pool()
    for path in tqdm(paths, desc="evaluating", unit="map", file=sys.stderr):
        try:
            output = args.output / path.relative_to(args.folder) if args.save_maps else None
            rows.append(evaluate_one(loaded, path, options, pool, output, args.overwrite))
        except BeatmapError as error:
            failed.append({"file": str(path), "reason": str(error)})
    if not rows:
        raise ValueError(f"no beatmap could be evaluated in {args.folder}")
    table = pd.DataFrame(rows)
    summary = summarise(table, pool) | {"failed": len(failed)}
    for name, value in summary.items():
        print(
            f"{name:<42} {value:>12.4f}" if isinstance(value, float) else f"{name:<42} {value:>12}"
        )
    for entry in failed:
        print(f"failed: {entry['file']}: {entry['reason']}")
    table.to_csv(args.output / TABLE, index=False, encoding="utf-8", errors="backslashreplace")
    report = {
        "checkpoint": {"file": loaded.path.name, "sha256": loaded.sha256},
        "options": asdict(options),
        "summary": summary,
        "failed": failed,
    }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    write_new_file(args.output / REPORT, text.encode("utf-8", "backslashreplace"), overwrite=True)
    return 1 if failed else 0


if __name__ == "__main__":
    cli.run(main)
