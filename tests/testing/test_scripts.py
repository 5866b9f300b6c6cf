"""The scripts that look at runs: loss curves, contents of checkpoints; the training benchmark."""

import json
from pathlib import Path

import numpy as np
import plot_loss
import print_ckpt
import pytest
import torch

import benchmark
from tests.conftest import TRAIN_STEPS, call_main, run_command
from training.log import read_metrics


def test_losses_of_metrics_and_of_logs(trained: Path, tmp_path: Path) -> None:
    expected = [(line["step"], line["loss"]) for line in read_metrics(trained / "metrics.jsonl")]
    assert plot_loss.read_run(trained) == (expected, [])
    training, _ = plot_loss.read_run(trained / "log.txt")
    np.testing.assert_allclose(training, expected, atol=5.1e-5)
    text = "[date] (step=0000100) Train Loss: 0.5000, Train Steps/Sec: 2.00\n"
    (tmp_path / "log.txt").write_text(text + text.replace("0.5", "0.25"), encoding="utf-8")
    assert plot_loss.read_run(tmp_path) == ([(100, 0.25)], [])
    lines = [{"step": 5, "loss": 1.0}, {"step": 5, "validation": {"loss": 2.0}}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert plot_loss.read_run(tmp_path / "a.jsonl") == ([(5, 1.0)], [(5, 2.0)])


def test_smoothing_is_a_running_mean() -> None:
    values = np.array([4.0, 2.0, 6.0, 1.0])
    np.testing.assert_allclose(plot_loss.smooth(values, 2), [4, 3, 4, 3.5])
    np.testing.assert_array_equal(plot_loss.smooth(values, 1), values)


def test_runs_are_drawn_and_nothing_is_overwritten(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "loss.png"
    runs = (trained, trained / "log.txt")
    assert call_main(plot_loss.main, *runs, "--output", output) == 0
    assert output.read_bytes()[:4] == b"\x89PNG"
    assert run_command(plot_loss.main, *runs, "--output", output) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert run_command(plot_loss.main, tmp_path / "none", "--output", tmp_path / "b.png") == 2
    assert "no run: give a run's folder" in capsys.readouterr().err


def test_contents_of_a_checkpoint(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained / "checkpoints" / f"{TRAIN_STEPS:07d}.pt"
    assert call_main(print_ckpt.main, path, trained / "model.safetensors", "--tensors") == 0
    text = capsys.readouterr().out
    state = torch.load(path, weights_only=True)
    numbers = sum(value.numel() for value in state["model"].values())
    assert f"  model: {len(state['model'])} tensors, {numbers:,} numbers" in text
    assert f"  step: {TRAIN_STEPS}" in text and "    width: 64" in text
    assert "final_layer.linear.weight: (2, 64) float32" in text
    assert "final_layer.linear.weight: (2, 64) bfloat16" in text


def test_long_tables_of_a_checkpoint_are_counted() -> None:
    table = {"mappers": dict.fromkeys(range(200), 1), "few": {7: "Luna"}}
    assert list(print_ckpt.lines(table, "vocabulary", tensors=False)) == [
        *("vocabulary:", "  mappers: 200 entries", "  few:", "    7: 'Luna'")
    ]


def test_a_file_that_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_bytes(b"garbage")
        assert run_command(print_ckpt.main, tmp_path / name) == 2
        assert f"error: {tmp_path / name} is" in capsys.readouterr().err


def test_the_training_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("train", "--model", "DiT-nano", "--seq-len", 16, "--global-batch-size", 2)
    assert call_main(benchmark.main, *flags, "--steps", 1, "--device", "cpu") == 0
    assert "data points/s" in capsys.readouterr().out


def test_the_training_benchmark_wants_a_checkout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("train", "--model", "DiT-nano", "--seq-len", 16, "--global-batch-size", 2)
    assert run_command(benchmark.main, *flags, "--reference", tmp_path) == 2
    assert "no train.py in it" in capsys.readouterr().err
