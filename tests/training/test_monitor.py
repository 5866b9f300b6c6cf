"""What a run tells: metrics, validation, pictures, TensorBoard; its arithmetic against counts."""

import builtins
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from checkpoint import load_training_checkpoint
from data_loading import Batch, PackedDataset, distances
from diffusion.parametrisation import EDM, LearnedVariance
from models import Conditions, DiT, DiTConfig
from tests.conftest import SEQ_LEN, TRAIN_STEPS, call_train, run_train
from training.log import measured_peak_flops, read_metrics, training_flops
from training.objective import SIGMA_BANDS_PX, Noise, Objective, loss_by_band
from training.validation import Validation, held_out_map, sample_map

FRACTION, SEED = 0.3, 2
ROOT = Path(__file__).resolve().parents[2]
VALIDATION = ("--validation-fraction", FRACTION, "--global-seed", SEED)
OFTEN = ("--val-every", 5, "--sample-every", 10)


@pytest.fixture(scope="module")
def validated(packed: PackedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with held-out sets."""
    return run_train(packed.folder, tmp_path_factory.mktemp("validated"), *VALIDATION, *OFTEN)


def test_metrics_say_what_the_log_says(trained: Path) -> None:
    lines = read_metrics(trained / "metrics.jsonl")
    text = (trained / "log.txt").read_text(encoding="utf-8")
    logged = [float(value) for value in re.findall(r"Train Loss: ([\d.]+)", text)]
    assert [line["step"] for line in lines] == list(range(1, TRAIN_STEPS + 1))
    np.testing.assert_allclose([line["loss"] for line in lines], logged, atol=5.1e-5)
    for line in lines:
        rate = line["points_per_second"]
        assert rate == pytest.approx(line["steps_per_second"] * 4 * SEQ_LEN)
        assert 0 < line["mfu"] < 2 and line["grad_norm"] > 0 and 0 < line["lr"] <= 5e-4
        assert len(line["loss_by_sigma"]) == len(SIGMA_BANDS_PX) - 1


def test_a_log_line_is_the_mean_of_its_steps(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    folder = run_train(packed.folder, tmp_path, "--log-every", 5)
    coarse = [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]
    fine = np.array([line["loss"] for line in read_metrics(trained / "metrics.jsonl")])
    np.testing.assert_allclose(coarse, fine.reshape(2, 5).mean(axis=1), rtol=1e-12)


def test_losses_by_band_of_noise() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0])
    bands = loss_by_band(losses, torch.tensor([0.5, 9.9, 10.0, 5000.0]))
    assert list(bands.values()) == [1.5, 4.0, None, None, 8.0]
    assert list(bands) == ["0-10 px", "10-30 px", "30-100 px", "100-300 px", "over 300 px"]


def test_the_noise_of_a_level_in_px() -> None:
    """EDM's unit is 131 px; the reference's 512, with sigma^2 = (1 - alpha_bar) / alpha_bar."""
    assert EDM().level_sigmas(torch.tensor([2.0])).item() * EDM().scale[0] == 262
    other = LearnedVariance()
    level = torch.tensor([700])
    alpha_bar = other.schedule.alphas_cumprod[700]
    expected = math.sqrt((1 - alpha_bar) / alpha_bar)
    assert other.level_sigmas(level).item() == pytest.approx(expected)


def test_held_out_losses_are_written_and_repeat(packed: PackedDataset, validated: Path) -> None:
    """Of held-out windows, with the same noise every time, by the EMA."""
    lines = read_metrics(validated / "metrics.jsonl")
    results = {line["step"]: line["validation"] for line in lines if "validation" in line}
    assert sorted(results) == [5, 10]
    assert results[5]["loss"] != results[10]["loss"]
    state = load_training_checkpoint(validated / "checkpoints" / f"{TRAIN_STEPS:07d}.pt")
    model = DiT(DiTConfig.from_dict(state["config"]))
    model.load_state_dict(state["ema"])
    cpu = torch.device("cpu")
    objective = Objective(EDM(), model.config, cpu, torch.float32, SEQ_LEN, False)
    _, rows = packed.split_by_set(FRACTION, SEED)
    validation = Validation(packed, rows, objective, SEQ_LEN, SEED)
    assert set(validation.loader.windows(0).rows) == set(rows)
    whole = validation.loader.windows(0)
    batch = validation.loader.gather(whole)
    with torch.no_grad():
        losses = objective.losses(model, batch, validation.noise)
    assert results[10]["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)


def test_validation_changes_nothing(packed: PackedDataset, validated: Path, tmp_path: Path) -> None:
    plain = run_train(packed.folder, tmp_path, *VALIDATION)
    name = f"checkpoints/{TRAIN_STEPS:07d}.pt"
    one, two = (load_training_checkpoint(run / name)["model"] for run in (plain, validated))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_held_out_maps_are_sampled_and_drawn(validated: Path) -> None:
    (picture,) = (validated / "samples").iterdir()
    assert picture.name == "0000010.png" and picture.read_bytes()[:4] == b"\x89PNG"
    result = read_metrics(validated / "metrics.jsonl")[-1]["validation"]
    assert 0 < result["spacing_error_median_px"] < result["spacing_error_p95_px"]
    assert 0 <= result["points_off_playfield"] <= 1


@pytest.mark.parametrize("parametrisation", [EDM(), LearnedVariance()])
def test_a_sampled_map_is_where_the_network_says(
    packed: PackedDataset, parametrisation: EDM | LearnedVariance
) -> None:
    """A fresh network gives 0: x0 of EDM is then 0, the middle, at the lowest noise nearly so."""
    learn_sigma = isinstance(parametrisation, LearnedVariance)
    model = DiT(DiTConfig(width=16, depth=1, heads=2, num_classes=6, learn_sigma=learn_sigma))
    held_out = held_out_map(packed, 2)
    points = held_out.points
    np.testing.assert_allclose(points.distances()[0], math.dist(points.xy[0], (256, 192)))
    np.testing.assert_allclose(points.distances(), distances(points.xy))
    xy = sample_map(model, parametrisation, held_out, seed=1)
    assert xy.shape == points.xy.shape and np.isfinite(xy).all()
    again = sample_map(model, parametrisation, held_out, seed=1)
    np.testing.assert_array_equal(xy, again)


def test_pictures_need_held_out_sets(packed: PackedDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="add --validation-fraction"):
        call_train(packed.folder, tmp_path, "--sample-every", 5)
    with pytest.raises(ValueError, match="holds out no beatmapset"):
        call_train(packed.folder, tmp_path, "--validation-fraction", 1e-9)


@pytest.mark.parametrize("half_window", [8, 12, 64])
def test_training_flops_are_those_that_torch_counts(half_window: int) -> None:
    """Of the forward pass, times three. Attention is counted by what it needs, not what it does."""
    config = DiTConfig(width=32, depth=3, heads=2, num_classes=4, half_window=half_window)
    objective = Objective(EDM(), config, torch.device("cpu"), torch.float32, half_window, amp=False)
    model, length = DiT(config), 24
    noise = Noise.draw(EDM(), (1, length), (0, 0), class_dropout=0, distance_dropout=0)
    batch = made_up_batch(length)
    with FlopCounterMode(display=False) as counter:
        objective.losses(model, batch, noise)
    counts = counter.get_flop_counts()["Global"]
    attention = sum(n for op, n in counts.items() if "attention" in str(op))
    rest = sum(counts.values()) - attention
    band = [[i - half_window < j <= i + half_window for j in range(length)] for i in range(length)]
    seen = length**2 if length <= half_window else int(np.sum(band))
    needed = config.depth * 2 * 2 * seen * config.width
    assert training_flops(config, length, half_window) == 3 * (rest + needed)


def made_up_batch(length: int) -> Batch:
    """One window of circles."""
    xy = torch.rand(1, length, 2) * 300
    times = torch.arange(length, dtype=torch.float64)[None] * 200
    ones = torch.ones(1, length)
    classes = torch.zeros(1, dtype=torch.int64)
    return Batch(xy, Conditions(times, 50 * ones, ones.byte(), classes, ones.bool()))


def test_the_peak_is_measured_and_can_be_given(packed: PackedDataset, tmp_path: Path) -> None:
    assert measured_peak_flops(torch.device("cpu"), torch.float32) > 1e8
    folder = run_train(packed.folder, tmp_path, "--peak-tflops", 0.001, "--max-steps", 3)
    config = load_training_checkpoint(folder / "checkpoints" / "0000003.pt")["config"]
    flops = training_flops(DiTConfig.from_dict(config), SEQ_LEN, SEQ_LEN)
    for line in read_metrics(folder / "metrics.jsonl"):
        assert line["mfu"] == pytest.approx(flops * 4 * line["steps_per_second"] / 1e9)


def test_tensorboard_without_the_package_is_an_error(
    packed: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "torch.utils.tensorboard":
            raise ImportError(name)
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="needs the package tensorboard: python -m pip install"):
        call_train(packed.folder, tmp_path, "--tensorboard")


def test_tensorboard_gets_what_the_metrics_get(packed: PackedDataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run_train(packed.folder, tmp_path, "--tensorboard", "--max-steps", 4)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    metrics = read_metrics(folder / "metrics.jsonl")
    seen = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    np.testing.assert_allclose(
        [value for _, value in seen], [m["loss"] for m in metrics], rtol=1e-6
    )
    assert any(tag.startswith("loss_by_sigma/") for tag in events.Tags()["scalars"])


def test_training_on_packed_data_needs_no_beatmap_reader() -> None:
    """Nor matplotlib, for a machine that only trains."""
    code = "import sys, train; print(*{'slider', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr
