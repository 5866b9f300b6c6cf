"""A model that is shared out over the ranks trains as one that is whole on each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoint import load_model, load_training_checkpoint
from data_loading import PackedDataset
from tests.conftest import assert_equal, run_torchrun, run_train
from training.log import read_metrics

STEPS = 50
FLAGS = (
    *("--max-steps", STEPS, "--ckpt-every", STEPS // 2, "--global-batch-size", 7, "--lr", 1e-3),
    *("--clip", 0.1),  # which every gradient here is longer than
    *("--validation-fraction", 0.5, "--val-every", STEPS // 2),
)


@pytest.fixture(scope="module")
def replicated(packed: PackedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two ranks that have all of the model each."""
    return run_torchrun(2, packed.folder, tmp_path_factory.mktemp("replicated"), *FLAGS)


@pytest.fixture(scope="module")
def sharded(packed: PackedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, shared out over two ranks."""
    return run_torchrun(2, packed.folder, tmp_path_factory.mktemp("sharded"), *FLAGS, "--shard")


def logged(folder: Path, name: str) -> list[Any]:
    return [line[name] for line in read_metrics(folder / "metrics.jsonl") if name in line]


def saved(folder: Path, step: int = STEPS) -> dict[str, Any]:
    return load_training_checkpoint(folder / "checkpoints" / f"{step:07d}.pt")


def test_losses_are_those_of_whole_models(replicated: Path, sharded: Path) -> None:
    """In float32; the norm that gradients are clipped by is that of all of them."""
    ours, theirs = logged(sharded, "loss"), logged(replicated, "loss")
    assert len(ours) == STEPS
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=0)
    norms = logged(sharded, "grad_norm")
    assert min(norms) > 0.1
    np.testing.assert_allclose(norms, logged(replicated, "grad_norm"), rtol=1e-4, atol=0)


def test_the_average_is_validated_whole(replicated: Path, sharded: Path) -> None:
    ours, theirs = (
        [value["loss"] for value in logged(folder, "validation")]
        for folder in (sharded, replicated)
    )
    assert len(ours) == 2
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=0)


def test_checkpoints_hold_what_those_of_whole_models_hold(replicated: Path, sharded: Path) -> None:
    ours, theirs = saved(sharded), saved(replicated)
    assert ours.keys() == theirs.keys()
    for part in ("model", "ema"):
        assert list(ours[part]) == list(theirs[part])
        torch.testing.assert_close(ours[part], theirs[part], rtol=1e-4, atol=1e-6)
    moments = [state["opt"]["state"] for state in (ours, theirs)]
    torch.testing.assert_close(*moments, rtol=1e-3, atol=1e-6)
    exported = load_model(sharded / "model.safetensors").model.state_dict()
    for name, weight in ours["ema"].items():
        assert torch.equal(exported[name], weight.bfloat16().float()), name
    assert not torch.equal(ours["ema"]["final_layer.linear.weight"], torch.zeros(2, 64))


def test_one_process_takes_it_up(
    packed: PackedDataset, replicated: Path, sharded: Path, tmp_path: Path
) -> None:
    half = sharded / "checkpoints" / f"{STEPS // 2:07d}.pt"
    folder = run_train(packed.folder, tmp_path, *FLAGS, "--ckpt", half)
    second_half = logged(replicated, "loss")[STEPS // 2 :]
    np.testing.assert_allclose(logged(folder, "loss"), second_half, rtol=1e-6, atol=0)


def test_another_number_of_ranks_takes_it_up(
    packed: PackedDataset, replicated: Path, sharded: Path, tmp_path: Path
) -> None:
    """Three, which have 2, 2 and 3 windows, in two parts, whose blocks are computed twice."""
    half = sharded / "checkpoints" / f"{STEPS // 2:07d}.pt"
    more = ("--ckpt", half, "--shard", "--accumulate", 2, "--grad-checkpointing")
    folder = run_torchrun(3, packed.folder, tmp_path, *FLAGS, *more)
    second_half = logged(replicated, "loss")[STEPS // 2 :]
    np.testing.assert_allclose(logged(folder, "loss"), second_half, rtol=1e-6, atol=0)


def test_one_process_has_nobody_to_share_with(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    folder = run_train(packed.folder, tmp_path, "--shard")
    assert_equal(saved(folder, 10)["model"], saved(trained, 10)["model"])
