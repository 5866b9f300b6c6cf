"""Many processes train as one does: torchrun with gloo on this machine, and what they agree on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from conventions import ranks as ranks_module
from conventions.ranks import Ranks, StopSignals, attempt_number, process_group, share_of
from data_loading import PackedDataset
from tests.conftest import (
    call_train,
    run_torchrun,
    run_train,
    torchrun_command,
    train_flags,
)

STEPS, BATCH = 50, 7
FLAGS = ("--max-steps", STEPS, "--global-batch-size", BATCH, "--dtype", "float64")


def losses(results: Path) -> list[float]:
    """The loss of every step, to all digits."""
    (path,) = results.glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines]


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
    run_torchrun(ranks, packed.folder, tmp_path, *FLAGS, "--accumulate", parts)
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


def test_windows_is_not_asked_for_libuv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which torch is built without there; whoever sets it is left alone."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ranks_module, "_joined", lambda *_: Ranks())
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    for before, after in ((None, "0"), ("1", "1")):
        monkeypatch.delenv("USE_LIBUV", raising=False)
        if before is not None:
            monkeypatch.setenv("USE_LIBUV", before)
        with process_group("gloo"):
            assert os.environ["USE_LIBUV"] == after
    monkeypatch.delenv("USE_LIBUV")


def test_a_torch_without_processes_trains_and_samples() -> None:
    """As some builds for Windows are: nothing of torch.distributed is needed before it is used."""
    code = (
        "import sys, torch, torch._dynamo\n"
        "for name in ('ProcessGroup', 'DistError', 'PrefixStore'):\n"
        "    delattr(torch.distributed, name)\n"
        "for name in ('tensor', 'fsdp', 'device_mesh'):\n"
        "    sys.modules[f'torch.distributed.{name}'] = None\n"
        "import sample, train\n"
        "from conventions.ranks import process_group\n"
        "with process_group('gloo') as ranks:\n"
        "    print(ranks.world_size)\n"
    )
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout == "1\n", ran.stderr


def test_a_failing_main_rank_reports_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a folder"):
        call_train(tmp_path / "none", tmp_path)
