"""Time, memory and quality of sampling, also of the public implementation.

Every measurement of memory runs in a process of its own.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from beatmaps.osu_file import Beatmap, parse_beatmap, read_beatmap, write_new_file
from beatmaps.sequence import Sequence, beatmap_to_sequence
from benchmarks.reference import NUM_CLASSES
from checkpoint import load_model, save_training_checkpoint
from constraints.spacing import Spacing
from conventions import command_line
from conventions.arrays import FloatArray
from conventions.bundled import DEFAULT_MODEL
from conventions.playfield import PLAYFIELD, PLAYFIELD_CENTRE
from datasets.sources import find_beatmaps
from metrics.spacing import spacing_errors
from models import SIZES, DiT_models
from sampling.generate import generate
from sampling.options import DEFAULT_STEPS, SampleOptions

POINTS_OF_REFERENCE = 2365
QUALITY_STEPS = (4, 6, 8, 12, 16, 24)
HEADER = (
    "osu file format v14\n\n[General]\nMode: 0\n\n[Metadata]\nTitle:Benchmark\nArtist:Nobody\n"
    "Creator:Nobody\nVersion:Made up\n\n[Difficulty]\nCircleSize:4\nOverallDifficulty:7\n"
    "SliderMultiplier:1.4\n\n[TimingPoints]\n0,400,4,1,0,100,1,0\n\n[HitObjects]\n"
)


@dataclass(frozen=True)
class SamplingOptions:
    """The flags of `benchmark.py sample`."""

    lengths: list[int]
    steps: list[int]
    sizes: list[str]
    repeats: int
    device: str
    threads: int
    reference: Path | None
    timed: int
    maps: Path | None
    limit: int
    ckpt: Path
    output: Path | None
    overwrite: bool


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `benchmark.py sample`."""
    add = parser.add_argument
    add("--lengths", type=int, nargs="+", default=[1000, 3000, 6000, 20_000], help="data points")
    add("--steps", type=int, nargs="+", default=[DEFAULT_STEPS], help="sampling steps")
    add(
        "--sizes",
        nargs="+",
        choices=["bundled", *SIZES],
        default=["bundled"],
        help="the bundled model, or random weights in the architecture of the public osu-diffusion",
    )
    add("--repeats", type=int, default=3, help="of which the fastest counts")
    add("--device", default="auto", help="cuda, mps, cpu or auto")
    add(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="CPU threads; default: torch's",
    )
    add("--reference", type=Path, help="checkout of the public osu-diffusion to measure beside")
    add("--timed", type=int, default=3, help="steps of it that are timed, of its 250")
    add("--maps", type=Path, help="folder of beatmaps for quality against steps")
    add("--limit", type=int, default=8, help="of them, evenly spread")
    add("--ckpt", type=Path, default=DEFAULT_MODEL, help="model for quality against steps")
    add("--output", type=Path, help="write the figures to this .json file")
    add("--overwrite", action=command_line.BooleanFlag, default=False, help="replace --output")


def run(args: argparse.Namespace) -> int:
    """`benchmark.py sample`: prints the tables that the flags ask for."""
    options = command_line.options_of(SamplingOptions, args)
    if options.output is not None:
        command_line.claim_output(options.output, options.overwrite)
    if options.reference is not None and not (options.reference / "models.py").is_file():
        raise ValueError(f"--reference {options.reference} is no checkout of osu-diffusion")
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"torch": torch.__version__, "threads": options.threads}
    cases = [(s, n, t) for s in options.sizes for n in options.steps for t in options.lengths]
    rows = [in_own_process(time_case, options, *case) for case in tqdm(cases, desc="sampling")]
    result["sampling"] = show("Sampling", rows)
    if options.reference is not None:
        result["reference"] = show(
            "Beside the public implementation", compare(options, options.reference)
        )
    if options.maps is not None:
        result["quality"] = show(
            "Quality against steps, without constraints", quality(options, options.maps)
        )
    if options.output is not None:
        text = json.dumps(result, indent=1)
        write_new_file(options.output, text.encode("utf-8"), overwrite=options.overwrite)
    return 0


