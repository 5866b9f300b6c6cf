"""The patterns are what they are called, chance is what guessing gets, an oracle hits always."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_benchmark
from toy_benchmark import (
    FAMILIES,
    PLAYFIELD,
    Options,
    chance,
    chance_on_playfield,
    make_patterns,
    predict_last,
    run_family,
    to_beatmap,
)

from beatmaps.sequence import Sequence, beatmap_to_sequence
from checkpoint import LoadedModel, load_model
from diffusion.parametrisation import Denoise
from tests.conftest import call_main


def patterns_of(family: str) -> list[np.ndarray]:
    return [pattern.places for pattern in make_patterns(family, 20, 3)]


def sides(places: np.ndarray) -> np.ndarray:
    return np.hypot(*np.diff(places, axis=0).T)


def test_a_polygons_last_corner_is_where_the_others_say() -> None:
    for places in patterns_of("polygon"):
        radii = np.hypot(*(places - places.mean(axis=0)).T)
        np.testing.assert_allclose(radii, radii[0])
        np.testing.assert_allclose(sides(np.concatenate([places, places[:1]])), sides(places)[0])


def test_streams_are_evenly_spaced_and_turn_smoothly() -> None:
    for places in patterns_of("stream"):
        np.testing.assert_allclose(sides(places), sides(places)[0])
        headings = np.unwrap(np.arctan2(*np.diff(places, axis=0).T))
        turns = np.diff(headings)
        assert np.abs(turns).max() < 0.5 and np.abs(np.diff(turns)).max() < 0.35


def test_symmetric_halves_have_the_same_distances() -> None:
    for places in patterns_of("symmetry"):
        np.testing.assert_allclose(sides(places[:5]), sides(places[5:]))
        np.testing.assert_allclose(np.abs(places[:5] - (256, 192)), np.abs(places[5:] - (256, 192)))


def test_visual_spacing_repeats_one_distance() -> None:
    for pattern in make_patterns("visual-spacing", 20, 3):
        places = pattern.places
        if pattern.slider is not None:
            along = pattern.slider - places[0]
            offsets = places[1:] - places[0]
            across = np.abs(along[0] * offsets[:, 1] - along[1] * offsets[:, 0]) / 340
            np.testing.assert_allclose(across, across[0])
        else:
            np.testing.assert_allclose(sides(places), sides(places)[0])
            origin = places[-3] if len(places) != 7 else places[0]
            others = {round(float(np.hypot(*(places[-1] - p)))) for p in (origin, places[-3])}
            assert round(float(sides(places)[0])) in others


@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_lie_on_the_playfield_and_are_the_same_every_time(family: str) -> None:
    first, again = make_patterns(family, 5, 1), make_patterns(family, 5, 1)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.places, other.places)
        sequence = beatmap_to_sequence(to_beatmap(one))
        assert sequence.object_starts.sum() == len(one.places) == len(one.beats) + 1
        np.testing.assert_allclose(sequence.xy[sequence.object_starts], np.rint(one.places))
        assert (sequence.xy >= 0).all() and (sequence.xy <= PLAYFIELD).all()
        assert (np.diff(sequence.times[sequence.object_starts]) > 0).all()


def test_chance_is_what_guessing_gets() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, 200_000)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for previous, target in (
        ((256, 192), (300, 192)),
        ((20, 20), (20, 200)),
        ((256, 192), (264, 199)),
    ):
        before, goal = np.array(previous, dtype=float), np.array(target, dtype=float)
        distance = float(np.hypot(*(goal - before)))
        guesses = before + distance * directions
        hits = np.hypot(*(guesses - goal).T) < 30
        possible = ((guesses >= 0) & (guesses <= PLAYFIELD)).all(axis=1)
        assert chance(distance) == pytest.approx(hits.mean(), abs=0.004)
        assert chance_on_playfield(before, goal) == pytest.approx(hits[possible].mean(), abs=0.004)
    assert chance(5) == 1


@pytest.fixture
def loaded(trained: Path) -> LoadedModel:
    return load_model(trained / "model.safetensors")


@pytest.mark.parametrize(("keep_spacing", "sampler"), [(True, "ancestral"), (False, "dpmpp-2m")])
def test_an_oracle_always_hits(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, keep_spacing: bool, sampler: str
) -> None:
    """A denoiser that knows the answer; and one that points the other way never hits."""
    options = Options(count=2, steps=3, keep_spacing=keep_spacing, sampler=sampler)
    for sign, share in ((1, 1), (-1, 0)):

        def oracle(
            loaded: LoadedModel, sequence: Sequence, options: Options, sign: int = sign
        ) -> Denoise:
            xy = torch.from_numpy(sequence.xy).float()
            answer = xy[-2] + sign * (xy[-1] - xy[-2])
            x0 = loaded.parametrisation.from_pixels(torch.cat([0 * xy[:-1], answer[None]]))
            return lambda x, sigma: x0.repeat(options.count, 1, 1)

        monkeypatch.setattr(toy_benchmark, "complete", oracle)
        assert run_family(loaded, "polygon", 6, options)["hits"] == share


def test_the_distance_is_met_and_the_seed_decides(loaded: LoadedModel) -> None:
    sequence = beatmap_to_sequence(to_beatmap(make_patterns("polygon", 1, 0)[0]))
    options = Options(count=3, steps=3)
    found = predict_last(loaded, sequence, options)
    away = np.hypot(*(found - sequence.xy[-2]).T)
    np.testing.assert_allclose(away, sequence.distances()[-1], rtol=1e-4)
    np.testing.assert_array_equal(found, predict_last(loaded, sequence, options))
    assert not np.allclose(found, predict_last(loaded, sequence, replace(options, seed=1)))


def test_the_command_prints_a_row_a_family(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--ckpt", trained / "model.safetensors", "--patterns", 1, "--num-predictions", 2]
    assert call_main(toy_benchmark.main, *flags, "--num-sampling-steps", 2, "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert all(family in printed for family in FAMILIES) and "chance" in printed
