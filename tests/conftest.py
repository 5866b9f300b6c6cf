"""What the tests of the commands share: made-up beatmaps, a packed dataset, a tiny trained model.

torch is imported inside fixtures, so that tests that do not need it start at once.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from data_loading import PackedDataset

NUM_MAPS = 6
SEQ_LEN, STRIDE, BATCH = 32, 8, 4
TRAIN_STEPS = 10

FOLDER = os.environ.get("OSU_DIFFUSION_BEATMAPS")
needs_maps = pytest.mark.skipif(
    not FOLDER, reason="OSU_DIFFUSION_BEATMAPS names no folder with train, val, edge and cases"
)


@cache
def real_paths(part: str) -> list[Path]:
    """Maps of a part of the collection; a sample of the large parts unless all are asked for."""
    paths = sorted(Path(FOLDER or "", part).glob("*.osu"))
    everything = os.environ.get("OSU_DIFFUSION_ALL") == "1"
    return paths[:: 1 if everything else {"train": 40, "edge": 8}.get(part, 1)]


def beatmap_text(
    objects: str,
    *,
    title: str = "Song",
    version: str = "Normal",
    beatmap_id: int = 0,
    set_id: int = -1,
    mode: int = 0,
) -> str:
    """A small beatmap around the given lines; 140 px of a slider last 500 ms."""
    return (
        f"osu file format v14\n\n[General]\nAudioFilename: a.mp3\nMode: {mode}\n\n"
        f"[Metadata]\nTitle:{title}\nArtist:Somebody\nCreator:Mapper\nVersion:{version}\n"
        f"Tags:one two\nBeatmapID:{beatmap_id}\nBeatmapSetID:{set_id}\n\n"
        "[Difficulty]\nCircleSize:4\nOverallDifficulty:7\nSliderMultiplier:1.4\n\n"
        "[TimingPoints]\n0,500,4,1,0,100,1,0\n2000,-50,4,1,0,80,0,0\n\n"
        f"[HitObjects]\n{objects}\n"
    )


def random_objects(seed: int, count: int, *, sliders: bool = True) -> str:
    """Lines of `count` objects a random walk apart, the last one a spinner.

    No path of a slider is shorter than the slider's length, and all of it is on the playfield.
    """
    rng = np.random.default_rng(seed)
    lines, time, place = [], 500, np.array([256, 192])
    for index in range(count - 1):
        place = np.clip(place + rng.integers(-120, 121, 2), (80, 80), (432, 304))
        start = f"{place[0]},{place[1]},{time},"
        if sliders and rng.random() < 0.3:
            chord = rng.integers(30, 71, 2) * rng.choice((-1, 1), 2)
            second = place + chord
            first = place + chord // 2 + (-chord[1] // 4, chord[0] // 4)
            letter = "BPL"[index % 3]
            length = round(0.95 * float(np.hypot(*chord)), 3)
            curve = f"{letter}|{first[0]}:{first[1]}|{second[0]}:{second[1]}"
            lines.append(f"{start}2,0,{curve},{1 + index % 2},{length}")
            place, time = second, time + 500
        else:
            lines.append(f"{start}{5 if index % 8 == 0 else 1},{2 * (index % 3)},0:0:0:0:")
            time += 250
    lines.append(f"256,192,{time},12,0,{time + 1000},0:0:0:0:")
    return "\n".join(lines)


def write_maps(folder: Path, numbers: Iterable[int], count: int = 50) -> None:
    """Made-up maps; map k has beatmap ID 101 + k, two neighbours are one beatmapset."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in numbers:
        text = beatmap_text(
            random_objects(k, count),
            title=f"Song {k // 2}",
            version=f"Difficulty {k}",
            beatmap_id=101 + k,
            set_id=11 + k // 2,
        )
        (folder / f"map {k}.osu").write_text(text, encoding="utf-8", newline="")


