"""`benchmark.py data`: what it counts, with a made-up stand-in for the public implementation."""

from pathlib import Path

import pytest

import benchmark
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
