"""What a run tells to others and about itself: Weights & Biases, traces, what is left to do."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_loading import PackedDataset
from tests.conftest import BATCH, SEQ_LEN, TRAIN_STEPS, run_train
from training.log import read_metrics


class FakeWandb:
    """The part of wandb that is used."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []

    def init(self, **options: Any) -> Any:
        self.started.append(options)
        return SimpleNamespace(log=lambda values, step: self.logged.append((step, values)))


def test_weights_and_biases_and_a_trace(
    packed: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    folder = run_train(packed.folder, tmp_path, "--wandb", "osu", "--profile", 2)
    (started,) = fake.started
    assert started["project"] == "osu" and started["name"] == folder.name
    assert started["config"]["model"] == "DiT-nano" and started["resume"] == "allow"
    lines = read_metrics(folder / "metrics.jsonl")
    assert [step for step, _ in fake.logged] == [line["step"] for line in lines]
    assert [values["loss"] for _, values in fake.logged] == [line["loss"] for line in lines]
    assert any("loss_by_sigma/30-100 px" in values for _, values in fake.logged)
    events = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    steps = {event["name"] for event in events if event["name"].startswith("ProfilerStep#")}
    assert len(steps) == 2
    assert any("addmm" in event["name"] for event in events)
    assert "Profile of 2 steps" in (folder / "log.txt").read_text(encoding="utf-8")


def test_a_missing_tracker_is_named(
    packed: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="--wandb needs the package wandb"):
        run_train(packed.folder, tmp_path, "--wandb", "osu")


def test_the_metrics_count_points_and_what_is_left(trained: Path) -> None:
    lines = read_metrics(trained / "metrics.jsonl")
    for number, line in enumerate(lines, 1):
        assert line["points"] == number * BATCH * SEQ_LEN
        assert line["windows_per_second"] == pytest.approx(BATCH * line["steps_per_second"])
        expected = line["elapsed"] * (TRAIN_STEPS - number) / number
        assert line["seconds_left"] == pytest.approx(expected)
        assert line["peak_memory_gib"] is None and line["skipped_steps"] == 0