def call_main(main: Callable[[], int | None], *arguments: object) -> int | None:
    """Calls a command's `main` with the given command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["program.py", *map(str, arguments)])
        return main()


def run_command(main: Callable[[], int | None], *arguments: object) -> int:
    """Calls `main` as the command line does, through `command_line.run`; returns the exit code."""
    from conventions import command_line

    with pytest.raises(SystemExit) as ending:
        call_main(lambda: command_line.run(main), *arguments)
    return int(ending.value.code or 0)


def train_flags(data: Path, results: Path, *more: object) -> list[str]:
    """The command line of a training run of seconds."""
    flags = ["--data-path", data, "--results-dir", results, "--model", "DiT-nano"]
    flags += ["--seq-len", SEQ_LEN, "--stride", STRIDE, "--global-batch-size", BATCH]
    flags += ["--warmup-steps", 2, "--log-every", 1, "--device", "cpu", "--max-steps", TRAIN_STEPS]
    return [str(flag) for flag in (*flags, *more)]


def call_train(data: Path, results: Path, *more: object) -> int | None:
    """Trains in this process; the exit code."""
    import torch

    import train

    torch.set_num_threads(1)
    try:
        return call_main(train.main, *train_flags(data, results, *more))
    finally:
        for handler in list(train.log.handlers):
            train.log.removeHandler(handler)
            handler.close()


def run_train(data: Path, results: Path, *more: object) -> Path:
    """Trains in this process and returns the experiment's folder."""
    assert call_train(data, results, *more) == 0
    return max(path for path in results.iterdir() if path.name[:3].isdecimal())


def torchrun_command(ranks: int, *more: str) -> list[str]:
    """Starts train.py on `ranks` processes of this machine; its flags are to follow."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    train_py = Path(__file__).resolve().parent.parent / "train.py"
    return [*launcher, f"--nproc-per-node={ranks}", *more, str(train_py)]


def run_torchrun(ranks: int, data: Path, results: Path, *more: object) -> Path:
    """Trains on many processes to the end; the run's folder."""
    result = subprocess.run(
        [*torchrun_command(ranks), *train_flags(data, results, "--dist", "gloo", *more)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=180,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return max(path for path in results.iterdir() if path.name[:3].isdecimal())


def assert_equal(a: Any, b: Any, name: str = "") -> None:
    """Equal bit for bit, through dicts and lists."""
    import torch

    assert type(a) is type(b), name
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), name
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            assert_equal(a[key], b[key], f"{name}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), name
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{name}.{i}")
    else:
        assert a == b, name


def pack_maps(folder: Path, output: Path) -> "PackedDataset":
    """Packs a folder in this process."""
    from data_loading import PackedDataset
    from datasets.pack import pack
    from datasets.sources import find_beatmaps

    pack(find_beatmaps(folder), output, 1)
    return PackedDataset(output)


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up maps with IDs from 101 on."""
    folder = tmp_path_factory.mktemp("songs")
    write_maps(folder, range(NUM_MAPS))
    return folder


@pytest.fixture(scope="session")
def packed(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> "PackedDataset":
    """The maps of `songs`, packed."""
    return pack_maps(songs, tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="session")
def trained(packed: "PackedDataset", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of ten steps on `packed`, with a checkpoint after five."""
    return run_train(packed.folder, tmp_path_factory.mktemp("results"), "--ckpt-every", 5)


def draw_nothing(job: object, before: object, made: object, result: Any, request: object) -> None:
    """In the place of `report.draw`: drawing takes longer than sampling with a tiny model."""
    for path in result.previews.values():
        path.write_bytes(b"")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty previews."""
    from sampling import report

    monkeypatch.setattr(report, "draw", draw_nothing)


def remap(trained: Path, output: Path, *flags: object) -> int:
    """Runs sample.py with the tiny model and few steps; returns the exit code."""
    import torch

    import sample

    torch.set_num_threads(1)
    fixed = ("--ckpt", trained / "model.safetensors", "--output", output, "--device", "cpu")
    return run_command(sample.main, *fixed, "--num-sampling-steps", 4, *flags)


def maps_below(folder: Path) -> dict[str, bytes]:
    """The beatmaps in a folder and all below, by file name."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.osu"))}


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
