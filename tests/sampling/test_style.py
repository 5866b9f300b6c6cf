"""Styles: mixing the model's own, finding mappers, learning one from files."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from style_test import Judge, features

import sample
from beatmaps.osu_file import parse_beatmap
from beatmaps.sequence import Sequence, beatmap_to_sequence
from checkpoint import LoadedModel, load_model
from constraints.spacing import Spacing
from diffusion.parametrisation import EDM
from models import DiT_models
from sampling import report, style
from sampling.generate import SampleOptions, choose_part, generate
from sampling.map_inputs import MapInputs
from sampling.network import make_denoiser
from sampling.style import (
    Style,
    StyleMix,
    resolve,
    weighted_parts,
)
from sampling.style_learning import (
    Learner,
    Learning,
    draw_windows,
    embeddings_of,
    learn_embedding,
    nearest_classes_mean,
)
from tests.conftest import beatmap_text, draw_nothing, random_objects, read_json, run_command

Embedding = torch.Tensor | None
QUICK = Learning(steps=4, windows=2, candidates=2, nearest=1)


@pytest.fixture(scope="module")
def loaded(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The tiny trained model; of its six maps' mappers two have names of their own."""
    folder = tmp_path_factory.mktemp("model")
    for name in ("model.safetensors", "beatmap_idx.pickle"):
        shutil.copy(trained / name, folder / name)
    lines = (trained / "model.classes.csv").read_text(encoding="utf-8").splitlines()
    named = [line.replace(",Mapper,", ",Kôji B,", 1) for line in lines[1:4]]
    named += [line.replace(",Mapper,", ",Sakura,", 1) for line in lines[4:6]]
    text = "\n".join([lines[0], *named, *lines[6:]])
    (folder / "model.classes.csv").write_text(text, encoding="utf-8")
    return load_model(folder / "model.safetensors")


@pytest.fixture(scope="module")
def random_model() -> LoadedModel:
    """A model that has not learnt anything, but in which a class makes a difference."""
    torch.manual_seed(1)
    model = DiT_models["DiT-nano"](num_classes=5, half_window=8)
    for name, parameter in model.named_parameters():
        if "adaLN" in name or "final_layer" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.requires_grad_(False).eval()
    return LoadedModel(model, EDM(), Path("random.safetensors"), "random")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(report, "draw", draw_nothing)
    monkeypatch.setattr(style, "Learning", lambda: QUICK)


def made_up(seed: int, count: int = 60) -> Sequence:
    text = beatmap_text(random_objects(seed, count))
    return beatmap_to_sequence(parse_beatmap(text.encode(), "made up"))


def write_map(folder: Path, seed: int) -> Path:
    path = folder / f"map {seed}.osu"
    path.write_text(beatmap_text(random_objects(seed, 40)), encoding="utf-8")
    return path


# --- the model's own styles -----------------------------------------------------------------------


def test_weights_are_read() -> None:
    assert weighted_parts("style_id", "1180619 303335:0.5", ", ") == [
        ("1180619", 1),
        ("303335", 0.5),
    ]
    assert weighted_parts("style_id", "a b:2, c", ",") == [("a b", 2), ("c", 1)]
    for text in ("1:0", "1:-1", "1:x", "1:nan", "1:inf", "1:"):
        with pytest.raises(ValueError, match="weight after the colon must be above 0"):
            weighted_parts("style_id", text, ", ")
    with pytest.raises(ValueError, match="names no style"):
        weighted_parts("style_id", " , ", ", ")


def test_ids_are_mixed_by_weight(loaded: LoadedModel) -> None:
    table = embeddings_of(loaded)
    single = resolve(loaded, StyleMix(ids=("103",)))
    assert single is not None and torch.equal(single, table[2])
    mixed = resolve(loaded, StyleMix(ids=("101:3 104", "106:0.5")))
    torch.testing.assert_close(mixed, (3 * table[0] + table[3] + 0.5 * table[5]) / 4.5)
    assert resolve(loaded, StyleMix()) is None


