"""`benchmark.py data`: what it counts, with a made-up stand-in for the public implementation."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

import benchmark
from benchmarks import data, many_maps, opening
from data_loading import PackedDataset, set_keys
from tests.conftest import call_main, run_command

STAND_IN = """
import time
from positional import WINDOWS


class Beatmap:
    from_path = staticmethod(lambda path: path)


def load_and_process_beatmap(path):
    if path.name == "map 2.osu":
        raise OverflowError("as it does")


window_and_relative_time = None
BeatmapDatasetIterableFactory = lambda *options: options


def get_data_loader(dataset_path, start, end, iterable_factory, **options):
    assert iterable_factory[:2] == (32, 8) and options["cycle_length"] == 2
    for track in range(start, end):
        path = f"{dataset_path}/Track{track:05d}/beatmaps/{track:06d}M000.osu"
        assert open(path, "rb").read(3) == b"osu"
    for _ in range(WINDOWS):
        time.sleep(0.01)
        yield None, [0, 1, 2, 3]
"""


def test_both_loaders_are_measured(
    tmp_path: Path, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data_loading.py").write_text(STAND_IN, encoding="utf-8")
    (tmp_path / "positional.py").write_text("WINDOWS = 5", encoding="utf-8")
    flags = ["data", "--data-path", songs, "--seq-len", 32, "--stride", 8]
    flags += ["--global-batch-size", 4, "--seconds", 0.05]
    assert call_main(benchmark.main, *flags, "--reference", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "map 2.osu" in lines[0] and lines[1] == "5 beatmaps for both loaders"
    ours = float(lines[2].split()[4].replace(",", ""))
    theirs = float(lines[3].split()[5].replace(",", ""))
    assert f"{ours / 450:.0f} times" in lines[2]
    assert 0 < theirs <= 400  # four windows in at least 10 ms
    assert call_main(benchmark.main, *flags) == 0
    assert "quoted 450" in capsys.readouterr().out


def test_a_folder_that_is_no_checkout_is_an_error(
    tmp_path: Path, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["data", "--data-path", songs, "--reference", tmp_path]
    assert run_command(benchmark.main, *flags) == 2
    assert "no data_loading.py" in capsys.readouterr().err


def test_made_up_maps_are_opened_in_a_process_of_its_own(
    folder_of_temporaries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["data", "--made-up", 30, "--points", 200, "--global-batch-size", 8]
    assert call_main(benchmark.main, *flags) == 0
    out, err = capsys.readouterr()
    assert "30/30" in err
    assert "30 made-up maps of 200 points, batches of 8 windows of 128 points" in out
    rows = {
        " ".join(words[:-3]): list(map(float, words[-3:]))
        for words in map(str.split, out.splitlines()[3:])
    }
    assert list(folder_of_temporaries.iterdir()) == []
    many_maps.write_many_maps(folder_of_temporaries, 30, 200)
    trained_on, _ = PackedDataset(folder_of_temporaries).split_by_set(opening.HELD_OUT)
    assert list(rows) == [
        *("before torch", "imports", "opening", "holding out 5% of sets"),
        f"plan of {6 * len(trained_on)} windows",  # ceil((200 - 128) / 16) + 1 of each map
        *("first batch", "20 more batches"),
    ]
    if opening.STATUS.exists():
        memory = [row[2] for row in rows.values()]
        assert memory[1] > memory[0] + 50 and memory[0] < 100  # torch comes with the imports
        assert "cannot be read" not in out


def test_many_made_up_maps_are_a_dataset(tmp_path: Path) -> None:
    """All have the same points, and no text of one set is that of another."""
    many_maps.write_many_maps(tmp_path, 30, 101)
    dataset = PackedDataset(tmp_path)
    assert dataset.beatmaps["count"].tolist() == [101] * 30 and dataset.num_classes == 30
    points = dataset.points.reshape(30, 101)
    assert (points == points[0]).all() and (np.diff(points["time"][0]) >= 0).all()
    assert len(set(set_keys(dataset.beatmaps))) == dataset.beatmaps["tags"].nunique() == 10


@pytest.fixture
def folder_of_temporaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made in a test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_made_up_maps_do_not_stay_behind(
    stop: type[BaseException], folder_of_temporaries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path, *numbers: int) -> None:
        assert (folder / "dataset.json").is_file() and folder.parent == folder_of_temporaries
        raise stop

    monkeypatch.setattr(data, "opening_of", interrupted)
    with pytest.raises(stop):
        call_main(benchmark.main, "data", "--made-up", 3)
    assert list(folder_of_temporaries.iterdir()) == []


def test_a_disk_without_room_is_said_before_anything_is_written(
    folder_of_temporaries: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = shutil.disk_usage(folder_of_temporaries)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert run_command(benchmark.main, "data", "--made-up", 100_000) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "--made-up 100000: the maps take 1.8 GB, and 1.0 GB are free on the disk of" in err
    assert list(folder_of_temporaries.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "one of the arguments --data-path --made-up is required"),
        (("--made-up", 3, "--data-path", "x"), "not allowed with argument"),
        (("--made-up", 3, "--reference", "x"), "leave out --made-up"),
        (("--made-up", 0), "--made-up 0 must be at least 1"),
        (("--made-up", 3, "--points", 0), "--points 0 must be at least 1"),
    ],
)
def test_flags_that_do_not_go_together_are_errors(
    flags: tuple[object, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(benchmark.main, "data", *flags) == 2
    assert message in capfd.readouterr().err


def test_a_process_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_maps, "ROOT", tmp_path)  # where its code is not
    with pytest.raises(ValueError, match="ended with 1, see above"):
        many_maps.opening_of(tmp_path, 128, 16, 256)


def test_memory_that_cannot_be_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening, "STATUS", tmp_path / "status")
    row = opening.Meter().row("opening")
    assert np.isnan(row["own_memory_mb"]) and row["seconds"] >= 0
    monkeypatch.setattr(data, "opening_of", lambda *_: [row])
    assert call_main(benchmark.main, "data", "--made-up", 3) == 0
    assert "cannot be read on this system" in capsys.readouterr().out