def show(title: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prints a table and returns it."""
    print(f"\n{title}\n{pd.DataFrame(rows).to_string(index=False)}")
    return rows


def in_own_process(measure: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The result of a top-level function, run in a new process, so that memory starts at zero."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process has held, the device's on CUDA; NaN on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return float("nan")
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def time_case(options: SamplingOptions, size: str, steps: int, points: int) -> dict[str, Any]:
    """One row: the fastest of some warm runs of `generate` on a made-up map."""
    torch.set_num_threads(options.threads)
    device = command_line.pick_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        path = DEFAULT_MODEL
        if size != "bundled":
            path = write_reference_checkpoint(Path(folder) / "random.pt", size)
        loaded = load_model(path, device)
    _, sequence = made_up_map(points)
    sampling = SampleOptions(steps=steps)
    _, short = made_up_map(100)
    generate(loaded, short, sampling)  # warm-up
    seconds = []
    for _ in range(options.repeats):
        started = time.perf_counter()
        generate(loaded, sequence, sampling)
        seconds.append(time.perf_counter() - started)
    return {
        "size": size,
        "device": str(device),
        "steps": steps,
        "points": len(sequence),
        "seconds": round(min(seconds), 3),
        "points_per_second": round(len(sequence) / min(seconds)),
        "peak_memory_mb": round(peak_memory_mb(device)),
    }


def made_up_map(points: int, seed: int = 0) -> tuple[Beatmap, Sequence]:
    """A map of `points` data points or a few less: two circles, then a slider, repeated."""
    rng = np.random.default_rng(seed)
    lines, place = [], np.array(PLAYFIELD_CENTRE, dtype=int)
    for index in range(max(1, points // 2)):  # a pair of circles or half a slider, two points each
        time_ms = 1000 + 200 * index
        if index % 3 != 2:
            place = np.clip(place + rng.integers(-90, 91, 2), (100, 80), (412, 304))
        if index % 3 == 0:
            lines.append(f"{place[0]},{place[1]},{time_ms},1,0\n")
            lines.append(f"{place[0] + 40},{place[1]},{time_ms + 100},1,0\n")
        elif index % 3 == 1:
            curve = f"B|{place[0] + 40}:{place[1] + 30}|{place[0] + 80}:{place[1]}"
            lines.append(f"{place[0]},{place[1]},{time_ms},2,0,{curve},1,80\n")
    beatmap = parse_beatmap((HEADER + "".join(lines)).encode(), "made up")
    return beatmap, beatmap_to_sequence(beatmap)


def write_reference_checkpoint(path: Path, size: str) -> Path:
    """A model of random weights in the public implementation's architecture and file format."""
    torch.manual_seed(0)
    state = DiT_models[size](architecture="reference", num_classes=NUM_CLASSES).state_dict()
    state["xoc_embedder.playfield_size"] = torch.tensor(PLAYFIELD)
    save_training_checkpoint(path, {"ema": state})
    return path


def compare(options: SamplingOptions, reference: Path) -> list[dict[str, Any]]:
    """Defaults of both projects, and a DiT-B checkpoint in both, for a map of 2,365 data points."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_reference_checkpoint(Path(folder) / "DiT-B.pt", "DiT-B")
        theirs = time_reference(options, reference, checkpoint)
    full = theirs["seconds_a_step"] * theirs["steps"]
    case = (DEFAULT_STEPS, POINTS_OF_REFERENCE)
    rows = [{"what": f"theirs: DiT-B, {theirs['steps']} steps, extrapolated", "seconds": full}]
    for what, size in (("bundled model", "bundled"), ("the same DiT-B", "DiT-B")):
        row = in_own_process(time_case, options, size, *case)
        name = f"ours: {what}, {DEFAULT_STEPS} steps, constraints"
        rows.append({"what": name, "seconds": row["seconds"], "faster": full / row["seconds"]})
    return rows


def time_reference(options: SamplingOptions, reference: Path, checkpoint: Path) -> dict[str, Any]:
    """Runs `benchmarks/reference.py` on the checkout."""
    script = Path(__file__).parent / "reference.py"
    flags = {"points": POINTS_OF_REFERENCE, "timed": options.timed, "threads": options.threads}
    command = [sys.executable, str(script), str(reference.resolve()), str(checkpoint)]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode:
        raise ValueError(f"--reference {reference}: its sampling code failed, see above")
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


def quality(options: SamplingOptions, folder: Path) -> list[dict[str, Any]]:
    """Spacing errors, and how far turns are from real maps', by the number of steps."""
    loaded = load_model(options.ckpt, command_line.pick_device(options.device))
    paths = [source.path for source in find_beatmaps(folder)]
    chosen = np.linspace(0, len(paths) - 1, min(options.limit, len(paths))).round().astype(int)
    maps = [read_beatmap(paths[i]) for i in chosen]
    sequences = [beatmap_to_sequence(beatmap) for beatmap in maps]
    real = np.concatenate([turning_angles(s, s.xy) for s in sequences])
    rows = []
    for steps in tqdm(QUALITY_STEPS, desc="quality", unit="steps"):
        sampling = SampleOptions(steps=steps, spacing=Spacing("model"), bounds="off")
        raws = [generate(loaded, sequence, sampling)[0][0] for sequence in sequences]
        pairs = list(zip(sequences, raws, strict=True))
        errors = np.concatenate([spacing_errors(*pair) for pair in pairs])
        turns = np.concatenate([turning_angles(*pair) for pair in pairs])
        rows.append(
            {
                "steps": steps,
                "spacing_error_median": float(np.median(errors)),
                "spacing_error_p95": float(np.quantile(errors, 0.95)),
                "turning_distance": wasserstein(turns, real),
            }
        )
    return rows


def turning_angles(sequence: Sequence, xy: FloatArray) -> FloatArray:
    """|turns| in radians at objects of xy (T, 2) at least 5 px from both neighbours."""
    steps = np.diff(xy[sequence.object_starts], axis=0)
    angles = np.diff(np.arctan2(steps[:, 1], steps[:, 0]))
    apart = np.hypot(steps[:, 0], steps[:, 1]) >= 5
    turns: FloatArray = np.abs((angles + np.pi) % (2 * np.pi) - np.pi)
    return turns[apart[1:] & apart[:-1]]


def wasserstein(a: FloatArray, b: FloatArray) -> float:
    """Wasserstein-1 distance of two samples."""
    levels = (np.arange(2000) + 0.5) / 2000
    return float(np.abs(np.quantile(a, levels) - np.quantile(b, levels)).mean())