def test_a_mapper_is_the_mean_of_their_maps(loaded: LoadedModel) -> None:
    table = embeddings_of(loaded)
    for name in ("Kôji B", "kÔJI b"):
        found = resolve(loaded, StyleMix(mappers=(name,)))
        torch.testing.assert_close(found, table[:3].mean(dim=0))
    both = resolve(loaded, StyleMix(mappers=("kôji b:2, SAKURA",)))
    expected = (2 * table[:3].mean(dim=0) + table[3:5].mean(dim=0)) / 3
    torch.testing.assert_close(both, expected)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (StyleMix(ids=("109",)), "109 is not among the model's 6 styles; .* are 106, 105, 104"),
        (StyleMix(ids=("abc",)), "give beatmap IDs, which are numbers"),
        (StyleMix(mappers=("koji",)), "not among the model's 3 mappers; .* are Kôji B, "),
        (StyleMix(files=(Path("nowhere.osu"),)), "nowhere.osu does not exist"),
    ],
)
def test_unknown_styles_name_the_nearest(
    loaded: LoadedModel, request_: StyleMix, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(loaded, request_)


def test_class_tables_must_be_there_and_fit(loaded: LoadedModel, tmp_path: Path) -> None:
    alone = replace(loaded, path=tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"no class table model\.classes\.csv"):
        resolve(alone, StyleMix(mappers=("Sakura",)))
    table = tmp_path / "model.classes.csv"
    columns = "class_index,beatmap_id,creator,artist,title,version"
    table.write_text(f"{columns}\n6,1,Sakura,A,B,Hard\n", encoding="utf-8")
    with pytest.raises(ValueError, match="it is of another model"):
        resolve(alone, StyleMix(mappers=("Sakura",)))
    table.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a class table"):
        resolve(alone, StyleMix(mappers=("Sakura",)))


def test_what_kind_of_style_a_text_names_is_guessed() -> None:
    guessed = StyleMix.guess(["12 34:2", "Some One", "maps/a.osu", "7"])
    assert guessed == StyleMix(("12 34:2", "7"), ("Some One",), (Path("maps/a.osu"),))
    assert not StyleMix.guess([])


# --- guidance -------------------------------------------------------------------------------------


def test_guidance_leads_from_the_negative_style(random_model: LoadedModel) -> None:
    """Linear in the scale: one step from noise gives n + s (p - n)."""
    beatmap = parse_beatmap(beatmap_text(random_objects(1, 30)).encode(), "made up")
    sequence = beatmap_to_sequence(beatmap)
    table = embeddings_of(random_model) * 20

    def once(positive: Embedding, negative: Embedding, scale: float) -> np.ndarray:
        options = SampleOptions(steps=1, cfg_scale=scale, spacing=Spacing("model"), bounds="off")
        inputs = MapInputs(style=Style(positive, negative))
        return generate(random_model, sequence, options, inputs=inputs)[0][0]

    p, n = once(table[0], None, 1), once(table[1], None, 1)
    assert np.abs(p - n).max() > 1
    np.testing.assert_array_equal(once(table[0], table[1], 1), p)
    expected = n + 3 * (p - n)
    np.testing.assert_allclose(once(table[0], table[1], 3), expected, atol=0.01)
    # Away from a style towards none.
    none = once(None, None, 1)
    expected = n + 2 * (none - n)
    np.testing.assert_allclose(once(None, table[1], 2), expected, atol=0.01)


@pytest.mark.parametrize(
    ("px", "strength", "limit_px", "acts"),
    [
        (61, 1.0, None, True),
        (59, 1.0, None, False),
        (59, 0.9, None, True),  # edits, and models of low noise, know no more noise
        (59, 1.0, 80.0, True),
    ],
)
def test_guidance_acts_where_a_style_is_decided(
    random_model: LoadedModel, px: float, strength: float, limit_px: float | None, acts: bool
) -> None:
    """Of two variants, with a style to keep away from."""
    model = random_model
    if limit_px is not None:
        model = replace(model, parametrisation=model.parametrisation.limited(limit_px))
    sequence, table = made_up(7), embeddings_of(model) * 20
    objects = np.ones(len(sequence.beatmap.objects), dtype=bool)
    x = torch.randn(2, len(sequence), 2, generator=torch.Generator().manual_seed(0))

    def predicted(scale: float) -> torch.Tensor:
        options = SampleOptions(cfg_scale=scale, strength=strength, variants=2)
        part, _ = choose_part(model, sequence, options, objects)
        denoise, _ = make_denoiser(model, part, options, Style(table[0], table[1]))
        return denoise(x, torch.tensor(px / 131.0))

    assert torch.equal(predicted(1), predicted(3)) != acts


def test_refinement_in_a_style_is_guided(random_model: LoadedModel) -> None:
    """It has little noise alone, after a run from pure noise too; here only it is told a style."""
    sequence = made_up(8)
    told = Style(embeddings_of(random_model)[0] * 20)
    inputs = MapInputs(refiner=random_model, refiner_style=told)

    def refined(scale: float) -> np.ndarray:
        free = SampleOptions(steps=1, spacing=Spacing("model"), bounds="off", cfg_scale=scale)
        return generate(random_model, sequence, replace(free, refine_iterations=2), inputs=inputs)[
            0
        ]

    assert not np.array_equal(refined(1), refined(3))


# --- learning -------------------------------------------------------------------------------------


def test_windows_are_those_of_the_maps() -> None:
    """Every window is a piece of one of the maps, mirrored or not, with that piece's distances."""
    sequences = [made_up(1), made_up(2)]
    windows = draw_windows(sequences, 40, 16, torch.arange(3.0), np.random.default_rng(0))
    told = windows.conditions
    assert windows.xy.shape == (40, 16, 2) and told.valid is not None and bool(told.valid.all())
    assert told.classes.tolist() == [[0, 1, 2]] * 40
    flips = set()
    for times, xy, distances in zip(told.times, windows.xy, told.distances, strict=True):
        found = False
        for sequence in sequences:
            for start in range(len(sequence) - 15):
                part = slice(start, start + 16)
                if not np.allclose(sequence.times[part] - sequence.times[start], times.numpy()):
                    continue
                for sign in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                    mirrored = (sequence.xy[part] - (256, 192)) * sign + (256, 192)
                    if np.allclose(mirrored, xy.numpy(), atol=1e-3):
                        found = True
                        flips.add(sign)
                        np.testing.assert_allclose(
                            distances.numpy(), sequence.distances()[part], rtol=1e-6
                        )
        assert found
    assert len(flips) == 4


def test_short_maps_are_padded_and_far_points_left_out() -> None:
    sequence = made_up(3, 5)
    far = sequence.moved(sequence.xy + np.eye(len(sequence), 2) * 5000)
    windows = draw_windows([far], 2, 20, torch.zeros(3), np.random.default_rng(0))
    expected = [i > 1 and i < len(sequence) for i in range(20)]
    assert windows.conditions.valid is not None
    assert windows.conditions.valid.tolist() == [expected, expected]
    assert float(windows.xy.abs().max()) < 1000


def test_an_embedding_that_is_learnt_fits_better(random_model: LoadedModel) -> None:
    """Than no style and than where the learning began, on windows and noise not learnt from."""
    sequence = made_up(4)
    learning = Learning(steps=40, windows=8, lr=0.1, candidates=5, nearest=2)
    before = embeddings_of(random_model).clone()
    learnt = learn_embedding(random_model, [sequence], learning)
    start = learn_embedding(random_model, [sequence], replace(learning, steps=0))
    judge = Learner(random_model, [sequence], Learning(seed=9))
    drawn = judge.draw(64)
    null = embeddings_of(random_model)[-1]
    loss = {k: float(judge.loss(e, drawn)) for k, e in (("l", learnt), ("s", start), ("n", null))}
    assert loss["l"] < 0.97 * loss["n"] and loss["l"] < 0.97 * loss["s"]
    assert torch.equal(embeddings_of(random_model), before)
    assert all(p.grad is None for p in random_model.model.parameters())
    assert torch.equal(learnt, learn_embedding(random_model, [sequence], learning))


def test_learning_begins_at_the_class_that_fits_best(random_model: LoadedModel) -> None:
    """Found as by trying all of them on the same windows."""
    learning = Learning(windows=8, candidates=6, nearest=1)
    found = nearest_classes_mean(Learner(random_model, [made_up(5)], learning))
    judge = Learner(random_model, [made_up(5)], learning)
    judge.draw(16)  # these gave the slope
    drawn = judge.draw(8)
    table = embeddings_of(random_model)
    losses = [float(judge.loss(row, drawn)) for row in table]
    assert torch.equal(found, table[int(np.argmin(losses))])


def test_what_was_learnt_is_kept_by_the_hashes(loaded: LoadedModel, tmp_path: Path) -> None:
    files, cache = (write_map(tmp_path, 1), write_map(tmp_path, 2)), tmp_path / "cache"
    calls: list[int] = []

    def learn(paths: tuple[Path, ...], model: LoadedModel = loaded) -> torch.Tensor:
        calls.clear()
        return style.style_of_files(model, paths, cache, lambda done, total: calls.append(done))

    first = learn(files)
    assert calls == [0, 1, 2, 3, 4]
    assert torch.equal(learn(files), first) and calls == []
    assert torch.equal(learn(files[::-1]), first) and calls == []  # in whatever order
    assert not torch.equal(learn(files[:1]), first) and calls
    learn(files, replace(loaded, sha256="another"))
    assert calls and len(list(cache.iterdir())) == 3
    for path in cache.iterdir():
        path.write_bytes(b"damaged")
    assert torch.equal(learn(files), first) and calls
    assert torch.equal(learn(files), first) and not calls
    archive = tmp_path / "both.osz"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in files:
            packed.write(path, path.name)
    assert torch.equal(learn((archive,)), first) and not calls  # the same maps, packed


def test_learning_that_is_cancelled_leaves_nothing(loaded: LoadedModel, tmp_path: Path) -> None:
    def cancel(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        style.style_of_files(loaded, (write_map(tmp_path, 3),), tmp_path / "cache", cancel)
    assert not (tmp_path / "cache").exists()


# --- the command line -----------------------------------------------------------------------------


def test_styles_by_every_flag_repeat_to_the_byte(loaded: LoadedModel, tmp_path: Path) -> None:
    source = write_map(tmp_path, 20)
    common = ["--ckpt", loaded.path, "--device", "cpu", "--num-sampling-steps", 3]
    common += ["--beatmap", source]
    flags = ["--style-id", "101:2", 104, "--style-mapper", "sakura", "--cfg-scale", 3]
    flags += ["--style-beatmap", write_map(tmp_path, 21), write_map(tmp_path, 22)]
    flags += ["--negative-style", "kôji b:2", 106]
    results = []
    for folder in ("a", "b"):
        output = tmp_path / folder
        assert run_command(sample.main, *common, *flags, "--output", output) == 0
        (path,) = output.rglob("*.osu")
        results.append((path.name, path.read_bytes()))
        assert len(list((output / ".cache").glob("style-*.safetensors"))) == 1
    assert results[0] == results[1]
    report = read_json(next((tmp_path / "a").rglob("*.result.json")))
    assert report["style"] == "101:2 104 sakura map 21 map 22"
    assert report["arguments"]["negative_style"] == ["kôji b:2", "106"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--cfg-scale 2", "--cfg-scale strengthens a style"),
        ("--negative-style 101", "give a --cfg-scale above 1"),
        ("--style-mapper nobody", "the nearest names are"),
        ("--style-beatmap nowhere.osu", "nowhere.osu does not exist"),
        ("--strength 1.5", "--strength 1.5: give a number from 0 to 1"),
        ("--refine --strength 0.5", "give one"),
        ("--refine-iters 5000 --refine", "--refine-iters 5000"),
        ("--refine-ckpt nowhere.pt", "no checkpoint file nowhere.pt"),
        ("--time-start soon", "'soon' is no time"),
        ("--time-start 2000 --time-end 1000", "is after --time-end"),
        ("--time-start 1e9", "nothing to remap"),
        ("--align-combos grow", "give --time-start"),
        ("--keep-objects (1,2)", "what osu!'s editor copies"),
        ("--keep-objects 00:00:001", "no object is there"),
    ],
)
def test_bad_controls_are_one_line_and_write_nothing(
    loaded: LoadedModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    message: str,
) -> None:
    common = ["--ckpt", loaded.path, "--device", "cpu", "--beatmap", write_map(tmp_path, 30)]
    output = tmp_path / "output"
    assert run_command(sample.main, *common, "--output", output, *flags.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("error: ") and message in captured.err
    assert "Traceback" not in captured.err and not output.exists()


# --- the measurement of styles --------------------------------------------------------------------


def zigzag(step: tuple[int, int], count: int = 40) -> Sequence:
    """Circles 150 ms apart that go to and fro between two places, or on and on."""
    places = [(100 + step[0] * (i % 2), 100 + step[1] * i) for i in range(count)]
    lines = [f"{x},{y},{1000 + 150 * i},1,0" for i, (x, y) in enumerate(places)]
    return beatmap_to_sequence(parse_beatmap(beatmap_text("\n".join(lines)).encode(), "zigzag"))


def test_the_measured_features_tell_flow_from_jumps() -> None:
    """Turning cosine 1 for a straight line, -1 for to and fro, in the bin of 80 px and 150 ms."""
    straight, jumps = features(zigzag((0, 80), 40)), features(zigzag((80, 0), 40))
    known = np.flatnonzero(np.isfinite(straight[:27]))
    assert known.tolist() == [9, 10, 11]  # second bin of spacing, first of time
    np.testing.assert_allclose(straight[9:11], (1, 0), atol=1e-9)
    np.testing.assert_allclose(jumps[9:11], (-1, 0), atol=1e-9)


def test_the_judge_prefers_what_is_alike() -> None:
    rng = np.random.default_rng(0)
    maps = [features(made_up(seed)) for seed in range(12)]
    judge = Judge(maps)
    noisy = maps[3] + 0.1 * judge.std * rng.normal(size=len(maps[3]))
    others = [found for i, found in enumerate(maps) if i != 3]
    assert judge.share_nearer(noisy, maps[3], others) == 1
    assert judge.share_nearer(noisy, maps[4], [maps[3], maps[3]]) == 0
    assert judge.distance(maps[3], maps[3]) == 0
