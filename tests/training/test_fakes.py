"""What fake CUDA tensors tell without a GPU: devices, types, kernels and memory of a step."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffusion.parametrisation import EDM
from models import ARCHITECTURES, SIZES, Conditions, DiT, DiTConfig, make_context
from training.ema import WeightAverage

CUDA = torch.device("cuda", 0)
VIEWS = (
    *("view", "t.", "transpose", "permute", "slice", "expand", "unsqueeze", "select", "alias"),
    *("split", "chunk", "detach", "unfold", "squeeze", "as_strided", "unbind", "_unsafe_view"),
)
GIB = 2**30


class Traffic(TorchDispatchMode):
    """Counts the kernels of fake CUDA tensors, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.to_host: list[str] = []
        self.products: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::")
        read, written = tensors((args, kwargs)), tensors(out)
        if any(on_cuda(x) for x in read) and not all(on_cuda(x) for x in written):
            self.to_host.append(name)
        # Products of attention are not told: which kernel is taken only a real GPU knows.
        if name.startswith(("addmm", "mm")):
            self.products |= {x.dtype for x in read}
        if not name.startswith(VIEWS) and any(on_cuda(x) for x in written):
            self.kernels[name] += 1
            self.bytes[name] += sum(x.numel() * x.element_size() for x in (*read, *written))
        return out


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def on_cuda(x: Tensor) -> bool:
    return x.device.type == "cuda"


@contextmanager
def cuda_autocast(dtype: torch.dtype | None) -> Iterator[None]:
    """`torch.autocast` for CUDA, which refuses where there is none."""
    if dtype is not None:
        torch.set_autocast_dtype("cuda", dtype)
        torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


@pytest.fixture
def fake() -> Iterator[FakeTensorMode]:
    """A machine with a GPU, as far as shapes, types and devices go."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def make_model(size: str, **options: Any) -> DiT:
    kinds = {"architecture": "local", **options}
    architecture = ARCHITECTURES[kinds.pop("architecture")]
    config = {**SIZES[size], **architecture, "num_classes": 100, "known_points": True, **kinds}
    with torch.device(CUDA):
        return DiT(DiTConfig(**config))


def losses(
    model: DiT, n: int, t: int, dtype: torch.dtype | None, *, padded: bool = False
) -> Tensor:
    """The losses (N,) of made-up windows, as `Objective` takes them on a device."""
    with torch.device(CUDA):
        valid = torch.ones(n, t, dtype=torch.bool) if padded else None
        known = torch.full((n, t, 2), torch.nan) if model.config.known_points else None
        conditions = Conditions(
            torch.zeros(n, t, dtype=torch.float64),
            torch.zeros(n, t),
            torch.zeros(n, t, dtype=torch.uint8),
            torch.zeros(n, dtype=torch.int64),
            valid,
            known,
        )
        x0, eps = torch.zeros(n, t, 2), torch.zeros(n, t, 2)
        context = make_context(model.config, conditions)
    levels = torch.ones(n)  # on the CPU, as the trainer has them
    with cuda_autocast(dtype):
        return EDM().loss(
            lambda x, labels: model(x, labels, context, t).float(), x0, levels, eps, valid
        )


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("padded", [False, True])
def test_losses_stay_on_the_device(
    fake: FakeTensorMode, dtype: torch.dtype | None, padded: bool
) -> None:
    """The host fetches nothing, which it would wait for; products are in the type asked for."""
    model = make_model("DiT-nano")
    with Traffic() as traffic:
        found = losses(model, 4, 32, dtype, padded=padded)
    assert found.device == CUDA and found.dtype == torch.float32
    assert traffic.to_host == []
    assert traffic.products == {dtype or torch.float32}


def test_an_update_stays_on_the_device(fake: FakeTensorMode) -> None:
    """Clipping, AdamW and the average; backward passes need a real GPU."""
    model = make_model("DiT-nano")
    average = WeightAverage(model, 0.999)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with Traffic() as traffic:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, 5)
    assert norm.device == CUDA and traffic.to_host == []
    for parameter, averaged in zip(model.parameters(), average.module.parameters(), strict=True):
        assert optimizer.state[parameter]["exp_avg"].device == averaged.device == CUDA


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_architecture_runs_on_a_device(fake: FakeTensorMode, architecture: str) -> None:
    model = make_model("DiT-nano", architecture=architecture, known_points=False)
    assert losses(model, 2, 300, torch.bfloat16).device == CUDA


def test_casts_of_a_forward_pass(fake: FakeTensorMode) -> None:
    """Eager kernels of DiT-B, which a compiled network fuses: casts are few and do not grow."""
    model = make_model("DiT-B")
    with torch.no_grad(), Traffic() as traffic:
        losses(model, 256, 128, torch.bfloat16)
    casts = traffic.kernels["_to_copy"]
    print(f"{sum(traffic.kernels.values())} kernels, {sum(traffic.bytes.values()) / 1e9:.1f} GB, ")
    print(
        f"{casts} casts, {traffic.bytes['_to_copy'] / 1e9:.1f} GB; {traffic.bytes.most_common(9)}"
    )
    assert casts <= 20 * 12 + 30  # in each block, and before and after them


def saved_gib(size: str, *, checkpointing: bool) -> float:
    """What the backward pass of 256 windows of 128 points needs to be kept."""
    model = make_model(size)
    model.grad_checkpointing = checkpointing
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        if not isinstance(x, torch.nn.Parameter):
            storage = x.untyped_storage()
            kept[id(storage)] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        losses(model, 256, 128, torch.bfloat16)
    return sum(x.untyped_storage().nbytes() for x in kept.values()) / GIB


def test_checkpointing_keeps_a_fraction(fake: FakeTensorMode) -> None:
    """Only what goes from block to block, instead of everything within."""
    without, with_it = (saved_gib("DiT-S", checkpointing=c) for c in (False, True))
    print(f"DiT-S: {without:.1f} GiB, {with_it:.1f} GiB with checkpointing")
    assert with_it < without / 5


def test_fakes_are_fakes(fake: FakeTensorMode) -> None:
    assert isinstance(torch.zeros(1, device=CUDA), FakeTensor)
