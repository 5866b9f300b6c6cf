"""Remapping a beatmap on the command line: what it keeps, what it writes, what it refuses."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import sample
from beatmaps.osu_file import parse_beatmap, read_beatmap
from beatmaps.sequence import beatmap_to_sequence
from checkpoint import CheckpointError, LoadedModel, load_model
from constraints.bounds import bounds_named
from constraints.spacing import Spacing
from conventions import precision
from conventions.bundled import EXAMPLE
from conventions.playfield import PLAYFIELD_CENTRE
from conventions.point_types import PointType
from diffusion.samplers import SOLVERS
from metrics.fidelity import count_changes, count_faults
from metrics.marks import MarkFinder
from metrics.spacing import measure
from sampling import remap as remapping
from sampling.generate import SampleOptions, generate
from sampling.map_inputs import MapInputs
from sampling.progress import bar
from sampling.report import outcome, to_look_at
from sampling.results import safe_name
from sampling.style import Style, embeddings_of
from tests.conftest import (
    NUM_MAPS,
    TRAIN_STEPS,
    beatmap_text,
    call_main,
    maps_below,
    random_objects,
    read_json,
    remap,
)

ROOT = Path(__file__).resolve().parent.parent
UNCHANGED = {
    "objects_lost": 0,
    "objects_moved_in_time": 0,
    "objects_of_other_kind": 0,
    "other_bytes_changed": 0,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up map of 40 objects."""
    path = tmp_path_factory.mktemp("small") / "small.osu"
    path.write_text(beatmap_text(random_objects(50, 40), beatmap_id=77), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def loaded(trained: Path) -> LoadedModel:
    return load_model(trained / "model.safetensors")


# --- what is written ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the results of remapping the bundled example, with a picture."""
    output = tmp_path_factory.mktemp("example")
    assert remap(trained, output) == 0
    (folder,) = output.iterdir()
    return folder


def test_a_remap_writes_a_map_a_picture_and_a_report(example: Path) -> None:
    assert example.name == f"osu-diffusion - First Steps {read_beatmap(EXAMPLE).md5[:8]}"
    name = "Original (AI remap seed 0)"
    assert sorted(path.name for path in example.iterdir()) == [
        f"{name}.result.json",
        f"osu-diffusion - First Steps (osu-diffusion) [{name}].osu",
        f"osu-diffusion - First Steps (osu-diffusion) [{name}].png",
    ]
    assert next(example.glob("*.png")).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_remap_changes_nothing_but_coordinates_and_names(example: Path) -> None:
    before, after = read_beatmap(EXAMPLE), read_beatmap(next(example.glob("*.osu")))
    assert count_changes(before, after) == UNCHANGED
    assert after.version == "Original (AI remap seed 0)"
    assert (after.beatmap_id, after.set_id) == (0, before.set_id)
    assert after.tags == [*before.tags, "osu-diffusion", "ai-generated", "seed0"]
    moved = [(a.x, a.y) != (b.x, b.y) for a, b in zip(before.objects, after.objects, strict=True)]
    assert np.mean(moved) > 0.9


def test_a_remap_keeps_spacing_and_the_playfield(example: Path) -> None:
    """Measured on the file that was written, with whole pixels."""
    source = beatmap_to_sequence(read_beatmap(EXAMPLE))
    written = beatmap_to_sequence(read_beatmap(next(example.glob("*.osu"))))
    errors = measure(source, written.xy)
    assert errors["object_spacing_error_median"] <= 0.7
    assert errors["object_spacing_error_p95"] <= 2.0
    assert errors["centres_off_playfield"] == 0


@pytest.mark.usefixtures("no_pictures")
def test_the_terminal_says_which_result_is_which_and_what_comes_next(
    trained: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--beatmap", small, "--num-variants", 2, "--preview", "html")
    assert remap(trained, tmp_path, *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    written = [line.removeprefix("wrote ") for line in lines if line.endswith(".osu")]
    outcomes = [line for line in lines if "object spacing error" in line]
    assert [line[:4] for line in outcomes] == ["#1: ", "#2: "] and len(written) == 2
    assert lines[-2].startswith("To play it: copy the .osu file") and "double click" in lines[-1]
    assert remap(trained, tmp_path, *flags) == 0
    *found, hint, to_play, to_watch = capsys.readouterr().out.splitlines()
    assert found == [f"done before: {path}" for path in written]
    assert "Another --seed" in hint and [to_play, to_watch] == lines[-2:]


def test_a_bar_ends_with_its_last_step_and_begins_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is printed after the last step is on a line of its own."""
    with bar("learning") as progress:
        for _ in range(2):
            progress(0, 2)
            progress(2, 2)
            assert capsys.readouterr().err.endswith("\n")


def test_the_report_lists_places_to_look_at(example: Path) -> None:
    (variant,) = read_json(next(example.glob("*.result.json")))["variants"]
    maps = [beatmap_to_sequence(read_beatmap(p)) for p in (EXAMPLE, next(example.glob("*.osu")))]
    before, after = maps
    expected = [mark.to_dict() for mark in MarkFinder(before).find(after)]
    assert expected and variant["marks"] == expected
    first, *others = to_look_at(4 * expected).splitlines()
    assert first.startswith("to look at by hand, the worst first, all ") and len(others) == 3
    assert others[0].startswith(f"  {expected[0]['at']}{expected[0]['kind']}: ")
    assert to_look_at(expected[:1]).startswith("to look at by hand, the worst first:\n")
    assert to_look_at([]) == ""


def test_the_report_says_how_to_repeat_the_run(example: Path, trained: Path) -> None:
    report = read_json(next(example.glob("*.result.json")))
    md5 = read_beatmap(EXAMPLE).md5
    difficulties = [{"name": "Original", "md5": md5}]
    assert report["source"] == {"file": EXAMPLE.name, "md5": md5, "difficulties": difficulties}
    assert report["checkpoint"]["file"] == "model.safetensors"
    assert report["checkpoint"]["sha256"] == load_model(trained / "model.safetensors").sha256
    assert report["options"]["steps"] == 4 and report["options"]["seed"] == 0
    assert report["arguments"]["ckpt"] == str(trained / "model.safetensors")
    assert report["versions"]["torch"] == torch.__version__
    (variant,) = report["variants"]
    written = beatmap_to_sequence(read_beatmap(example / variant["beatmap"]))
    expected = measure(beatmap_to_sequence(read_beatmap(EXAMPLE)), written.xy)
    assert variant["written"] == pytest.approx(expected)
    (picture,) = variant["previews"]
    assert (example / picture).is_file()


def test_previews_of_all_kinds_and_the_denoising(
    trained: Path, small: Path, tmp_path: Path
) -> None:
    flags = ["--beatmap", small, "--preview", "png", "gif", "html", "sheet", "--make-animation"]
    flags += ["--plot-time", 1000, "--plot-width", 500]
    assert remap(trained, tmp_path, *flags) == 0
    (folder,) = tmp_path.iterdir()
    endings = ["].gif", "].html", "].png", "].sheet.png", "].denoising.gif", "].osu"]
    assert all(len([p for p in folder.iterdir() if p.name.endswith(e)]) == 1 for e in endings)
    with Image.open(next(folder.glob("*.denoising.gif"))) as gif:
        assert getattr(gif, "n_frames", 0) == 4 + 1  # the steps and the result
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert remap(trained, tmp_path, *flags) == 0  # all is there: nothing is drawn again
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.usefixtures("no_pictures")
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    trained: Path, small: Path, tmp_path: Path
) -> None:
    def run(folder: str, seed: int) -> bytes:
        assert remap(trained, tmp_path / folder, "--beatmap", small, "--seed", seed) == 0
        (data,) = maps_below(tmp_path / folder).values()
        return data

    first = run("a", 5)
    assert run("b", 5) == first
    other = run("c", 6)
    coordinates = [
        [(o.x, o.y) for o in parse_beatmap(data, "x").objects] for data in (first, other)
    ]
    assert coordinates[0] != coordinates[1]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("sampler", SOLVERS)
def test_a_variant_is_the_same_whatever_their_number(
    trained: Path, small: Path, tmp_path: Path, sampler: str
) -> None:
    flags = ("--beatmap", small, "--sampler", sampler)
    several = []
    for n in (2, 3):
        assert remap(trained, tmp_path / str(n), *flags, "--num-variants", n) == 0
        several.append(maps_below(tmp_path / str(n)))
    two, three = several
    assert len(two) == 2 and len(three) == 3 and len(set(three.values())) == 3
    assert all("seed 0) #" in name for name in three)
    for name, data in two.items():
        assert three[name] == data
    assert remap(trained, tmp_path / "1", *flags) == 0
    (alone,) = maps_below(tmp_path / "1").values()
    first = two[min(two)]
    assert first.replace(b"(AI remap seed 0) #1", b"(AI remap seed 0)") == alone


@pytest.mark.usefixtures("no_pictures")
def test_nothing_is_overwritten_unasked(
    trained: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert remap(trained, tmp_path, "--beatmap", small) == 0
    (path,) = tmp_path.rglob("*.osu")
    written = path.read_bytes()
    path.write_bytes(b"mine")
    capsys.readouterr()
    assert remap(trained, tmp_path, "--beatmap", small) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_bytes() == b"mine"
    path.unlink()  # the report alone is enough to refuse another run's results
    assert remap(trained, tmp_path, "--beatmap", small, "--num-sampling-steps", 3) == 2
    assert "other options" in capsys.readouterr().err
    assert not path.exists()
    assert remap(trained, tmp_path, "--beatmap", small) == 0
    assert path.read_bytes() == written
    path.write_bytes(b"mine")
    next(tmp_path.rglob("*.result.json")).unlink()  # as of a run that was broken off
    assert remap(trained, tmp_path, "--beatmap", small) == 2
    assert path.read_bytes() == b"mine"
    assert remap(trained, tmp_path, "--beatmap", small, "--overwrite") == 0
    assert path.read_bytes() == written


@pytest.mark.usefixtures("no_pictures")
def test_what_is_done_is_not_done_again(
    trained: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*given: Any) -> Any:
        calls.append(given)
        return generate(*given)

    monkeypatch.setattr(remapping, "generate", counted)
    flags = ("--beatmap", small, "--num-variants", 2)
    assert remap(trained, tmp_path, *flags, "--no-picture") == 0
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*.*")}
    assert remap(trained, tmp_path, *flags, "--no-picture") == 0
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before} == before
    assert len(calls) == 1
    # A picture that is missing is drawn; the beatmaps come out the same and stay.
    assert remap(trained, tmp_path, *flags) == 0
    assert len(calls) == 2 and len(list(tmp_path.rglob("*.png"))) == 2


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("version", ["very long " * 12, "とても長い難易度の名前" * 8])
def test_variants_of_a_map_with_a_long_name_are_different_files(
    trained: Path, tmp_path: Path, version: str
) -> None:
    """Names have a limit of 255 bytes; what tells variants and seeds apart must not be cut."""
    source = tmp_path / "source.osu"
    text = beatmap_text(random_objects(1, 5), version=version, title="長い" * 60)
    source.write_text(text, encoding="utf-8")
    for seed in (0, 1):
        flags = ("--beatmap", source, "--num-variants", 2, "--seed", seed)
        assert remap(trained, tmp_path / "out", *flags) == 0
    written = maps_below(tmp_path / "out")
    assert len(written) == 4
    assert all(len(name.encode()) <= 255 for name in written)
    name = parse_beatmap(min(written.values()), "x").version
    assert name.startswith(version.strip()) and "(AI remap seed" in name


def test_names_are_safe_on_every_system() -> None:
    assert safe_name('a<b>:"c/d\\e|f?g*h\x00\x1f') == "a-b---c-d-e-f-g-h--"
    assert safe_name(" . name.. ") == "name"
    assert safe_name("..") == "beatmap" and safe_name("/") == "-"
    assert len(safe_name("x" * 500)) == 100
    assert safe_name("a" * 99 + " b") == "a" * 99


# --- style and options ----------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
def test_a_style_by_its_id_is_used(trained: Path, small: Path, tmp_path: Path) -> None:
    """With guidance, too; a class index from the model's folder."""
    flags = ("--beatmap", small, "--style-id", 104, "--cfg-scale", 2)
    assert remap(trained, tmp_path, *flags) == 0
    (name,) = maps_below(tmp_path)
    assert "style 104 guidance 2 seed 0" in name
    report = read_json(next(tmp_path.rglob("*.result.json")))
    assert report["style"] == "104"
    assert report["options"]["cfg_scale"] == 2


def test_styles_and_guidance_change_what_the_model_gives(loaded: LoadedModel, small: Path) -> None:
    """A tiny model has hardly any style: seen before rounding, without constraints."""
    beatmap = read_beatmap(small)
    sequence = beatmap_to_sequence(beatmap)

    def raw(style: int | None, cfg_scale: float = 1.0) -> np.ndarray:
        options = SampleOptions(
            steps=3, cfg_scale=cfg_scale, spacing=Spacing("model"), bounds="off"
        )
        embedding = None if style is None else embeddings_of(loaded)[style]
        inputs = MapInputs(style=Style(embedding))
        return generate(loaded, sequence, options, inputs=inputs)[0]

    none, style = raw(None), raw(3)
    assert np.array_equal(none, raw(None)) and np.array_equal(none, raw(None, 5.0))
    assert not np.array_equal(none, style)
    assert not np.array_equal(style, raw(4))
    away = {scale: np.abs(raw(3, scale) - none).mean() for scale in (1.0, 4.0)}
    assert away[4.0] > 2 * away[1.0]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("sampler", SOLVERS)
def test_every_sampler_keeps_spacing(
    trained: Path, small: Path, tmp_path: Path, sampler: str
) -> None:
    assert remap(trained, tmp_path, "--beatmap", small, "--sampler", sampler) == 0
    report = read_json(next(tmp_path.rglob("*.result.json")))
    assert report["variants"][0]["written"]["object_spacing_error_median"] <= 0.7


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(
    "objects", ["10,10,0,1,0", "256,192,0,12,0,900", "99,99,0,2,0,L|189:99,1,90"]
)
def test_maps_of_one_object_are_remapped(loaded: LoadedModel, objects: str, steps: int) -> None:
    beatmap = parse_beatmap(beatmap_text(objects).encode(), "tiny")
    sequence = beatmap_to_sequence(beatmap)
    _, placed = generate(loaded, sequence, SampleOptions(steps=steps))
    assert measure(sequence, placed[0])["object_spacing_error_median"] <= 0.5


def test_progress_counts_the_steps_and_can_cancel(loaded: LoadedModel, small: Path) -> None:
    beatmap = read_beatmap(small)
    sequence = beatmap_to_sequence(beatmap)
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        generate(loaded, sequence, SampleOptions(steps=3), progress)
    assert seen == [(1, 3), (2, 3)]


@pytest.mark.usefixtures("no_pictures")
def test_a_training_checkpoint_samples_like_its_export(
    trained: Path, small: Path, tmp_path: Path
) -> None:
    """Its EMA, in float32 where the export has bfloat16."""
    last = trained / "checkpoints" / f"{TRAIN_STEPS:07d}.pt"
    flags = ("--beatmap", small, "--ckpt", last, "--num-classes", NUM_MAPS, "--model", "DiT-nano")
    assert remap(trained, tmp_path, *flags) == 0
    ema = load_model(last).model.state_dict()
    for name, value in load_model(trained / "model.safetensors").model.state_dict().items():
        torch.testing.assert_close(value, ema[name], rtol=1e-2, atol=1e-6)


@pytest.mark.usefixtures("no_pictures")
def test_the_flags_of_the_reference_are_accepted(
    trained: Path, small: Path, tmp_path: Path
) -> None:
    for spelling in ("--beatmap-idx", "--beatmap_idx"):
        flags = ["--beatmap", small, "--model", "DiT-nano", "--num-classes", NUM_MAPS]
        flags += [spelling, trained / "beatmap_idx.pickle", "--cfg-scale", 1.5, "--seed", 3]
        flags += ["--seq-len", 16, "--use-amp", "False", "--style-id", 101, "--plot-time", 0]
        flags += ["--plot-width", 1000, "--num-variants", 2, "--make-animation", "False"]
        assert remap(trained, tmp_path / spelling, *flags) == 0
    assert maps_below(tmp_path / "--beatmap-idx") == maps_below(tmp_path / "--beatmap_idx")


# --- what is refused ------------------------------------------------------------------------------


def bad_files(folder: Path, trained: Path) -> dict[str, Path]:
    """Files that are not what they are given for."""
    shutil.copy(trained / "model.safetensors", folder / "model.safetensors")
    (folder / "empty.osu").write_bytes(b"")
    (folder / "taiko.osu").write_text(beatmap_text("1,1,1,1,0", mode=1), encoding="utf-8")
    safetensors.torch.save_file({"weight": torch.zeros(3)}, folder / "other.safetensors")
    (folder / "text.txt").write_text("I am no model.", encoding="utf-8")
    torch.save({"weight": torch.zeros(3)}, folder / "other.pt")
    torch.save([1, 2], folder / "list.pt")
    whole = (trained / "model.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "garbage.pickle").write_bytes(b"\x80\x04garbage")
    (folder / "foreign.pickle").write_bytes(b"\x80\x02}K\x05M\xe8\x03s.")  # {5: 1000}
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--beatmap {folder}/nowhere.osu", "nowhere.osu does not exist"),
        ("--beatmap {folder}/none*.osu", "there is no .osu or .osz file there"),
        ("--beatmap {folder}/text.txt", "is not an osu! beatmap"),
        ("--difficulty a --all-difficulties", "give one of them"),
        ("--separate-set --format osu", "--separate-set makes an .osz"),
        ("--format osz", "its song 'a.mp3' is not beside it"),
        ("--beatmap {folder}/empty.osu", "is empty"),
        ("--beatmap {folder}/taiko.osu", "osu!taiko"),
        ("--output {folder}/text.txt", "text.txt is a file: name a folder for the results"),
        ("--output {folder}/text.txt/new", "text.txt is a file, "),
        ("--ckpt {folder}/nowhere.pt", "no checkpoint file"),
        ("--ckpt {folder}", "is a folder: give the model in it"),
        ("--ckpt {folder}/other.safetensors", "another program"),
        ("--ckpt {folder}/text.txt", "is not a model"),
        ("--ckpt {folder}/empty.osu", "is not a model"),
        ("--ckpt {folder}/other.pt", "another program"),
        ("--ckpt {folder}/list.pt", "holds a list"),
        ("--ckpt {folder}/cut.safetensors", "is damaged"),
        ("--style-id 107", "the nearest IDs are 106, 105, 104"),
        ("--style-id 104 --beatmap-idx {folder}/nowhere.pickle", "no beatmap index at"),
        ("--style-id 104 --beatmap-idx {folder}/garbage.pickle", "is not a beatmap index"),
        ("--style-id 5 --beatmap-idx {folder}/foreign.pickle", "class 1000, the checkpoint only 6"),
        ("--num-sampling-steps 0", "from 1 to 1000"),
        ("--num-sampling-steps 5000", "--num-sampling-steps 5000"),
        ("--num-variants 0", "from 1 to 64"),
        ("--seq-len 0", "must be at least 1"),
        ("--model DiT-B", "--model DiT-B: the checkpoint holds a DiT-nano"),
        ("--num-classes 5", "--num-classes 5: the checkpoint has 6"),
        ("--plot-time 1e9", "no object between"),
        ("--preview gif --plot-time 1000 --plot-width 1e6", "a clip of 1000000 ms"),
        ("--device toaster", "device 'toaster'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    trained: Path,
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    message: str,
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    bad_files(folder, trained)
    output = tmp_path / "output"
    arguments = [part.format(folder=folder) for part in flags.split()]
    capsys.readouterr()
    assert remap(trained, output, "--beatmap", small, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err
    assert message in captured.err
    assert captured.out == "" and not output.exists()


def test_the_program_is_quick_to_start_and_to_refuse(tmp_path: Path) -> None:
    """No traceback, and nothing imported that only training or drawing needs."""
    code = (
        "import json, sys, runpy\n"
        "sys.argv = ['sample.py', '--ckpt', 'nowhere.pt']\n"
        "try:\n    runpy.run_path('sample.py', run_name='__main__')\n"
        "except SystemExit as ending:\n"
        "    loaded = [m for m in ('slider', 'matplotlib', 'torch') if m in sys.modules]\n"
        "    print(json.dumps([ending.code, loaded]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert json.loads(result.stdout) == [2, ["torch"]]
    first, error = result.stderr.splitlines()
    assert first == "osu-diffusion is starting ..."  # before PyTorch, which takes its time
    assert error == "error: there is no checkpoint file nowhere.pt"


# --- spacing and bounds ---------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
def test_names_tell_apart_how_maps_were_asked_to_come_out(
    trained: Path, small: Path, tmp_path: Path
) -> None:
    """Trying one after the other must not end in "exists"."""
    wide = ("--spacing", "scale:1.2")
    many = ("--num-variants", 2)
    for flags in ((), wide, (*wide, "--bounds", "screen"), ("--slider-velocity", "fit"), many):
        assert remap(trained, tmp_path, "--beatmap", small, *flags) == 0
    versions = {parse_beatmap(data, "x").version for data in maps_below(tmp_path).values()}
    assert {version.partition("(AI remap ")[2] for version in versions} == {
        "seed 0)",
        "spacing scale:1.2 seed 0)",
        "spacing scale:1.2 bounds screen seed 0)",
        "sv fit seed 0)",
        "seed 0) #1",
        "seed 0) #2",
    }


def test_no_error_is_told_of_distances_that_nobody_asked_for() -> None:
    written = {"object_spacing_error_median": 0.061, "object_spacing_error_p95": 0.3}
    written["centres_off_playfield"] = 0.0
    told = "object spacing error: median 0.06 px, 95 % below 0.30 px; "
    off = "objects off the playfield: 0.0%"
    assert outcome(written, Spacing("scale", 1.2)) == told + off
    assert outcome(written, Spacing("free")) == off


def spacing_of(folder: Path) -> np.ndarray:
    """Distances of object starts in the one map below a folder."""
    sequence = beatmap_to_sequence(read_beatmap(next(folder.rglob("*.osu"))))
    return sequence.distances()[sequence.object_starts]


@pytest.mark.usefixtures("no_pictures")
def test_spacing_can_be_scaled(trained: Path, small: Path, tmp_path: Path) -> None:
    assert remap(trained, tmp_path / "b", "--beatmap", small, "--spacing", "scale:0.5") == 0
    wanted = 0.5 * spacing_of(small.parent)
    assert np.median(np.abs(spacing_of(tmp_path / "b") - wanted)[:-1]) < 0.5
    report = read_json(next(tmp_path.rglob("*.result.json")))
    assert report["options"]["spacing"] == {"mode": "scale", "factor": 0.5}
    assert report["variants"][0]["written"]["object_spacing_error_median"] < 0.5


def test_the_report_on_a_part_measures_what_was_asked_of_it(
    trained: Path, small: Path, tmp_path: Path
) -> None:
    """Objects that stay have their own distances, not the scaled ones."""
    part = ("--beatmap", small, "--spacing", "scale:0.5", "--time-start", 9000, "--no-picture")
    assert remap(trained, tmp_path, *part) == 0
    (report,) = tmp_path.rglob("*.result.json")
    written = read_json(report)["variants"][0]["written"]
    assert written["object_spacing_error_median"] < 0.5


@pytest.mark.usefixtures("no_pictures")
def test_a_map_of_its_rhythm_alone_is_spread_by_snap(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """250 ms between circles, 500 ms a beat; without snap all of them stay on one place."""
    source = tmp_path / "rhythm.osu"
    circles = "\n".join(f"256,192,{1000 + 250 * k},1,0" for k in range(20))
    source.write_text(beatmap_text(circles), encoding="utf-8")
    assert remap(trained, tmp_path / "keep", "--beatmap", source) == 0
    assert "--spacing snap:" in capsys.readouterr().err
    assert spacing_of(tmp_path / "keep").max() < 1
    assert remap(trained, tmp_path / "snap", "--beatmap", source, "--spacing", "snap:120") == 0
    assert "--spacing snap:" not in capsys.readouterr().err
    np.testing.assert_allclose(spacing_of(tmp_path / "snap")[1:], 60, atol=1)


def test_free_spacing_needs_a_model_that_can_do_without(
    trained: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert remap(trained, tmp_path, "--beatmap", small, "--spacing", "free") == 2
    assert "trained with all distances given" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.osu"))


@pytest.mark.parametrize("metadata", [{"distance_dropout": 0.1}, {"args": {"distance_dropout": 1}}])
def test_free_spacing_is_the_models_own(
    loaded: LoadedModel, small: Path, metadata: dict[str, object]
) -> None:
    """Distances do not reach it; objects stay where it puts them, sliders get their length."""
    able = replace(loaded, metadata=metadata)
    beatmap = read_beatmap(small)
    sequence = beatmap_to_sequence(beatmap)
    raw, placed = generate(able, sequence, SampleOptions(steps=3, spacing=Spacing("free")))
    centre = np.array(PLAYFIELD_CENTRE)
    wide = sequence.moved(centre + 0.5 * (sequence.xy - centre))
    again, _ = generate(able, wide, SampleOptions(steps=3, spacing=Spacing("free")))
    circles = np.isin(sequence.types, (PointType.CIRCLE, PointType.CIRCLE_NC))
    np.testing.assert_array_equal(raw[:, circles], again[:, circles])
    inside = np.all((raw[0] >= 0) & (raw[0] <= (512, 384)), axis=1) & circles
    assert np.abs(placed[0] - raw[0])[inside].max() <= 10  # less for rounding than for stacks
    assert np.median(np.abs(placed[0] - raw[0])[inside]) < 0.5
    assert count_faults(sequence, placed[0])["paths_too_short"] == 0


@pytest.mark.usefixtures("no_pictures")
def test_bounds_may_be_the_editors_screen(trained: Path, small: Path, tmp_path: Path) -> None:
    assert remap(trained, tmp_path, "--beatmap", small, "--bounds", "screen") == 0
    after = read_beatmap(next(tmp_path.rglob("*.osu")))
    bounds = bounds_named("screen", after)
    assert bounds is not None
    sequence = beatmap_to_sequence(after)
    assert bounds.excess(sequence.xy[sequence.object_starts]).max() == 0


def test_bf16_is_close_to_single_precision(loaded: LoadedModel, small: Path) -> None:
    beatmap = read_beatmap(small)
    sequence = beatmap_to_sequence(beatmap)
    both = [
        generate(
            loaded,
            sequence,
            SampleOptions(steps=3, use_amp=amp, spacing=Spacing("model"), bounds="off"),
        )[0]
        for amp in (False, True)
    ]
    assert 0 < np.abs(both[0] - both[1]).mean() < 5


def test_starting_imports_nothing_that_a_remap_does_without() -> None:
    """Each of these costs up to seconds before the first word is printed."""
    code = (
        "import runpy, sys; sys.argv = ['sample.py', '--help']\n"
        "try: runpy.run_path('sample.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'pandas', 'timm', 'gradio', 'matplotlib', 'sklearn'}\n"
        "print(*heavy & set(sys.modules), file=sys.stderr)"
    )
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert result.stderr.strip() == ""


def test_emulated_bf16_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is loaded, which is left out here."""
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    for flag, warned in (("--use-amp", True), ("--no-use-amp", False)):
        with pytest.raises(CheckpointError):
            call_main(sample.main, "--ckpt", "nowhere.safetensors", "--device", "cpu", flag)
        assert ("this CPU has no bf16" in capsys.readouterr().err) == warned
