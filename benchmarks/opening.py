"""Measures how a training process opens a packed dataset; `benchmark.py data` runs it.

It needs a process of its own: its memory is then that of training and nothing else, and it can tell
what torch takes of it. `benchmark.py` has long imported torch, also where it is spawned anew.
"""

import argparse
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conventions import command_line
from data_loading import PackedDataset, WindowLoader

HELD_OUT = 0.05  # of the beatmapsets
MORE_BATCHES = 20
STATUS = Path("/proc/self/status")


def own_memory_mb() -> float:
    """The memory of this process in MiB without mapped files, such as the points of a dataset.

    NaN where the system does not tell, which Linux alone does.
    """
    try:
        found = re.search(r"^RssAnon:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) / 2**10 if found else float("nan")


class Meter:
    """What each stage of some work takes: seconds by the clock and of CPU, memory at its end."""

    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def row(self, stage: str) -> dict[str, Any]:
        """The stage that ends now."""
        clock, cpu = time.perf_counter(), time.process_time()
        row = {
            "stage": stage,
            "seconds": round(clock - self._clock, 3),
            "cpu_seconds": round(cpu - self._cpu, 3),
            "own_memory_mb": round(own_memory_mb(), 1),
        }
        self._clock, self._cpu = time.perf_counter(), time.process_time()
        return row


def stages(
    folder: Path, seq_len: int, stride: int, global_batch_size: int
) -> Iterator[dict[str, Any]]:
    """Opens a packed dataset as training does, stage by stage; the rows of a table.

    ValueError as of `PackedDataset` and `WindowLoader`.
    """
    meter = Meter()
    yield meter.row("before torch")
    # What train.py imports, and what the dataset would only import when it is opened.
    import pandas  # noqa: F401

    import training.setup  # noqa: F401

    yield meter.row("imports")
    dataset = PackedDataset(folder)
    yield meter.row("opening")
    rows, _ = dataset.split_by_set(HELD_OUT)
    yield meter.row(f"holding out {HELD_OUT:.0%} of sets")
    loader = WindowLoader(
        dataset, rows, seq_len=seq_len, stride=stride, batch_size=global_batch_size, seed=0
    )
    windows = len(loader.windows(0).rows)
    yield meter.row(f"plan of {windows:,} windows")
    batches = loader.batches()
    next(batches)
    yield meter.row("first batch")
    for _ in range(MORE_BATCHES):
        next(batches)
    yield meter.row(f"{MORE_BATCHES} more batches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name in ("--seq-len", "--stride", "--global-batch-size"):
        parser.add_argument(name, type=int, required=True)
    print(json.dumps(list(stages(**vars(parser.parse_args())))))


if __name__ == "__main__":
    command_line.run(main)
