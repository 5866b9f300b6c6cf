"""Nothing of a training run is lost: kills, signals, full disks, damaged files.

The number of kills of the longest test is 2, or what OSU_DIFFUSION_KILLS says.
"""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from checkpoint import load_training_checkpoint
from conventions.whole_files import replacing
from data_loading import PackedDataset
from tests.conftest import (
    TRAIN_STEPS,
    assert_equal,
    call_train,
    read_json,
    run_train,
    torchrun_command,
    train_flags,
)
from training import run_folder, trainer
from training.log import Metrics, read_metrics
from training.run import Run
from training.run_folder import open_run

needs_proc = pytest.mark.skipif(
    sys.platform != "linux", reason="finds the workers of torchrun in /proc"
)
KILLS = int(os.environ.get("OSU_DIFFUSION_KILLS", "2"))
PARTS = ("model", "ema", "opt", "config", "parametrisation", "step", "updates", "position", "rng")


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "checkpoints").glob("*.pt"))


def last_checkpoint(folder: Path) -> dict[str, Any]:
    return load_training_checkpoint(max((folder / "checkpoints").glob("*.pt")))


def assert_same_state(a: Path, b: Path) -> None:
    """The last checkpoints of two runs are equal bit by bit."""
    first, second = last_checkpoint(a), last_checkpoint(b)
    for part in PARTS:
        assert_equal(first[part], second[part], part)


class Interrupted(Exception):
    """Stands in for a process that is killed."""


def train_until(
    step: int, data: Path, results: Path, *more: object, when: str = "train_step"
) -> None:
    """Trains in this process and stops dead at the given call of a method of trainer or run."""
    kind = trainer.Trainer if when == "train_step" else Run
    whole = getattr(kind, when)

    def dying(self: Any, *args: Any) -> Any:
        if getattr(self, "trainer", self).step >= step:
            raise Interrupted
        return whole(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, when, dying)
        with pytest.raises(Interrupted):
            call_train(data, results, *more)


# --- the same command goes on ---------------------------------------------------------------------


