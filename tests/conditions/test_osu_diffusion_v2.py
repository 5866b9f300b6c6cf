"""Folders of osu-diffusion v2: what the public code computes is reproduced, bad files are refused.

The reference is a tiny checkpoint of random weights with what the public code computed with it.
"""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoint import CheckpointError, LoadedModel, load_model
from conditions.osu_diffusion_v2 import TOKENIZER, WEIGHTS
from conditions.vocabulary import MapConditions
from diffusion.guidance import guided_network
from diffusion.parametrisation import LearnedVariance, parametrisation_from_dict
from diffusion.samplers import sample_ddim
from models import Conditions, bind, make_context
from tests.osu_diffusion_v2 import tokenizer, write_folder

FOLDER = os.environ.get("OSU_DIFFUSION_REFERENCE")
needs_reference = pytest.mark.skipif(
    not FOLDER or not Path(FOLDER, "v2_tiny").is_dir(),
    reason="OSU_DIFFUSION_REFERENCE names no folder with v2_tiny",
)
EVERYTHING = 1000
"""A half window beyond the reference's 90 data points."""


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    assert FOLDER is not None
    return load_model(Path(FOLDER) / "v2_tiny", heads=3)


@pytest.fixture(scope="module")
def outputs() -> dict[str, Tensor]:
    assert FOLDER is not None
    with np.load(Path(FOLDER) / "v2_tiny" / "outputs.npz") as values:
        return {name: torch.from_numpy(values[name]) for name in values}


@pytest.fixture(scope="module")
def conditions(outputs: dict[str, Tensor]) -> Conditions:
    return Conditions(
        outputs["times"][None].double(),
        outputs["distances"][None],
        outputs["types"][None],
        outputs["y"].bool(),
    )


def rows(values: Tensor) -> Tensor:
    """The reference's (N, C, T) as (N, T, C)."""
    return values.transpose(1, 2)


def assert_close(actual: Tensor, expected: Tensor, relative: float) -> None:
    error = (actual - rows(expected)).norm() / expected.norm()
    assert error < relative


# --- what the public code computes ----------------------------------------------------------------


@needs_reference
def test_the_tiny_v2_is_read_from_its_shapes(loaded: LoadedModel) -> None:
    config = loaded.model.config
    assert (config.width, config.depth, config.heads) == (48, 2, 3)
    assert config.class_groups == (0, 26, 3, 4, 22)
    assert isinstance(loaded.parametrisation, LearnedVariance)
    assert loaded.parametrisation.known_steps == 100


@needs_reference
def test_class_vectors_are_those_of_the_public_code(
    loaded: LoadedModel, outputs: dict[str, Tensor]
) -> None:
    vocabulary = loaded.vocabulary
    assert vocabulary is not None
    told = MapConditions(
        star_rating=5.0, mapper=8, descriptors=("style/clean", "skillset/jumps"), circle_size=4.0
    )
    assert torch.equal(vocabulary.vector(told), outputs["y"].bool())
    assert torch.equal(vocabulary.vector(told.without_style()), outputs["y_null"].bool())


@needs_reference
def test_the_context_is_that_of_the_public_code(
    loaded: LoadedModel, outputs: dict[str, Tensor], conditions: Conditions
) -> None:
    features = make_context(loaded.model.config, conditions).features
    # Cosines of some thousand radians in float32.
    torch.testing.assert_close(features, rows(outputs["context"]), rtol=0, atol=3e-4)


@needs_reference
@pytest.mark.parametrize(
    ("name", "half_window", "null"),
    [
        ("forward", EVERYTHING, False),
        ("forward_null", EVERYTHING, True),
        ("forward_banded_16", 16, False),
    ],
)
def test_forward_passes_are_those_of_the_public_code(
    name: str,
    half_window: int,
    null: bool,
    loaded: LoadedModel,
    outputs: dict[str, Tensor],
    conditions: Conditions,
) -> None:
    told = conditions._replace(classes=outputs["y_null"].bool()) if null else conditions
    with torch.inference_mode():
        network = bind(loaded.model, told, half_window)
        found = network(rows(outputs["x"]), outputs["t"].float())
    assert_close(found, outputs[name], 1e-5)


