"""Measures the loader in windows per second, also that of the public implementation.

And what it takes to open very many maps.
"""

import argparse
import importlib.util
import math
import multiprocessing
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.many_maps import opening_of, write_many_maps
from benchmarks.sampling import show
from conventions import command_line
from conventions.errors import FieldError
from data_loading import PackedDataset, WindowLoader
from datasets.pack import open_or_pack
from datasets.sources import find_beatmaps

PUBLIC_WINDOWS_PER_SECOND = 450  # of the public implementation's loader, as quoted


@dataclass(frozen=True)
class LoaderOptions:
    """The flags of `benchmark.py data`."""

    data_path: Path | None
    made_up: int | None
    points: int
    seq_len: int
    stride: int
    global_batch_size: int
    seconds: float
    reference: Path | None
    maps: int


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `benchmark.py data`."""
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data-path", type=Path, help="as for train.py; this or --made-up is needed")
    data.add_argument(
        "--made-up",
        type=int,
        metavar="MAPS",
        help="instead measure how a training process opens so many made-up maps, which are written "
        "to a temporary folder",
    )
    parser.add_argument("--points", type=int, default=1000, help="data points of a made-up map")
    parser.add_argument("--seq-len", type=int, default=128, help="data points in a window")
    parser.add_argument("--stride", type=int, default=16, help="data points between windows")
    parser.add_argument("--global-batch-size", type=int, default=256, help="windows in a batch")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to measure")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="DIR",
        help="checkout of the public implementation, whose loader then reads --maps of "
        "the .osu files in --data-path",
    )
    parser.add_argument("--maps", type=int, default=60, help="beatmaps for --reference")


def run(args: argparse.Namespace) -> int:
    """`benchmark.py data`: of maps that there are, or of made-up ones."""
    options = command_line.options_of(LoaderOptions, args)
    if options.made_up is not None:
        measure_opening(options, options.made_up)
    elif options.data_path is not None:
        measure_rates(options, options.data_path)
    return 0


def measure_opening(options: LoaderOptions, made_up: int) -> None:
    """Prints what a training process takes to open so many made-up maps, stage by stage."""
    if options.reference is not None:
        raise FieldError("{reference} reads the .osu files in {data_path}: leave out {made_up}")
    with TemporaryDirectory() as folder:
        write_many_maps(Path(folder), made_up, options.points)
        rows = opening_of(Path(folder), options.seq_len, options.stride, options.global_batch_size)
    title = f"{made_up:,} made-up maps of {options.points:,} points, batches of "
    title += f"{options.global_batch_size} windows of {options.seq_len} points"
    show(title, rows)
    if math.isnan(rows[-1]["own_memory_mb"]):
        print("own_memory_mb cannot be read on this system: Linux alone tells it")


def measure_rates(options: LoaderOptions, source: Path) -> None:
    """Prints windows per second in one process with flips, and of the public implementation."""
    with TemporaryDirectory() as folder:
        path = source
        if options.reference is not None:
            path = Path(folder) / "maps"
            reference = load_reference(options.reference)
            copied = copy_maps(source, path, options.maps, reference)
            print(f"{copied} beatmaps for both loaders")
        rate = loader_rate(open_or_pack(path, Path(folder)), options)
        print(
            f"ours, one process, flips: {rate:,.0f} windows/s, "
            f"{rate / PUBLIC_WINDOWS_PER_SECOND:.0f} times the public implementation's "
            f"quoted {PUBLIC_WINDOWS_PER_SECOND}"
        )
        if options.reference is not None:
            # Its classes cannot be sent to a process that was not forked.
            forks = multiprocessing.get_start_method() == "fork"
            for workers in (0, 4) if forks else (0,):
                theirs = reference_rate(reference, path, copied, workers, options)
                print(
                    f"public implementation, {workers} worker processes: {theirs:,.0f} windows/s; "
                    f"ours is {rate / theirs:.0f} times as fast"
                )


def loader_rate(dataset: PackedDataset, options: LoaderOptions) -> float:
    """Windows per second of our loader, including the planning of epochs."""
    loader = WindowLoader(
        dataset,
        np.arange(len(dataset)),
        seq_len=options.seq_len,
        stride=options.stride,
        batch_size=options.global_batch_size,
        seed=0,
    )
    batches = loader.batches()
    next(batches)  # imports, first touch of the file
    start = time.perf_counter()
    for done, _ in enumerate(batches, 1):
        elapsed = time.perf_counter() - start
        if elapsed > options.seconds:
            return done * options.global_batch_size / elapsed
    raise AssertionError("the loader has no end")


def load_reference(folder: Path) -> ModuleType:
    """The public implementation's data_loading.py, under a name of its own."""
    file = folder / "data_loading.py"
    if not file.is_file():
        raise ValueError(f"--reference {folder} is no checkout: there is no data_loading.py")
    spec = importlib.util.spec_from_file_location("reference_data_loading", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))  # for positional_embedding.py
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def copy_maps(source: Path, folder: Path, limit: int, reference: ModuleType) -> int:
    """Copies beatmaps, evenly chosen, into the folder layout that the public implementation reads.

    Those that it cannot read are left out. Returns how many were copied.
    """
    paths = [entry.path for entry in find_beatmaps(source) if not entry.is_archive]
    count = 0
    for index in np.unique(np.linspace(0, len(paths) - 1, min(limit, len(paths))).astype(int)):
        try:
            reference.load_and_process_beatmap(reference.Beatmap.from_path(paths[index]))
        except Exception as error:
            print(f"left out {paths[index].name}, which it cannot read: {error!r}")
            continue
        target = folder / f"Track{count:05d}" / "beatmaps" / f"{count:06d}M000.osu"
        target.parent.mkdir(parents=True)
        shutil.copyfile(paths[index], target)
        count += 1
    if not count:
        raise ValueError(f"{source} has no .osu file that the public implementation can read")
    return count


def reference_rate(
    reference: ModuleType, path: Path, tracks: int, workers: int, options: LoaderOptions
) -> float:
    """Windows per second of its loader over one epoch, with the options of its train.py."""
    factory = reference.BeatmapDatasetIterableFactory(
        options.seq_len,
        options.stride,
        reference.load_and_process_beatmap,
        reference.window_and_relative_time,
    )
    loader: Any = reference.get_data_loader(
        dataset_path=str(path),
        start=0,
        end=tracks,
        iterable_factory=factory,
        cycle_length=options.global_batch_size // 2,
        batch_size=options.global_batch_size,
        num_workers=workers,
        shuffle=True,
        drop_last=False,  # in so short an epoch it would drop much, to its disadvantage
    )
    start = time.perf_counter()
    windows = sum(len(classes) for _, classes in loader)
    return windows / (time.perf_counter() - start)
