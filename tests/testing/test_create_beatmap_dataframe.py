"""The table of beatmaps: every column against what the made-up maps say, from every source."""

import zipfile
from pathlib import Path

import create_beatmap_dataframe
import numpy as np
import pandas as pd
import pytest
import tables
from create_beatmap_dataframe import COLUMNS, describe_points, main, main_bpm

from beatmaps.osu_file import parse_beatmap
from beatmaps.sequence import beatmap_to_sequence
from conventions.bundled import DEFAULT_MODEL
from data_loading import PackedDataset
from datasets.class_tables import save_beatmap_idx
from tests.conftest import beatmap_text, call_main, random_objects, run_command, write_maps

# Circles 30 px and 0.25 s apart, then 40 px and 0.5 s, a slider, one 10 px after it, a spinner.
OBJECTS = (
    "100,100,1000,5,0,0:0:0:0:\n130,100,1250,1,0,0:0:0:0:\n130,140,1750,1,0,0:0:0:0:\n"
    "130,240,2000,2,0,L|200:240,1,70\n210,240,2500,1,0,0:0:0:0:\n256,192,3000,12,0,4000,0:0:0:0:"
)


def table_of(tmp_path: Path, *arguments: object) -> pd.DataFrame:
    output = tmp_path / "table.csv"
    flags = ("--output", output, "--overwrite", "--num-workers", 1)
    assert call_main(main, *arguments, *flags) == 0
    return tables.read_table(output)


