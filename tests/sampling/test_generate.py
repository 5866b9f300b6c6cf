"""Remapping a part of a map, edits and refinement: what changes, what stays, with tiny models."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sample
from beatmaps.game_rules import format_time
from beatmaps.osu_file import Beatmap, parse_beatmap, read_beatmap
from beatmaps.selection import Mask, Selection, choose_objects
from beatmaps.sequence import END, Sequence, beatmap_to_sequence
from beatmaps.slider_path import NEARLY
from checkpoint import LoadedModel, load_model
from constraints.spacing import Spacing
from diffusion.parametrisation import EDM, LearnedVariance
from metrics.spacing import spacing_errors
from models import DiT_models, bind
from sampling import generate as generation
from sampling import report
from sampling.generate import SampleOptions, generate
from sampling.map_inputs import MapInputs
from sampling.network import part_conditions
from sampling.options import DEFAULT_GUIDANCE, start_level
from sampling.remap import remapped_file
from tests.conftest import (
    beatmap_text,
    draw_nothing,
    needs_maps,
    random_objects,
    real_paths,
    run_command,
)

METADATA = re.compile(rb"(Version|BeatmapID|Tags):")


@pytest.fixture(scope="module")
def loaded(trained: Path) -> LoadedModel:
    return load_model(trained / "model.safetensors")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And no pictures: drawing takes longer than sampling with a tiny model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(report, "draw", draw_nothing)
    yield
    torch.set_num_threads(threads)


def made_up(seed: int = 0, count: int = 120, *, sliders: bool = True) -> tuple[Beatmap, Sequence]:
    text = beatmap_text(random_objects(seed, count, sliders=sliders))
    beatmap = parse_beatmap(text.encode(), "made up")
    return beatmap, beatmap_to_sequence(beatmap)


def some(beatmap: Beatmap, low: int, high: int) -> Mask:
    mask = np.zeros(len(beatmap.objects), dtype=bool)
    mask[low:high] = True
    return mask


def changed_outside(before: Beatmap, after: bytes, chosen: Mask) -> list[tuple[bytes, bytes]]:
    """Pairs of lines that differ where they must not.

    Lines of chosen objects may differ in x, y and the numbers of the curve, no others may.
    """
    lines = [[x for x in b.splitlines(True) if not METADATA.match(x)] for b in (before.raw, after)]
    assert len(lines[0]) == len(lines[1])
    free = {before.lines[hit.line] for hit, c in zip(before.objects, chosen, strict=True) if c}

    def rest(line: bytes) -> list[bytes]:
        fields = line.split(b",")[2:]
        if len(fields) > 3 and b"|" in fields[3]:
            fields[3] = re.sub(rb"-?\d+(\.\d+)?:-?\d+(\.\d+)?", b":", fields[3])
        return fields

    pairs = zip(*lines, strict=True)
    return [(a, b) for a, b in pairs if a != b and (a not in free or rest(a) != rest(b))]


# --- a part of a map ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "selection",
    [
        Selection(5000, 9000),
        Selection(time_end=4000),
        Selection(12_000),
        Selection(only="sliders"),
        Selection(only="circles"),
        Selection(5000, 9000, "grow", "circles"),
    ],
)
@pytest.mark.parametrize("spacing", ["keep", "model"])
def test_all_bytes_outside_the_chosen_coordinates_stay(
    loaded: LoadedModel, selection: Selection, spacing: str
) -> None:
    for seed in range(3):
        beatmap, sequence = made_up(seed)
        chosen = choose_objects(beatmap, selection)
        options = SampleOptions(steps=3, seed=seed, spacing=Spacing(spacing))
        raw, placed = generate(loaded, sequence, options, inputs=MapInputs(chosen))
        data = remapped_file(sequence, placed[0], "new", seed)
        assert changed_outside(beatmap, data, chosen) == []
        stays = ~chosen[sequence.objects]
        assert (raw[0][stays] == sequence.xy[stays]).all()
        after = parse_beatmap(data, "after")
        moved = np.array(
            [(a.x, a.y) != (b.x, b.y) for a, b in zip(beatmap.objects, after.objects, strict=True)]
        )
        assert moved[chosen].mean() > 0.8 and not moved[~chosen].any()


@needs_maps
def test_all_bytes_outside_a_range_of_real_maps_stay(loaded: LoadedModel) -> None:
    """Old formats, fractions and gimmicks included."""
    rng = np.random.default_rng(0)
    for path in [*real_paths("val")[::12], *real_paths("edge")[::9]]:
        try:
            beatmap = read_beatmap(path)
        except ValueError:
            continue
        chosen = rng.random(len(beatmap.objects)) < 0.5
        chosen &= np.array([hit.kind != "spinner" for hit in beatmap.objects])
        if not chosen.any() or len(beatmap.objects) > 3000:
            continue
        sequence = beatmap_to_sequence(beatmap)
        options = SampleOptions(steps=1)
        _, placed = generate(loaded, sequence, options, inputs=MapInputs(chosen))
        data = remapped_file(sequence, placed[0], "new", 0)
        different = changed_outside(beatmap, data, chosen)
        # A slider without a usable length gets the one it had written, see apply_coordinates.
        different = [(a, b) for a, b in different if a.count(b",") == b.count(b",") != 6]
        lengths = {beatmap.lines[hit.line] for hit in beatmap.objects if not hit.length}
        doubled = {
            beatmap.lines[hit.line]
            for hit in beatmap.objects
            if len(hit.points) > 1 and (hit.points[-1] == hit.points[-2]).all()
        }
        assert [a for a, _ in different if a not in lengths | doubled] == [], path.name


@pytest.mark.parametrize("where", [(40, 55), (0, 10), (100, 119), (60, 61)])
def test_a_range_is_sampled_as_in_the_whole_map(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, where: tuple[int, int]
) -> None:
    """A model of two layers sees no further than the surroundings that are sampled.

    Without constraints: between two fixed points they can turn a rounding error into another bend.
    """
    assert loaded.model.config.depth == 2
    beatmap, sequence = made_up(3)
    inputs = MapInputs(some(beatmap, *where))
    options = SampleOptions(steps=4, spacing=Spacing("model"), bounds="off", structure="off")
    part = generate(loaded, sequence, options, inputs=inputs)
    assert generation.context_points(loaded, options) == 33  # two bands, and a neighbour
    monkeypatch.setattr(generation, "context_points", lambda loaded, options: 10**6)
    whole = generate(loaded, sequence, options, inputs=inputs)
    np.testing.assert_allclose(part[0], whole[0], atol=2e-3)
    assert np.abs(part[0] - sequence.xy).max() > 10


def test_distances_are_met_on_both_sides_of_a_range(loaded: LoadedModel) -> None:
    errors = []
    for seed in range(6):
        beatmap, sequence = made_up(seed, sliders=False)
        chosen = some(beatmap, 30, 50)
        _, placed = generate(loaded, sequence, SampleOptions(steps=6), inputs=MapInputs(chosen))
        errors.append(spacing_errors(sequence, placed[0])[[30, 50]])
    first, after = np.array(errors).T
    assert first.max() <= 1.0 and after.max() <= 1.5


@pytest.mark.parametrize("chosen", [slice(None), slice(30, 60)])
def test_lengths_that_fit_keep_durations_and_spacing(loaded: LoadedModel, chosen: slice) -> None:
    """Sliders end with their paths; only chosen ones have another length."""
    beatmap, sequence = made_up(11)
    mask = np.zeros(len(beatmap.objects), dtype=bool)
    mask[chosen] = True
    options = SampleOptions(steps=4, slider_velocity="fit")
    inputs = MapInputs(None if mask.all() else mask)
    _, placed = generate(loaded, sequence, options, inputs=inputs)
    data = remapped_file(sequence, placed[0], "new", 0, None, "fit")
    after = parse_beatmap(data, "fitted")
    for old, new, c in zip(beatmap.objects, after.objects, mask, strict=True):
        assert abs((new.end_time - new.time) - (old.end_time - old.time)) <= 1
        if old.kind == "slider" and c:
            # What is near enough stays: the old length, or a line for what it travels in 1 ms.
            path = new.path()
            travelled = path.natural_length / (new.end_time - new.time) * new.slides
            assert abs(path.length - path.natural_length) <= max(1.01 * travelled, NEARLY)
        elif old.kind == "slider":
            assert new.length == old.length
    written = beatmap_to_sequence(after)
    ends = sequence.anchors == END
    assert (written.xy[~ends] == placed[0][~ends]).all()
    assert np.abs(written.xy - placed[0]).max() < 1.5
    movable = mask[sequence.objects] & sequence.object_starts
    assert np.median(spacing_errors(sequence, written.xy)[movable]) < 0.3


def test_the_command_line_remaps_a_part(trained: Path, tmp_path: Path) -> None:
    beatmap, _ = made_up(5)
    source = tmp_path / "map.osu"
    source.write_bytes(beatmap.raw)
    time, end = (format_time(beatmap.objects[i].time) for i in (20, 40))
    flags = ["--beatmap", source, "--ckpt", trained / "model.safetensors", "--device", "cpu"]
    flags += ["--num-sampling-steps", 3, "--time-start", f"{time} (1) -", "--time-end", end]
    flags += ["--keep-objects", f"{format_time(beatmap.objects[30].time)} -", "--only", "circles"]
    assert run_command(sample.main, *flags, "--output", tmp_path / "out") == 0
    (path,) = (tmp_path / "out").rglob("*.osu")
    chosen = some(beatmap, 20, 41) & ~some(beatmap, 30, 31)
    chosen &= np.array([hit.kind == "circle" for hit in beatmap.objects])
    assert changed_outside(beatmap, path.read_bytes(), chosen) == []
    assert path.read_bytes() != beatmap.raw
    # Another part has another name; the same one again is done already.
    written = path.stat().st_mtime_ns
    assert run_command(sample.main, *flags, "--output", tmp_path / "out") == 0
    assert path.stat().st_mtime_ns == written
    assert run_command(sample.main, *flags[:-2], "--output", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").rglob("*.osu"))) == 2


def test_the_model_is_told_where_kept_objects_are(loaded: LoadedModel) -> None:
    """In its units; not of those absurdly far away, and nothing of those that are remapped."""
    beatmap, sequence = made_up(3, 60)
    sequence = replace(sequence, xy=sequence.xy.copy())
    sequence.xy[0] = (9000, 100)
    options = SampleOptions(steps=2)
    part, points = generation.choose_part(loaded, sequence, options, some(beatmap, 5, 30))
    known = part_conditions(loaded, part).known
    assert known is not None and part.kept[0] and points.start == 0
    told = ~known[0].isnan().any(-1).numpy()
    assert told.tolist() == [False, *part.kept[1:].tolist()] and 0 < told.sum() < len(told)
    xy = loaded.parametrisation.to_pixels(known)[0].numpy()
    np.testing.assert_allclose(xy[told], part.sequence.xy[told], atol=1e-3)
    every, _ = generation.choose_part(loaded, sequence, options, some(beatmap, 0, 59))
    assert part_conditions(loaded, replace(every, kept=every.kept & False)).known is None


# --- guidance by a weak model ---------------------------------------------------------------------


def test_a_weak_model_is_led_away_from(loaded: LoadedModel, trained: Path) -> None:
    """One step from noise is linear: D_weak + w (D - D_weak); weight 1 is the model alone."""
    _, sequence = made_up(4, 30)
    weak = load_model(trained / "checkpoints" / "0000005.pt")
    guided = replace(loaded, weak=weak)

    def once(model: LoadedModel, guidance: float | None) -> np.ndarray:
        options = SampleOptions(
            steps=1, guidance=guidance, spacing=Spacing("model"), bounds="off", structure="off"
        )
        return generate(model, sequence, options)[0][0]

    good, bad = once(loaded, None), once(weak, None)
    assert np.abs(good - bad).max() > 0.1
    np.testing.assert_array_equal(once(guided, 1), good)
    np.testing.assert_allclose(once(guided, 3), bad + 3 * (good - bad), atol=0.01)
    np.testing.assert_allclose(once(guided, None), bad + DEFAULT_GUIDANCE * (good - bad), atol=0.01)
    with pytest.raises(ValueError, match=r"guidance 2: .* has no weak model beside it"):
        once(loaded, 2)


# --- edits ----------------------------------------------------------------------------------------


def moved_by(loaded: LoadedModel, **options: object) -> float:
    """Mean px by which a run moves the data points, before rounding."""
    _, sequence = made_up(1, 60)
    raw, _ = generate(loaded, sequence, SampleOptions(**options))  # type: ignore[arg-type]
    return float(np.hypot(*(raw[0] - sequence.xy).T).mean())


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "ancestral"])
def test_the_stronger_an_edit_the_more_it_moves(loaded: LoadedModel, sampler: str) -> None:
    away = [
        moved_by(loaded, strength=s, sampler=sampler, spacing=Spacing("model"), bounds="off")
        for s in (0.1, 0.4, 0.7, 1)
    ]
    assert away[0] < 15 and away == sorted(away) and away[-1] > 5 * away[0]


def test_strength_0_changes_no_coordinate(loaded: LoadedModel) -> None:
    beatmap, sequence = made_up(2)
    calls: list[int] = []
    raw, placed = generate(
        loaded,
        sequence,
        SampleOptions(strength=0.0, variants=2),
        lambda done, total: calls.append(done),
    )
    assert (raw == sequence.xy).all() and (placed == sequence.xy).all() and calls == []
    data = remapped_file(sequence, placed[1], "new", 0)
    assert changed_outside(beatmap, data, some(beatmap, 0, 0)) == []


def test_nothing_chosen_changes_nothing(loaded: LoadedModel) -> None:
    beatmap, sequence = made_up(2, 20)
    inputs = MapInputs(some(beatmap, 0, 0))
    for xy in generate(loaded, sequence, SampleOptions(steps=2), inputs=inputs):
        assert (xy == sequence.xy).all()


def test_runs_begin_at_the_level_asked_for() -> None:
    """EDM exactly, also below its lowest level; the chain at its nearest timestep."""
    for level in (2.5, 0.5, 0.001):
        sigmas = EDM().sigmas(6, level)
        assert float(sigmas[0]) == pytest.approx(level) and len(sigmas) == 7
        assert float(sigmas[-1]) == 0 and (sigmas.diff() <= 0).all()
    chain = LearnedVariance()
    for level in (1.0, 0.1):
        sigmas = chain.chain_sigmas(6, level)
        assert float(sigmas[0]) == pytest.approx(level, rel=0.02) and len(sigmas) == 7
        assert float(sigmas[-2]) == pytest.approx(float(chain.chain_sigmas(1000)[-2]))
    assert len(chain.chain_sigmas(6, 0.0001)) == 2  # the chain has one level there


def test_an_edit_takes_its_share_of_the_steps() -> None:
    steps = [SampleOptions(steps=20, strength=s).sampling_steps for s in (1, 0.5, 0.31, 0.01, 0)]
    assert steps == [20, 10, 7, 4, 0]
    assert SampleOptions(steps=2, strength=0.1).sampling_steps == 2


def test_edits_repeat_and_seeds_differ(loaded: LoadedModel) -> None:
    beatmap, sequence = made_up(4, 60)
    options = SampleOptions(steps=6, strength=0.5)
    inputs = MapInputs(some(beatmap, 10, 50))

    def run(options: SampleOptions) -> bytes:
        _, placed = generate(loaded, sequence, options, inputs=inputs)
        return remapped_file(sequence, placed[-1], "new", 0)

    assert run(options) == run(options)
    assert run(replace(options, seed=1)) != run(options)
    assert run(replace(options, variants=2)) != run(options)


def test_an_edit_starts_from_the_source_with_noise(loaded: LoadedModel) -> None:
    """At the level that its strength names: strength 1 at 655 px, hardly any at 1.3 px."""
    for strength, px in ((0.999999, 655.0), (1e-9, 1.31)):
        options = SampleOptions(strength=strength)
        level = start_level(loaded, options)
        assert level == pytest.approx(px / 131, rel=1e-3)
    half = start_level(loaded, SampleOptions(strength=0.5))
    assert half is not None
    assert half ** (1 / 7) == pytest.approx((5 ** (1 / 7) + 0.01 ** (1 / 7)) / 2, rel=1e-6)


# --- refinement -----------------------------------------------------------------------------------


def test_refining_moves_little_and_keeps_what_stays(loaded: LoadedModel) -> None:
    beatmap, sequence = made_up(6, 60)
    chosen = some(beatmap, 10, 50)
    seen: list[tuple[int, int]] = []
    options = SampleOptions(
        strength=0.0, refine_iterations=3, spacing=Spacing("model"), bounds="off"
    )
    raw, _ = generate(
        loaded,
        sequence,
        options,
        lambda done, total: seen.append((done, total)),
        MapInputs(chosen),
    )
    away = np.hypot(*(raw[0] - sequence.xy).T)
    points = chosen[sequence.objects]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert 0 < np.median(away[points]) < 5 and (away[~points] == 0).all()


def test_refining_follows_sampling_and_may_use_another_model(
    loaded: LoadedModel, trained: Path
) -> None:
    _, sequence = made_up(7, 40)
    options = SampleOptions(steps=3, spacing=Spacing("model"), bounds="off")
    refined = replace(options, refine_iterations=2)
    early = load_model(trained / "checkpoints" / "0000005.pt")
    plain, own, other = (
        generate(loaded, sequence, o, inputs=c)[0]
        for o, c in (
            (options, None),
            (refined, None),
            (refined, MapInputs(refiner=early)),
        )
    )
    assert not np.array_equal(plain, own) and not np.array_equal(own, other)
    assert np.abs(own - plain).mean() < 10


def random_reference_model() -> LoadedModel:
    """A small model of the reference's recipe that is no longer the zero function it begins as."""
    torch.manual_seed(0)
    model = DiT_models["DiT-nano"](architecture="reference", num_classes=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.requires_grad_(False).eval()
    return LoadedModel(model, LearnedVariance(), Path("tiny.pt"), "0")


def test_auto_is_the_solver_of_the_models_recipe(loaded: LoadedModel) -> None:
    _, sequence = made_up(8, 30)
    for model, sampler in ((random_reference_model(), "ancestral"), (loaded, "dpmpp-2m")):
        auto, named, other = (
            generate(model, sequence, SampleOptions(steps=3, sampler=name))[0]
            for name in ("auto", sampler, "heun")
        )
        assert np.array_equal(auto, named) and not np.array_equal(auto, other)


def test_refining_a_model_of_the_reference_repeats_its_last_step() -> None:
    """x <- (x - sqrt(1 - a) eps(x, t = 0)) / sqrt(a), clamped to [-1, 2], computed by hand."""
    loaded = random_reference_model()
    parametrisation = LearnedVariance()
    beatmap, sequence = made_up(8, 30, sliders=False)
    options = SampleOptions(
        strength=0.0,
        refine_iterations=2,
        spacing=Spacing("model"),
        bounds="off",
        structure="off",
    )
    raw, _ = generate(loaded, sequence, options)
    every = np.ones(len(beatmap.objects), dtype=bool)
    part, _ = generation.choose_part(loaded, sequence, options, every)
    network = bind(loaded.model, part_conditions(loaded, part))
    a = float(parametrisation.schedule.alphas_cumprod[0])
    x = torch.from_numpy(sequence.xy).float()[None] / torch.tensor([512.0, 384.0])
    for _ in range(2):
        eps = network(x, torch.zeros(1))[..., :2]
        x = ((x - (1 - a) ** 0.5 * eps) / a**0.5).clamp(-1, 2)
        x[:, -2:] = 0.5  # the spinner stays
    expected = (x * torch.tensor([512.0, 384.0]))[0].numpy()
    assert np.abs(expected - sequence.xy).max() > 1
    np.testing.assert_allclose(raw[0], expected, atol=0.1)


def test_the_command_line_edits_and_refines(trained: Path, tmp_path: Path) -> None:
    beatmap, _ = made_up(9, 40)
    source = tmp_path / "map.osu"
    source.write_bytes(beatmap.raw)
    model = trained / "model.safetensors"
    common = ["--beatmap", source, "--ckpt", model, "--device", "cpu", "--output", tmp_path / "out"]
    common += ["--num-sampling-steps", 3]
    for flags in (
        ["--strength", 0.3],
        ["--strength", 0],
        ["--refine"],
        ["--refine-ckpt", trained / "checkpoints" / "0000005.pt", "--refine-iters", 2],
    ):
        assert run_command(sample.main, *common, *flags) == 0
    names = sorted(path.name for path in (tmp_path / "out").rglob("*.osu"))
    assert len(names) == 4 and sum("refined by 0000005" in name for name in names) == 1
