"""What runs start from: checkpoints of the public osu-diffusion, made up and a real tiny one.

Its optimiser numbers the parameters in its own order, a constant first.
"""

import argparse
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoint import PLAYFIELD_SIZE, CheckpointError, load_model, load_training_checkpoint
from data_loading import PackedDataset
from diffusion.parametrisation import EDM, LearnedVariance
from models import REFERENCE_ARCHITECTURE, SIZES, DiT, DiTConfig
from tests.conftest import call_train, pack_maps, run_train, write_maps
from training.state import TABLE, read_training_state

FOLDER = os.environ.get("OSU_DIFFUSION_REFERENCE")
needs_reference = pytest.mark.skipif(
    not FOLDER, reason="OSU_DIFFUSION_REFERENCE names no folder with osu_diffusion_tiny.pt"
)
CLASSES, UPDATES = 6, 4321


def made_up(path: Path, num_classes: int = CLASSES) -> dict[str, Any]:
    """A checkpoint in the public format; the moments of parameter i are all i."""
    config = DiTConfig.from_dict(
        {**SIZES["DiT-nano"], **REFERENCE_ARCHITECTURE, "num_classes": num_classes}
    )
    generator = torch.Generator().manual_seed(5)
    parts = {}
    for part in ("model", "ema"):
        # Its names in its order: attention's own parameters come before those of its parts.
        names = [PLAYFIELD_SIZE, *DiT(config).state_dict()]
        state = DiT(config).state_dict()
        parts[part] = {
            name: torch.tensor([512.0, 384.0])
            if name == PLAYFIELD_SIZE
            else 0.05 * torch.randn(state[name].shape, generator=generator)
            for name in names
        }
    moments = {
        i: {
            "step": torch.tensor(float(UPDATES)),
            "exp_avg": torch.full_like(value, i),
            "exp_avg_sq": torch.full_like(value, 2.0 * i),
        }
        for i, value in enumerate(parts["model"].values())
        if i
    }
    group = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}
    numbers = list(range(len(moments) + 1))
    checkpoint = {
        **parts,
        "opt": {
            "state": moments,
            "param_groups": [{**group, "params": numbers}],
        },
        "scaler": {},
        "args": argparse.Namespace(noise_schedule="linear", l1_loss=False, model="DiT-B"),
    }
    torch.save(checkpoint, path)
    return checkpoint


def assert_weights(actual: dict[str, Tensor], expected: dict[str, Tensor], *but: str) -> None:
    names = actual.keys() - set(but)
    assert names == expected.keys() - {PLAYFIELD_SIZE, *but}
    for name in names:
        assert torch.equal(actual[name], expected[name]), name


def last(folder: Path) -> dict[str, Any]:
    return load_training_checkpoint(max((folder / "checkpoints").glob("*.pt")))


def test_the_public_format_is_read_by_name(tmp_path: Path) -> None:
    checkpoint = made_up(tmp_path / "a.pt")
    state = read_training_state(tmp_path / "a.pt")
    assert (state.source, state.step, state.updates) == ("reference", 0, UPDATES)
    assert isinstance(state.parametrisation, LearnedVariance) and not state.parametrisation.l1
    assert_weights(state.model, checkpoint["model"])
    assert_weights(state.ema, checkpoint["ema"])
    for i, name in enumerate(checkpoint["model"]):
        if name != PLAYFIELD_SIZE:
            assert state.moments[name]["exp_avg"].unique().tolist() == [i], name


def test_training_goes_on_from_the_public_format(packed: PackedDataset, tmp_path: Path) -> None:
    """Without flags for its architecture; at a learning rate of 0 the weights stay."""
    checkpoint = made_up(tmp_path / "a.pt")
    flags = ("--ckpt", tmp_path / "a.pt", "--max-steps", 1)
    folder = run_train(packed.folder, tmp_path / "still", *flags, "--lr", 0)
    state = last(folder)
    assert_weights(state["model"], checkpoint["model"])
    assert (state["step"], state["updates"]) == (1, UPDATES + 1)
    assert state["opt"]["param_groups"][0]["betas"] == (0.9, 0.999)
    # One step on, with betas of 0.9 and 0.999: a moment of i is 0.9 i and the new gradient's part.
    index = {name: i for i, name in enumerate(checkpoint["model"])}
    for i, name in enumerate(state["model"]):
        moments = state["opt"]["state"][i]
        assert moments["step"] == UPDATES + 1
        gradient = (moments["exp_avg"] - 0.9 * index[name]) / 0.1
        assert gradient.abs().max() <= 1.01, name  # clipped to norm 1
        expected = 0.999 * 2 * index[name] + 0.001 * gradient**2
        torch.testing.assert_close(moments["exp_avg_sq"], expected, rtol=1e-5, atol=1e-5)
    # The EMA keeps the memory that it has after so many updates.
    weight = UPDATES ** (-2 / 3)
    for name, value in state["ema"].items():
        expected = checkpoint["ema"][name].lerp(checkpoint["model"][name], weight)
        torch.testing.assert_close(value, expected)
    loaded = load_model(folder / "model.safetensors")
    assert isinstance(loaded.parametrisation, LearnedVariance) and loaded.model.config.learn_sigma
    moved = last(run_train(packed.folder, tmp_path / "moves", *flags))["model"]
    assert not torch.equal(moved[TABLE], checkpoint["model"][TABLE])


