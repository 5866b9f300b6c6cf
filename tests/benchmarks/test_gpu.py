"""`benchmark.py gpu` itself, small enough for a CPU, and what it does with what goes wrong."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import benchmark
from benchmarks import gpu
from benchmarks.device_training import write_pieces
from tests.conftest import call_main

ROOT = Path(__file__).resolve().parents[2]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def measure(folder: Path, *more: object) -> tuple[int | None, list[dict[str, Any]]]:
    flags = ("gpu", "--tiny", "--device", "cpu", "--output", folder, "--minutes", 60, *more)
    return call_main(benchmark.main, *flags), lines_of(folder)


def test_the_whole_command_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every section says something and finds nothing wrong; the weights load."""
    from checkpoint import load_model

    monkeypatch.setattr("benchmarks.device_training.MOST_MINUTES", 0.02)
    code, lines = measure(tmp_path)
    assert [line for line in lines if not line.get("ok", True)] == [] and code == 0
    assert list(dict.fromkeys(line["section"] for line in lines)) == [*gpu.SECTIONS, "end"]
    assert lines[-1]["failed"] == []
    errors = {line["precision"]: line["gradients"] for line in lines if "precision" in line}
    assert errors["float32"] < 1e-4 < errors["fp16"] < errors["bf16"]
    (resumed,) = [line for line in lines if line["section"] == "resume"]
    assert resumed["equal"] and resumed["equal_average"]
    sampled = [line for line in lines if line["section"] == "sampling"]
    assert [line["constraints"] for line in sampled] == [False, False, True, True]
    (pieces,) = [line for line in lines if "pieces" in line]
    whole = tmp_path / "whole.safetensors"
    whole.write_bytes(b"".join((tmp_path / name).read_bytes() for name in pieces["pieces"]))
    assert hashlib.sha256(whole.read_bytes()).hexdigest() == pieces["sha256"]
    assert load_model(whole).model.config.width == 64


def test_a_section_that_fails_is_a_line_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(setting: gpu.Setting) -> Iterator[dict[str, Any]]:
        yield {"before": 1}
        raise RuntimeError("made up")

    sections = {"first": (failing, 1.0), "device": gpu.SECTIONS["device"]}
    monkeypatch.setattr(gpu, "SECTIONS", sections)
    code, lines = measure(tmp_path)
    assert code == 1 and lines[-1]["failed"] == ["first"]
    assert lines[0]["before"] == 1 and lines[1]["error"] == "RuntimeError: made up"
    assert "failing" in "".join(lines[1]["where"])
    assert lines[2]["section"] == "device"


def test_no_section_outlasts_the_time(tmp_path: Path) -> None:
    """What there is no time for is said."""
    _, lines = measure(tmp_path, "--minutes", 0, "--sections", "throughput", "sampling")
    assert all("skipped" in line for line in lines[:-1]) and len(lines) == 6


def test_it_needs_neither_slider_nor_timm() -> None:
    code = (
        "import sys; sys.modules['slider'] = sys.modules['timm'] = None\n"
        "import benchmark, train; benchmark.make_parser()\n"
        "from benchmarks.device_sampling import can_read_beatmaps; assert not can_read_beatmaps()"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_pieces_are_no_larger_than_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(250)))
    found = write_pieces(tmp_path / "file", tmp_path, 100)
    sizes = [(tmp_path / name).stat().st_size for name in found["pieces"]]
    assert sizes == [100, 100, 50] and found["bytes"] == 250
