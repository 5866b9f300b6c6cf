"""Checkpoints: saved ones come back, a failing save changes nothing, foreign files are refused."""

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from checkpoint import (
    FORMAT,
    CheckpointError,
    export_weights,
    load_model,
    load_training_checkpoint,
    save_training_checkpoint,
    write_class_table,
)
from diffusion.parametrisation import EDM, LearnedVariance
from diffusion.schedule import linear_schedule
from models import REFERENCE_ARCHITECTURE, DiT, DiTConfig

FOLDER = os.environ.get("OSU_DIFFUSION_REFERENCE")
needs_reference = pytest.mark.skipif(
    not FOLDER, reason="OSU_DIFFUSION_REFERENCE names no folder with osu_diffusion_tiny.pt"
)

TINY = DiTConfig(width=16, depth=2, heads=2, num_classes=3, coordinate_dim=8, distance_dim=8)
EDM_OPTIONS = EDM(log_mean=-0.7, sigma_max=30.0)


def random_model(config: DiTConfig, seed: int = 0) -> DiT:
    model = DiT(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


def export(path: Path, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Exports a tiny model and returns its weights."""
    state = random_model(TINY).state_dict()
    export_weights(path, state, TINY, EDM_OPTIONS, {"title": "星 ü", "steps": 7}, dtype)
    return state


def training_state(seed: int = 0) -> dict[str, Any]:
    """What a training checkpoint of ours holds, with an EMA that is not the model."""
    return {
        "model": random_model(TINY, seed + 1).state_dict(),
        "ema": random_model(TINY, seed).state_dict(),
        "config": TINY.to_dict(),
        "parametrisation": EDM_OPTIONS.to_dict(),
        "step": 12,
        "args": {"lr": 1e-4, "name": "星"},
    }


def reference_state(**options: object) -> dict[str, Any]:
    """A checkpoint as the public osu-diffusion writes it, of made-up weights."""
    config = DiTConfig.from_dict({**asdict(TINY), **REFERENCE_ARCHITECTURE})
    playfield = {"xoc_embedder.playfield_size": torch.tensor([512.0, 384.0])}
    return {
        "model": {**random_model(config, 1).state_dict(), **playfield},
        "ema": {**random_model(config).state_dict(), **playfield},
        "args": argparse.Namespace(**options),
    }


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def refusal(path: Path, heads: int | None = None) -> str:
    """The message with which a file is refused: one line that starts with the file's name."""
    with pytest.raises(CheckpointError) as caught:
        load_model(path, heads=heads)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# --- saving ---------------------------------------------------------------------------------------


def test_a_training_checkpoint_comes_back_bit_by_bit(tmp_path: Path) -> None:
    state = training_state()
    save_training_checkpoint(tmp_path / "a.pt", state)
    loaded = load_training_checkpoint(tmp_path / "a.pt")
    for part in ("model", "ema"):
        assert_same(loaded.pop(part), state.pop(part))
    assert loaded == state
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_saving_again_replaces_the_checkpoint(tmp_path: Path) -> None:
    save_training_checkpoint(tmp_path / "a.pt", {"step": 1})
    save_training_checkpoint(tmp_path / "a.pt", {"step": 2})
    assert load_training_checkpoint(tmp_path / "a.pt") == {"step": 2}


def write_half_and_fail(*args: Any, **_: Any) -> None:
    """A save that is interrupted, by a full disk say, after its first bytes."""
    for target in args:
        if hasattr(target, "write"):
            target.write(b"PK half of a")
        elif isinstance(target, Path):
            target.write_bytes(b"half of a")
    raise OSError("No space left on device")


def test_a_failing_save_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    save_training_checkpoint(path, {"step": 1})
    monkeypatch.setattr(torch, "save", write_half_and_fail)
    with pytest.raises(OSError, match="No space left"):
        save_training_checkpoint(path, {"step": 2})
    assert load_training_checkpoint(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_export_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    export(path)
    before = path.read_bytes()

    def interrupted(part: Path, data: bytes) -> None:
        with part.open("wb") as file:
            write_half_and_fail(file)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(OSError, match="No space left"):
        export(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- loading what was saved -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_an_export_comes_back_to_its_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "a.safetensors"
    state = export(path, dtype)
    loaded = load_model(str(path))
    assert_same(loaded.model.state_dict(), {k: v.to(dtype).float() for k, v in state.items()})
    assert loaded.model.config == TINY
    assert loaded.parametrisation == EDM_OPTIONS
    assert loaded.metadata == {"title": "星 ü", "steps": 7}
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert isinstance(loaded.parametrisation, EDM)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_bfloat16_halves_the_file(tmp_path: Path) -> None:
    export(tmp_path / "half.safetensors")
    export(tmp_path / "full.safetensors", torch.float32)
    weights = sum(v.numel() for v in random_model(TINY).state_dict().values())
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half")]
    # Headers differ by the width of the offsets alone.
    assert sizes[0] - sizes[1] == pytest.approx(2 * weights, abs=500)


def test_a_loaded_model_is_ready_to_sample(tmp_path: Path) -> None:
    export(tmp_path / "a.safetensors")
    model = load_model(tmp_path / "a.safetensors").model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_training_checkpoint_loads_as_its_ema(tmp_path: Path) -> None:
    state = training_state()
    save_training_checkpoint(tmp_path / "a.pt", state)
    loaded = load_model(tmp_path / "a.pt")
    assert_same(loaded.model.state_dict(), state["ema"])
    assert (loaded.model.config, loaded.parametrisation) == (TINY, EDM_OPTIONS)
    assert loaded.metadata == {"step": 12, "args": {"lr": 1e-4, "name": "星"}}


@pytest.mark.parametrize("bare", [False, True])
def test_a_checkpoint_of_the_public_format_loads_as_its_ema(tmp_path: Path, bare: bool) -> None:
    state = reference_state(noise_schedule="squaredcos_cap_v2", l1_loss=True)
    ema = state["ema"]
    torch.save(ema if bare else state, tmp_path / "a.pt")
    loaded = load_model(tmp_path / "a.pt", heads=2)
    expected = {k: v for k, v in ema.items() if k != "xoc_embedder.playfield_size"}
    assert_same(loaded.model.state_dict(), expected)
    assert loaded.parametrisation == LearnedVariance()
    assert isinstance(loaded.parametrisation, LearnedVariance)
    config = loaded.model.config
    assert (config.width, config.depth, config.heads, config.num_classes) == (16, 2, 2, 3)
    assert (config.out_channels, config.half_window, config.rotary_periods) == (4, 128, None)


def test_a_checkpoint_of_the_public_format_keeps_its_noise_schedule(tmp_path: Path) -> None:
    torch.save(reference_state(noise_schedule="linear", l1_loss=False), tmp_path / "a.pt")
    loaded = load_model(tmp_path / "a.pt", heads=2)
    assert loaded.parametrisation == LearnedVariance(linear_schedule(), l1=False)


def test_an_unknown_size_of_the_public_format_needs_its_heads(tmp_path: Path) -> None:
    torch.save(reference_state(), tmp_path / "a.pt")
    assert "width 16 and depth 2" in refusal(tmp_path / "a.pt")


def test_a_model_takes_no_other_models_index(tmp_path: Path) -> None:
    """The index beside it, or above a run's checkpoints; without one, it must be named."""
    (tmp_path / "checkpoints").mkdir()
    for folder in (tmp_path, tmp_path / "checkpoints"):
        export(folder / "a.safetensors")
        with pytest.raises(ValueError, match="beatmap idx"):
            load_model(folder / "a.safetensors").class_index_path()
    (tmp_path / "beatmap_idx.pickle").touch()
    for folder in (tmp_path, tmp_path / "checkpoints"):
        loaded = load_model(folder / "a.safetensors")
        assert loaded.class_index_path() == tmp_path / "beatmap_idx.pickle"


@needs_reference
def test_the_tiny_reference_checkpoint_is_read_from_its_shapes() -> None:
    assert FOLDER is not None
    loaded = load_model(Path(FOLDER) / "osu_diffusion_tiny.pt", heads=3)
    config = loaded.model.config
    assert (config.width, config.depth, config.heads, config.num_classes) == (48, 2, 3, 7)
    assert loaded.parametrisation == LearnedVariance()


def test_the_class_table_is_csv_in_utf_8(tmp_path: Path) -> None:
    rows = [{"class": "0", "title": 'a "b", c'}, {"class": "1", "title": "星\nü"}]
    write_class_table(tmp_path / "a.classes.csv", rows)
    data = (tmp_path / "a.classes.csv").read_bytes()
    assert b"\r" not in data
    assert list(csv.DictReader(data.decode("utf-8").splitlines(keepends=True))) == rows


# --- files that are refused -----------------------------------------------------------------------


class Bomb:
    """A pickle that makes a folder when it is loaded carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("load", [load_model, load_training_checkpoint])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path: Path, load: Any) -> None:
    torch.save({"ema": {}, "args": Bomb(tmp_path / "boom")}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="could run code") as caught:
        load(tmp_path / "a.pt")
    assert not (tmp_path / "boom").exists()
    assert "weights_only" not in str(caught.value)
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "boom").exists()  # the bomb is a real one


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    assert "there is no checkpoint file" in refusal(tmp_path / "none.pt")
    assert "lacks model_ema.pkl" in refusal(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert f"give the model in it, {tmp_path / 'model.safetensors'}" in refusal(tmp_path)
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        load_training_checkpoint(tmp_path)


@pytest.mark.parametrize("kept", [9, 50, 1000, -1])
def test_a_truncated_export_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    export(path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "is damaged" in refusal(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_training_checkpoint_is_refused(tmp_path: Path, part: float) -> None:
    path = tmp_path / "a.pt"
    save_training_checkpoint(path, training_state())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    assert "is not a checkpoint that can be read" in refusal(path)


@pytest.mark.parametrize("data", [b"", b"PK", b"<html>not found</html>", b"\x80\x02}q\x00."])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(data)
    assert "is not a" in refusal(tmp_path / "a.pt")


def test_another_zip_file_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("song.osu", "osu file format v14")
    assert "is not a checkpoint that can be read" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("state", [{"weight": torch.ones(2)}, {"ema": {}}, {"model": {}}])
def test_checkpoints_of_other_programs_are_refused(tmp_path: Path, state: dict[str, Any]) -> None:
    torch.save(state, tmp_path / "a.pt")
    assert "another program" in refusal(tmp_path / "a.pt")


def test_a_checkpoint_that_is_no_dict_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "a.pt")
    assert "holds a list" in refusal(tmp_path / "a.pt")


def header(**changes: str | None) -> dict[str, str]:
    """The header of an export, changed; None takes a key out."""
    values = {
        "format": FORMAT,
        "format_version": "1",
        "config": json.dumps(TINY.to_dict()),
        "parametrisation": json.dumps(EDM().to_dict()),
        "metadata": "{}",
    }
    return {k: v for k, v in {**values, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": None}, "another program"),
        ({"format": "pt"}, "another program"),
        ({"format_version": "2"}, "export format '2', this version reads 1: update"),
        ({"config": None}, "incomplete or of another version: KeyError: 'config'"),
        ({"config": "{"}, "incomplete or of another version"),
        ({"config": '{"wings": 2}'}, r"unknown model options \['wings'\]"),
        ({"parametrisation": '{"name": "flow"}'}, "unknown parametrisation"),
        ({"parametrisation": '{"name": "edm", "wings": 2}'}, "wings"),
    ],
)
def test_exports_of_others_or_other_versions_are_refused(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    path = tmp_path / "a.safetensors"
    state = random_model(TINY).state_dict()
    safetensors.torch.save_file(state, path, metadata=header(**changes))
    with pytest.raises(CheckpointError, match=message):
        load_model(path)
    refusal(path)


def test_an_export_with_its_own_header_loads(tmp_path: Path) -> None:
    """The control of the test above."""
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(random_model(TINY).state_dict(), path, metadata=header())
    assert load_model(path).model.config == TINY


def test_a_safetensors_file_without_a_header_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert "another program" in refusal(tmp_path / "a.safetensors")


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_their_configuration_are_refused(
    tmp_path: Path, change: str
) -> None:
    state = random_model(TINY).state_dict()
    if change == "missing":
        del state["final_layer.linear.bias"]
    elif change == "extra":
        state["final_layer.wings"] = torch.ones(2)
    else:
        state["final_layer.linear.bias"] = torch.ones(7)
    path = tmp_path / "a.safetensors"
    export_weights(path, state, TINY, EDM(), {})
    message = refusal(path)
    assert "do not fit the configuration" in message
    assert "final_layer" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("width", 10**9), ("width", "8"), ("depth", 10**6), ("depth", 0), ("heads", True)),
        *(("coordinate_scale", "ab"), ("coordinate_scale", [1.0]), ("rotary_periods", [1, -1])),
        *(("mlp_ratio", float("nan")), ("mlp_ratio", "4"), ("num_classes", -1)),
    ],
)
def test_an_impossible_configuration_is_refused(tmp_path: Path, option: str, value: Any) -> None:
    state = training_state()
    state["config"][option] = value
    save_training_checkpoint(tmp_path / "a.pt", state)
    refusal(tmp_path / "a.pt")


def test_no_memory_is_taken_for_weights_that_are_not_there(tmp_path: Path) -> None:
    """This model would have 1.6e12 parameters; its refusal names what is missing."""
    state = training_state()
    state["config"] |= {"width": 16_384, "heads": 1, "depth": 500}
    save_training_checkpoint(tmp_path / "a.pt", state)
    assert "do not fit the configuration: 'blocks." in refusal(tmp_path / "a.pt")


def test_noise_levels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = training_state()
    state["parametrisation"]["sigma_max"] = "5"
    save_training_checkpoint(tmp_path / "a.pt", state)
    assert "must be numbers" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("key", ["parametrisation", "step", "args"])
def test_an_incomplete_training_checkpoint_is_refused(tmp_path: Path, key: str) -> None:
    state = training_state()
    del state[key]
    save_training_checkpoint(tmp_path / "a.pt", state)
    assert "incomplete" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize("kept", ["xoc_embedder", "y_embedder"])
def test_an_incomplete_checkpoint_of_the_public_format_is_refused(
    tmp_path: Path, kept: str
) -> None:
    playfield = "xoc_embedder.playfield_size"
    state = {
        name: value
        for name, value in reference_state()["ema"].items()
        if name.startswith(kept) or name == playfield
    }
    torch.save(state, tmp_path / "a.pt")
    assert "incomplete" in refusal(tmp_path / "a.pt", heads=2)


def test_loading_a_model_imports_no_compiler(tmp_path: Path) -> None:
    """Random numbers without memory would bring it, and its import takes as long as PyTorch's."""
    export(tmp_path / "model.safetensors")
    code = (
        "import sys\nfrom checkpoint import load_model\nload_model(sys.argv[1])\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.safetensors")]
    subprocess.run(command, cwd=Path(__file__).resolve().parent.parent, check=True)