def test_the_same_command_goes_on_bit_by_bit(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    """In the same folder, with every step of the log and of the metrics there once."""
    flags = ("--ckpt-every", 2)
    train_until(5, packed.folder, tmp_path, *flags)
    folder = run_train(packed.folder, tmp_path, *flags)
    assert [path.name for path in tmp_path.iterdir()] == ["000-DiT-nano"]
    assert_same_state(folder, trained)
    lines, whole = (read_metrics(run / "metrics.jsonl") for run in (folder, trained))
    assert [line["step"] for line in lines] == list(range(1, TRAIN_STEPS + 1))
    assert [line["loss"] for line in lines] == [line["loss"] for line in whole]
    text = (folder / "log.txt").read_text(encoding="utf-8")
    assert text.count("Train Loss") == TRAIN_STEPS + 1  # step 5 was trained twice
    assert "(step 4)" in text


def test_a_run_killed_before_its_first_checkpoint_begins_again(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    train_until(3, packed.folder, tmp_path)
    assert_same_state(run_train(packed.folder, tmp_path), trained)
    assert [path.name for path in tmp_path.iterdir()] == ["000-DiT-nano"]


def test_a_run_killed_before_its_export_only_exports(packed: PackedDataset, tmp_path: Path) -> None:
    train_until(TRAIN_STEPS, packed.folder, tmp_path, when="export")
    assert not list(tmp_path.rglob("*.safetensors"))
    folder = run_train(packed.folder, tmp_path)
    assert (folder / "model.safetensors").is_file()
    text = (folder / "log.txt").read_text(encoding="utf-8")
    assert text.count("Train Loss") == TRAIN_STEPS
    assert text.count("Nothing is left of this run, at step 10 after") == 1


@pytest.mark.parametrize(
    "flags",
    [("--global-seed", 1), ("--max-steps", TRAIN_STEPS + 1), ("--resume", "never")],
)
def test_another_command_is_another_run(
    packed: PackedDataset, tmp_path: Path, flags: tuple[object, ...]
) -> None:
    train_until(3, packed.folder, tmp_path)
    assert run_train(packed.folder, tmp_path, *flags).name == "001-DiT-nano"


def test_how_often_it_logs_and_saves_is_no_other_run(packed: PackedDataset, tmp_path: Path) -> None:
    train_until(5, packed.folder, tmp_path, "--ckpt-every", 2)
    flags = ("--ckpt-every", 3, "--log-every", 5, "--keep-last", 9)
    assert run_train(packed.folder, tmp_path, *flags).name == "000-DiT-nano"


def test_a_finished_run_is_left_alone(packed: PackedDataset, tmp_path: Path) -> None:
    first = run_train(packed.folder, tmp_path)
    second = run_train(packed.folder, tmp_path)
    assert (first.name, second.name) == ("000-DiT-nano", "001-DiT-nano")


def test_a_named_run_goes_on_with_other_options(packed: PackedDataset, tmp_path: Path) -> None:
    """A finished run, longer; a file stands for its run if it is the newest."""
    folder = run_train(packed.folder, tmp_path, "--ckpt-every", 5)
    longer = ("--max-steps", TRAIN_STEPS + 3, "--resume")
    with pytest.raises(ValueError, match=r"0000010.pt is the newest of this run; --ckpt starts"):
        call_train(packed.folder, tmp_path, *longer, folder / "checkpoints" / "0000005.pt")
    newest = folder / "checkpoints" / "0000010.pt"
    assert run_train(packed.folder, tmp_path, *longer, newest) == folder
    assert saved_steps(folder)[-1] == TRAIN_STEPS + 3
    assert "--max-steps was 10, is 13 now" in (folder / "log.txt").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no run of this program"):
        call_train(packed.folder, tmp_path, "--resume", tmp_path / "none")


def test_two_processes_do_not_train_one_run(packed: PackedDataset, tmp_path: Path) -> None:
    train_until(3, packed.folder, tmp_path)
    options = read_json(tmp_path / "000-DiT-nano" / "run.json")["options"]
    folder = open_run(tmp_path, "DiT-nano", options, "auto")
    with pytest.raises(ValueError, match="is being trained by another process"):
        call_train(packed.folder, tmp_path)
    folder.close()
    assert run_train(packed.folder, tmp_path).name == "000-DiT-nano"


def test_runs_are_numbered_apart_from_remapped_beatmaps(tmp_path: Path) -> None:
    for name in ("999 Artist - Title", "1180619 Artist - Title", "002-DiT-XS"):
        (tmp_path / name).mkdir()
    folder = open_run(tmp_path, "DiT-B", {"seed": 1}, "auto")
    assert folder.path.name == "003-DiT-B" and folder.newest_checkpoint() is None


def test_a_checkpoint_at_the_end_of_the_run_asks_for_more(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    last = trained / "checkpoints" / f"{TRAIN_STEPS:07d}.pt"
    with pytest.raises(ValueError, match="is at step 10, the run ends at 10: ask for more"):
        call_train(packed.folder, tmp_path, "--ckpt", last)


# --- what is kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ((), [8, 9, 10]),
        (("--keep-last", 1), [10]),
        (("--keep-last", 2, "--keep-every", 4), [4, 8, 9, 10]),
    ],
)
def test_the_last_checkpoints_are_kept_and_every_nth(
    packed: PackedDataset, tmp_path: Path, flags: tuple[object, ...], kept: list[int]
) -> None:
    assert saved_steps(run_train(packed.folder, tmp_path, "--ckpt-every", 1, *flags)) == kept


def test_a_checkpoint_holds_everything(packed: PackedDataset, trained: Path) -> None:
    state = last_checkpoint(trained)
    assert {*PARTS, "elapsed", "args", "scaler"} == state.keys()
    assert state["position"] == {"epoch": 0, "batch": 10, "batches_per_epoch": 14}
    assert state["elapsed"] > 0 and len(state["rng"]) > 1000
    assert len(state["opt"]["state"]) == len(state["model"])


# --- damage ---------------------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "truncated":
        del data[len(data) // 2 :]
    elif how == "empty":
        data.clear()
    else:  # one bit of a weight: torch itself would not notice
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    packed: PackedDataset, trained: Path, tmp_path: Path, how: str
) -> None:
    train_until(7, packed.folder, tmp_path, "--ckpt-every", 2)
    newest = tmp_path / "000-DiT-nano" / "checkpoints" / "0000006.pt"
    damage(newest, how)
    folder = run_train(packed.folder, tmp_path, "--ckpt-every", 2)
    text = (folder / "log.txt").read_text(encoding="utf-8")
    assert f"{newest} is damaged" in text and "0000004.pt (step 4)" in text
    assert_same_state(folder, trained)
    assert saved_steps(folder) == [6, 8, 10]
    assert load_training_checkpoint(newest)["step"] == 6


def test_what_a_killed_process_left_half_written_is_removed(
    packed: PackedDataset, tmp_path: Path
) -> None:
    train_until(5, packed.folder, tmp_path, "--ckpt-every", 2)
    checkpoints = tmp_path / "000-DiT-nano" / "checkpoints"
    with replacing(checkpoints / "name") as leftover:
        leftover.write_bytes(b"half a checkpoint")
        shutil.copy(leftover, leftover.with_stem(leftover.stem + "0"))
    assert list(checkpoints.glob(".*.tmp"))
    run_train(packed.folder, tmp_path, "--ckpt-every", 2)
    assert not list(checkpoints.glob(".*.tmp"))


def test_metrics_drop_what_will_be_trained_again(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "loss": step / 2}) for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 4, "lo']))
    metrics = Metrics(tmp_path, step=2)
    metrics.write(3, {"loss": 9.0})
    read = read_metrics(tmp_path / "metrics.jsonl")
    assert read == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 9.0}]