def test_a_run_from_the_public_format_resumes(packed: PackedDataset, tmp_path: Path) -> None:
    made_up(tmp_path / "a.pt")
    flags = ("--ckpt", tmp_path / "a.pt", "--max-steps", 4)
    whole = run_train(packed.folder, tmp_path / "whole", *flags)
    again = run_train(packed.folder, tmp_path / "half", *flags, "--ckpt-every", 2)
    (again / "checkpoints" / "0000004.pt").unlink()
    resumed = run_train(packed.folder, tmp_path / "half", *flags, "--resume", again)
    assert_weights(last(resumed)["model"], last(whole)["model"])
    assert_weights(last(resumed)["ema"], last(whole)["ema"])


def test_relearn_embeds_renews_the_table_of_the_public_format(
    packed: PackedDataset, tmp_path: Path
) -> None:
    """And its moments alone; with --embed-only-epochs nothing else moves."""
    checkpoint = made_up(tmp_path / "a.pt", num_classes=99)
    with pytest.raises(ValueError, match="99 classes, the dataset 6: add --relearn-embeds"):
        call_train(packed.folder, tmp_path, "--ckpt", tmp_path / "a.pt")
    flags = ("--ckpt", tmp_path / "a.pt", "--relearn-embeds", "--embed-only-epochs", 1)
    state = last(run_train(packed.folder, tmp_path, *flags, "--max-steps", 2, "--resume", "never"))
    assert_weights(state["model"], checkpoint["model"], TABLE)
    assert state["model"][TABLE].shape[0] == CLASSES + 1
    names = list(state["model"])
    steps = {n: float(state["opt"]["state"][i]["step"]) for i, n in enumerate(names)}
    assert steps.pop(TABLE) == 2 and set(steps.values()) == {UPDATES}


def test_fine_tuning_from_the_public_format(packed: PackedDataset, tmp_path: Path) -> None:
    made_up(tmp_path / "a.pt")
    flags = ("--ckpt", tmp_path / "a.pt", "--fine-tune-ids", "101,102", "--max-steps", 2)
    folder = run_train(packed.folder, tmp_path, *flags)
    assert re.search(r"Dataset: 2 maps", (folder / "log.txt").read_text(encoding="utf-8"))
    state = last(folder)
    assert state["step"] == state["updates"] == 2


def test_fine_tuning_counts_from_zero(packed: PackedDataset, trained: Path, tmp_path: Path) -> None:
    """A run's own last checkpoint, whose steps were those of all maps."""
    newest = max((trained / "checkpoints").glob("*.pt"))
    flags = ("--ckpt", newest, "--fine-tune-ids", "103", "--global-batch-size", 2)
    assert last(run_train(packed.folder, tmp_path, *flags, "--max-steps", 3))["step"] == 3


@pytest.mark.parametrize("missing", ["model", "opt", "args"])
def test_incomplete_files_of_the_public_format(tmp_path: Path, missing: str) -> None:
    """Without options it has the public defaults; without an optimiser it is no training run's."""
    checkpoint = made_up(tmp_path / "a.pt")
    del checkpoint[missing]
    torch.save(checkpoint, tmp_path / "a.pt")
    if missing == "args":
        assert read_training_state(tmp_path / "a.pt").parametrisation == LearnedVariance()
        return
    with pytest.raises(CheckpointError, match="lacks model, ema or opt"):
        read_training_state(tmp_path / "a.pt")


def test_a_model_of_another_kind_is_refused(trained: Path) -> None:
    state = read_training_state(max((trained / "checkpoints").glob("*.pt")))
    config = state.config
    state.require(config, EDM())
    deeper = DiTConfig.from_dict({**config.to_dict(), "depth": 3})
    with pytest.raises(CheckpointError, match="another size or architecture"):
        state.require(deeper, EDM())
    with pytest.raises(CheckpointError, match="was trained as"):
        state.require(config, LearnedVariance())


@needs_reference
def test_the_tiny_checkpoint_trains_on(tmp_path: Path) -> None:
    """Seven maps for its seven classes; three attention heads cannot be seen in its shapes."""
    assert FOLDER is not None
    path = Path(FOLDER) / "osu_diffusion_tiny.pt"
    write_maps(tmp_path / "songs", range(7))
    data = pack_maps(tmp_path / "songs", tmp_path / "packed").folder
    with pytest.raises(CheckpointError, match="number of attention heads must be given"):
        call_train(data, tmp_path / "results", "--ckpt", path)
    checkpoint = load_training_checkpoint(path)
    flags = ("--ckpt", path, "--heads", 3, "--resume", "never", "--max-steps")
    still = last(run_train(data, tmp_path / "results", *flags, 1, "--lr", 0))
    assert_weights(still["model"], checkpoint["model"])
    assert still["config"]["heads"] == 3 and still["updates"] == 2
    folder = run_train(data, tmp_path / "results", *flags, 8, "--lr", 1e-3)
    state = last(folder)
    assert {float(m["step"]) for m in state["opt"]["state"].values()} == {9.0}
    exported = load_model(folder / "model.safetensors")
    assert isinstance(exported.parametrisation, LearnedVariance)
