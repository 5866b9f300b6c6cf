"""Apple's GPUs have no float64, and nothing asks them for it.

torch makes no fake tensors of theirs, so fake CUDA tensors stand in for them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import models
from conventions.ranks import Ranks
from data_loading import PackedDataset, WindowLoader
from diffusion.guidance import guided_network
from diffusion.parametrisation import EDM, LearnedVariance, Parametrisation
from diffusion.samplers import SOLVERS, noise_source
from models import ARCHITECTURES, SIZES, Conditions, DiT, DiTConfig, bind, has_float64
from training import objective as objective_module
from training.objective import Noise, Objective

GPU = torch.device("cuda", 0)


class WithoutFloat64(TorchDispatchMode):
    """Refuses float64 on the GPU, also in the midst of a cast from there to the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, made = tensors((args, kwargs)), tensors(out)
        from_there = any(x.device.type == "cuda" for x in read) and "_to_copy" in func.name()
        for x in made:
            if x.dtype == torch.float64 and (from_there or x.device.type == "cuda"):
                raise TypeError(f"{func.name()}: this GPU has no float64")
        return out


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with Apple's GPU, as far as shapes, types and devices go."""
    for module in (models, objective_module):
        monkeypatch.setattr(module, "has_float64", lambda device: device.type != "cuda")
    monkeypatch.setattr(Tensor, "pin_memory", lambda x: x)
    with FakeTensorMode(allow_non_fake_inputs=True), WithoutFloat64():
        yield


def answer(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    """What fake tensors, which have no values, say where they are asked for one."""
    monkeypatch.setattr(Tensor, "__bool__", lambda x: answer)


def make_model(architecture: str, parametrisation: Parametrisation) -> DiT:
    learn_sigma = isinstance(parametrisation, LearnedVariance)
    options = {**SIZES["DiT-nano"], **ARCHITECTURES[architecture], "learn_sigma": learn_sigma}
    with torch.device(GPU):
        return DiT(DiTConfig(**options, num_classes=6))


def test_which_devices_have_float64() -> None:
    assert [has_float64(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [1, 1, 0]


@pytest.mark.parametrize("wrong", ["double", "cast"])
def test_the_refusal_refuses(gpu: None, wrong: str) -> None:
    x = torch.zeros(2, device=GPU)
    with pytest.raises(TypeError, match="has no float64"):
        x.double() if wrong == "double" else x.to("cpu", torch.float64)
    assert x.cpu().double().dtype == torch.float64


@pytest.mark.parametrize("parametrisation", [EDM(), LearnedVariance()])
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_losses(
    packed: PackedDataset,
    gpu: None,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    parametrisation: Parametrisation,
) -> None:
    """Of windows as the loader gives them, with noise as it is drawn, and what is logged of them.

    Backward passes need a real device.
    """
    loader = WindowLoader(
        packed, np.arange(len(packed)), seq_len=32, stride=8, batch_size=4, seed=0
    )
    _, batch = next(loader.batches())
    model = make_model(architecture, parametrisation)
    objective = Objective(parametrisation, model.config, GPU, torch.float32, 32, amp=False)
    dropout: dict[str, Any] = {"class_dropout": 0.5, "distance_dropout": 0.5}
    noise = Noise.draw(parametrisation, (4, 32), (0, 0), **dropout, double_time=0.5)
    answer(monkeypatch, True)  # no window has padding
    found = objective.losses(model, batch, noise)
    assert found.device == GPU and found.dtype == torch.float32
    assert Ranks().join(found, 4).dtype == torch.float64


@pytest.mark.parametrize("parametrisation", [EDM(), LearnedVariance()])
@pytest.mark.parametrize("solver", list(SOLVERS))
def test_sampling(
    gpu: None, monkeypatch: pytest.MonkeyPatch, solver: str, parametrisation: Parametrisation
) -> None:
    """Every solver, with guidance, from px to px."""
    model = make_model("local", parametrisation).requires_grad_(False)
    times = np.arange(100, dtype=np.float64) * 150
    conditions = Conditions.of_arrays(
        times, np.ones(100), np.zeros(100, dtype=np.int64), torch.tensor([1], device=GPU)
    )
    network = guided_network(bind(model, conditions.repeat(2)), 2.0)
    denoise, _ = parametrisation.denoiser(network)
    x = parametrisation.from_pixels(torch.zeros(1, 100, 2, device=GPU))
    chosen = SOLVERS[solver]
    answer(monkeypatch, not chosen.draws_noise)  # the step is not the last one
    noise = noise_source([torch.Generator()])
    x = chosen(denoise, x, chosen.levels(parametrisation, 4), lambda step, x0: None, noise)
    assert parametrisation.to_pixels(x).device == GPU
