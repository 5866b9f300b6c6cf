"""Training on from an osu-diffusion v2, experts for low noise, and distorted windows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoint import (
    CheckpointError,
    load_model,
    load_training_checkpoint,
    save_training_checkpoint,
)
from conditions.osu_diffusion_v2 import RENAMED, WEIGHTS
from conditions.vocabulary import MapConditions, vocabulary_of
from data_loading import PackedDataset
from diffusion.parametrisation import EDM, LearnedVariance
from models import Conditions, DiTConfig, null_classes
from tests.conftest import call_train, run_train
from tests.osu_diffusion_v2 import tokenizer, write_folder
from tests.runs import assert_resumes, last
from training.conditioning import condition_table, with_groups_dropped
from training.distortion import Distortion
from training.objective import Noise, Objective
from training.state import read_training_state

# --- what the network is told ---------------------------------------------------------------------


def test_maps_are_told_by_what_the_dataset_and_the_vocabulary_know(packed: PackedDataset) -> None:
    vocabulary = vocabulary_of(tokenizer())
    table = condition_table(vocabulary, packed)[np.arange(len(packed))]
    assert table.shape == (len(packed), 55)
    rows = packed.beatmaps[["beatmap_id", "star_rating", "circle_size"]].itertuples(index=False)
    for row, (beatmap_id, stars, size) in zip(table, rows, strict=True):
        mapper = {101: 7, 102: 8}.get(beatmap_id)
        names = {101: ("style/clean", "skillset/jumps"), 102: ("skillset/streams",)}
        told = MapConditions(None, stars, mapper, names.get(beatmap_id, ()), size)
        assert np.array_equal(row, vocabulary.vector(told)[0].numpy())
        assert row[41]  # all made-up maps have CS 4


def test_groups_are_dropped_each_on_its_own() -> None:
    vocabulary = vocabulary_of(tokenizer())
    config = DiTConfig(class_groups=vocabulary.groups)
    told = MapConditions(None, 5.0, 8, ("clean", "jumps"), 4.0)
    vectors = vocabulary.vector(told).repeat(3, 1)
    dropped = torch.tensor([[False] * 5, [False, False, True, True, False], [True] * 5])
    found = with_groups_dropped(vectors, dropped, config)
    assert torch.equal(found[0], vectors[0])
    assert torch.equal(found[1:2], vocabulary.vector(told.without_style()))
    assert torch.equal(found[2:], null_classes(config))


def test_windows_in_double_time_are_told_no_star_rating() -> None:
    vocabulary = vocabulary_of(tokenizer())
    config = DiTConfig(class_groups=vocabulary.groups)
    objective = Objective(EDM(), config, torch.device("cpu"), torch.float32, 8, amp=False)
    told = MapConditions(None, 5.0, 8, ("clean",), 4.0)
    given = conditions(2)._replace(
        classes=vocabulary.vector(told).repeat(2, 1), valid=torch.ones(2, 8, dtype=torch.bool)
    )
    noise = Noise.draw(
        EDM(), (2, 8), (0, 0), class_dropout=0, distance_dropout=0, groups=len(vocabulary.groups)
    )
    noise = replace(noise, distortion=Distortion(torch.tensor([False, True])))
    found, _, _ = objective.conditions(given, torch.zeros(2, 8, 2), noise)
    assert torch.equal(found.classes[0], given.classes[0])
    without = replace(told, star_rating=None)
    assert torch.equal(found.classes[1:], vocabulary.vector(without))
    assert found.times[1, 1] - found.times[1, 0] == pytest.approx(100 / 1.5)


# --- runs -----------------------------------------------------------------------------------------


def test_training_goes_on_from_a_folder(packed: PackedDataset, tmp_path: Path) -> None:
    """Whatever the flags say of its size; at a learning rate of 0 the weights stay."""
    v2 = write_folder(tmp_path / "v2")
    flags = ("--ckpt", v2, "--max-steps", 2)
    folder = run_train(packed.folder, tmp_path / "still", *flags, "--lr", 0)
    state = load_training_checkpoint(last(folder))
    before = torch.load(v2 / WEIGHTS, weights_only=True)
    old, new = RENAMED
    assert {name.replace(new, old) for name in state["model"]} == before.keys()
    for name, weight in state["model"].items():
        assert torch.equal(weight, before[name.replace(new, old)]), name
    moved = load_training_checkpoint(last(run_train(packed.folder, tmp_path / "moves", *flags)))
    layer = "y_embedder.class_embedding.0.weight"
    assert not torch.equal(moved["model"][layer], before[layer])


def test_what_comes_out_knows_what_the_folder_knew(packed: PackedDataset, tmp_path: Path) -> None:
    v2 = write_folder(tmp_path / "v2")
    folder = run_train(packed.folder, tmp_path / "out", "--ckpt", v2, "--max-steps", 2)
    original = load_model(v2)
    for path in (folder / "model.safetensors", last(folder)):
        loaded = load_model(path)
        assert loaded.vocabulary == original.vocabulary
        assert loaded.model.config == original.model.config
        assert loaded.parametrisation == original.parametrisation
        assert isinstance(loaded.parametrisation, LearnedVariance)
        assert loaded.parametrisation.known_steps == 100


def test_a_run_from_a_folder_resumes(packed: PackedDataset, tmp_path: Path) -> None:
    flags: tuple[object, ...] = ("--ckpt", write_folder(tmp_path / "v2"), "--max-steps", 4)
    flags += ("--ckpt-every", 2)
    flags += ("--augment-double-time", 0.5, "--augment-distances", 0.1)
    assert_resumes(packed, tmp_path, *flags)


def test_flags_of_a_class_table_are_refused(packed: PackedDataset, tmp_path: Path) -> None:
    flags = ("--ckpt", write_folder(tmp_path / "v2"), "--relearn-embeds")
    with pytest.raises(ValueError, match="has no class table for --relearn-embeds"):
        call_train(packed.folder, tmp_path / "out", *flags)


def test_a_checkpoint_without_its_vocabulary_is_refused(
    packed: PackedDataset, tmp_path: Path
) -> None:
    flags = ("--ckpt", write_folder(tmp_path / "v2"), "--max-steps", 1)
    path = last(run_train(packed.folder, tmp_path / "out", *flags))
    state = load_training_checkpoint(path)
    other = {**state, "vocabulary": {**state["vocabulary"], "num_cs_classes": 12}}
    del state["vocabulary"]
    for wrong in (state, other):
        save_training_checkpoint(tmp_path / "wrong.pt", wrong)
        with pytest.raises(CheckpointError, match="vocabulary"):
            load_model(tmp_path / "wrong.pt")


def test_an_expert_of_ours_is_trained_and_says_so(packed: PackedDataset, tmp_path: Path) -> None:
    flags: tuple[object, ...] = ("--max-noise-px", 80, "--max-steps", 2)
    flags += ("--validation-fraction", 0.5)
    flags += ("--sample-every", 2, "--val-every", 2)
    folder = run_train(packed.folder, tmp_path / "low", *flags)
    loaded = load_model(folder / "model.safetensors")
    assert loaded.parametrisation == EDM().limited(80)
    # It goes on as what it is, and only so.
    more = ("--ckpt", folder / "model.safetensors", "--max-steps", 2)
    with pytest.raises(ValueError, match="--max-noise-px it was trained with"):
        call_train(packed.folder, tmp_path / "other", *more)
    run_train(packed.folder, tmp_path / "same", *more, "--max-noise-px", 80)


def test_a_whole_model_goes_on_as_an_expert(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    flags = ("--ckpt", trained / "model.safetensors", "--max-noise-px", 80, "--max-steps", 2)
    folder = run_train(packed.folder, tmp_path, *flags)
    assert read_training_state(last(folder)).parametrisation == EDM().limited(80)


@pytest.mark.parametrize("value", [1.0, 1.4])
def test_any_model_goes_on_with_another_spread_of_noise(
    packed: PackedDataset, trained: Path, tmp_path: Path, value: float
) -> None:
    begun = run_train(packed.folder, tmp_path / "a", "--noise-log-std", value, "--max-steps", 2)
    assert load_model(begun / "model.safetensors").parametrisation == EDM(log_std=value)
    flags = ("--ckpt", trained / "model.safetensors", "--max-steps", 2, "--noise-log-std", value)
    folder = run_train(packed.folder, tmp_path / "b", *flags)
    assert read_training_state(last(folder)).parametrisation == EDM(log_std=value)


# --- distorted windows ----------------------------------------------------------------------------


def conditions(n: int = 400, length: int = 8) -> Conditions:
    times = torch.arange(length, dtype=torch.float64).repeat(n, 1) * 100 + 1000
    distances = torch.full((n, length), 50.0)
    distances[:, 3] = 0.0
    return Conditions(times, distances, torch.zeros(n, length), torch.zeros(n, dtype=torch.int64))


def test_windows_are_distorted_as_told() -> None:
    given = conditions()
    generator = torch.Generator().manual_seed(0)
    found = Distortion.draw((400, 8), 0.5, 0.1, generator)(given)
    faster = (found.times[:, 1] - found.times[:, 0] - 100 / 1.5).abs() < 1e-9
    assert 0.4 < float(faster.float().mean()) < 0.6
    assert torch.equal(found.times[~faster], given.times[~faster])
    logs = (found.distances / 50).log2()[:, [0, 1, 2, 4, 5, 6, 7]]
    assert float(logs.mean()) == pytest.approx(0, abs=0.01)
    assert float(logs.std()) == pytest.approx(0.1, abs=0.01)
    assert (found.distances[:, 3] == 0).all()  # stacks stay stacks


def test_without_flags_nothing_is_drawn_or_changed() -> None:
    given, generator = conditions(), torch.Generator().manual_seed(0)
    before = generator.get_state()
    found = Distortion.draw((400, 8), 0.0, 0.0, generator)(given)
    assert torch.equal(generator.get_state(), before)
    assert found is given


@pytest.mark.parametrize("flag", ["--augment-double-time", "--augment-distances"])
def test_shares_that_make_no_sense_are_refused(
    flag: str, packed: PackedDataset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"{flag} 1.5: give 0 to 1"):
        call_train(packed.folder, tmp_path, flag, 1.5)