# --- a full disk ----------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing(
    packed: PackedDataset, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on with the checkpoints it has, and saves again once there is room.

    How many steps later depends on how soon a failure is noticed.
    """
    whole, failed = run_folder.save_training_checkpoint, []

    def save(path: Path, state: dict[str, Any]) -> None:
        if 4 <= state["step"] <= 6:
            failed.append(state["step"])
            path.with_suffix(".part").write_bytes(b"")
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, state)

    monkeypatch.setattr(run_folder, "save_training_checkpoint", save)
    folder = run_train(packed.folder, tmp_path, "--ckpt-every", 2, "--keep-last", 99)
    assert failed[0] == 4
    first, *others = saved_steps(folder)
    assert first == 2 and others[-1] == TRAIN_STEPS and min(others) > 6
    assert_same_state(folder, trained)
    text = (folder / "log.txt").read_text(encoding="utf-8")
    assert "No checkpoint at step 4: No space left on device" in text
    assert "0000002.pt. Make room" in text


def test_a_disk_that_stays_full_is_an_error_in_the_end(
    packed: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_folder.save_training_checkpoint

    def save(path: Path, state: dict[str, Any]) -> None:
        if state["step"] > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, state)

    monkeypatch.setattr(run_folder, "save_training_checkpoint", save)
    with pytest.raises(OSError, match="No space left"):
        call_train(packed.folder, tmp_path, "--ckpt-every", 2)
    assert saved_steps(tmp_path / "000-DiT-nano") == [2, 4]
    monkeypatch.undo()
    folder = run_train(packed.folder, tmp_path, "--ckpt-every", 2)
    assert saved_steps(folder)[-1] == TRAIN_STEPS and folder.name == "000-DiT-nano"


def test_a_disk_without_room_for_two_checkpoints_is_refused_at_the_start(
    packed: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=4_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"4 MiB are free .* a checkpoint takes 3 MiB: make room"):
        call_train(packed.folder, tmp_path)
    usage = usage._replace(free=8_000_000)
    folder = run_train(packed.folder, tmp_path)
    assert "not all that --keep-last 3" in (folder / "log.txt").read_text(encoding="utf-8")


# --- signals and kills ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits(
    packed: PackedDataset, trained: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    whole = trainer.Trainer.train_step

    def signalled(self: trainer.Trainer, batch: Any, step: int) -> Any:
        if step == 3:
            signal.raise_signal(kind)
        return whole(self, batch, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "train_step", signalled)
        assert call_train(packed.folder, tmp_path) == 128 + kind
    folder = tmp_path / "000-DiT-nano"
    assert saved_steps(folder) == [4] and not (folder / "model.safetensors").exists()
    assert_same_state(run_train(packed.folder, tmp_path), trained)


def start(data: Path, results: Path, *torchrun_flags: str) -> subprocess.Popen[bytes]:
    """torchrun with two gloo ranks."""
    steps = 100 + 30 * KILLS
    flags = train_flags(data, results, "--dist", "gloo", "--ckpt-every", 2, "--max-steps", steps)
    return subprocess.Popen(
        [*torchrun_command(2, *torchrun_flags), *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def undisturbed(packed: PackedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two ranks that nobody killed."""
    results = tmp_path_factory.mktemp("undisturbed")
    assert start(packed.folder, results).wait(timeout=300) == 0
    return results / "000-DiT-nano"


