"""Training on a device: whether it repeats and resumes bit for bit, its speed, a whole run."""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._dynamo.utils import counters

from benchmarks.parity import equal_weights
from benchmarks.sampling import peak_memory_mb
from benchmarks.training import make_our_trainer
from checkpoint import save_training_checkpoint
from training.connecting import connect
from training.log import measured_peak_flops, read_metrics, training_flops
from training.trainer import Trainer

Flags = list[Any]
ROOT = Path(__file__).resolve().parent.parent
PIECE_BYTES = 15 * 2**20
MOST_MINUTES = 60.0
RECIPE = (
    *("--stride", 32, "--lr", 2e-3, "--warmup-steps", 300, "--class-dropout", 0.2),
    *("--distance-dropout", 0.1),
)


def start(flags: Flags, checkpoint: Path | None = None) -> Trainer:
    """A trainer, ready for its next step."""
    trainer: Trainer = make_our_trainer(flags, checkpoint)
    connect(trainer)
    return trainer


def go_on(trainer: Trainer, steps: int) -> list[float]:
    """Trains some steps; returns the loss of each."""
    losses: list[torch.Tensor] = []
    for step, batch in trainer.loader.batches(trainer.step):
        if len(losses) == steps:
            break
        losses.append(trainer.train_step(batch, step).losses.mean())
        trainer.step = step + 1
    return torch.stack(losses).tolist()


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Uses torch's deterministic kernels where they exist."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def determinism(flags: Flags, steps: int) -> Iterator[dict[str, Any]]:
    """The same run twice: with the default kernels, and with torch's deterministic ones.

    Only the runs with deterministic kernels must be equal.
    """
    for strict in (False, True):
        with deterministic(strict):
            trainers = [start([*flags, "--no-compile"]) for _ in range(2)]
            losses = [go_on(trainer, steps) for trainer in trainers]
        equal, largest = equal_weights(trainers[0].model, trainers[1].model)
        line = {"deterministic_kernels": strict, "equal": equal, "largest_difference": largest}
        yield {**line, "equal_losses": losses[0] == losses[1], "ok": equal or not strict}


def resume(flags: Flags, scratch: Path, steps: int) -> dict[str, Any]:
    """Compares a run that is saved half way and resumed with an uninterrupted one."""
    path = scratch / "half.pt"
    with deterministic(True):
        whole = start([*flags, "--no-compile"])
        go_on(whole, steps)
        save_training_checkpoint(path, whole.state())
        go_on(whole, steps)
        resumed = start([*flags, "--no-compile"], path)
        go_on(resumed, steps)
    equal, largest = equal_weights(whole.model, resumed.model)
    equal_average, _ = equal_weights(whole.ema.module, resumed.ema.module)
    return {
        "steps": [steps, steps],
        "equal": equal,
        "equal_average": equal_average,
        "largest_difference": largest,
        "ok": equal and equal_average,
    }


def throughput(
    flags: Flags, steps: int, peaks: dict[torch.dtype, float], peak_tflops: float | None
) -> dict[str, Any]:
    """Steps of one size: seconds, points, MFU, memory, compile time."""
    counters.clear()
    begun = time.perf_counter()
    trainer = start(flags)
    losses = go_on(trainer, 2)
    ready = time.perf_counter() - begun
    times = []
    for _ in range(steps):
        before = time.perf_counter()
        losses += go_on(trainer, 1)  # waits for the device
        times.append(time.perf_counter() - before)
    options, objective, seconds = trainer.options, trainer.objective, statistics.median(times)
    flops = training_flops(objective.config, options.seq_len, objective.half_window)
    dtype = objective.amp_dtype if objective.amp else objective.dtype
    if peak_tflops is None and dtype not in peaks:
        peaks[dtype] = measured_peak_flops(trainer.device, dtype)
    peak = peaks[dtype] if peak_tflops is None else peak_tflops * 1e12
    rate = flops * options.global_batch_size / seconds
    return {
        "model": options.model,
        "compiled": trainer.compiled,
        "dtype": str(dtype),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "windows": options.global_batch_size,
        "parts": trainer.parts,
        "step_seconds": round(seconds, 4),
        "points_per_second": round(options.global_batch_size * options.seq_len / seconds),
        "tflops": round(rate / 1e12, 2),
        "mfu": round(rate / peak, 4),
        "peak_memory_mb": round(peak_memory_mb(trainer.device)),
        "ready_seconds": round(ready, 1),
        "graphs": counters["stats"]["unique_graphs"],
        "ok": bool(np.isfinite(losses).all()),
    }


def command(flags: Flags, processes: int = 1) -> list[str]:
    """train.py as a command line, alone or on several processes of this machine."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launcher, str(ROOT / "train.py"), *map(str, flags)]


def run_train(flags: Flags, results: Path, processes: int = 1, limit: float = 600) -> Path:
    """Runs train.py; returns its run's folder. A RuntimeError holds the end of its output."""
    flags = [*flags, "--results-dir", results, "--resume", "never", "--dist", "gloo"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    ran = subprocess.run(
        command(flags, processes),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"train.py ended with {ran.returncode}: {ran.stdout[-1500:]}")
    return max(path for path in results.iterdir() if path.name[:3].isdecimal())


def two_processes(flags: Flags, scratch: Path, steps: int) -> Iterator[dict[str, Any]]:
    """Losses and steps/s of one and of two processes on one device, in float32."""
    flags = [*flags, "--max-steps", steps, "--log-every", 1, "--no-use-amp", "--no-compile"]
    flags += ["--lr", 1e-3, "--warmup-steps", 1]  # so that a fault soon shows
    losses = []
    for processes in (1, 2):
        folder = run_train(flags, scratch / f"{processes} processes", processes)
        lines = read_metrics(folder / "metrics.jsonl")
        losses.append(np.array([line["loss"] for line in lines]))
        rate = statistics.median(line["steps_per_second"] for line in lines)
        yield {"processes": processes, "steps_per_second": rate, "loss": lines[-1]["loss"]}
    difference = float(np.abs(losses[0] / losses[1] - 1).max())
    yield {"largest_relative_difference_of_losses": difference, "ok": difference < 1e-3}


def training(flags: Flags, scratch: Path, output: Path, minutes: float) -> Iterator[dict[str, Any]]:
    """A run of so many minutes; its weights are split into pieces, which `cat` joins."""
    minutes = min(minutes, MOST_MINUTES)
    flags = [*flags, "--max-minutes", minutes]
    folder = run_train(flags, scratch / "training", limit=60 * minutes + 300)
    lines = read_metrics(folder / "metrics.jsonl")
    (output / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    yield {
        "minutes": round(minutes, 2),
        "steps": lines[-1]["step"],
        "first_loss": lines[0]["loss"],
        "loss": lines[-1]["loss"],
        "mfu": lines[-1]["mfu"],
        "points_per_second": lines[-1]["points_per_second"],
    }
    yield write_pieces(folder / "model.safetensors", output)


def write_pieces(weights: Path, output: Path, size: int = PIECE_BYTES) -> dict[str, Any]:
    """Copies a file in pieces of at most `size` bytes, whose names sort in their order."""
    data = weights.read_bytes()
    names = []
    for number, first in enumerate(range(0, len(data), size)):
        names.append(f"{weights.name}.{number:03d}")
        (output / names[-1]).write_bytes(data[first : first + size])
    return {"pieces": names, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
