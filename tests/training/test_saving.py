"""Checkpoints are written while training goes on."""

import errno
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from data_loading import PackedDataset
from tests.conftest import run_train
from training import run_folder, saving
from training.options import TrainingOptions
from training.run_folder import RunFolder, open_run
from training.saving import Saver
from training.sharding import host_copy


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return open_run(tmp_path, "DiT-nano", {}, "auto")


@pytest.fixture
def saver(folder: RunFolder) -> Saver:
    return Saver(folder, TrainingOptions(Path("unused")))


def hold(monkeypatch: pytest.MonkeyPatch, error: OSError | None = None) -> Event:
    """The disk takes nothing before the event; then it takes it, or raises the error."""
    released, whole = Event(), run_folder.save_training_checkpoint

    def save(path: Path, state: dict[str, Any]) -> None:
        assert released.wait(60)
        if error is not None:
            raise error
        whole(path, state)

    monkeypatch.setattr(run_folder, "save_training_checkpoint", save)
    return released


def test_nobody_waits_for_the_disk(
    folder: RunFolder, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = hold(monkeypatch)
    saver.begin(3, {"step": 3})
    assert folder.checkpoints() == [] and saver.failed() is None
    released.set()
    saver.finish()
    assert [path.name for path in folder.checkpoints()] == ["0000003.pt"]


def test_a_failure_is_told_once_and_afterwards(
    saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    released = hold(monkeypatch, error)
    saver.begin(3, {"step": 3})
    assert saver.failed() is None
    released.set()
    assert saver.failed(wait=True) is error and saver.failed(wait=True) is None
    saver.begin(4, {"step": 4})
    with pytest.raises(OSError, match="No space left"):
        saver.finish()


def test_what_ends_a_run_lets_it_be_written(
    folder: RunFolder, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = hold(monkeypatch)
    with pytest.raises(KeyboardInterrupt), saver.closing():
        saver.begin(3, {"step": 3})
        released.set()
        raise KeyboardInterrupt
    assert folder.newest_checkpoint() is not None


def test_what_is_no_error_of_files_is_not_hidden(
    saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Saver, "_write", lambda *_: 1 / 0)
    saver.begin(3, {})
    with pytest.raises(ZeroDivisionError):
        saver.finish()


def test_what_is_written_is_a_copy() -> None:
    """Training changes its tensors in place meanwhile."""
    weight = torch.nn.Parameter(torch.ones(2))
    tree = {"a": weight, "b": [{"c": torch.zeros(())}, "text"], "n": 1}
    copied = host_copy(tree, wanted=True)
    with torch.no_grad():
        weight.zero_()
    assert torch.equal(copied["a"], torch.ones(2)) and not copied["a"].requires_grad
    assert copied["b"][0]["c"].shape == () and copied["b"][1:] == ["text"] and copied["n"] == 1
    assert host_copy(tree, wanted=False)["a"] is None


def test_a_run_is_saved_as_it_was_when_the_step_was_done(
    packed: PackedDataset, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of step 5 is written after later steps have changed all weights."""
    whole, later = Saver._write, Event()
    found: list[dict[str, Any]] = []

    def write(self: Saver, folder: RunFolder, step: int, state: dict[str, Any]) -> None:
        if step == 5:
            assert later.wait(60)
            found.append(state)
        whole(self, folder, step, state)

    begin = Saver.failed

    def failed(self: Saver, *, wait: bool = False) -> OSError | None:
        if wait:  # before the next checkpoint, at step 10
            later.set()
        return begin(self, wait=wait)

    monkeypatch.setattr(saving.Saver, "_write", write)
    monkeypatch.setattr(saving.Saver, "failed", failed)
    run_train(packed.folder, tmp_path, "--ckpt-every", 5)
    five = torch.load(trained / "checkpoints" / "0000005.pt", weights_only=True)
    torch.testing.assert_close(found[0]["model"], dict(five["model"]), rtol=0, atol=0)
