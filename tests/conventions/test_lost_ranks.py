"""A rank that ends or stalls ends the others, soon and with one line; main's own work does not."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_loading import PackedDataset
from tests.conftest import run_train, train_flags

ROOT = Path(__file__).resolve().parents[2]
WAITS = """
import sys, time
from conventions import command_line
from conventions.ranks import process_group

def main():
    with process_group("gloo", minutes=0.25) as ranks:  # as processes start apart
        def slowly():
            time.sleep(18)
            return "packed"
        print(ranks.from_main(slowly), flush=True)
        ranks.largest(1.0)
        if not ranks.is_main:
            ranks.largest(1.0)
        time.sleep(90)  # the main rank stalls

command_line.run(main)
"""


def start(ranks: int, arguments: list[str]) -> list[subprocess.Popen[str]]:
    """Processes of one run, without torchrun, which would end the others itself."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    place |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for rank in range(ranks)
    ]


def last_line(process: subprocess.Popen[str], code: int = 2) -> str:
    """What a process said last, which must be an error and no traceback."""
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "Traceback" not in said
    return said.splitlines()[-1]


def test_only_the_main_ranks_own_work_is_waited_for_long() -> None:
    main, other = start(2, ["-c", WAITS])
    try:
        assert "another process of this run has ended, or did not answer for 0.25 minutes" in (
            last_line(other)
        )
        assert main.poll() is None
    finally:
        main.kill()
    assert main.communicate()[0] == "packed\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_rank_ends_the_others(packed: PackedDataset, tmp_path: Path) -> None:
    """Soon, not after the timeout; and what was saved is gone on with."""
    flags = train_flags(packed.folder, tmp_path, "--dist", "gloo", "--max-steps", 3000)
    main, other = start(2, [str(ROOT / "train.py"), *flags, "--ckpt-every", "2"])
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*/checkpoints/*4.pt")):
            assert time.monotonic() < deadline and main.poll() is None, main.communicate()
            time.sleep(0.05)
        os.kill(other.pid, signal.SIGKILL)
        assert last_line(main).startswith("error: another process of this run has ended")
    finally:
        for process in (main, other):
            process.kill()
            process.communicate()
    (folder,) = tmp_path.iterdir()
    steps = max(int(path.stem) for path in (folder / "checkpoints").glob("*.pt"))
    assert (
        run_train(packed.folder, tmp_path, "--max-steps", steps + 2, "--resume", folder) == folder
    )
    assert "Restored from checkpoint" in (folder / "log.txt").read_text(encoding="utf-8")
