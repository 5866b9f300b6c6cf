"""Folders for the Hugging Face Hub: what is in them, and that a model comes back from them."""

import json
from pathlib import Path

import export_model
import pytest
import torch

from checkpoint import export_weights, load_model
from conventions.hub import CONFIG, EXPERT, MODELS, WEIGHTS
from diffusion.parametrisation import EDM
from models import DiT, DiTConfig
from tests.conftest import call_main, run_command

TINY = DiTConfig(width=16, depth=2, heads=2, num_classes=3, coordinate_dim=8, distance_dim=8)
METADATA = {"model": "DiT-tiny", "steps": 7, "maps": 3, "args": {"data_path": "/home/somebody"}}


def made(folder: Path) -> Path:
    """A model and its companions, exported with a run's metadata."""
    for name in MODELS:
        file = folder / name.replace("model", "mine")
        units = EDM(sigma_max=3.0, trained_below=0.5 if name == EXPERT else None)
        export_weights(file, DiT(TINY).state_dict(), TINY, units, METADATA)
    return folder / "mine.safetensors"


def test_a_folder_holds_all_and_nothing_private(tmp_path: Path) -> None:
    model, output = made(tmp_path), tmp_path / "share"
    flags = ("--output", output, "--name", "me/mine", "--license", "mit")
    assert call_main(export_model.main, model, *flags, "--trained-on", "Three maps.") == 0
    assert {path.name for path in output.iterdir()} == {*MODELS, CONFIG, "README.md"}
    before, after = load_model(model), load_model(output / WEIGHTS)
    for name, weight in before.model.state_dict().items():
        torch.testing.assert_close(after.model.state_dict()[name], weight, rtol=0, atol=0)
    assert after.parametrisation == before.parametrisation and after.weak and after.expert
    size = "DiT of width 16, 2 blocks, 2 heads"  # the file itself may say less
    assert after.metadata == {"model": size, "steps": 7, "maps": 3}
    assert not any(b"somebody" in path.read_bytes() for path in output.iterdir())
    config = json.loads((output / CONFIG).read_text(encoding="utf-8"))
    assert config["architecture"]["width"] == 16 and config["training"]["steps"] == 7
    card = (output / "README.md").read_text(encoding="utf-8")
    head = card.split("---\n")[1]
    assert "library_name: osu-diffusion\n" in head and "license: mit\n" in head
    assert "--ckpt hf:me/mine\n" in card and "Three maps." in card and "## Measured" not in card


def test_the_card_has_the_figures_of_an_evaluation(tmp_path: Path) -> None:
    summary = {"maps": 121, "object_spacing_error_median": 0.0702, "stacks_broken_share": 0.25}
    report = {"options": {"steps": 12}, "summary": summary, "realism_ratio": 0.9617}
    (tmp_path / "e.json").write_text(json.dumps(report), encoding="utf-8")
    flags = ("--output", tmp_path / "share", "--name", "me/mine")
    call_main(export_model.main, made(tmp_path), *flags, "--evaluation", tmp_path / "e.json")
    card = (tmp_path / "share" / "README.md").read_text(encoding="utf-8")
    for row in ("| maps | 121 |", "median | 0.07 px |", "their pixel | 25.0% |", "other) | 0.96 |"):
        assert row in card
    assert "12 steps" in card


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, output = made(tmp_path), tmp_path / "share"
    assert run_command(export_model.main, model, "--output", output, "--name", "mine") == 2
    assert "--name mine: give OWNER/NAME" in capsys.readouterr().err
    named = ("--name", "me/mine")
    assert run_command(export_model.main, model, "--output", tmp_path, *named) == 2
    assert "has files: add --overwrite" in capsys.readouterr().err
    (tmp_path / "e.json").write_text("{}", encoding="utf-8")
    flags = ("--output", output, *named, "--evaluation", tmp_path / "e.json")
    assert run_command(export_model.main, model, *flags) == 2
    assert "the evaluation has no figures" in capsys.readouterr().err
