"""Tables beside a collection: whose beatmaps are, and what they are called."""

import json
from pathlib import Path
from typing import Any

import pytest

from create_dataset import main
from data_loading import LATER_COLUMNS, PackedDataset
from datasets.labels import Labels, read_descriptors, read_labels, read_users
from datasets.pack import pack
from datasets.sources import find_beatmaps
from tests.conftest import call_main, write_maps


def write(path: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def test_users_are_read_from_both_forms_of_the_public_table(tmp_path: Path) -> None:
    entries = [{"id": 101, "user_id": 7, "username": ["A"]}, {"id": 102, "user_id": 0}]
    assert read_users(write(tmp_path / "list.json", entries)) == {101: 7}
    assert read_users(write(tmp_path / "object.json", {"101": 7, "103": 9})) == {101: 7, 103: 9}


@pytest.mark.parametrize("content", ["{", "5", [{"id": 5}], {"x": 5}, {"5": "x"}, {"5": None}])
def test_what_is_no_table_of_users_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ValueError, match=r"users\.json (is no table|has the user ID)"):
        read_users(write(tmp_path / "users.json", content))


def test_descriptors_are_lines_of_an_id_and_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "words.csv", "53,grid snap\n54,style/clean\n\n54,style/clean\n54,x,y\n")
    assert read_descriptors(path) == {53: ("grid snap",), 54: ("style/clean", "x y")}


@pytest.mark.parametrize("text", ["53", "x,clean", "53,clean\n54, ", "-5,clean"])
def test_other_lines_are_refused_by_their_number(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"words\.csv, line [12]: expected a beatmap ID"):
        read_descriptors(write(tmp_path / "words.csv", text))


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no table .*users\.json"):
        read_labels(tmp_path / "users.json", None)
    assert read_labels(None, None) == Labels()


def test_a_dataset_has_what_tables_say_also_of_maps_that_were_there(tmp_path: Path) -> None:
    write_maps(tmp_path / "songs", [0, 1, 2])
    output = tmp_path / "packed"
    pack(find_beatmaps(tmp_path / "songs"), output, 1)
    before = PackedDataset(output).beatmaps
    assert before["user_id"].tolist() == [0, 0, 0]
    assert before["descriptors"].tolist() == ["", "", ""]
    write_maps(tmp_path / "songs", [3])
    users = write(tmp_path / "users.json", {"101": 7, "104": 8})
    words = write(tmp_path / "words.csv", "101,clean\n101,grid snap\n104,clean\n")
    flags = (tmp_path / "songs", "--output", output, "--num-workers", 1)
    assert call_main(main, *flags, "--users", users, "--descriptors", words) == 0
    table = PackedDataset(output).beatmaps
    assert table["user_id"].tolist() == [7, 0, 0, 8]
    assert table["descriptors"].tolist() == ["clean,grid snap", "", "", "clean"]
    # What was said stays when maps are added without the tables.
    write_maps(tmp_path / "songs", [4])
    pack(find_beatmaps(tmp_path / "songs"), output, 1)
    assert PackedDataset(output).beatmaps["user_id"].tolist() == [7, 0, 0, 8, 0]


def as_before(dataset: PackedDataset, output: Path) -> PackedDataset:
    """The same as a version without the later columns wrote it."""
    output.mkdir()
    files = dataset.description["files"]
    table = dataset.beatmaps.drop(columns=list(LATER_COLUMNS))
    table.to_csv(output / files["beatmaps"], index=False)
    for name in ("points", "sources"):
        (output / files[name]).write_bytes((dataset.folder / files[name]).read_bytes())
    (output / "dataset.json").write_text(json.dumps(dataset.description), encoding="utf-8")
    return PackedDataset(output)


def test_a_dataset_of_before_is_read_and_extended(packed: PackedDataset, tmp_path: Path) -> None:
    old = as_before(packed, tmp_path / "old")
    assert old.beatmaps[list(packed.beatmaps)].equals(packed.beatmaps)
    write_maps(tmp_path / "songs", [90])
    pack(find_beatmaps(tmp_path / "songs"), old.folder, 1)
    assert PackedDataset(old.folder).beatmaps["user_id"].tolist() == [0] * (len(packed) + 1)
