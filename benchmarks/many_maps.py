"""How training opens a dataset of very many maps: of made-up ones, written for the measurement."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.sampling import made_up_map
from conventions.errors import FieldError
from data_loading import POINT_DTYPE, packed_points
from datasets.writer import writing_dataset

ROOT = Path(__file__).resolve().parent.parent
MAPS_IN_A_SET = 3
ROW_BYTES = 512  # more than a map's row of the table takes


def write_many_maps(folder: Path, made_up: int, points: int) -> None:
    """Writes a packed dataset of so many made-up maps of so many data points each.

    All have the points of one map: reading them takes no less for that, and writing them goes at
    the speed of the disk. FieldError for numbers below 1 and for a disk without the room.
    """
    for name, number in (("made_up", made_up), ("points", points)):
        if number < 1:
            raise FieldError(f"{{{name}}} {{0}} must be at least 1", number)
    require_room(folder, made_up, points)
    _, sequence = made_up_map(points + 4)  # it may have up to 4 points less
    packed = packed_points(sequence)[:points]
    with writing_dataset(folder) as writer:
        for _ in tqdm(range(made_up), desc="writing", unit="map", file=sys.stderr):
            writer.add(packed)
        writer.finish(table_of(made_up, points), {})


def require_room(folder: Path, made_up: int, points: int) -> None:
    """FieldError if the disk of `folder` lacks the room for such a dataset."""
    needed = made_up * (points * POINT_DTYPE.itemsize + ROW_BYTES)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FieldError(
            "{made_up} {0}: the maps take {1:.1f} GB, and {2:.1f} GB are free on the disk of {3}: "
            "ask for fewer, or name a folder of another disk in the environment variable TMPDIR",
            *(made_up, needed / 1e9, free / 1e9, folder),
        )


def table_of(maps: int, points: int) -> pd.DataFrame:
    """The table of made-up maps of so many data points each.

    Texts are about as long as those of real maps are on average, and those of no two sets are
    equal: equal ones would share their memory.
    """
    index = np.arange(maps)
    sets = [f"{number:06d}" for number in index // MAPS_IN_A_SET]
    columns: dict[str, Any] = {
        "class_index": index,
        "offset": index * points,
        "count": points,
        "md5": [f"{number:032x}" for number in index],
        "beatmap_id": index + 1,
        "set_id": index // MAPS_IN_A_SET + 1,
        "artist": [f"artist {name}" for name in sets],
        "title": [f"title of {name}" for name in sets],
        "creator": sets,
        "version": [f"map {number:06d}" for number in index],
        "tags": [" ".join([name] * 16) for name in sets],
        "circle_size": 4.0,
        "star_rating": np.linspace(1, 8, maps),
    }
    return pd.DataFrame(columns)


def opening_of(
    folder: Path, seq_len: int, stride: int, global_batch_size: int
) -> list[dict[str, Any]]:
    """Runs `benchmarks/opening.py` on a packed dataset; the rows of its table."""
    flags = {"seq-len": seq_len, "stride": stride, "global-batch-size": global_batch_size}
    command = [sys.executable, "-m", "benchmarks.opening", str(folder.resolve())]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode:
        raise ValueError(f"the process that opens the maps ended with {ran.returncode}, see above")
    rows: list[dict[str, Any]] = json.loads(ran.stdout.splitlines()[-1])
    return rows
