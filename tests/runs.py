"""Runs of train.py: their checkpoints, and whether a broken one goes on as if nothing had been."""

from pathlib import Path

import torch

from checkpoint import load_training_checkpoint
from data_loading import PackedDataset
from tests.conftest import run_train


def last(folder: Path) -> Path:
    """The newest checkpoint of a run."""
    return max((folder / "checkpoints").glob("*.pt"))


def assert_resumes(packed: PackedDataset, folder: Path, *flags: object) -> None:
    """A run that has lost its last checkpoint ends with the average of an undisturbed one."""
    whole = run_train(packed.folder, folder / "whole", *flags)
    half = run_train(packed.folder, folder / "half", *flags)
    last(half).unlink()
    resumed = run_train(packed.folder, folder / "half", *flags, "--resume", half)
    one, two = (load_training_checkpoint(last(run))["ema"] for run in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)
