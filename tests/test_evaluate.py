"""Evaluation: tampering is noticed, the tables of a folder are complete."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import evaluate
from beatmaps.osu_file import parse_beatmap
from beatmaps.sequence import beatmap_to_sequence
from checkpoint import load_model
from constraints.bounds import Bounds
from metrics import classifier
from metrics.fidelity import Changes, count_changes
from metrics.metric import Pair
from metrics.objects import FEATURES
from metrics.spacing_metric import SpacingErrors
from metrics.whole_maps import Speed
from sampling.evaluation import Evaluation
from tests.conftest import beatmap_text, random_objects, read_json, run_command, write_maps

FOLDER = os.environ.get("OSU_DIFFUSION_BEATMAPS")
OBJECTS = (
    "100,100,1000,5,2,0:0:0:0:\n"
    "200,100,1500,1,0,0:0:0:0:\n"
    "300,200,2000,2,0,B|350:250|400:200,2,100,2|0|0,0:0|0:0|0:0,0:0:0:0:\n"
    "256,192,4000,12,0,5000,0:0:0:0:"
)
TEXT = beatmap_text(OBJECTS, beatmap_id=7, set_id=8)
UNCHANGED = {
    "objects_lost": 0,
    "objects_moved_in_time": 0,
    "objects_of_other_kind": 0,
    "other_bytes_changed": 0,
}


def changes(*replacements: tuple[str, str]) -> dict[str, int]:
    """What `count_changes` finds after these replacements, each of which must apply once."""
    after = TEXT
    for old, new in replacements:
        assert after.count(old) == 1, old
        after = after.replace(old, new)
    return count_changes(parse_beatmap(TEXT.encode(), "a"), parse_beatmap(after.encode(), "b"))


def test_what_a_remap_changes_is_no_change() -> None:
    """Coordinates, difficulty name, beatmap ID and tags."""
    assert changes() == UNCHANGED
    found = changes(
        ("100,100,1000", "511,-3,1000"),
        ("300,200,2000", "1,2,2000"),
        ("350:250|400:200", "-3:4.5|7:8"),
        ("Version:Normal", "Version:Other (AI)"),
        ("Tags:one two", "Tags:one two three"),
        ("BeatmapID:7", "BeatmapID:0"),
    )
    assert found == UNCHANGED


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("200,100,1500,", "200,100,1501,", {"objects_moved_in_time": 1, "other_bytes_changed": 1}),
        ("256,192,4000,12,0,5000", "256,192,4000,12,0,5001", {"objects_moved_in_time": 1}),
        ("0,500,4,1,0,100,1,0", "0,600,4,1,0,100,1,0", {"objects_moved_in_time": 1}),
        ("100,100,1000,5,2,", "100,100,1000,5,0,", {"other_bytes_changed": 1}),
        ("2|0|0,0:0|0:0|0:0,0:0:0:0:", "2|0|2,0:0|0:0|0:0,0:0:0:0:", {"other_bytes_changed": 1}),
        ("2|0|0,0:0|0:0|0:0,", "2|0|0,0:0|0:1|0:0,", {"other_bytes_changed": 1}),
        ("1500,1,0,0:0:0:0:", "1500,1,0,0:0:0:1:", {"other_bytes_changed": 1}),
        ("2000,-50,4,1,0,80", "2000,-50,4,1,0,81", {"other_bytes_changed": 1}),
        (",2,100,2|0|0", ",2,101,2|0|0", {"objects_moved_in_time": 1}),
        (",2,100,2|0|0", ",3,100,2|0|0", {"objects_of_other_kind": 1}),
        ("B|350:250|", "P|350:250|", {"other_bytes_changed": 1}),
        ("B|350:250|400:200", "B|400:200", {"other_bytes_changed": 1}),
        ("200,100,1500,1,", "200,100,1500,5,", {"objects_of_other_kind": 1}),
        ("200,100,1500,1,", "200,100,1500,12,", {"objects_of_other_kind": 2}),  # and a new combo
        ("CircleSize:4", "CircleSize:5", {"other_bytes_changed": 1}),
        ("BeatmapSetID:8", "BeatmapSetID:9", {"other_bytes_changed": 1}),
        ("Creator:Mapper", "Creator:Nobody", {"other_bytes_changed": 1}),
        ("200,100,1500,1,0,0:0:0:0:\n", "", {"objects_lost": 1}),
        ("\n\n[HitObjects]", "\n[HitObjects]", {}),
        ("[HitObjects]\n", "[HitObjects]\r\n", {"other_bytes_changed": 1}),
        ("2000,-50,4,1,0,80,0,0\n", "", {}),
    ],
)
def test_every_kind_of_tampering_is_counted(old: str, new: str, expected: dict[str, int]) -> None:
    found = changes((old, new))
    assert found["other_bytes_changed"] > 0
    for name, number in expected.items():
        assert found[name] == number, name


SUMMARY = {
    "maps",
    "points",
    "object_spacing_error_median",
    "object_spacing_error_p95",
    "inner_spacing_error_median",
    "raw_all_spacing_error_median",
    "centres_off_playfield",
    "points_off_playfield",
    "source_points_off_playfield",
    "objects_out_of_bounds_avoidable",
    "source_objects_crossing_share",
    "objects_crossing_share",
    "paths_too_short_share",
    "paths_of_other_length_share",
    "denoising_rmse_at_30_px",
    "denoising_rmse_at_300_px",
    *UNCHANGED,
    "seconds_per_1000_points",
    "failed",
}


def test_a_folder_of_two_maps_gives_the_tables(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs, output = tmp_path / "songs", tmp_path / "out"
    write_maps(songs, [31])
    write_maps(songs / "deeper", [32])
    flags: tuple[object, ...] = (
        "--ckpt",
        trained / "model.safetensors",
        "--output",
        output,
        "--save-maps",
    )
    flags += ("--num-sampling-steps", "3", "--device", "cpu", "--denoising")
    assert run_command(evaluate.main, songs, *flags) == 0
    report = read_json(output / "evaluation.json")
    summary = report["summary"]
    assert set(summary) >= SUMMARY
    assert len(report["out_of_bounds"]) >= summary["objects_out_of_bounds"]
    assert report["realism"].keys() == {*FEATURES, "position_density"}
    turning = report["realism"]["turning_angle"]
    assert turning["overall"] > 0 and turning["overall_across"] > 0 < turning["overall_real"]
    assert report["realism_ratio"] is None  # too few objects for bins of spacing and rhythm
    assert (summary["maps"], summary["failed"]) == (2, 0)
    assert {name: summary[name] for name in UNCHANGED} == UNCHANGED
    assert summary["object_spacing_error_median"] < 0.7 and summary["centres_off_playfield"] == 0
    assert report["options"]["steps"] == 3 and report["failed"] == []
    assert report["checkpoint"] == load_model(trained / "model.safetensors").to_dict()
    table = pd.read_csv(output / "evaluation.csv")
    assert sorted(table["file"]) == ["map 31.osu", "map 32.osu"]
    assert table["points"].sum() == summary["points"]
    for name in ("map 31.osu", "map 32.osu"):
        (path,) = output.rglob(name)
        saved = parse_beatmap(path.read_bytes(), name)
        assert saved.version.endswith("(AI remap)") and "ai-generated" in saved.tags
    printed = capsys.readouterr().out
    assert "object_spacing_error_median" in printed and "turning_angle" in printed


def write_song(folder: Path) -> Path:
    """Two short maps of two beatmapsets."""
    write_maps(folder, [41, 42], count=20)
    return folder


def test_the_classifier_is_an_extra(
    tmp_path: Path,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With scikit-learn, features are named; without, the rest is reported and the lack said."""
    songs, output = write_song(tmp_path / "songs"), tmp_path / "out"
    flags: tuple[object, ...] = ("--ckpt", trained / "model.safetensors", "--output", output)
    flags += ("--num-sampling-steps", "1", "--device", "cpu")
    if classifier.available():
        assert run_command(evaluate.main, songs, *flags) == 0
        verdict = read_json(output / "evaluation.json")["classifier"]
        assert 0 <= verdict["auc"] <= 1 and verdict["importance"].keys() == set(classifier.COLUMNS)
        assert "classifier_auc" in capsys.readouterr().out
    monkeypatch.setattr(classifier, "available", lambda: False)
    assert run_command(evaluate.main, songs, *flags, "--overwrite") == 0
    report = read_json(output / "evaluation.json")
    assert report["classifier"] == {"skipped": "scikit-learn is not installed"}
    assert "turning_angle" in report["realism"]
    assert "classifier skipped: scikit-learn" in capsys.readouterr().out


