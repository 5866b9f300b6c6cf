"""Sampling with an expert for low noise and with models that are told of a map."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sample
from beatmaps.osu_file import Beatmap, parse_beatmap
from beatmaps.sequence import beatmap_to_sequence
from beatmaps.star_rating import star_rating
from checkpoint import CheckpointError, LoadedModel, load_model
from conditions.vocabulary import MapConditions
from constraints.spacing import Spacing
from conventions.errors import naming
from data_loading import PackedDataset
from diffusion.parametrisation import EDM
from sampling import conditioning
from sampling.experts import Expert, companion_of
from sampling.flags import NAMES, remap_parser, request_from
from sampling.generate import generate
from sampling.loaded_models import Models, load_models
from sampling.map_inputs import MapInputs, map_inputs
from sampling.options import SampleOptions
from sampling.report import run_key
from sampling.request import RemapRequest
from sampling.style import Style, embeddings_of
from tests.conftest import beatmap_text, random_objects, read_json, remap, run_command, run_train
from tests.osu_diffusion_v2 import write_folder


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "v2")


@pytest.fixture(scope="module")
def whole(trained: Path) -> LoadedModel:
    return load_model(trained / "model.safetensors")


@pytest.fixture(scope="module")
def low(packed: PackedDataset, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A model of ours that was trained at noise up to 80 px alone."""
    folder = run_train(packed.folder, tmp_path_factory.mktemp("low"), "--max-noise-px", 80)
    return load_model(folder / "model.safetensors")


@pytest.fixture(scope="module")
def beatmap() -> Beatmap:
    return parse_beatmap(beatmap_text(random_objects(3, 60)).encode(), "made up")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.osu"
    path.write_text(beatmap_text(random_objects(50, 30), beatmap_id=77), encoding="utf-8")
    return path


def flags(*given: object) -> RemapRequest:
    """The request that the command line of sample.py makes."""
    with naming(NAMES):
        return request_from(remap_parser().parse_args([str(value) for value in given]))


# --- an expert for low noise ----------------------------------------------------------------------


