"""Time and memory of sampling on a device: the network alone, and with all that a map must keep."""

import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.sampling import made_up_map, peak_memory_mb
from checkpoint import load_model
from conventions.bundled import DEFAULT_MODEL
from conventions.precision import has_bf16
from diffusion.parametrisation import EDM, Network
from diffusion.samplers import sample_dpmpp_2m
from models import Conditions, DiT_models, bind
from sampling.generate import generate
from sampling.options import SampleOptions

REPEATS, STEPS = 3, 12


def can_read_beatmaps() -> bool:
    """Whether the package that parses beatmaps is installed."""
    try:
        return find_spec("slider") is not None
    except ValueError:  # it was removed from sys.modules on purpose
        return False


def made_up_conditions(points: int, variants: int, device: torch.device, null: int) -> Conditions:
    """The conditions of a random walk, repeated `variants` times."""
    rng = np.random.default_rng(0)
    times = 1000 + 150.0 * np.arange(points)
    classes = torch.tensor([null], device=device)
    distances, types = rng.uniform(0, 200, points), rng.integers(0, 2, points)
    return Conditions.of_arrays(times, distances, types, classes).repeat(variants)


@torch.inference_mode()
def network_alone(
    device: torch.device, size: str, points: int, variants: int, compiled: tuple[bool, ...]
) -> Iterator[dict[str, Any]]:
    """Results for the model without constraints, eager and compiled."""
    torch.manual_seed(0)
    model = DiT_models[size](architecture="local", num_classes=1).eval().to(device)
    conditions = made_up_conditions(points, variants, device, model.null_class)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(variants, points, 2, generator=generator).to(device)
    for compile_it in compiled:
        used: Any = torch.compile(model, mode="reduce-overhead") if compile_it else model
        network = bind(used, conditions, use_amp=has_bf16(device))
        line = timed(device, lambda network=network: solve(network, noise))  # type: ignore[misc]
        yield {"model": size, "compiled": compile_it, **line}


def solve(network: Network, noise: Tensor) -> Tensor:
    """Coordinates (N, T, 2) in network units from unit noise (N, T, 2)."""
    # The output of a captured graph is overwritten by its next run.
    denoise, _ = EDM().denoiser(lambda x, labels: network(x, labels).clone())
    sigmas = EDM().sigmas(STEPS)
    return sample_dpmpp_2m(denoise, noise * float(sigmas[0]), sigmas)


def whole(
    device: torch.device, size: str, points: int, variants: int, compiled: tuple[bool, ...]
) -> Iterator[dict[str, Any]]:
    """Results of `generate` with the bundled model and every constraint."""
    loaded, (_, sequence) = load_model(DEFAULT_MODEL, device), made_up_map(points)
    options = SampleOptions(variants=variants, steps=STEPS)
    line = timed(device, lambda: generate(loaded, sequence, options), repeats=1)
    yield {"model": "bundled", **line}


def timed(
    device: torch.device, run: Callable[[], object], repeats: int = REPEATS
) -> dict[str, Any]:
    """Median seconds of runs after a first one that warms up, its seconds, and peak memory."""
    times = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return {
        "seconds": round(statistics.median(times[1:]), 4),
        "first_seconds": round(times[0], 3),
        "peak_memory_mb": round(peak_memory_mb(device)),
    }