@needs_reference
def test_guidance_is_that_of_the_public_code(
    loaded: LoadedModel, outputs: dict[str, Tensor], conditions: Conditions
) -> None:
    both = torch.cat([outputs["y"], outputs["y_null"]]).bool()
    told = conditions.repeat(2)._replace(classes=both)
    with torch.inference_mode():
        network = guided_network(bind(loaded.model, told, EVERYTHING), 2.0)
        found = network(rows(outputs["x"]), outputs["t"].float())
    # The public code's second half has the same prediction, and the null's variance.
    assert_close(found, outputs["forward_cfg_2"][:1], 1e-5)


@needs_reference
def test_a_step_of_the_chain_is_that_of_the_public_code(
    loaded: LoadedModel, outputs: dict[str, Tensor], conditions: Conditions
) -> None:
    p = loaded.parametrisation
    assert isinstance(p, LearnedVariance)
    alphas, sigmas = p.schedule.alphas_cumprod, p.schedule.sigmas
    torch.testing.assert_close(alphas[:100], outputs["alphas_cumprod"], rtol=1e-12, atol=0)
    assert torch.equal(outputs["respaced_timesteps"], torch.arange(p.known_steps or 0))
    t = torch.tensor(40)
    x = (rows(outputs["x"]).double() / alphas[t].sqrt()).float()
    with torch.inference_mode():
        x0, values = p.predict(bind(loaded.model, conditions, EVERYTHING), x, sigmas[t])
    mean = x0 + ((sigmas[t - 1] / sigmas[t]) ** 2).float() * (x - x0)
    log_variance = p.log_variance(values, t, t - 1)
    for found, name in (
        (x0, "pred_xstart"),
        (mean * alphas[t - 1].sqrt().float(), "mean"),
        (log_variance, "log_variance"),
    ):
        torch.testing.assert_close(found, rows(outputs[f"step40_{name}"]), rtol=1e-5, atol=1e-5)


@needs_reference
def test_a_ddim_run_is_that_of_the_public_code(
    loaded: LoadedModel, outputs: dict[str, Tensor], conditions: Conditions
) -> None:
    p = loaded.parametrisation
    assert isinstance(p, LearnedVariance)
    sigmas = torch.cat([p.schedule.sigmas[:100].flip(0), torch.zeros(1, dtype=torch.float64)])
    x = (rows(outputs["x"]).double() / p.schedule.alphas_cumprod[99].sqrt()).float()
    with torch.inference_mode():
        denoise, _ = p.denoiser(bind(loaded.model, conditions, EVERYTHING))
        found = sample_ddim(denoise, x, sigmas)
    close = (found - rows(outputs["ddim_100"])).abs() < 1e-4
    assert close.float().mean() >= 0.95


# --- any folder -----------------------------------------------------------------------------------


def test_a_folder_loads_with_the_noise_that_it_knows(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "v2")
    loaded = load_model(folder)
    assert loaded.path == folder
    # Timestep 99 of the squared-cosine chain, along x.
    assert loaded.parametrisation.limit * 256 == pytest.approx(43.4, abs=0.1)
    assert load_model(folder, known_steps=1000).parametrisation.limit == float("inf")
    with pytest.raises(ValueError, match="max noise step 0: give a number from 1 to 1000"):
        load_model(folder, known_steps=0)


def test_its_hash_is_of_both_files(tmp_path: Path) -> None:
    one, two = write_folder(tmp_path / "a"), write_folder(tmp_path / "b", num_cs_classes=22)
    assert load_model(one).sha256 == load_model(two).sha256
    torch.save(tokenizer(max_difficulty=13), two / TOKENIZER)
    assert load_model(one).sha256 != load_model(two).sha256


def test_coordinates_are_about_the_middle() -> None:
    p = LearnedVariance(centred=True)
    corners = torch.tensor([[0.0, 0.0], [256.0, 192.0], [512.0, 384.0]])
    expected = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
    assert torch.equal(p.from_pixels(corners), expected)
    assert torch.equal(p.to_pixels(expected), corners)


