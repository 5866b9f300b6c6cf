"""What tables beside a collection say about its beatmaps: their mappers and descriptors.

The formats are those of Mapperatorinator's `beatmap_users.json` and `beatmap_descriptors.csv`.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_TABLE_BYTES = 2**30


@dataclass(frozen=True)
class Labels:
    """By beatmap ID: the user ID of the difficulty's mapper, and descriptors."""

    users: dict[int, int] = field(default_factory=dict)
    descriptors: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def of(self, beatmap_id: int) -> dict[str, Any]:
        """The dataset columns that are known of a beatmap."""
        found: dict[str, Any] = {}
        if beatmap_id in self.users:
            found["user_id"] = self.users[beatmap_id]
        if beatmap_id in self.descriptors:
            found["descriptors"] = ",".join(self.descriptors[beatmap_id])
        return found


def read_labels(users: Path | None, descriptors: Path | None) -> Labels:
    """The labels of the files that are given; ValueError says what is wrong with one."""
    return Labels(
        {} if users is None else read_users(users),
        {} if descriptors is None else read_descriptors(descriptors),
    )


def read_users(path: Path) -> dict[int, int]:
    """Beatmap ID -> user ID: JSON, an object of these or a list of {"id": ..., "user_id": ...}."""
    try:
        table = json.loads(_text(path))
        if isinstance(table, list):
            table = {entry["id"]: entry["user_id"] for entry in table}
        users = {int(beatmap): user for beatmap, user in table.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no table of users: give JSON, beatmap IDs with user IDs ({error!r})"
        ) from error
    for user in users.values():
        if type(user) is not int:
            raise ValueError(f"{path} has the user ID {str(user)[:40]!r}, which is no whole number")
    return {beatmap: user for beatmap, user in users.items() if user > 0}


def read_descriptors(path: Path) -> dict[int, tuple[str, ...]]:
    """Beatmap ID -> descriptors: lines of "ID,name", a line each, without a header."""
    found: dict[int, list[str]] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        beatmap, _, name = line.partition(",")
        if not line.strip():
            continue
        if not (beatmap.strip().isascii() and beatmap.strip().isdigit()) or not name.strip():
            raise ValueError(f"{path}, line {number}: expected a beatmap ID, a comma and a name")
        # A dataset separates the names by commas.
        found.setdefault(int(beatmap), []).append(name.strip().replace(",", " "))
    return {beatmap: tuple(dict.fromkeys(names)) for beatmap, names in found.items()}


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"there is no table {path}")
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise ValueError(f"{path} is larger than {MAX_TABLE_BYTES >> 20} MiB")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as such ({error})") from error
