"""Names of files as song folders and archives have them: which are one file, which are no songs'.

Maps are made on Windows and macOS, where letter case does not count and where accents are stored in
two ways; the names in a `.osu` file are as its mapper's system had them.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

# Folders that systems put beside what people store: macOS's in archives, those of NAS boxes and of
# Windows' bin.
_JUNK_FOLDERS = {"__macosx", "@eadir", "$recycle.bin"}


def key_of(name: str) -> str:
    """Names with the same key are one file on some system; both kinds of slash part folders."""
    parts = [part.rstrip(". ") for part in normalised(name).split("/")]
    kept = [part for part in parts if part]
    return unicodedata.normalize("NFC", "/".join(kept)).casefold()


def normalised(name: str) -> str:
    """`name` with slashes between folders, without empty parts, "." and ".." where they resolve.

    What leads out keeps its "..", and a name that ends in a slash, a folder's, keeps that.
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
    """Whether a relative name, unpacked on any system, lands outside of the folder it is put in."""
    depth = 0
    for part in re.split(r"[/\\\0]", name):
        # Windows drops dots and spaces at the end of a name: ".. " is "..".
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
    """Whether a relative name is hidden, or a companion that a system made: macOS's `._x`."""
    parts = [part for part in name.replace("\\", "/").split("/") if part.strip(".")]
    return any(part[0] == "." or part.casefold() in _JUNK_FOLDERS for part in parts)


def below_a_set(name: str, set_folders: set[str]) -> bool:
    """Whether a file is in a sub-folder of one of the sets, where osu! does not show it.

    `name` and the `set_folders` are relative, with slashes; the folder at the top is ".".
    """
    return any(str(folder) in set_folders for folder in list(PurePosixPath(name).parents)[1:])


def find_name(wanted: str, names: Sequence[str]) -> int | None:
    """Which of the names is the file that a `.osu` file calls `wanted`; None if none is.

    One that is spelt alike is taken before one in another letter case or normal form.
    """
    for rule in (normalised, key_of):
        sought = rule(wanted)
        found = next((k for k, name in enumerate(names) if rule(name) == sought), None)
        if sought and found is not None:
            return found
    return None


def find_file(folder: Path, wanted: str) -> Path | None:
    """The file that a `.osu` file in `folder` calls `wanted`, or None; never one outside of it."""
    if is_absolute(wanted) or leads_out(wanted) or "\0" in wanted:
        return None
    path = folder
    for part in normalised(wanted).split("/"):
        try:
            names = sorted(os.listdir(path))  # noqa: PTH208 (names alone are wanted)
        except OSError:
            return None
        index = find_name(part, names)
        if index is None:
            return None
        path /= names[index]
    inside = path.resolve().is_relative_to(folder.resolve())  # no link that leads elsewhere
    return path if inside and path.is_file() else None
