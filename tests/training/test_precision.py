"""float16 with a scaled loss, steps in parts, compiled networks: a CPU can do them all."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoint import load_training_checkpoint
from conventions import precision
from conventions.precision import amp_dtype, amp_warning
from conventions.ranks import Ranks
from data_loading import PackedDataset
from tests.conftest import assert_equal, call_train, run_train, train_flags
from training.connecting import connect
from training.flags import training_options, training_parser
from training.log import read_metrics
from training.memory import parts_that_fit
from training.run import Run
from training.setup import make_trainer
from training.trainer import Trainer

FLOAT16 = ("--use-amp", "--amp-dtype", "float16")
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def trainer_for(packed: PackedDataset, folder: Path, *more: object) -> Trainer:
    args = training_parser().parse_args(train_flags(packed.folder, folder, *more))
    return make_trainer(training_options(args), Ranks(), packed, None)


def step_through(trainer: Trainer, steps: int) -> list[Any]:
    connect(trainer)
    records: list[Any] = []
    for step, batch in trainer.loader.batches(trainer.step):
        if len(records) == steps:
            return records
        records.append(trainer.train_step(batch, step))
        trainer.step = step + 1
    raise AssertionError("the loader has no end")


def gradients(trainer: Trainer, scale: float) -> list[Tensor]:
    return [p.grad / scale for p in trainer.model.parameters() if p.grad is not None]


# --- which precision ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "native", "wanted", "name", "expected"),
    [
        (CUDA, True, None, "auto", torch.bfloat16),
        (CUDA, False, None, "auto", torch.float16),
        (CUDA, False, None, "bfloat16", torch.bfloat16),
        (CUDA, True, False, "auto", None),
        (CPU, False, None, "auto", None),
        (CPU, False, True, "auto", torch.bfloat16),
        (torch.device("mps"), False, None, "auto", None),
    ],
)
def test_the_precision_is_what_a_device_has(
    device: torch.device,
    native: bool,
    wanted: bool | None,
    name: str,
    expected: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: native)
    assert amp_dtype(device, wanted, name) == expected


@pytest.mark.parametrize(
    ("device", "native", "wanted", "name", "warned"),
    [
        (CPU, False, True, "auto", True),
        (CPU, False, True, "bfloat16", True),
        (CPU, False, True, "float16", False),
        (CPU, False, None, "auto", False),
        (CPU, False, False, "auto", False),
        (CPU, True, True, "auto", False),
        (CUDA, False, True, "auto", False),
    ],
)
def test_emulated_bf16_is_warned_of(
    device: torch.device,
    native: bool,
    wanted: bool | None,
    name: str,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: native)
    assert (amp_warning(device, wanted, name) is not None) == warned


def test_training_warns_of_emulated_bf16(
    packed: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step, which is left out here: it would be as slow as the warning says."""
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    monkeypatch.setattr(Run, "to_the_end", lambda run: 0)
    assert call_train(packed.folder, tmp_path, "--use-amp") == 0
    (log,) = tmp_path.glob("*/log.txt")
    assert "this CPU has no bf16" in log.read_text(encoding="utf-8")


# --- the scaler -----------------------------------------------------------------------------------


def test_scaled_gradients_are_those_of_float32(packed: PackedDataset, tmp_path: Path) -> None:
    """As far as float16 can tell; those of the losses, not of the scaled ones."""
    found = []
    for flags in ((), FLOAT16):
        trainer = trainer_for(packed, tmp_path, *flags)
        (record,) = step_through(trainer, 1)
        found.append((record.losses, record.grad_norm, trainer.scaler.get_scale()))
    (exact, exact_norm, no_scale), (losses, norm, scale) = found
    assert (no_scale, scale) == (1.0, 65536.0)
    torch.testing.assert_close(losses, exact, rtol=5e-3, atol=1e-3)
    torch.testing.assert_close(norm, exact_norm, rtol=2e-2, atol=0)


def test_a_step_that_overflows_is_left_out(packed: PackedDataset, tmp_path: Path) -> None:
    """Neither weights nor moments change, and the next step is tried at half the scale."""
    trainer = trainer_for(packed, tmp_path, *FLOAT16)
    step_through(trainer, 2)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    moments = [dict(m) for m in trainer.optimizer.state_dict()["state"].values()]
    moments = [{k: v.clone() for k, v in m.items()} for m in moments]
    scale = trainer.scaler.get_scale()
    trainer.scaler._scale.fill_(1e30)  # type: ignore[union-attr]
    (record,) = step_through(trainer, 1)
    assert not math.isfinite(float(record.grad_norm))
    assert_equal(dict(trainer.model.state_dict()), before)
    assert_equal(list(trainer.optimizer.state_dict()["state"].values()), moments)
    assert trainer.scaler.get_scale() == pytest.approx(0.5e30)
    trainer.scaler._scale.fill_(scale)  # type: ignore[union-attr]
    (record,) = step_through(trainer, 1)
    assert math.isfinite(float(record.grad_norm))