def test_every_column_of_a_map(tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    text = beatmap_text(OBJECTS, title="None", beatmap_id=7, set_id=3)
    (songs / "a.osu").write_text(text, encoding="utf-8")
    dates = tmp_path / "dates.csv"
    dates.write_text("set_id,date\n3,2014-05-06T10:00:00\n", encoding="utf-8")
    index = tmp_path / "index.pickle"
    save_beatmap_idx(index, {7: 41})
    table = table_of(tmp_path, songs, "--dates", dates, "--beatmap-idx", index)
    assert list(table.columns) == [n for n in COLUMNS if n != "star_rating" or n in table]
    (row,) = table.to_dict("records")
    expected = {
        **{"beatmap_id": 7, "set_id": 3, "artist": "Somebody", "title": "None"},
        **{"creator": "Mapper", "version": "Normal", "tags": "one two", "date": "2014-05-06"},
        **{"circle_size": 4, "approach_rate": 7, "overall_difficulty": 7, "hp_drain_rate": 5},
        **{"bpm": 120, "length_s": 3, "objects": 6, "circles": 4, "sliders": 1, "spinners": 1},
        **{"points": 9, "class_index": 41, "file": str(songs / "a.osu")},
    }
    assert {name: row[name] for name in expected} == expected
    spacing = [30, 40, 100, 10]
    # Slider velocity 2 from 2000 ms on: 70 px take 125 ms, so 375 ms are left for the 10 px.
    velocity = [30 / 0.25, 40 / 0.5, 100 / 0.25, 10 / 0.375]
    for name, values in (("spacing", spacing), ("velocity", velocity)):
        found = [row[f"{name}_median"], row[f"{name}_p95"]]
        np.testing.assert_allclose(found, np.quantile(values, (0.5, 0.95)))


def test_the_main_tempo_is_the_one_that_holds_longest() -> None:
    text = beatmap_text(OBJECTS).replace("2000,-50,4,1,0,80,0,0", "1900,300,4,1,0,80,1,0")
    assert main_bpm(parse_beatmap(text.encode(), "a")) == 200  # 2.1 s of it, 0.9 s of 120
    later = text.replace("1900,300", "3000,300")
    assert main_bpm(parse_beatmap(later.encode(), "a")) == 120


def test_a_single_object_has_no_spacing() -> None:
    beatmap = parse_beatmap(beatmap_text("100,100,1000,5,0").encode(), "a")
    row = describe_points(beatmap_to_sequence(beatmap))
    assert row["objects"] == 1 and np.isnan(row["spacing_median"])
    assert main_bpm(beatmap) == 120


def test_folders_archives_and_packed_datasets_agree(
    packed: PackedDataset, songs: Path, tmp_path: Path
) -> None:
    """What a packed dataset can tell is what the files tell; its classes are given too."""
    archives = tmp_path / "archives"
    archives.mkdir()
    with zipfile.ZipFile(archives / "set.osz", "w") as archive:
        for path in sorted(songs.iterdir()):
            archive.write(path, path.name)
    of_files = table_of(tmp_path, songs)
    of_archive = table_of(tmp_path, archives)
    of_packed = table_of(tmp_path, packed.folder)
    pd.testing.assert_frame_equal(of_files.drop(columns="file"), of_archive.drop(columns="file"))
    assert of_packed["class_index"].tolist() == list(range(len(of_files)))
    shared = [name for name in of_packed if name not in ("class_index", "date")]
    assert {"length_s", "sliders", "spacing_p95", "tags"} <= set(shared)
    pd.testing.assert_frame_equal(of_files[shared], of_packed[shared], rtol=1e-5)


def test_a_packed_map_without_a_star_rating_is_not_taken_for_an_easy_one(
    packed: PackedDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    packed = PackedDataset(packed.folder)
    packed.beatmaps["star_rating"] = [np.nan, 1.0, 2.0, 3.0, 4.0, np.nan]
    monkeypatch.setattr(create_beatmap_dataframe, "PackedDataset", lambda folder: packed)
    table = table_of(tmp_path, packed.folder, "--min-stars", 2)
    assert table["star_rating"].tolist() == [2, 3, 4]
    assert "2 filtered: stars not known" in capsys.readouterr().out


def test_a_models_classes(trained: Path, songs: Path, tmp_path: Path) -> None:
    """Of a model by MD5; without a source its class table is all there is."""
    checkpoint = trained / "model.safetensors"
    table = table_of(tmp_path, songs, "--ckpt", checkpoint)
    classes = pd.read_csv(trained / "model.classes.csv").set_index("md5")["class_index"]
    assert table["class_index"].tolist() == [classes[md5] for md5 in table["md5"]]
    alone = table_of(tmp_path, "--ckpt", checkpoint)
    assert alone["md5"].tolist() == list(classes.index) and "bpm" not in alone


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    songs = tmp_path / "songs"
    write_maps(songs, [1, 2])
    (songs / "copy.osu").write_bytes((songs / "map 1.osu").read_bytes())
    (songs / "bad.osu").write_bytes(b"")
    few = beatmap_text(random_objects(5, 10))
    (songs / "few.osu").write_text(few, encoding="utf-8")
    assert len(table_of(tmp_path, songs, "--min-objects", 20)) == 2
    text = capsys.readouterr().out
    assert "skipped 3 beatmaps" in text and "1 the same file as another, such as" in text
    assert "1 filtered: hit objects below 20" in text and "1 is empty" in text


def test_names_and_formats_of_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    songs = tmp_path / "songs"
    write_maps(songs, [1])
    flags = (songs, "--num-workers", 1, "--output")
    assert run_command(main, *flags, tmp_path / "a.txt") == 2
    assert "ends in .csv, .parquet or .pkl" in capsys.readouterr().err
    assert run_command(main, *flags, tmp_path / "a.csv") == 0
    before = (tmp_path / "a.csv").read_bytes()
    assert run_command(main, *flags, tmp_path / "a.csv") == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "a.csv").read_bytes() == before
    assert run_command(main, *flags, tmp_path / "a.pkl") == 0
    assert len(pd.read_pickle(tmp_path / "a.pkl")) == 1
    with pytest.raises(ValueError, match="could run code"):
        tables.read_table(tmp_path / "a.pkl")
    assert run_command(main, "--output", tmp_path / "b.csv") == 2
    assert "no SOURCE and no --ckpt" in capsys.readouterr().err
    alone = ("--ckpt", DEFAULT_MODEL, "--output", tmp_path / "b.csv", "--min-stars", 3)
    assert run_command(main, *alone) == 2
    assert "filters choose among" in capsys.readouterr().err


def test_parquet_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"title": ["a", "None"], "bpm": [1.0, np.nan]})
    path = tmp_path / "a.parquet"
    if any(map(tables.find_spec, tables.PARQUET_ENGINES)):
        tables.write_table(path, frame)
        pd.testing.assert_frame_equal(tables.read_table(path), frame)
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        tables.check_format(path)
