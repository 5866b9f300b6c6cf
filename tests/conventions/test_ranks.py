"""Many processes train as one does: torchrun with gloo on this machine, and what they agree on."""

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from conventions.ranks import Ranks, StopSignals, attempt_number, share_of
from data_loading import PackedDataset
from tests.conftest import call_train, run_train, torchrun_command, train_flags

STEPS, BATCH = 50, 7
FLAGS = ("--max-steps", STEPS, "--global-batch-size", BATCH, "--dtype", "float64")


def losses(results: Path) -> list[float]:
    """The loss of every step, to all digits."""
    (path,) = results.glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines]


def torchrun(ranks: int, data: Path, results: Path, *more: object) -> None:
    """Trains on many processes to the end."""
    result = subprocess.run(
        [*torchrun_command(ranks), *train_flags(data, results, "--dist", "gloo", *more)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=180,
    )
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture(scope="module")
def alone(packed: PackedDataset, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of one process."""
    results = tmp_path_factory.mktemp("alone")
    run_train(packed.folder, results, *FLAGS)
    return losses(results)


@pytest.mark.parametrize(("ranks", "parts"), [(2, 1), (3, 2)])
def test_any_number_of_processes_trains_the_same_run(
    packed: PackedDataset, alone: list[float], tmp_path: Path, ranks: int, parts: int
) -> None:
    """7 windows on 2 or 3 ranks, which then have 3 and 4, or 2, 2 and 3, in micro-batches or not.

    In float64, so that nothing but the order of summation can differ.
    """
    torchrun(ranks, packed.folder, tmp_path, *FLAGS, "--accumulate", parts)
    assert len(alone) == STEPS
    np.testing.assert_allclose(losses(tmp_path), alone, rtol=1e-9, atol=0)


@pytest.mark.parametrize("parts", [2, 3, 100])
def test_accumulated_micro_batches_are_the_whole_batch(
    packed: PackedDataset, alone: list[float], tmp_path: Path, parts: int
) -> None:
    run_train(packed.folder, tmp_path, *FLAGS, "--accumulate", parts)
    np.testing.assert_allclose(losses(tmp_path), alone, rtol=1e-9, atol=0)


def test_other_noise_gives_losses_further_apart(
    packed: PackedDataset, alone: list[float], tmp_path: Path
) -> None:
    """The control: the comparisons above can fail."""
    run_train(packed.folder, tmp_path, *FLAGS, "--lr", 5.0001e-4)
    assert np.abs(np.array(losses(tmp_path)) / alone - 1).max() > 1e-9


@pytest.mark.parametrize(("n", "world_size"), [(7, 3), (3, 3), (256, 7), (5, 1)])
def test_shares_cover_everything_once(n: int, world_size: int) -> None:
    shares = [range(n)[share_of(n, rank, world_size)] for rank in range(world_size)]
    assert [i for share in shares for i in share] == list(range(n))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0


def test_one_process_needs_nobody_to_agree_with() -> None:
    ranks = Ranks()
    assert ranks.largest(2.5, 0.0) == [2.5, 0.0]
    assert ranks.from_main(lambda: "text") == "text"
    values = torch.tensor([[1.5, 2.5]])
    assert torch.equal(ranks.join(values, 2), values.double())


def test_more_processes_than_windows_are_an_error(packed: PackedDataset, tmp_path: Path) -> None:
    flags = train_flags(packed.folder, tmp_path, "--dist", "gloo", "--global-batch-size", 1)
    result = subprocess.run(
        [*torchrun_command(2), *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert result.returncode
    assert "error: global batch size 1 leaves some of 2 processes without a window" in result.stderr


def test_signals_are_noted_and_a_second_interrupt_raises() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals().listening() as signals:
        assert signals.received is None
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_restarted_processes_meet_apart_from_dead_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one machine by the number of the restart, which several machines do not agree on."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    assert attempt_number() == 2
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        attempt_number()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert attempt_number() == 0


def test_a_failing_main_rank_reports_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a folder"):
        call_train(tmp_path / "none", tmp_path)