def test_skipped_steps_are_counted_and_do_not_end_the_run(
    packed: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a scale that is too large by 2^20 about so many steps are skipped before one fits."""
    monkeypatch.setattr("training.trainer.FIRST_SCALE", 2.0**36)
    folder = run_train(packed.folder, tmp_path, *FLOAT16, "--max-steps", 40, "--log-every", 10)
    lines = read_metrics(folder / "metrics.jsonl")
    skipped = [line["skipped_steps"] for line in lines]
    assert skipped[0] == 10 and skipped[-1] == 0 and 10 <= sum(skipped) <= 30
    assert lines[0]["grad_norm"] is None and lines[-1]["grad_norm"] > 0


def test_what_no_scale_helps_ends_the_run(
    packed: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.FIRST_SCALE", 2.0**90)
    with pytest.raises(ValueError, match=r"gradient norm (inf|nan)"):
        run_train(
            packed.folder, tmp_path, *FLOAT16, "--max-steps", 50, "--log-every", 10, "--seq-len", 8
        )


def test_a_scaled_run_goes_on_bit_by_bit(packed: PackedDataset, tmp_path: Path) -> None:
    """With the scale that it had come to."""
    flags = (*FLOAT16, "--max-steps", 8, "--ckpt-every", 4)
    whole = run_train(packed.folder, tmp_path / "whole", *flags)
    half = tmp_path / "half"
    run_train(packed.folder, half, *flags)
    (half / "000-DiT-nano" / "checkpoints" / "0000008.pt").unlink()
    folder = run_train(packed.folder, half, *flags, "--resume", half / "000-DiT-nano")
    states = [load_training_checkpoint(f / "checkpoints" / "0000008.pt") for f in (whole, folder)]
    for part in ("model", "ema", "opt", "scaler"):
        assert_equal(states[0][part], states[1][part], part)
    assert states[0]["scaler"]["_growth_tracker"] == 8


# --- a step in parts ------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--grad-checkpointing",)])
def test_parts_and_checkpointing_change_no_gradient(
    packed: PackedDataset, tmp_path: Path, more: tuple[str, ...]
) -> None:
    def gradient(*flags: str) -> Tensor:
        trainer = trainer_for(packed, tmp_path, "--dtype", "float64", *flags)
        step_through(trainer, 3)
        return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])  # type: ignore[union-attr]

    expected = gradient()
    torch.testing.assert_close(gradient("--accumulate", "3", *more), expected)
    torch.testing.assert_close(gradient(*more), expected, rtol=0, atol=0)


def out_of_memory_below(parts: int) -> Callable[[int], None]:
    def rehearse(tried: int) -> None:
        if tried < parts:
            raise torch.OutOfMemoryError("made up")

    return rehearse


def test_a_step_is_computed_in_as_many_parts_as_memory_needs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert parts_that_fit(out_of_memory_below(1), 1, 64, Ranks(), "") == 1
    assert not caplog.records
    assert parts_that_fit(out_of_memory_below(5), 1, 64, Ranks(), "") == 8
    assert "computed in 8 parts, as --accumulate 8" in caplog.text
    assert parts_that_fit(out_of_memory_below(6), 3, 6, Ranks(), "") == 6
    with pytest.raises(ValueError, match=r"not even one of this rank's 6 windows .* do this"):
        parts_that_fit(out_of_memory_below(7), 1, 6, Ranks(), "do this")


# --- graphs ---------------------------------------------------------------------------------------


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of nodes of each graph that torch.compile made; they run as they were traced."""
    made: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        made.append(len(graph.graph.nodes))
        return graph.forward

    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: whole(model, backend=backend))
    torch.compiler.reset()
    return made


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_has_a_graph_and_one_for_padding(
    packed: PackedDataset, tmp_path: Path, graphs: list[int], accumulate: int
) -> None:
    """Also where parts differ in size: 8 windows in three parts, of which the last steps pad."""
    flags = (
        *("--compile", "--accumulate", accumulate, "--validation-fraction", 0.3, "--val-every", 5),
        *("--global-batch-size", 8, "--global-seed", 2),
    )
    trainer = trainer_for(packed, tmp_path, *flags)
    assert trainer.validation is not None
    step_through(trainer, 10)
    trainer.validation.losses(trainer.ema.module, trainer.ranks)
    step_through(trainer, 10)
    assert 1 <= len(graphs) <= 2


def test_a_compiled_part_that_is_short_drops_what_it_took_along(
    packed: PackedDataset, tmp_path: Path, graphs: list[int]
) -> None:
    """The gradient of 8 windows in three parts is that without compiling."""
    found = []
    for flag in ("--no-compile", "--compile"):
        flags = (flag, "--accumulate", 3, "--global-batch-size", 8, "--dtype", "float64")
        trainer = trainer_for(packed, tmp_path, *flags)
        (record,) = step_through(trainer, 1)
        found.append((record.losses, record.grad_norm))
    assert graphs and len(found[1][0]) == 8
    torch.testing.assert_close(found[0], found[1])