def test_the_network_can_be_measured_without_sampling(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs, output = write_song(tmp_path / "songs"), tmp_path / "out"
    flags: tuple[object, ...] = ("--ckpt", trained / "model.safetensors", "--output", output)
    assert run_command(evaluate.main, songs, *flags, "--no-sampling") == 2
    assert "add --denoising" in capsys.readouterr().err
    assert run_command(evaluate.main, songs, *flags, "--no-sampling", "--denoising") == 0
    report = read_json(output / "evaluation.json")
    levels = [f"denoising_rmse_at_{level}_px" for level in (30, 100, 300)]
    assert list(report["summary"]) == [*levels, "failed"]
    rmse = [report["summary"][name] for name in levels]
    assert 0 < rmse[0] < rmse[1] < rmse[2]
    assert not (output / "evaluation.csv").exists() and "realism" not in report


def test_a_map_that_cannot_be_read_is_reported(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the exit code says so."""
    write_maps(tmp_path / "songs", [33], count=6)
    (tmp_path / "songs" / "bad.osu").write_text(beatmap_text("1,1,1,1,0", mode=1), encoding="utf-8")
    flags: tuple[object, ...] = (
        "--ckpt",
        trained / "model.safetensors",
        "--output",
        tmp_path / "out",
    )
    flags += ("--num-sampling-steps", "1", "--device", "cpu")
    assert run_command(evaluate.main, tmp_path / "songs", *flags) == 1
    assert "osu!taiko" in capsys.readouterr().out
    report = read_json(tmp_path / "out" / "evaluation.json")
    assert report["summary"]["failed"] == 1 and "bad.osu" in report["failed"][0]["file"]
    (tmp_path / "none").mkdir()
    assert run_command(evaluate.main, tmp_path / "none", *flags, "--overwrite") == 2
    assert "no beatmap could be evaluated" in capsys.readouterr().err


def test_no_table_and_no_source_is_overwritten(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Maps are never written into the folder they come from, tables only with --overwrite."""
    songs, out = tmp_path / "songs", tmp_path / "out"
    write_maps(songs, [33], count=6)
    before = {path: path.read_bytes() for path in songs.rglob("*.osu")}
    flags: tuple[object, ...] = ("--ckpt", trained / "model.safetensors", "--device", "cpu")
    flags += ("--num-sampling-steps", "1", "--save-maps", "--output")
    assert run_command(evaluate.main, songs, *flags, songs) == 2
    assert "choose another" in capsys.readouterr().err
    assert run_command(evaluate.main, songs, *flags, out) == 0
    table = (out / "evaluation.csv").read_bytes()
    assert run_command(evaluate.main, songs, *flags, out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "evaluation.csv").read_bytes() == table
    assert run_command(evaluate.main, songs, *flags, out, "--overwrite") == 0
    assert {path: path.read_bytes() for path in songs.rglob("*.osu")} == before


def test_maps_of_rhythm_alone_are_measured_with_the_shapes_that_sampling_gave_them(
    tmp_path: Path, trained: Path
) -> None:
    """A slider of 180 px with all its points in one place, which gets an inner anchor."""
    songs, out = tmp_path / "songs", tmp_path / "out"
    songs.mkdir()
    text = "256,192,1000,2,0,L|256:192,1,180\n256,192,2000,1,0\n256,192,2300,1,0"
    (songs / "rhythm.osu").write_text(beatmap_text(text), encoding="utf-8")
    flags: tuple[object, ...] = ("--spacing", "snap:120", "--device", "cpu", "--output")
    sampled = ("--ckpt", trained / "model.safetensors", "--num-sampling-steps", "1", "--save-maps")
    assert run_command(evaluate.main, songs, *sampled, *flags, out) == 0
    assert run_command(evaluate.main, songs, "--remaps", out, *flags, tmp_path / "again") == 0
    for folder in (out, tmp_path / "again"):
        found = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        assert found["failed"] == [] and found["summary"]["points"] == 6
        assert found["summary"]["other_bytes_changed"] == 0


def test_a_long_file_name_keeps_its_ending(tmp_path: Path, trained: Path) -> None:
    """And two maps of one song with long names are two files."""
    from sampling.generate import SampleOptions

    loaded = load_model(trained / "model.safetensors")
    for version in ("Easy", "Hard"):
        path = tmp_path / f"{'long ' * 22}[{version}].osu"
        path.write_text(beatmap_text(random_objects(1, 5), version=version), encoding="utf-8")
        Evaluation(SampleOptions(steps=1)).add_remap(loaded, path, tmp_path / "out" / path.name)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        p.name for p in tmp_path.glob("*.osu")
    )


def test_real_maps_are_measured_beside_remaps() -> None:
    """One point of four of the map is off the playfield, none of its remap."""
    circles = "".join(f"{x},100,{1000 + x},1,0\n" for x in (0, 100, 512, 513))
    before = beatmap_to_sequence(parse_beatmap(beatmap_text(circles).encode(), "made up"))
    after = before.moved(np.full_like(before.xy, 100.0))
    row = SpacingErrors().measure(Pair(before, after, before.distances(), Bounds()))
    assert (row["source_points_off_playfield"], row["points_off_playfield"]) == (0.25, 0)


def test_shares_are_weighted_and_spacing_is_pooled_over_data_points() -> None:
    table = pd.DataFrame(
        {
            "points": [100, 300],
            "points_off_playfield": [0.0, 0.4],
            "objects_lost": [1, 2],
            "objects_moved_in_time": [0, 0],
            "objects_of_other_kind": [0, 3],
            "other_bytes_changed": [5, 0],
            "seconds_per_1000_points": [1.0, 3.0],
        }
    )
    starts = [np.array([True, False]), np.array([True, True, False])]
    raw = [np.array([8.0, 100.0]), np.array([2.0, 1.0, 50.0])]
    spacing = SpacingErrors()
    spacing.starts, spacing.errors = starts, {"raw_": raw, "": [errors * 0 for errors in raw]}
    summary: dict[str, float] = {}
    for metric in (spacing, Changes(), Speed()):
        summary |= metric.summarise(table)
    assert summary["raw_object_spacing_error_median"] == 2.0
    assert summary["raw_inner_spacing_error_median"] == 75.0
    assert summary["raw_all_spacing_error_median"] == 8.0
    assert summary["object_spacing_error_median"] == 0.0
    assert summary["points_off_playfield"] == pytest.approx(0.3)
    assert (summary["objects_lost"], summary["objects_of_other_kind"]) == (3, 3)
    assert (summary["other_bytes_changed"], summary["seconds_per_1000_points"]) == (5, 2.0)


@pytest.mark.skipif(not FOLDER, reason="OSU_DIFFUSION_BEATMAPS names no folder of beatmaps")
def test_real_maps_keep_everything_but_coordinates(trained: Path) -> None:
    from sampling.generate import SampleOptions

    assert FOLDER is not None
    loaded = load_model(trained / "model.safetensors")
    for path in sorted((Path(FOLDER) / "val").rglob("*.osu"))[:3]:
        evaluation = Evaluation(SampleOptions(steps=2))
        evaluation.add_remap(loaded, path)
        (row,) = evaluation.rows
        assert {name: row[name] for name in UNCHANGED} == UNCHANGED, path.name
        assert row["object_spacing_error_median"] < 0.7, path.name
