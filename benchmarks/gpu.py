"""Everything that only a GPU can tell, in one command of some minutes that needs no network.

Each figure is a line of JSON, printed and appended to OUTPUT/results.jsonl at once, so that an
interrupted run still has results. A failure, or a lack of memory, is a line, too; the rest goes on.
"""

import argparse
import gc
import json
import os
import platform
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import device_sampling, device_training
from benchmarks.parity import Problem, parity
from benchmarks.training import pack_random_maps
from conventions import command_line
from conventions.precision import has_bf16
from data_loading import PackedDataset
from models import SIZES
from training.log import measured_peak_flops

Line = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What the sections measure on; `tiny` is for a CPU, to test the command."""

    device: torch.device
    data: Path
    scratch: Path
    output: Path
    sizes: tuple[str, ...]
    model: str
    seq_len: int
    windows: int
    lengths: tuple[int, ...]
    variants: tuple[int, ...]
    steps: int
    compiled: tuple[bool, ...]
    peak_tflops: float | None
    deadline: float

    def left(self) -> float:
        """Seconds until the command should end."""
        return self.deadline - time.monotonic()


Section = Callable[[Setting], Iterator[Line]]


@dataclass(frozen=True)
class GpuOptions:
    """The flags of `benchmark.py gpu`."""

    output: Path
    data_path: Path | None
    minutes: float
    device: str
    model: str
    sections: list[str]
    peak_tflops: float | None
    tiny: bool
    overwrite: bool


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `benchmark.py gpu`."""
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder for results.jsonl and the weights")
    add("--data-path", type=Path, help="packed dataset; default: made-up maps")
    add("--minutes", type=float, default=8.0, help="after which it ends")
    add("--device", default="auto", help="cuda, mps, cpu or auto")
    add("--model", choices=list(SIZES), default="DiT-XS", help="size that is trained at the end")
    add("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="which")
    add("--peak-tflops", type=float, help="of one device, for the MFU; default: measured")
    add(
        "--tiny",
        action=command_line.BooleanFlag,
        default=False,
        help="small enough for a CPU: to see that it works",
    )
    add("--overwrite", action=command_line.BooleanFlag, default=False, help="replace results.jsonl")


def run(args: argparse.Namespace) -> int:
    """`benchmark.py gpu`: 0 if every section ran and found no fault."""
    options = command_line.options_of(GpuOptions, args)
    started = time.monotonic()
    results = options.output / "results.jsonl"
    command_line.claim_output(results, options.overwrite)
    results.unlink(missing_ok=True)
    # Before the first matrix product: without this cuBLAS is not deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if options.tiny:
        torch.set_num_threads(1)
    failed = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        setting = make_setting(options, Path(folder), started + 60 * options.minutes)
        for number, name in enumerate(options.sections):
            rest = sum(SECTIONS[other][1] for other in options.sections[number:])
            share = setting.left() * SECTIONS[name][1] / rest
            ending = min(setting.deadline, time.monotonic() + share)
            section = SECTIONS[name][0]
            good = write_section(name, section, with_deadline(setting, ending), results)
            failed += [] if good else [name]
        tell(results, "end", {"failed": failed, "seconds": round(time.monotonic() - started, 1)})
    return int(bool(failed))


def make_setting(options: GpuOptions, scratch: Path, deadline: float) -> Setting:
    """Models, lengths and other sizes of all measurements."""
    device = command_line.pick_device(options.device)
    seq_len = 32 if options.tiny else 128
    data = options.data_path
    if data is None:
        data = scratch / "made up"
        pack_random_maps(data, seq_len)
    return Setting(
        device=device,
        data=data,
        scratch=scratch,
        output=options.output,
        sizes=("DiT-nano",) if options.tiny else tuple(reversed(list(SIZES)[:5])),
        model="DiT-nano" if options.tiny else options.model,
        seq_len=seq_len,
        windows=4 if options.tiny else 256,
        lengths=(40,) if options.tiny else (1000, 3000, 20_000),
        variants=(1, 2) if options.tiny else (1, 16),
        steps=3 if options.tiny else 10,
        compiled=(False, True) if device.type == "cuda" else (False,),
        peak_tflops=options.peak_tflops,
        deadline=deadline,
    )


def with_deadline(setting: Setting, deadline: float) -> Setting:
    """The same setting with the deadline of one section."""
    return Setting(**{**vars(setting), "deadline": deadline})


def write_section(name: str, section: Section, setting: Setting, results: Path) -> bool:
    """Writes a section's lines; returns whether it finished without a fault."""
    good, started = True, time.monotonic()
    try:
        for line in section(setting):
            good &= bool(line.get("ok", True))
            tell(results, name, {**line, "seconds": round(time.monotonic() - started, 2)})
            started = time.monotonic()
    except Exception as error:  # whatever it is, the other sections still run
        where = traceback.format_exc().splitlines()[-7:]
        reason = f"{type(error).__name__}: {error}"[:1000]
        tell(results, name, {"ok": False, "error": reason, "where": where})
        good = False
    clean_up()
    return good


def tell(results: Path, section: str, line: Line) -> None:
    """Writes one line to the screen and to the file at once."""
    text = json.dumps({"section": section, **line})
    print(text, flush=True)
    with results.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


def clean_up() -> None:
    """Frees memory and compiled code before the next measurement."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def what_is_here(setting: Setting) -> Iterator[Line]:
    """The machine, and the matrix products by which its peak is measured."""
    device = setting.device
    line: Line = {
        "device": str(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    line["bf16"] = has_bf16(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        line["name"] = properties.name
        line["capability"] = f"{properties.major}.{properties.minor}"
        line["memory_gib"] = round(properties.total_memory / 2**30, 1)
        line["cuda"] = torch.version.cuda
    yield line
    dtypes = (
        (torch.float32, torch.bfloat16, torch.float16)
        if device.type == "cuda"
        else (torch.float32,)
    )
    for dtype in dtypes:
        peak = measured_peak_flops(device, dtype)
        yield {"matrix_products": str(dtype), "tflops": round(peak / 1e12, 2)}


def parity_section(setting: Setting) -> Iterator[Line]:
    """Forward pass, loss, gradients and samples, compared with the CPU in float64."""
    size = "DiT-nano" if setting.model == "DiT-nano" else "DiT-XS"
    problem = Problem.make(PackedDataset(setting.data), size, 4, setting.seq_len)
    for line in parity(problem, setting.device, setting.compiled):
        yield {"model": size, **line}


def determinism(setting: Setting) -> Iterator[Line]:
    yield from device_training.determinism(trained(setting), setting.steps)


def resume(setting: Setting) -> Iterator[Line]:
    yield device_training.resume(trained(setting), setting.scratch, setting.steps)


def throughput(setting: Setting) -> Iterator[Line]:
    """Training steps of every size, eager and compiled, the smallest first."""
    peaks: dict[torch.dtype, float] = {}
    for size in setting.sizes:
        for compiled in setting.compiled:
            if setting.left() < 0:
                yield {"model": size, "compiled": compiled, "skipped": "no time is left for it"}
                continue
            flags = [*flags_of(setting, size), "--compile" if compiled else "--no-compile"]
            try:
                yield device_training.throughput(flags, setting.steps, peaks, setting.peak_tflops)
            except torch.OutOfMemoryError as error:
                yield {"model": size, "compiled": compiled, "does_not_fit": str(error)[:200]}
            clean_up()


def sampling(setting: Setting) -> Iterator[Line]:
    """The network alone at every length, then all of sampling if beatmaps can be read."""
    size = setting.model
    cases = [(t, n) for t in setting.lengths for n in setting.variants]
    for whole in (False, True):
        if whole and not device_sampling.can_read_beatmaps():
            yield {"skipped": "all of sampling: the package slider is not installed"}
            return
        measure = device_sampling.whole if whole else device_sampling.network_alone
        for length, variants in cases:
            case = {"points": length, "variants": variants, "constraints": whole}
            if setting.left() < 0:
                yield {**case, "skipped": "no time is left for it"}
                continue
            for line in measure(setting.device, size, length, variants, setting.compiled):
                yield {**case, **line}
            clean_up()


def two_processes(setting: Setting) -> Iterator[Line]:
    """Two processes on one device, through gloo, compared with one: `train.py` itself."""
    flags = flags_of(setting, setting.model)
    yield from device_training.two_processes(flags, setting.scratch, 2 * setting.steps)


def training(setting: Setting) -> Iterator[Line]:
    """`train.py` with the time that is left, and its weights."""
    often = 1 if setting.device.type == "cpu" else 50
    flags = [*flags_of(setting, setting.model), *device_training.RECIPE, "--log-every", often]
    # Starting, compiling and exporting do not count in these minutes.
    minutes = max(setting.left() - 60, 5) / 60
    yield from device_training.training(flags, setting.scratch, setting.output, minutes)


def flags_of(setting: Setting, size: str) -> list[Any]:
    """A command line of train.py."""
    flags = ["--data-path", setting.data, "--results-dir", setting.scratch / "results"]
    flags += ["--model", size, "--seq-len", setting.seq_len, "--device", setting.device.type]
    return [*flags, "--global-batch-size", setting.windows]


def trained(setting: Setting) -> list[Any]:
    """The command line of a small run whose weights are compared."""
    size = "DiT-nano" if setting.model == "DiT-nano" else "DiT-XS"
    return [*flags_of(setting, size), "--global-batch-size", min(32, setting.windows)]


SECTIONS: dict[str, tuple[Section, float]] = {
    "device": (what_is_here, 1),
    "parity": (parity_section, 4),
    "determinism": (determinism, 3),
    "resume": (resume, 2),
    "throughput": (throughput, 24),
    "sampling": (sampling, 8),
    "processes": (two_processes, 6),
    "training": (training, 12),
}
"""The sections in their order, and their shares of the time; unused time goes to the next."""
