"""Which beatmaps a command works on: files, folders, patterns, and the difficulties of archives."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from beatmaps.osu_file import (
    MAX_FILE_BYTES,
    Beatmap,
    BeatmapError,
    GameModeError,
    parse_beatmap,
    read_beatmap,
)
from beatmaps.osz import Archive, ArchiveError, Member, pack_folder
from conventions.errors import FieldError
from conventions.identity import INDIFFERENT

SUFFIXES = {".osu", ".osz"}
MAX_SONG_BYTES = 64 * 2**20


class ChoiceError(FieldError, BeatmapError):
    """A file does not have the one difficulty that was asked for."""


class SongError(FieldError, ArchiveError):
    """A beatmap without its song, which an archive needs."""


@dataclass(frozen=True)
class Choice:
    """What is taken of an archive, and whether the results go into one again.

    `format` is "osu", "osz" or None: as the input is. `separate_set` makes an archive that holds
    none of the old difficulties.
    """

    difficulty: str | None = field(default=None, metadata=INDIFFERENT)
    all_difficulties: bool = field(default=False, metadata=INDIFFERENT)
    format: str | None = field(default=None, metadata=INDIFFERENT)
    separate_set: bool = False

    def __post_init__(self) -> None:
        if self.difficulty is not None and self.all_difficulties:
            raise FieldError("{difficulty} and {all_difficulties}: give one of them")
        if self.separate_set and self.format == "osu":
            raise FieldError("{separate_set} makes an .osz: leave out {format} osu")

    def into_archive(self, from_archive: bool) -> bool:
        """Whether the results of an input are written as an .osz."""
        return self.separate_set or (self.format or ("osz" if from_archive else "osu")) == "osz"


@dataclass(frozen=True)
class Job:
    """Beatmaps whose results are written together.

    `path` is the file that the user named, `md5` that of the beatmap or of the whole archive.
    Results go into a copy of `archive`, if there is one; there beatmaps[k] is members[k], and
    `title` is the song's name.
    """

    path: Path
    md5: str
    beatmaps: list[Beatmap]
    archive: Archive | None = None
    members: list[Member] = field(default_factory=list)
    title: str = ""
    separate_set: bool = False

    def song(self, beatmap: Beatmap) -> bytes | None:
        """The song of one of the beatmaps where it lies in the archive."""
        wanted = beatmap.audio_filename.replace("\\", "/").casefold()
        for member in self.archive.members if self.archive is not None else []:
            if member.name.casefold() == wanted and member.size <= MAX_SONG_BYTES:
                return self.archive.read(member) if self.archive is not None else None
        return None

    def __str__(self) -> str:
        return self.beatmaps[0].name if len(self.beatmaps) == 1 else str(self.path)


LeftOut = list[BeatmapError]
"""Why difficulties of an archive were left out; each names its file."""


# --- files ----------------------------------------------------------------------------------------


def find_inputs(patterns: Sequence[Path], output: Path) -> tuple[list[Path], list[Path]]:
    """(files, copies): the .osu and .osz files that the patterns mean, in a fixed order.

    A pattern is a file, a folder (searched with all below it) or a name with * and ?, which not
    every shell resolves. Files below `output` are results and count only when they are named.
    Copies have the same content as a file before them.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        files = list(_expand(pattern, output.resolve()))
        if not files:
            raise ValueError(f"{pattern}: there is no .osu or .osz file there")
        for path in files:
            found.setdefault(path.resolve(), path)
    return _without_copies(list(found.values()))


def _expand(pattern: Path, output: Path) -> Iterator[Path]:
    matches = [pattern]
    if set("*?") & set(str(pattern)) and not pattern.exists():
        # Brackets are part of most beatmaps' names, never a choice of letters.
        root = Path(pattern.anchor)
        matches = sorted(root.glob(str(pattern.relative_to(root)).replace("[", "[[]")))
    for match in matches:
        if not match.is_dir():
            if match == pattern or match.suffix.lower() in SUFFIXES:
                yield match
            continue
        may_be_results = not match.resolve().is_relative_to(output)
        for path in sorted(match.rglob("*")):
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            if not (may_be_results and path.resolve().is_relative_to(output)):
                yield path