@pytest.mark.parametrize("known_steps", [None, 100])
def test_the_parametrisation_comes_back(known_steps: int | None) -> None:
    p = LearnedVariance(clamp=(-2.0, 2.0), centred=True, known_steps=known_steps)
    assert parametrisation_from_dict(p.to_dict()) == p


# --- files that are refused -----------------------------------------------------------------------


def refusal(folder: Path) -> str:
    """The message with which a folder is refused: one line that names it."""
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER])
def test_a_file_that_is_missing_is_named(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / name).unlink()
    assert f"lacks {name}" in refusal(folder)


class Bomb:
    """A pickle that makes a folder when it is loaded carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER])
def test_code_in_a_file_is_refused_and_does_not_run(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    torch.save({"num_classes": Bomb(tmp_path / "boom")}, folder / name)
    assert "could run code" in refusal(folder)
    assert not (tmp_path / "boom").exists()
    torch.load(folder / name, weights_only=False)
    assert (tmp_path / "boom").exists()  # the bomb is a real one


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER])
@pytest.mark.parametrize("data", [b"", b"PK", b"\x80\x02}q\x00.", b"<html>not found</html>"])
def test_files_of_other_kinds_are_refused(name: str, data: bytes, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / name).write_bytes(data)
    assert "is not a file that torch.save wrote" in refusal(folder)


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER])
def test_a_file_that_unpacks_to_more_than_it_is_is_refused(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(50_000_000))
    assert (folder / name).stat().st_size < 100_000
    assert "would unpack to 50000000 bytes" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_diff_classes": 10**12}, "places for difficulties"),
        ({"num_cs_classes": -3}, "places for circle sizes"),
        ({"num_cs_classes": True}, "num_cs_classes is 'True', no number"),
        ({"num_mapper_classes": "3"}, "num_mapper_classes is '3'"),
        ({"max_difficulty": 0}, "the highest star rating is 0.0"),
        ({"max_difficulty": float("nan")}, "the highest star rating is nan"),
        ({"mapper_idx": {7: 5}}, "a place of mappers is not among their 3"),
        ({"mapper_idx": {7: -1}}, "a place of mappers is not among their 3"),
        ({"mapper_idx": {"7": 0}}, "mapper_idx has keys that are no int"),
        ({"mapper_idx": [7]}, "mapper_idx is no table"),
        ({"descriptor_idx": {"clean": 0.5}}, "descriptor_idx has the value '0.5'"),
        ({"beatmap_descriptors": {1: 5}}, "beatmap_descriptors has the value '5'"),
        ({"num_cs_classes": 23}, "they are not of one model"),
    ],
)
def test_tokenizers_that_make_no_sense_are_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path)
    torch.save(tokenizer(**changes), folder / TOKENIZER)
    assert said in refusal(folder)


def test_a_tokenizer_that_lacks_tables_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    torch.save({"num_classes": 0}, folder / TOKENIZER)
    assert "it lacks num_diff_classes" in refusal(folder)


def widened(state: dict[str, Any]) -> None:
    state["blocks.0.mlp.fc1.bias"] = torch.zeros(7)


def emptied(state: dict[str, Any]) -> None:
    state["context_embedder.mlp.0.weight"] = torch.zeros(0)


def renamed(state: dict[str, Any]) -> None:
    state["blocks.999999999.mlp.fc1.bias"] = state.pop("blocks.0.mlp.fc1.bias")


def filled_with_text(state: dict[str, Any]) -> None:
    state["blocks.0.mlp.fc1.bias"] = "no tensor"


def without_classes(state: dict[str, Any]) -> None:
    del state["y_embedder.class_embedding.0.weight"]


@pytest.mark.parametrize("spoil", [widened, emptied, renamed, filled_with_text, without_classes])
def test_weights_that_make_no_sense_are_refused(
    spoil: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path)
    state = torch.load(folder / WEIGHTS, weights_only=True)
    spoil(state)
    torch.save(state, folder / WEIGHTS)
    assert WEIGHTS in refusal(folder)