def calls(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Noise labels that a model is called with from now on."""
    seen: list[float] = []
    forward = loaded.model.forward

    def counting(x: torch.Tensor, noise: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(float(noise[0]))
        return forward(x, noise, *rest)

    monkeypatch.setattr(loaded.model, "forward", counting)
    return seen


def test_every_step_is_one_models(
    whole: LoadedModel, low: LoadedModel, beatmap: Beatmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is that of the sum of the steps: 16 calls in all, each level by who knows it."""
    high_calls, low_calls = calls(whole, monkeypatch), calls(low, monkeypatch)
    options, sequence = SampleOptions(steps=16), beatmap_to_sequence(beatmap)
    generate(whole, sequence, options, inputs=MapInputs(expert=Expert(low)))
    labels = [250 * float(s.log()) for s in EDM().sigmas(16)[:-1]]
    border = 250 * np.log(80 / 131)
    expected = [label for label in labels if label > border]
    assert high_calls == pytest.approx(expected, abs=1e-3)
    assert low_calls == pytest.approx(labels[len(expected) :], abs=1e-3)
    assert min(len(high_calls), len(low_calls)) > 3


def test_rules_hold_as_with_one_model(
    whole: LoadedModel, low: LoadedModel, beatmap: Beatmap
) -> None:
    sequence, options = beatmap_to_sequence(beatmap), SampleOptions(steps=12)
    results = {}
    for name, expert in (("one", None), ("two", Expert(low))):
        _, placed = generate(whole, sequence, options, inputs=MapInputs(expert=expert))
        results[name] = placed[0]
        found = np.linalg.norm(np.diff(placed[0], axis=0), axis=1)
        wanted = np.linalg.norm(np.diff(sequence.xy, axis=0), axis=1)
        assert np.quantile(np.abs(found - wanted), 0.95) < 1
        assert (placed[0] >= 0).all() and (placed[0] <= (512, 384)).all()
    assert not np.array_equal(results["one"], results["two"])


def test_the_hand_over_leaves_no_seam(
    whole: LoadedModel, low: LoadedModel, beatmap: Beatmap
) -> None:
    """What is predicted changes no more in the expert's first step than it does around it."""
    seen: list[np.ndarray] = []
    options = SampleOptions(steps=24, spacing=Spacing.parse("model"), bounds="off")
    generate(
        whole,
        beatmap_to_sequence(beatmap),
        options,
        inputs=MapInputs(expert=Expert(low)),
        watch=lambda step, xy: seen.append(xy),
    )
    sigmas = EDM().sigmas(24)[:-1] * 131
    first = int((sigmas > 80).sum())
    steps = [float(np.abs(b - a).mean()) for a, b in pairwise(seen)]
    around = steps[first - 4 : first - 1] + steps[first : first + 3]
    assert steps[first - 1] < 2 * max(around) + 1


def test_an_expert_for_all_noise_must_be_told_where_to_begin(whole: LoadedModel) -> None:
    message = r"say from which one .* --expert-below 80"
    with pytest.raises(ValueError, match=message), naming(NAMES):
        Expert(whole)
    assert Expert(whole, below_px=50.0).takes_px == 50


@pytest.fixture
def accompanied(whole: LoadedModel, low: LoadedModel, tmp_path: Path) -> LoadedModel:
    """`whole`, with `low` as the expert that lies beside it."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(whole.path.read_bytes())
    path.with_name("mine.expert.safetensors").write_bytes(low.path.read_bytes())
    return load_model(path)


def test_an_expert_beside_a_model_is_used(
    whole: LoadedModel, low: LoadedModel, accompanied: LoadedModel, beatmap: Beatmap
) -> None:
    """As one that is asked for."""
    assert accompanied.expert is not None and accompanied.expert.expert is None
    sequence = beatmap_to_sequence(beatmap)
    given = MapInputs(expert=Expert(low))
    expected = generate(whole, sequence, SampleOptions(), inputs=given)[0]
    assert np.array_equal(generate(accompanied, sequence, SampleOptions())[0], expected)


@pytest.mark.parametrize(
    "options", [SampleOptions(strength=0.3), SampleOptions(strength=0, refine_iterations=1)]
)
def test_a_run_below_the_level_of_the_expert_beside_is_the_models_own(
    whole: LoadedModel, accompanied: LoadedModel, beatmap: Beatmap, options: SampleOptions
) -> None:
    """Only the model knows the style, which has not been decided before."""
    sequence, table = beatmap_to_sequence(beatmap), embeddings_of(whole)
    given = MapInputs(style=Style(10 * table[0]), refiner_style=Style(10 * table[0]))
    expected = generate(whole, sequence, options, inputs=given)[0]
    assert np.array_equal(generate(accompanied, sequence, options, inputs=given)[0], expected)
    assert not np.array_equal(generate(accompanied, sequence, options)[0], expected)


def test_an_expert_that_is_asked_for_replaces_the_one_beside(
    whole: LoadedModel, accompanied: LoadedModel, beatmap: Beatmap
) -> None:
    sequence, given = beatmap_to_sequence(beatmap), MapInputs(expert=Expert(whole, below_px=50.0))
    expected = generate(whole, sequence, SampleOptions(), inputs=given)[0]
    assert np.array_equal(
        generate(accompanied, sequence, SampleOptions(), inputs=given)[0], expected
    )


def test_an_expert_beside_a_model_is_guided_by_the_same_weak_model(
    whole: LoadedModel, low: LoadedModel
) -> None:
    assert companion_of(whole, 655) is None
    both = replace(whole, weak=whole, expert=low)
    found = companion_of(both, 655)
    assert found is not None and found.loaded.weak is whole
    assert found.style.embedding is None and found.takes_px == pytest.approx(80)
    assert companion_of(both, 79) is None


def test_an_expert_in_other_units_is_not_guided_by_the_models_weak_one(
    whole: LoadedModel, low: LoadedModel
) -> None:
    other = replace(low, parametrisation=replace(EDM(pixels=100.0), trained_below=0.5))
    found = companion_of(replace(whole, weak=whole, expert=other), 655)
    assert found is not None and found.loaded.weak is None


def test_an_expert_beside_a_model_takes_over_later_but_never_earlier(
    whole: LoadedModel, low: LoadedModel, accompanied: LoadedModel, beatmap: Beatmap
) -> None:
    """As one that is asked for: it does not take what it was not trained at."""
    sequence = beatmap_to_sequence(beatmap)
    for below in (20, 200):
        request = flags("--ckpt", accompanied.path, "--expert-below", below)
        inputs = map_inputs(load_models(request, torch.device("cpu")), beatmap, request)
        found = generate(accompanied, sequence, SampleOptions(), inputs=inputs)[0]
        given = MapInputs(expert=Expert(low, below_px=below))
        expected = generate(whole, sequence, SampleOptions(), inputs=given)[0]
        assert np.array_equal(found, expected)
        trained_at = generate(accompanied, sequence, SampleOptions())[0]
        assert np.array_equal(found, trained_at) == (below == 200)


def test_an_expert_beside_a_model_is_left_out(
    whole: LoadedModel, accompanied: LoadedModel, beatmap: Beatmap
) -> None:
    request = flags("--ckpt", accompanied.path, "--expert-below", 0)
    models, sequence = load_models(request, torch.device("cpu")), beatmap_to_sequence(beatmap)
    inputs = map_inputs(models, beatmap, request)
    found = generate(models.sampler, sequence, SampleOptions(), inputs=inputs)[0]
    assert np.array_equal(found, generate(whole, sequence, SampleOptions())[0])
    assert models.sampler.companions == whole.companions


@pytest.mark.parametrize("below", [0, 20])
def test_a_model_without_an_expert_cannot_move_it(whole: LoadedModel, below: float) -> None:
    message = r"--expert-below .* model\.safetensors has none beside it: give --expert-ckpt"
    with pytest.raises(ValueError, match=message), naming(NAMES):
        load_models(flags("--ckpt", whole.path, "--expert-below", below), torch.device("cpu"))


def test_an_expert_beside_a_model_must_be_one(accompanied: LoadedModel) -> None:
    beside = accompanied.path.with_name("mine.expert.safetensors")
    beside.write_bytes(accompanied.path.read_bytes())
    with pytest.raises(
        CheckpointError, match=r"mine\.expert\.safetensors was trained at all levels"
    ):
        load_model(accompanied.path)


def test_a_model_for_low_noise_does_not_begin_at_pure_noise(
    low: LoadedModel, beatmap: Beatmap
) -> None:
    sequence = beatmap_to_sequence(beatmap)
    for options in (SampleOptions(), SampleOptions(strength=0.9)):
        with pytest.raises(ValueError, match="trained on noise up to 80 px alone"):
            generate(low, sequence, options)
    for options in (
        SampleOptions(strength=0.3),
        SampleOptions(strength=0.0, refine_iterations=2),
    ):
        raw, _ = generate(low, sequence, options)
        assert np.isfinite(raw).all()


def test_an_expert_that_needs_distances_does_not_go_without(
    whole: LoadedModel, low: LoadedModel, beatmap: Beatmap
) -> None:
    able = replace(whole, metadata={"distance_dropout": 0.1})
    options = SampleOptions(spacing=Spacing.parse("free"))
    message = r"--spacing free: model\.safetensors was trained"
    with pytest.raises(ValueError, match=message), naming(NAMES):
        generate(
            able,
            beatmap_to_sequence(beatmap),
            options,
            inputs=MapInputs(expert=Expert(low)),
        )


# --- what a v2 is told ----------------------------------------------------------------------------


def embedding(loaded: LoadedModel, said: MapConditions) -> torch.Tensor:
    assert loaded.vocabulary is not None
    return loaded.model.y_embedder(loaded.vocabulary.vector(said))[0]


def inputs(loaded: LoadedModel, beatmap: Beatmap, *given: object) -> MapInputs:
    with naming(NAMES):
        return map_inputs(Models(loaded), beatmap, flags(*given))


def test_the_maps_own_stars_and_circle_size_are_told(v2: Path, beatmap: Beatmap) -> None:
    loaded = load_model(v2)
    own = MapConditions(star_rating=star_rating(beatmap.raw), circle_size=4.0)
    style = inputs(loaded, beatmap).style
    assert style.embedding is not None and style.negative is not None
    assert torch.equal(style.embedding, embedding(loaded, own))
    assert torch.equal(style.negative, style.embedding)
    style = inputs(loaded, beatmap, "--star-rating", 7, "--circle-size", 2.5).style
    assert style.embedding is not None
    assert torch.equal(
        style.embedding, embedding(loaded, MapConditions(star_rating=7, circle_size=2.5))
    )


def test_guidance_has_the_unknown_style_on_its_other_side(v2: Path, beatmap: Beatmap) -> None:
    loaded = load_model(v2)
    own = MapConditions(star_rating=star_rating(beatmap.raw), circle_size=4.0)
    given = ("--style-mapper", "7", "--descriptors", "clean", "--cfg-scale", 2)
    style = inputs(loaded, beatmap, *given).style
    wanted = replace(own, mapper=7, descriptors=("style/clean",))
    assert style.embedding is not None and style.negative is not None
    assert torch.equal(style.embedding, embedding(loaded, wanted))
    assert torch.equal(style.negative, embedding(loaded, own))
    style = inputs(loaded, beatmap, *given, "--negative-descriptors", "jumps").style
    unwanted = replace(own, descriptors=("skillset/jumps",))
    assert style.negative is not None
    assert torch.equal(style.negative, embedding(loaded, unwanted))


def test_styles_are_mixed_by_weight_and_named_in_three_ways(v2: Path, beatmap: Beatmap) -> None:
    loaded = load_model(v2)
    own = MapConditions(star_rating=star_rating(beatmap.raw), circle_size=4.0)
    parts = [
        replace(own, mapper=7, descriptors=("style/clean", "skillset/jumps")),  # beatmap 101
        replace(own, mapper=7),
        replace(own, mapper=8),  # whose beatmap 303335 is in the bundled class table
    ]
    given = ("--style-id", "101", "--style-mapper", "7:2", conditioning.bundled_names()[303335])
    style = inputs(loaded, beatmap, *given).style
    a, b, c = (embedding(loaded, part) for part in parts)
    assert style.embedding is not None
    torch.testing.assert_close(style.embedding, (a + 2 * b + c) / 4)


def test_unknown_names_are_refused_with_the_nearest(v2: Path, beatmap: Beatmap) -> None:
    loaded = load_model(v2)
    for given, message in (
        (("--style-mapper", "9"), "among the model's 2 mappers"),
        (("--descriptors", "jump"), "nearest are .*skillset/jumps"),
        (("--style-id", "100"), "nearest IDs are 101, 102"),
        (("--style-id", "x:2"), "give beatmap IDs"),
    ):
        with pytest.raises(ValueError, match=message):
            inputs(loaded, beatmap, *given)


def test_what_no_model_can_be_told_is_refused(whole: LoadedModel, beatmap: Beatmap) -> None:
    for given in (("--descriptors", "clean"), ("--star-rating", 5), ("--circle-size", 4)):
        with pytest.raises(ValueError, match=f"{given[0]}: model.safetensors knows beatmaps alone"):
            inputs(whole, beatmap, *given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--star-rating", "nan"), "--star-rating nan"),
        (("--circle-size", -1), "--circle-size -1"),
        (("--expert-below", -1), "give 0 or a number above it"),
        (("--expert-ckpt", "a", "--expert-below", 0), "leave out --expert-ckpt"),
        (("--negative-descriptors", "clean"), "give a --cfg-scale above 1"),
        (("--cfg-scale", 2), "strengthens a style"),
    ],
)
def test_flags_that_mean_nothing_are_refused(given: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flags(*given)


def test_each_model_gets_the_style_in_its_own_terms(
    whole: LoadedModel, v2: Path, beatmap: Beatmap
) -> None:
    expert = load_model(v2)
    request = flags("--descriptors", "clean", "--expert-ckpt", v2, "--expert-below", 30)
    found = map_inputs(Models(whole, expert=expert), beatmap, request)
    assert found.style.embedding is None
    assert found.expert is not None and found.expert.takes_px == 30
    assert found.expert.style.embedding is not None


# --- the command ----------------------------------------------------------------------------------


def test_another_expert_beside_a_model_makes_another_run(
    accompanied: LoadedModel, small: Path, tmp_path: Path, no_pictures: None
) -> None:
    """Its report tells it, so that what is there is not taken for the result."""
    given = ("--ckpt", accompanied.path, "--beatmap", small, "--output", tmp_path / "out")
    assert run_command(sample.main, *given) == run_command(sample.main, *given) == 0
    (report,) = (tmp_path / "out").rglob("*.result.json")
    expert = accompanied.expert
    described = read_json(report)
    assert expert is not None and described["companions"] == [None, expert.sha256]
    named = described["checkpoint"] | {"companions": described["companions"]}
    assert named == accompanied.to_dict()  # as the report of an evaluation names it
    for below, words in ((20, "expert below 20"), (0, "no expert")):
        assert run_command(sample.main, *given, "--expert-below", below) == 0
        (moved,) = (p for p in (tmp_path / "out").rglob("*.result.json") if words in p.name)
        assert run_key(read_json(moved)) != run_key(read_json(report))
    accompanied.path.with_name("mine.expert.safetensors").unlink()
    assert run_command(sample.main, *given) == 2


def test_another_weak_model_beside_a_named_expert_makes_another_run(
    trained: Path, low: LoadedModel, small: Path, tmp_path: Path, no_pictures: None
) -> None:
    """It guides the expert, and a run of before that knew of none is one without."""
    expert = tmp_path / "low.safetensors"
    expert.write_bytes(low.path.read_bytes())
    given = ("--beatmap", small, "--expert-ckpt", expert)
    assert remap(trained, tmp_path / "out", *given) == 0
    (path,) = (tmp_path / "out").rglob("*.result.json")
    report = read_json(path)
    before = {name: value for name, value in report.items() if name != "expert_weak"}
    assert report["expert_weak"] is None and run_key(before) == run_key(report)
    expert.with_name("low.weak.safetensors").write_bytes(low.path.read_bytes())
    assert remap(trained, tmp_path / "out", *given) == 2
    assert remap(trained, tmp_path / "out", *given, "--overwrite") == 0
    assert read_json(path)["expert_weak"] == low.sha256


def test_a_v2_ends_a_run_of_ours(
    trained: Path, v2: Path, small: Path, tmp_path: Path, no_pictures: None
) -> None:
    given = ("--beatmap", small, "--expert-ckpt", v2, "--descriptors", "style/clean")
    assert remap(trained, tmp_path, *given, "--num-sampling-steps", 12) == 0
    (report,) = tmp_path.rglob("*.result.json")
    assert "style clean finished by v2" in report.name
    described = read_json(report)
    assert described["expert"] == load_model(v2).sha256
    assert described["checkpoint"]["sha256"] == load_model(trained / "model.safetensors").sha256
    assert described["variants"][0]["written"]["object_spacing_error_p95"] < 1


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ((), 2),
        (("--max-noise-step", 1000), 0),
        (("--strength", 0.2), 0),
        (("--refine",), 0),
        (("--max-noise-step", 1001), 2),
    ],
)
def test_a_v2_alone_samples_where_it_knows_the_noise(
    given: tuple[object, ...],
    code: int,
    v2: Path,
    small: Path,
    tmp_path: Path,
    no_pictures: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fixed = ("--beatmap", small, "--ckpt", v2, "--output", tmp_path, "--device", "cpu")
    assert run_command(sample.main, *fixed, "--num-sampling-steps", 4, *given) == code
    error = capsys.readouterr().err
    assert ("--max-noise-step" in error) == bool(code)
    assert bool(list(tmp_path.rglob("*.osu"))) != bool(code)


def test_a_v2_refines(
    trained: Path, v2: Path, small: Path, tmp_path: Path, no_pictures: None
) -> None:
    assert remap(trained, tmp_path, "--beatmap", small, "--refine-ckpt", v2) == 0
    (report,) = tmp_path.rglob("*.result.json")
    assert read_json(report)["refiner"] == load_model(v2).sha256
