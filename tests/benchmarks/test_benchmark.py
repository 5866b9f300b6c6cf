"""The benchmarks' own parts: made-up maps, measures, the commands; their times are not judged."""

import json
from pathlib import Path

import numpy as np
import pytest

import benchmark
from benchmarks.sampling import (
    made_up_map,
    peak_memory_mb,
    turning_angles,
    wasserstein,
    write_reference_checkpoint,
)
from conventions.point_types import PointType
from tests.conftest import call_main, run_command


@pytest.mark.parametrize("points", [1, 2, 100, 2365, 6000])
def test_made_up_maps_have_about_so_many_points(points: int) -> None:
    beatmap, sequence = made_up_map(points)
    assert abs(len(sequence) - points) <= 4
    assert not beatmap.skipped
    assert np.all((sequence.xy >= 0) & (sequence.xy <= (512, 384)))


def test_made_up_maps_are_a_mixture() -> None:
    _, sequence = made_up_map(600)
    kinds = set(sequence.types.tolist())
    assert {PointType.CIRCLE, PointType.SLIDER_HEAD, PointType.BEZIER_ANCHOR} <= kinds


def test_turns_of_a_square_are_right_angles() -> None:
    _, sequence = made_up_map(20)
    starts = np.flatnonzero(sequence.object_starts)
    corners = np.array([(0, 0), (50, 0), (50, 50), (0, 50)])
    xy = sequence.xy.copy()
    xy[starts] = corners[np.arange(len(starts)) % 4]
    np.testing.assert_allclose(turning_angles(sequence, xy), np.pi / 2)
    xy[starts] = 100  # no directions, no turns
    assert len(turning_angles(sequence, xy)) == 0


def test_wasserstein_of_a_shifted_sample_is_the_shift() -> None:
    values = np.random.default_rng(0).normal(0, 1, 500)
    assert wasserstein(values, values) == 0
    assert wasserstein(values, values + 0.3) == pytest.approx(0.3)


def test_peak_memory_grows_with_what_is_held() -> None:
    import torch

    before = peak_memory_mb(torch.device("cpu"))
    if np.isnan(before):
        pytest.skip("this system does not tell")
    held = np.ones(int((before + 100) * 2**20 / 8))
    assert peak_memory_mb(torch.device("cpu")) >= before + 90
    assert held.sum() > 0


def test_random_weights_are_a_checkpoint_of_the_reference(tmp_path: Path) -> None:
    from checkpoint import load_model
    from diffusion.parametrisation import LearnedVariance

    loaded = load_model(write_reference_checkpoint(tmp_path / "nano.pt", "DiT-nano"), heads=2)
    assert isinstance(loaded.parametrisation, LearnedVariance)


def test_the_command_measures_and_writes_its_figures(
    tmp_path: Path, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures.json"
    flags = ["sample", "--lengths", 60, "--steps", 1, "--repeats", 1, "--threads", 1]
    flags += ["--device", "cpu", "--maps", songs, "--limit", 1, "--output", output]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.sampling.QUALITY_STEPS", (1, 2))
        assert call_main(benchmark.main, *flags) == 0
        assert run_command(benchmark.main, *flags) == 2  # it exists
    figures = json.loads(output.read_text(encoding="utf-8"))
    row = figures["sampling"][0]
    assert row["points"] == 60 and row["seconds"] > 0
    assert [q["steps"] for q in figures["quality"]] == [1, 2]
    assert figures["quality"][0]["spacing_error_median"] > 0
    assert "peak_memory_mb" in capsys.readouterr().out


def test_a_folder_that_is_no_checkout_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(benchmark.main, "sample", "--reference", tmp_path) == 2
    assert "is no checkout" in capsys.readouterr().err
