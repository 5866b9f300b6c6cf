"""The script that writes a dataset's beatmap index."""

import json
import subprocess
import sys
from pathlib import Path

import generate_beatmap_idx
import pytest

from data_loading import PackedDataset
from datasets.class_tables import load_beatmap_idx
from tests.conftest import call_main, run_command, write_maps
from tests.datasets.test_pack import write_mapperator


def index_of(output: Path, *arguments: object) -> dict[int, int]:
    assert call_main(generate_beatmap_idx.main, *arguments, "--output", output) == 0
    return load_beatmap_idx(output)


def test_a_packed_dataset_and_its_source_have_one_index(
    tmp_path: Path, songs: Path, packed: PackedDataset
) -> None:
    expected = load_beatmap_idx(packed.folder / "beatmap_idx.pickle")
    assert index_of(tmp_path / "a.pickle", packed.folder) == expected
    assert index_of(tmp_path / "b.pickle", songs) == expected and len(expected) == 6


def test_mapperator_ids_come_from_the_metadata_or_else_the_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_mapperator(data)
    for track in range(3):
        names = {f"{10 * track + k:06d}M{k:03d}": 900 + 10 * track + k for k in range(2)}
        beatmaps = {name: {"BeatmapId": number} for name, number in names.items()}
        (data / f"Track{track:05d}" / "metadata.json").write_text(
            json.dumps({"Beatmaps": beatmaps}), encoding="utf-8"
        )
    # A class whose file cannot be used is one of the checkpoint all the same.
    (data / "Track00000" / "beatmaps" / "000000M000.osu").write_bytes(b"")
    expected = {900 + number: number for number in (0, 1, 10, 11, 20, 21)}
    assert index_of(tmp_path / "a.pickle", data) == expected
    part = index_of(tmp_path / "b.pickle", data, "--data-start", 1, "--data-end", 2)
    assert part == {910: 10, 911: 11}
    (data / "Track00002" / "metadata.json").unlink()
    del expected[900]
    mixed = {**{i: c for i, c in expected.items() if c < 20}, 520: 20, 521: 21}
    assert index_of(tmp_path / "c.pickle", data) == mixed


def test_an_index_is_replaced_only_when_asked(
    tmp_path: Path, packed: PackedDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "index.pickle"
    output.write_bytes(b"precious")
    flags = (packed.folder, "--output", output)
    assert run_command(generate_beatmap_idx.main, *flags) == 2
    assert "--overwrite" in capsys.readouterr().err and output.read_bytes() == b"precious"
    assert run_command(generate_beatmap_idx.main, *flags, "--overwrite") == 0
    assert len(load_beatmap_idx(output)) == 6


def test_the_script_runs_from_anywhere(tmp_path: Path) -> None:
    write_maps(tmp_path / "songs", [0])
    script = Path(generate_beatmap_idx.__file__)
    subprocess.run([sys.executable, script, "songs"], cwd=tmp_path, check=True, timeout=120)
    assert load_beatmap_idx(tmp_path / "beatmap_idx.pickle") == {101: 0}
