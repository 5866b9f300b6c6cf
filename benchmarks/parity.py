"""How far a device's results are from the CPU's in float64, for each precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_loading import Batch, PackedDataset, WindowLoader
from diffusion.parametrisation import EDM
from diffusion.samplers import sample_dpmpp_2m
from models import ARCHITECTURES, SIZES, DiT, DiTConfig, make_context
from training.objective import Noise, Objective

STEPS = 12


@dataclass(frozen=True)
class Precision:
    """A way to compute; `allowed` is the largest relative error that is not a fault."""

    name: str
    dtype: torch.dtype = torch.float32
    amp: torch.dtype | None = None
    tf32: bool = False
    compiled: bool = False
    allowed: float = 1e-4


EXACT = Precision("float64", dtype=torch.float64)
PRECISIONS = (
    Precision("float32"),
    Precision("tf32", tf32=True, allowed=0.02),
    Precision("bf16", amp=torch.bfloat16, allowed=0.15),
    Precision("fp16", amp=torch.float16, allowed=0.05),
    Precision("bf16 compiled", amp=torch.bfloat16, compiled=True, allowed=0.15),
)


@dataclass(frozen=True)
class Problem:
    """A model with weights that are not zero, windows of data points and their noise."""

    config: DiTConfig
    batch: Batch
    noise: Noise
    seed: int = 0

    @classmethod
    def make(cls, dataset: PackedDataset, size: str, windows: int, seq_len: int) -> "Problem":
        """The first windows of a dataset, with noise of a fixed seed."""
        config = DiTConfig(
            **{
                **SIZES[size],
                **ARCHITECTURES["local"],
                "num_classes": dataset.num_classes,
                "known_points": True,
            }
        )
        rows = np.arange(len(dataset))
        loader = WindowLoader(
            dataset, rows, seq_len=seq_len, stride=seq_len, batch_size=windows, seed=0
        )
        noise = Noise.draw(
            EDM(),
            (windows, seq_len),
            (0, 0),
            class_dropout=0.1,
            distance_dropout=0.1,
            known_points=0.5,
        )
        return cls(config, loader.batch(0, 0), noise)

    def model(self) -> DiT:
        """The same weights every time; a freshly initialised model would predict zeros."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = DiT(self.config)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        return model


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 matrix products may use TF32 on tensor cores."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def results(problem: Problem, device: torch.device, precision: Precision) -> dict[str, Tensor]:
    """Outputs, losses, gradients and samples, in float64 on the CPU."""
    model = problem.model().to(device, precision.dtype)
    objective = Objective(
        EDM(),
        problem.config,
        device,
        precision.dtype,
        problem.batch.xy.shape[1],
        precision.amp is not None,
        precision.amp or torch.bfloat16,
    )
    outputs: list[Tensor] = []
    network: Any = torch.compile(model) if precision.compiled else model

    def watched(*arguments: Any) -> Tensor:
        outputs.append(network(*arguments))
        return outputs[-1]

    with tf32(precision.tf32):
        losses = objective.losses(watched, problem.batch, problem.noise)
        # For float16, as the trainer's scaler does.
        scale = 1024.0 if precision.amp == torch.float16 else 1.0
        (losses.mean() * scale).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found = {
            "forward": outputs[0],
            "loss": losses,
            "gradients": torch.cat([g.flatten() for g in gradients]) / scale,
            "samples_px": samples(problem, model, objective),
        }
    return {name: value.detach().cpu().double() for name, value in found.items()}


@torch.inference_mode()
def samples(problem: Problem, model: DiT, objective: Objective) -> Tensor:
    """Coordinates (N, T, 2) px of a few sampling steps for the windows' conditions."""
    conditions, _, _ = objective.conditions(
        problem.batch.conditions, problem.batch.xy.to(objective.device), problem.noise
    )
    weight = next(model.parameters())
    context = make_context(problem.config, conditions._replace(known=None))
    context = context._replace(features=context.features.to(weight.dtype))
    with torch.autocast(weight.device.type, objective.amp_dtype, enabled=objective.amp):
        denoise, _ = EDM().denoiser(lambda x, labels: model(x, labels, context).to(weight.dtype))
        sigmas = EDM().sigmas(STEPS)
        noise = problem.noise.eps.to(weight) * float(sigmas[0])
        return EDM().to_pixels(sample_dpmpp_2m(denoise, noise, sigmas))


def relative_error(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b| of whole tensors."""
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def compare(found: dict[str, Tensor], exact: dict[str, Tensor], allowed: float) -> dict[str, Any]:
    """A line of figures, and whether those that matter for training are within `allowed`."""
    errors: dict[str, Any] = {
        name: relative_error(found[name], exact[name]) for name in ("forward", "loss", "gradients")
    }
    within = all(error <= allowed for error in errors.values())
    difference = (found["samples_px"] - exact["samples_px"]).abs()
    errors["samples_median_px"] = float(difference.median())
    errors["samples_largest_px"] = float(difference.max())
    return {**errors, "allowed": allowed, "ok": within}


def parity(
    problem: Problem, device: torch.device, compiled: tuple[bool, ...]
) -> Iterator[dict[str, Any]]:
    """A line for each precision."""
    exact = results(problem, torch.device("cpu"), EXACT)
    cpu = results(problem, torch.device("cpu"), PRECISIONS[0])
    yield {"device": "cpu", "precision": "float32", **compare(cpu, exact, 1e-4)}
    for precision in PRECISIONS:
        if precision.compiled not in compiled:
            continue
        found = results(problem, device, precision)
        line = compare(found, exact, precision.allowed)
        yield {"device": str(device), "precision": precision.name, **line}


def equal_weights(a: nn.Module, b: nn.Module) -> tuple[bool, float]:
    """Whether two models are equal bit by bit, and the largest difference of a weight."""
    pairs = list(zip(a.parameters(), b.parameters(), strict=True))
    largest = max(float((x.detach() - y.detach()).abs().max()) for x, y in pairs)
    return all(torch.equal(x, y) for x, y in pairs), largest
