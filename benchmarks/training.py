"""Speed of our training step, and of the public implementation's.

Both have modules of the same names, so the reference runs in a process of its own. The steps
alternate, while the other process waits: both run under the same conditions.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from conventions import command_line
from conventions.playfield import PLAYFIELD

Step = Callable[[], Any]
OUR_MODULES = ("models", "diffusion", "data_loading", "train")
FREQUENCIES, TYPES = 128, 16
"""Sizes of the reference's context: the embedding of the distance, then the type."""


@dataclass(frozen=True)
class StepOptions:
    """The flags of `benchmark.py train`."""

    reference: Path | None
    model: str
    seq_len: int
    global_batch_size: int
    num_classes: int
    steps: int
    threads: int | None
    device: str
    train_flags: list[str]


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--reference", type=Path, help="checkout of the public osu-diffusion; its code will run")
    add("--model", default="DiT-B", help="size of the network")
    add("--seq-len", type=int, default=128, help="data points in a window")
    add("--global-batch-size", type=int, default=64, help="windows in a step")
    add("--num-classes", type=int, default=1000, help="style classes")
    add("--steps", type=int, default=3, help="timed steps, after one that is not")
    add("--threads", type=int, help="CPU threads of each; default: torch's")
    add("--device", default="auto", help="cuda, mps, cpu or auto")
    add("train_flags", nargs="*", help="for our train.py, after a --, such as --use-amp --compile")


def run(args: argparse.Namespace) -> int:
    """Prints data points per second of either step, and their ratio."""
    options = command_line.options_of(StepOptions, args)
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ours = our_step(options, Path(folder))
        theirs = None
        if options.reference is not None:
            theirs = ReferenceProcess(options.reference, options)
        times: dict[str, list[float]] = {"ours": [], "reference": []}
        for _ in range(options.steps + 1):
            if theirs is not None:
                times["reference"].append(theirs.step())
            times["ours"].append(seconds(ours, options.device))
        if theirs is not None:
            theirs.close()
    points = options.global_batch_size * options.seq_len
    medians = {name: statistics.median(t[1:]) for name, t in times.items() if t}
    for name, median in medians.items():
        print(f"{name}: {median:.3f} s a step, {points / median:.0f} data points/s {times[name]}")
    if theirs is not None:
        print(f"ratio: {medians['reference'] / medians['ours']:.2f}")
    return 0


def seconds(step: Step, device: str) -> float:
    """How long a step takes, until the device has finished it."""
    start = time.perf_counter()
    step()
    if torch.cuda.is_available() and device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def our_step(options: StepOptions, folder: Path) -> Step:
    """A step of our trainer, as in a real run, on made-up maps."""
    from training.connecting import connect

    pack_random_maps(folder / "packed", options.seq_len)
    flags = ["--data-path", folder / "packed", "--results-dir", folder, "--model", options.model]
    flags += ["--seq-len", options.seq_len, "--global-batch-size", options.global_batch_size]
    flags += [
        "--num-classes",
        options.num_classes,
        "--device",
        options.device,
        *options.train_flags,
    ]
    trainer = make_our_trainer(flags)
    connect(trainer)
    batches = trainer.loader.batches()

    def step() -> None:
        number, batch = next(batches)
        trainer.train_step(batch, number)
        trainer.step = number + 1

    return step


def make_our_trainer(flags: list[Any], checkpoint: Path | None = None) -> Any:
    """The trainer of train.py with the given flags, of which --data-path is a packed dataset."""
    from conventions.ranks import Ranks
    from data_loading import PackedDataset
    from training.flags import training_options, training_parser
    from training.setup import make_trainer

    chosen = training_options(training_parser().parse_args([str(flag) for flag in flags]))
    return make_trainer(chosen, Ranks(), PackedDataset(chosen.data_path), checkpoint)


def pack_random_maps(folder: Path, seq_len: int) -> None:
    """A packed dataset with one long random walk per class, enough for some batches."""
    import numpy as np
    import pandas as pd

    from data_loading import POINT_DTYPE
    from datasets.writer import write_dataset

    generator, maps, count = np.random.default_rng(0), 64, 16 * seq_len
    points = np.zeros(maps * count, POINT_DTYPE)
    points["time"] = np.tile(np.arange(count) * 150.0, maps)
    points["x"], points["y"] = generator.uniform((0, 0), PLAYFIELD, (len(points), 2)).T
    points["type"] = generator.integers(0, TYPES, len(points))
    numbers = np.arange(maps)
    table = pd.DataFrame({"class_index": numbers, "offset": numbers * count, "count": count})
    table["md5"] = [f"{number:032x}" for number in numbers]
    table[["beatmap_id", "set_id"]] = np.stack([numbers + 1, numbers + 1], axis=1)
    table[["artist", "title", "creator", "version", "tags"]] = "random"
    table[["circle_size", "star_rating"]] = 4.0
    write_dataset(folder, points, table, {})


class ReferenceProcess:
    """The reference's training step in another process, one step at a time."""

    def __init__(self, reference: Path, options: StepOptions) -> None:
        if not (reference / "train.py").is_file():
            raise ValueError(f"{reference} is no checkout of osu-diffusion: no train.py in it")
        self.connection, theirs = get_context("spawn").Pipe()
        self.process = get_context("spawn").Process(
            target=serve_reference,
            args=(theirs, reference, options, torch.get_num_threads()),
            daemon=True,
        )
        self.process.start()
        theirs.close()

    def step(self) -> float:
        """Seconds of one more step."""
        self.connection.send(True)
        return self.connection.recv()

    def close(self) -> None:
        """Ends the process."""
        self.connection.send(False)
        self.process.join()


def serve_reference(
    connection: Connection, reference: Path, options: StepOptions, threads: int
) -> None:
    """Runs a step for every request, and answers with its seconds."""
    torch.set_num_threads(threads)
    for name in list(sys.modules):
        if name.split(".")[0] in OUR_MODULES:
            del sys.modules[name]
    sys.path.insert(0, str(reference))
    step = reference_step(options)
    while connection.recv():
        connection.send(seconds(step, options.device))


def reference_step(options: StepOptions) -> Step:
    """What the reference's train.py does in a step, with its defaults; without DDP.

    Its float16 autocast is CUDA's, so on a CPU it computes in float32 and its scaler does nothing.
    """
    import copy

    models, diffusion, train = map(import_module, ("models", "diffusion", "train"))

    device = torch.device(
        "cuda" if torch.cuda.is_available() and options.device != "cpu" else "cpu"
    )
    model = models.DiT_models[options.model](
        num_classes=options.num_classes, context_size=FREQUENCIES + TYPES, class_dropout_prob=0.2
    ).to(device)
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    chain = diffusion.create_diffusion("", noise_schedule="squaredcos_cap_v2", use_l1=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)
    scaler = torch.amp.GradScaler("cuda", enabled=device.type == "cuda")
    shape = (options.global_batch_size, options.seq_len)
    x = torch.rand(shape[0], 2, shape[1], device=device)
    condition = {
        "o": torch.rand(shape, device=device) * 1e5,
        "c": torch.rand(shape[0], FREQUENCIES + TYPES, shape[1], device=device),
        "y": torch.randint(0, options.num_classes, shape[:1], device=device),
    }
    model.train()

    def step() -> float:
        t = torch.randint(0, chain.num_timesteps, shape[:1], device=device)
        with torch.autocast("cuda", torch.float16, enabled=device.type == "cuda"):
            loss = chain.training_losses(model, x, t, condition)["loss"].mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        train.update_ema(ema, model)
        return loss.item()

    return step
