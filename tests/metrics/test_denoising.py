"""Denoising errors against a network whose errors are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from beatmaps.osu_file import parse_beatmap
from beatmaps.sequence import beatmap_to_sequence
from checkpoint import LoadedModel, load_model
from diffusion.parametrisation import LearnedVariance
from metrics.denoising import denoising_errors
from tests.conftest import beatmap_text, random_objects

SEQUENCE = beatmap_to_sequence(parse_beatmap(beatmap_text(random_objects(1, 60)).encode(), "a"))


def errors(loaded: LoadedModel, seed: int = 0) -> dict[float, np.ndarray]:
    return denoising_errors(loaded, SEQUENCE, torch.Generator().manual_seed(seed))


@pytest.fixture
def silent(trained: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """A model whose network gives zeros."""
    loaded = load_model(trained / "model.safetensors")

    def zeros(x: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.zeros(*x.shape[:2], 4)

    monkeypatch.setattr(loaded.model, "forward", zeros)
    return loaded


def test_a_silent_network_shrinks_towards_the_centre(silent: LoadedModel) -> None:
    """EDM's skip connection alone: x0 / (1 + s^2) + s eps / (1 + s^2), s = sigma / 131 px."""
    noise = torch.randn(1, len(SEQUENCE), 2, generator=torch.Generator().manual_seed(0))[0].numpy()
    centred = SEQUENCE.xy - (256, 192)
    for level, squares in errors(silent).items():
        s = level / 131
        expected = (centred + level * noise) / (1 + s**2) - centred
        np.testing.assert_allclose(squares, expected.ravel() ** 2, rtol=1e-3, atol=1e-3)


def test_predicting_no_noise_leaves_all_of_it(silent: LoadedModel) -> None:
    """The reference's parametrisation: the error is the noise, isotropic in its own units."""
    loaded = replace(silent, parametrisation=LearnedVariance())
    rmse = np.sqrt(np.mean(errors(loaded)[30.0].reshape(-1, 2), axis=0))
    ratio = np.sqrt(512 / 384)
    np.testing.assert_allclose(rmse, [30 * ratio, 30 / ratio], rtol=0.2)
    assert np.sqrt(np.prod(rmse)) == pytest.approx(30, rel=0.15)


def test_points_far_off_the_playfield_are_left_out(silent: LoadedModel) -> None:
    xy = SEQUENCE.xy.copy()
    xy[5] = (9000, 100)
    found = denoising_errors(silent, SEQUENCE.moved(xy), torch.Generator().manual_seed(0))
    assert {len(squares) for squares in found.values()} == {2 * (len(SEQUENCE) - 1)}


def test_a_trained_model_repeats_itself_and_other_noise_differs(trained: Path) -> None:
    loaded = load_model(trained / "model.safetensors")
    one, two, other = errors(loaded), errors(loaded), errors(loaded, seed=1)
    assert list(one) == [30.0, 100.0, 300.0]
    for level in one:
        np.testing.assert_array_equal(one[level], two[level])
        assert not np.array_equal(one[level], other[level])
