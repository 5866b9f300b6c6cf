"""Cleaning up patterns: baselines and errors as worked out, an oracle leaves no error."""

from collections.abc import Callable
from pathlib import Path

import jittered_pattern
import numpy as np
import pytest
import tables
import torch
from jittered_pattern import ByModel, Jittered, do_nothing, jitter, lay_on, project, ways_of
from matplotlib.image import imread
from toy_benchmark import FAMILIES

from checkpoint import LoadedModel, load_model
from diffusion.parametrisation import Denoise, LearnedVariance
from metrics.denoising import unstyled_conditions
from models import Conditions
from tests.conftest import call_main, run_command


@pytest.fixture
def loaded(trained: Path) -> LoadedModel:
    torch.set_num_threads(1)
    return load_model(trained / "model.safetensors")


def turned(xy: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return xy @ np.array([[c, s], [-s, c]])


def test_a_shift_and_a_turn_are_no_error_of_shape() -> None:
    case = jitter("polygon", 0, 10.0, 3, 0)
    clean = case.sequence.xy
    shifts = np.array([[0.0, -7.0], [20.0, -7.0], [80.0, -7.0]])
    angles = (0.0, 1.0, 4.0)
    moved = np.stack([turned(clean, a) + shift for a, shift in zip(angles, shifts, strict=True)])
    plain, shape = case.errors(moved)
    assert plain > 10 and shape < 1e-9
    mirrored = clean[None] * (-1, 1)
    assert case.errors(mirrored)[1] > 10


def test_no_other_turn_fits_better() -> None:
    case = jitter("symmetry", 1, 40.0, 4, 0)
    clean = case.sequence.xy
    laid = lay_on(case.xy, clean)
    centre = clean.mean(axis=0)
    found = ((laid - clean) ** 2).sum(axis=(1, 2))
    for angle in np.linspace(0, 2 * np.pi, 360):
        other = turned(laid - centre, angle) + centre
        assert (((other - clean) ** 2).sum(axis=(1, 2)) >= found - 1e-6).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_jitter_is_as_large_as_it_says(family: str) -> None:
    """The mean length of a Gaussian of two axes is sigma sqrt(pi / 2)."""
    case = jitter(family, 0, 10.0, 2000, 0)
    assert case.errors(do_nothing(case))[0] == pytest.approx(10 * np.sqrt(np.pi / 2), rel=0.03)
    again = jitter(family, 0, 20.0, 2000, 0)
    np.testing.assert_allclose(again.xy - case.sequence.xy, 2 * (case.xy - case.sequence.xy))


def test_projection_meets_the_distances() -> None:
    case = jitter("stream", 0, 5.0, 4, 0)
    found = np.linalg.norm(np.diff(project(case), axis=1), axis=-1)
    np.testing.assert_allclose(found, [case.sequence.distances()[1:]] * 4, atol=0.05)
    assert case.errors(project(case))[0] < 0.8 * case.errors(case.xy)[0]


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("met", [False, True])
def test_an_oracle_leaves_no_error(
    steps: int, met: bool, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = jitter("visual-spacing", 0, 20.0, 3, 0)
    clean = loaded.parametrisation.from_pixels(torch.from_numpy(case.sequence.xy).float())

    def oracle(*arguments: object, **options: object) -> Callable[..., torch.Tensor]:
        return lambda x, sigma: clean.expand_as(x).to(x)

    monkeypatch.setattr(LoadedModel, "denoiser", oracle)
    assert case.errors(ByModel(loaded, "true", steps, met)(case))[0] < 1e-3


@pytest.mark.parametrize("recipe", ["ours", "reference"])
def test_a_silent_network_is_asked_at_the_noise_of_the_jitter(
    recipe: str, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EDM's skip connection shrinks to the centre; for the reference no noise is found at all."""
    if recipe == "reference":
        loaded = LoadedModel(loaded.model, LearnedVariance(), loaded.path, "")

    def zeros(x: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.zeros(*x.shape[:2], 4)

    monkeypatch.setattr(loaded.model, "forward", zeros)
    case = jitter("polygon", 0, 20.0, 2, 0)
    found = ByModel(loaded, "true", 1)(case)
    expected = case.xy
    if recipe == "ours":
        expected = (256, 192) + (case.xy - (256, 192)) / (1 + (20 / 131) ** 2)
    np.testing.assert_allclose(found, expected, atol=1e-2)
    several = ByModel(loaded, "true", 4)(case)
    assert np.isfinite(several).all() and several.shape == case.xy.shape


def test_what_the_model_is_told(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    case = jitter("stream", 0, 20.0, 2, 0)
    told: list[np.ndarray] = []

    def listen(loaded: LoadedModel, conditions: Conditions) -> None:
        told.append(conditions.distances.numpy())

    monkeypatch.setattr(LoadedModel, "denoiser", listen)
    for name in ("true", "jittered", "unknown"):
        ByModel(loaded, name, 1).denoiser(case)
    true, jittered, unknown = told
    own = case.sequence.distances().astype(np.float32)
    np.testing.assert_array_equal(true, [own] * 2)
    steps = np.linalg.norm(np.diff(case.xy, axis=1), axis=-1)
    np.testing.assert_allclose(jittered[:, 1:], steps, rtol=1e-6)
    assert (unknown == -1).all() and unknown.shape == case.xy.shape[:2]


def test_distances_that_are_the_maps_own_change_nothing(loaded: LoadedModel) -> None:
    case: Jittered = jitter("polygon", 0, 20.0, 3, 0)
    x = loaded.parametrisation.from_pixels(torch.from_numpy(case.xy).float())
    own = case.sequence.distances()
    sigma = torch.tensor(0.3)

    def told(*distances: np.ndarray) -> Denoise:
        return loaded.denoiser(unstyled_conditions(loaded, case.sequence, np.stack(distances)))

    plain = loaded.denoiser(unstyled_conditions(loaded, case.sequence).repeat(3))(x, sigma)
    torch.testing.assert_close(told(own, own, own)(x, sigma), plain)
    other = told(own, own + 50, own)
    changed = (other(x, sigma) - plain).abs().amax(dim=(1, 2))
    assert changed[1] > 1e-4 and changed[0] < 1e-5 and changed[2] < 1e-5


def test_the_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that always knew distances is not asked without; the same seed, the same table."""
    loaded = load_model(trained / "model.safetensors")
    names = list(ways_of(loaded, 4))
    assert names[:2] == ["nothing", "projection"] and not any("unknown" in n for n in names)
    loaded.metadata["distance_dropout"] = 0.1
    assert "one pass, unknown" in ways_of(loaded, 4)
    model = ("--ckpt", trained / "model.safetensors", "--device", "cpu", "--num-sampling-steps", 2)
    small = ("--tests", "polygon", "--sigma", 10, "--patterns", 2, "--copies", 2)
    picture, output = tmp_path / "a.png", tmp_path / "a.csv"
    files = ("--picture", picture, "--output", output)
    assert call_main(jittered_pattern.main, *model, *small, *files) == 0
    table = tables.read_table(output)
    assert table["way"].tolist() == names
    cases = [jitter("polygon", k, 10, 2, 0) for k in (0, 1)]
    expected = np.mean([case.errors(case.xy)[0] for case in cases])
    assert table["error"][0] == pytest.approx(expected)
    words = capsys.readouterr().out.split()
    assert words[words.index("nothing") + 1] == f"{expected:.1f}"
    assert len(np.unique(imread(picture).reshape(-1, 4), axis=0)) > 20
    before = output.read_bytes()
    assert run_command(jittered_pattern.main, *model, *small, *files) == 2
    assert call_main(jittered_pattern.main, *model, *small, *files, "--overwrite") == 0
    assert output.read_bytes() == before
    for flags in (("--sigma", 1000), ("--copies", 0), ("--num-sampling-steps", 1)):
        assert run_command(jittered_pattern.main, *model, *flags, "--overwrite", *files) == 2
