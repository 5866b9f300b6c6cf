"""Which kernels some steps of a run use: a trace for chrome://tracing or ui.perfetto.dev."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

log = logging.getLogger("train")
BEFORE = 5
"""Steps before the trace, in which memory and caches settle; two more warm the profiler up."""


@contextmanager
def profiled(folder: Path | None, steps: int | None) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each step; folder/trace.json then has `steps` of them."""
    if folder is None or not steps:
        yield lambda: None
        return
    path = folder / "trace.json"

    def write(profiler: profile) -> None:
        profiler.export_chrome_trace(str(path))
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=12)
        log.info("Profile of %d steps in %s\n%s", steps, path, table)

    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    plan = schedule(wait=BEFORE, warmup=2, active=steps, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write) as profiler:
        yield profiler.step
