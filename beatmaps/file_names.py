"""File names in song folders and archives: which mean the same file, which are not of a song.

Maps are made on Windows and macOS, where upper and lower case are the same and where accents are
stored in two ways; the names in a `.osu` file are as its mapper's system wrote them.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

# Folders that systems add to what people store: macOS in archives, NAS devices, and the recycle
# bin of Windows.
_JUNK_FOLDERS = {"__macosx", "@eadir", "$recycle.bin"}


def key_of(name: str) -> str:
    """Names with the same key are the same file on some system; both slashes separate folders."""
    parts = [part.rstrip(". ") for part in normalised(name).split("/")]
    kept = [part for part in parts if part]
    return unicodedata.normalize("NFC", "/".join(kept)).casefold()


def normalised(name: str) -> str:
    """`name` with / between folders, without empty parts and "."; ".." is resolved where possible.

    A name that leads out of the folder keeps its ".."; a folder's name keeps the slash at its end.
    """
    parts: list[str] = []
    pieces = name.replace("\\", "/").split("/")
    for part in pieces:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts) + ("/" if parts and pieces[-1] == "" else "")


def leads_out(name: str) -> bool:
    """Whether a relative name, unpacked on any system, ends up outside of its target folder."""
    depth = 0
    for part in re.split(r"[/\\\0]", name):
        # Windows drops dots and spaces at the end of a name, so ".. " is "..".
        if part.startswith("..") and not part.strip(". "):
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


def is_absolute(name: str) -> bool:
    """Whether a name begins at the root of a disk or with a drive, on any system."""
    return name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) is not None


def is_hidden(name: str) -> bool:
    """Whether a relative name is hidden, or was added by a system, such as macOS's `._x`."""
    parts = [part for part in name.replace("\\", "/").split("/") if part.strip(".")]
    return any(part[0] == "." or part.casefold() in _JUNK_FOLDERS for part in parts)


def below_a_set(name: str, set_folders: set[str]) -> bool:
    """Whether a file is in a sub-folder of one of the set folders, where osu! does not show it.

    `name` and `set_folders` are relative, with slashes; "." is the top folder.
    """
    return any(str(folder) in set_folders for folder in list(PurePosixPath(name).parents)[1:])


def find_name(wanted: str, names: Sequence[str]) -> int | None:
    """Index of the name that a `.osu` file means by `wanted`; None if there is none.

    A name with exactly the same spelling wins over one in another letter case or normal form.
    """
    for rule in (normalised, key_of):
        sought = rule(wanted)
        found = next((k for k, name in enumerate(names) if rule(name) == sought), None)
        if sought and found is not None:
            return found
    return None


def find_file(folder: Path, wanted: str) -> Path | None:
    """The file that a `.osu` file in `folder` means by `wanted`; None if missing or outside."""
    if is_absolute(wanted) or leads_out(wanted) or "\0" in wanted:
        return None
    path = folder
    for part in normalised(wanted).split("/"):
        try:
            names = sorted(os.listdir(path))  # noqa: PTH208 (only names are needed)
        except OSError:
            return None
        index = find_name(part, names)
        if index is None:
            return None
        path /= names[index]
    inside = path.resolve().is_relative_to(folder.resolve())  # excludes links that lead out
    return path if inside and path.is_file() else None
