"""Tables of beatmaps as files: CSV, Parquet where pandas has an engine for it, pickle to write.

Reading a pickle can run code, so that is left to notebooks which made it themselves.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from conventions import command_line
from conventions.whole_files import replacing

TEXT_COLUMNS = ("md5", "artist", "title", "creator", "version", "tags", "file", "date")
PARQUET_ENGINES = ("pyarrow", "fastparquet")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Writes a table in the format that the file's ending names, whole or not at all."""
    writers: dict[str, Callable[[Path], object]] = {
        ".csv": lambda temporary: table.to_csv(temporary, index=False, encoding="utf-8"),
        ".parquet": lambda temporary: table.to_parquet(temporary, index=False),
        ".pkl": lambda temporary: table.to_pickle(temporary),
    }
    with replacing(path) as temporary:
        writers[path.suffix](temporary)


def claim_table(path: Path | None, overwrite: bool) -> None:
    """Before the work: refuses a table that could not be written, as `claim_output` does."""
    if path is not None:
        check_format(path)
        command_line.claim_output(path, overwrite)


def save_table(path: Path | None, table: pd.DataFrame) -> None:
    """Writes a table where one is wanted, and says so."""
    if path is not None:
        write_table(path, table)
        print(f"wrote {path}")


def check_format(path: Path) -> None:
    """ValueError where a table cannot be in a file of that name."""
    if path.suffix not in (".csv", ".parquet", ".pkl"):
        raise ValueError(f"{path}: a table's name ends in .csv, .parquet or .pkl")
    if path.suffix == ".parquet" and not any(map(find_spec, PARQUET_ENGINES)):
        raise ValueError(f"{path}: Parquet needs an engine: pip install pyarrow, or use .csv")


def read_table(path: Path) -> pd.DataFrame:
    """A table of beatmaps; text stays text, and empty fields of other columns are NaN."""
    check_format(path)
    if path.suffix == ".pkl":
        raise ValueError(f"{path}: reading a pickle could run code; give a .csv or .parquet")
    if not path.is_file():
        raise ValueError(f"there is no table {path}: make one with create_beatmap_dataframe.py")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        columns = pd.read_csv(path, nrows=0).columns
        return pd.read_csv(
            path,
            dtype={name: str for name in columns if name in TEXT_COLUMNS},
            keep_default_na=False,  # there are songs called "None"
            na_values={name: [""] for name in columns if name not in TEXT_COLUMNS},
        )
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a table that can be read: {error}") from error
