"""A model that goes on with more blocks: at first they change nothing, then they learn."""

from pathlib import Path

import pytest
import torch

import sample
from checkpoint import load_model, load_training_checkpoint
from data_loading import PackedDataset
from diffusion.parametrisation import EDM
from models import bind
from tests.conftest import call_train, run_train
from tests.training.test_known_points import conditions, randomised, seeded, tiny_config
from training.state import TrainingState, read_training_state

GATES = ("blocks.1.adaLN_modulation.1", "blocks.3.adaLN_modulation.1")


def small_state(depth: int) -> TrainingState:
    """Of a model of random weights; the moments of a parameter are its weights."""
    config = tiny_config(depth=depth)
    weights = randomised(config).state_dict()
    moments = {name: {"exp_avg": weight} for name, weight in weights.items()}
    return TrainingState(Path("a"), "export", config, EDM(), weights, weights, moments)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 3), (2, 5), (3, 4)])
def test_more_blocks_change_nothing_at_first(before: int, after: int) -> None:
    state = small_state(before)
    deep = state.deepened(after)
    assert deep.config == tiny_config(depth=after)
    models = [randomised(s.config) for s in (state, deep)]
    for model, s in zip(models, (state, deep), strict=True):
        model.load_state_dict(s.model)
    x, labels = torch.randn(2, 20, 2, generator=seeded(3)), torch.tensor([30.0, -90.0])
    with torch.no_grad():
        expected, actual = (bind(model, conditions())(x, labels) for model in models)
    torch.testing.assert_close(actual, expected)
    assert len(deep.moments) == len(state.moments)  # those of the new blocks begin anew


def test_moments_move_with_their_blocks() -> None:
    deep = small_state(2).deepened(4)
    for name, moment in deep.moments.items():
        assert torch.equal(moment["exp_avg"], deep.model[name]), name
    assert not any(name.startswith(("blocks.1.", "blocks.3.")) for name in deep.moments)


def test_a_run_begins_with_a_smaller_model(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    """At a learning rate of 0 it is that model; with one its new gates open; then it resumes."""
    small = load_training_checkpoint(max((trained / "checkpoints").glob("*.pt")))
    depth = small["config"]["depth"]
    flags = ("--ckpt", trained / "model.safetensors", "--depth", 2 * depth, "--max-steps", 4)
    still = read_training_state(
        last(run_train(packed.folder, tmp_path / "still", *flags, "--lr", 0))
    )
    assert still.config.depth == 2 * depth and still.step == 4
    assert all(not gates_of(still, name).any() for name in GATES)
    moved = read_training_state(last(run_train(packed.folder, tmp_path / "a", *flags)))
    assert all(gates_of(moved, name).any() for name in GATES)

    again = run_train(packed.folder, tmp_path / "b", *flags, "--ckpt-every", 2)
    last(again).unlink()
    resumed = run_train(packed.folder, tmp_path / "b", *flags, "--resume", again)
    for name, weight in read_training_state(last(resumed)).model.items():
        assert torch.equal(weight, moved.model[name]), name
    exported = load_model(resumed / "model.safetensors")
    assert exported.model.config.depth == 2 * depth
    assert exported.metadata["model"] == "DiT-nano, 4 blocks"
    assert "DiT-nano, 4 blocks Parameters: " in (resumed / "log.txt").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="the checkpoint holds a DiT-nano, 4 blocks; leave"):
        sample.check_model(exported, "DiT-nano", None)


def test_a_checkpoint_of_a_run_grows_as_a_new_run(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    flags = ("--ckpt", last(trained), "--depth", 3, "--max-steps", 2)
    assert read_training_state(last(run_train(packed.folder, tmp_path, *flags))).step == 2


def test_fewer_blocks_are_another_model(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    flags = ("--ckpt", trained / "model.safetensors", "--depth", 1)
    with pytest.raises(ValueError, match=r"--depth 1: .* has 2 blocks, of which none"):
        call_train(packed.folder, tmp_path, *flags)


def test_a_deeper_model_goes_on_with_its_own_depth_alone(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    flags = ("--ckpt", trained / "model.safetensors", "--depth", 3, "--max-steps", 1)
    deep = run_train(packed.folder, tmp_path / "a", *flags) / "model.safetensors"
    with pytest.raises(ValueError, match="give the --model, --depth, --architecture"):
        call_train(packed.folder, tmp_path / "b", "--ckpt", deep)


@pytest.mark.parametrize("mean", [-1.0, -0.5])
def test_any_model_goes_on_at_another_mean_of_the_noise(
    packed: PackedDataset, trained: Path, tmp_path: Path, mean: float
) -> None:
    flags = ("--ckpt", trained / "model.safetensors", "--max-steps", 2, "--noise-log-mean", mean)
    folder = run_train(packed.folder, tmp_path, *flags)
    assert read_training_state(last(folder)).parametrisation == EDM(log_mean=mean)


def last(folder: Path) -> Path:
    """The newest checkpoint of a run."""
    return max((folder / "checkpoints").glob("*.pt"))


def gates_of(state: TrainingState, name: str) -> torch.Tensor:
    """The rows of a block's modulation that open its two gates."""
    parts = state.model[f"{name}.weight"].chunk(6)
    return torch.cat([parts[2], parts[5]])