def _without_copies(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """(files, copies); only files of equal size are read."""
    sizes: dict[int, list[Path]] = {}
    for path in paths:
        if path.is_file():
            sizes.setdefault(path.stat().st_size, []).append(path)
    copies: set[Path] = set()
    for same in sizes.values():
        seen: set[str] = set()
        for path in same if len(same) > 1 else []:
            try:
                digest = file_md5(path)
            except OSError:
                continue  # opening it later says why
            if digest in seen:
                copies.add(path)
            seen.add(digest)
    return [p for p in paths if p not in copies], [p for p in paths if p in copies]


def file_md5(path: Path) -> str:
    """MD5 of a file's content, by which the game identifies beatmaps."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def is_archive(path: Path) -> bool:
    """Whether a file is meant to be an archive, by its name or its first bytes."""
    if path.suffix.lower() == ".osz":
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\3\4"
    except OSError:
        return False  # reading it says why


# --- beatmaps -------------------------------------------------------------------------------------


@contextmanager
def open_jobs(path: Path, choice: Choice) -> Iterator[tuple[list[Job], LeftOut]]:
    """The jobs that a file makes, and what was left out of an archive.

    Raises `BeatmapError` and `ArchiveError`; `GameModeError` when there are other modes only.
    """
    if is_archive(path):
        with Archive.open(path) as archive:
            yield _jobs_of_archive(path, archive, choice)
    else:
        beatmap = read_beatmap(path)
        wanted = choice.difficulty
        if wanted is not None and not matching([beatmap.version], wanted):
            raise ChoiceError(
                "{0} is the difficulty {1!r}, not {difficulty} {2!r}: "
                "leave that flag out, or give the other difficulty's file",
                *(path, beatmap.version, wanted),
            )
        if not choice.into_archive(from_archive=False):
            yield [Job(path, beatmap.md5, [beatmap])], []
            return
        with tempfile.TemporaryFile() as file:
            pack_folder(path.parent, file)
            archive = Archive(file, str(path.parent))
            yield [_job_of_folder(path, beatmap, archive, choice)], []


def read_beatmaps(path: Path) -> list[Beatmap]:
    """The beatmap of a .osu file, or every osu!standard one of an archive."""
    with open_jobs(path, Choice(all_difficulties=True, format="osu")) as (jobs, _):
        return [beatmap for job in jobs for beatmap in job.beatmaps]


def _job_of_folder(path: Path, beatmap: Beatmap, archive: Archive, choice: Choice) -> Job:
    """A beatmap with its song's folder around it, packed as `archive`."""
    names = {member.name.casefold(): member for member in archive.members}
    audio = beatmap.audio_filename.replace("\\", "/").casefold()
    if audio not in names or path.name.casefold() not in names:
        raise SongError(
            "{0}: its song {1!r} is not beside it, which an .osz needs: "
            "take the file in the song's folder, or {format} osu",
            *(path, beatmap.audio_filename),
        )
    title = path.resolve().parent.name
    members = [names[path.name.casefold()]]
    return Job(path, beatmap.md5, [beatmap], archive, members, title, choice.separate_set)


def _jobs_of_archive(path: Path, archive: Archive, choice: Choice) -> tuple[list[Job], LeftOut]:
    found, left_out = _difficulties(archive)
    if not found:
        other_modes = left_out and all(isinstance(e, GameModeError) for e in left_out)
        kind = GameModeError if other_modes else BeatmapError
        reasons = "; ".join(str(error) for error in left_out) or "no .osu file in it"
        raise kind(f"{path} has no osu!standard difficulty: {reasons}")
    if not choice.all_difficulties:
        found = [found[choose(path, [b.version for _, b in found], choice.difficulty)]]
    if choice.into_archive(from_archive=True):
        archive.check()
        members, beatmaps = [m for m, _ in found], [b for _, b in found]
        job = Job(path, file_md5(path), beatmaps, archive, members, path.stem, choice.separate_set)
        return [job], left_out
    return [Job(path, beatmap.md5, [beatmap]) for _, beatmap in found], left_out


def _difficulties(archive: Archive) -> tuple[list[tuple[Member, Beatmap]], LeftOut]:
    """The osu!standard beatmaps of an archive in its order, and why others are none."""
    found, left_out = [], []
    for member in archive.beatmaps:
        try:
            data = archive.read(member, MAX_FILE_BYTES)
            found.append((member, parse_beatmap(data, f"{archive.name}: {member.name}")))
        except BeatmapError as error:
            left_out.append(error)
    return found, left_out


def matching(versions: list[str], wanted: str) -> list[int]:
    """Which of the difficulties named `versions` may be meant by `wanted`.

    Its name, in any case if need be, its number in the list, or a part of its name.
    """
    lower = wanted.casefold()
    number = int(wanted) if wanted.isascii() and wanted.isdecimal() else 0
    attempts = (
        [k for k, name in enumerate(versions) if name == wanted],
        [k for k, name in enumerate(versions) if name.casefold() == lower],
        [number - 1] if 1 <= number <= len(versions) else [],
        [k for k, name in enumerate(versions) if lower in name.casefold()],
    )
    return next((found for found in attempts if found), [])


def choose(path: Path, versions: list[str], wanted: str | None) -> int:
    """Which of the difficulties named `versions` is `wanted`; the error shows their list.

    A single difficulty needs no choice.
    """
    matches = list(range(len(versions))) if wanted is None else matching(versions, wanted)
    if len(matches) == 1:
        return matches[0]
    problem = "give {difficulty}" if wanted is None else "{difficulty} {3!r} is not one"
    names = ", ".join(f"{k}: {name}" for k, name in enumerate(versions, 1))
    raise ChoiceError(
        f"{{0}} has {{1}} difficulties, {problem} of them by name or number "
        "({2}), or take {all_difficulties}",
        *(path, len(versions), names, wanted),
    )