def child_processes(pid: int) -> list[int]:
    """The processes that `pid` started (Linux)."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to torchrun and its workers, which are in sessions of their own."""
    for pid in [process.pid, *child_processes(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def wait_until_it_trains(results: Path, process: subprocess.Popen[bytes], before: int) -> None:
    """Waits for a step that the log did not have before."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        logs = list(results.glob("*/log.txt"))
        if logs and logs[0].read_text(encoding="utf-8").count("Train Loss") > before:
            return
        time.sleep(0.01)
    assert process.poll() == 0, "the run failed or hangs"


@needs_proc
def test_killed_runs_end_as_the_undisturbed_one(
    packed: PackedDataset, undisturbed: Path, tmp_path: Path
) -> None:
    """SIGKILL at random moments, every other time while a checkpoint is being written."""
    moments, in_writing = random.Random(KILLS), 0
    for number in range(KILLS):
        logs = list(tmp_path.glob("*/log.txt"))
        seen = logs[0].read_text(encoding="utf-8").count("Train Loss") if logs else 0
        process = start(packed.folder, tmp_path)
        wait_until_it_trains(tmp_path, process, seen)
        time.sleep(moments.uniform(0, 0.3))
        while number % 2 and process.poll() is None:
            if list(tmp_path.glob("*/checkpoints/.*.tmp")):
                in_writing += 1
                break
        assert process.poll() is None, f"the run ended before kill {number + 1} of {KILLS}"
        kill_group(process)
    assert start(packed.folder, tmp_path).wait(timeout=300) == 0
    (folder,) = tmp_path.iterdir()
    log = (folder / "log.txt").read_text(encoding="utf-8")
    print(f"{KILLS} kills, {in_writing} while writing, {log.count('Restored')} restarts")
    assert in_writing == KILLS // 2
    assert_same_state(folder, undisturbed)


@needs_proc
def test_torchrun_restarts_after_a_worker_died(
    packed: PackedDataset, undisturbed: Path, tmp_path: Path
) -> None:
    """Elastic restart goes on from the last checkpoint, in the same folder, to the same weights."""
    process = start(packed.folder, tmp_path, "--max-restarts=1")
    wait_until_it_trains(tmp_path, process, 5)
    os.kill(child_processes(process.pid)[-1], signal.SIGKILL)
    try:
        assert process.wait(timeout=120) == 0
    finally:
        if process.poll() is None:
            kill_group(process)
    (folder,) = tmp_path.iterdir()
    assert "Restored from checkpoint" in (folder / "log.txt").read_text(encoding="utf-8")
    assert_same_state(folder, undisturbed)
