"""Finds the beatmaps that a command works on: files, folders, patterns, archives' difficulties."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from beatmaps.file_names import below_a_set, find_name, is_hidden
from beatmaps.osu_file import (
    MAX_FILE_BYTES,
    Beatmap,
    BeatmapError,
    GameModeError,
    LeftOutError,
    parse_beatmap,
    read_beatmap,
)
from beatmaps.osz import Archive, ArchiveError, Member, pack_folder
from conventions.errors import FieldError
from conventions.identity import INDIFFERENT

SUFFIXES = {".osu", ".osz"}
MAX_SONG_BYTES = 64 * 2**20
SONGS = {".mp3", ".ogg", ".wav"}
"""Suffixes of songs; a folder with a song and a difficulty is a set's folder."""


class ChoiceError(FieldError, BeatmapError):
    """A file does not have exactly one difficulty that fits what was asked for."""


class SongError(FieldError, ArchiveError):
    """A beatmap that cannot be packed with its song's folder."""


@dataclass(frozen=True)
class Choice:
    """Which difficulty of an archive is taken, and whether results are written into an archive.

    `format` is "osu", "osz" or None: the same as the input. `separate_set` makes an archive without
    the old difficulties.
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

    `path` is the file that the user named; `md5` is that of the beatmap or of the whole archive.
    If there is an `archive`, results go into a copy of it; beatmaps[k] is read from members[k]
    there. `title` is the song's name.
    """

    path: Path
    md5: str
    beatmaps: list[Beatmap]
    archive: Archive | None = None
    members: list[Member] = field(default_factory=list)
    title: str = ""
    separate_set: bool = False

    def song(self, beatmap: Beatmap) -> bytes | None:
        """The song of one of the beatmaps, if it is in the archive."""
        if self.archive is None or not beatmap.has_song:
            return None
        files = {id(b): m.name for b, m in zip(self.beatmaps, self.members, strict=False)}
        # It is in the beatmap's folder, or in one above if that is a sub-folder.
        for folder in PurePosixPath(files.get(id(beatmap), "x.osu")).parents:
            member = self.archive.find(str(folder / beatmap.audio_filename.replace("\\", "/")))
            try:
                if member is not None:
                    return self.archive.read(member, MAX_SONG_BYTES)
            except ArchiveError:
                break  # a damaged song, or one too large to show, is not needed
        return None

    def __str__(self) -> str:
        return self.beatmaps[0].name if len(self.beatmaps) == 1 else str(self.path)


IN_SUB_FOLDER = "is in a sub-folder of its set, where osu! does not show it"
LeftOut = list[BeatmapError]
"""Errors of difficulties of an archive that were left out; each names its file."""


# --- files ----------------------------------------------------------------------------------------


class Inputs(NamedTuple):
    """The files to work on, and those left out with the reason."""

    paths: list[Path]
    left_out: list[tuple[Path, str]]


def find_inputs(patterns: Sequence[Path], output: Path) -> Inputs:
    """The .osu and .osz files that the patterns match, in a fixed order.

    A pattern is a file, a folder (searched at any depth) or a name with * and ?, which not every
    shell expands. Files below `output` are results and count only if they are named. Hidden files,
    files that a system added and empty files are ignored unless they are named. Copies, which have
    the same content as an earlier file, are left out; so are, in a searched folder, difficulties
    below a set's own folder. Raises OSError, and ValueError for a pattern that matches no file.
    """
    whole = Path(" ".join(map(str, patterns)))
    if len(patterns) > 1 and whole.exists():
        raise ValueError(f'"{whole}": a path with spaces in it needs the quotation marks')
    found: dict[Path, Path] = {}
    below: dict[Path, Path] = {}
    for pattern in patterns:
        files = list(_expand(pattern, output.resolve()))
        if not files:
            raise ValueError(f"{pattern}: there is no .osu or .osz file there")
        for path, is_below in files:
            (below if is_below else found).setdefault(path.resolve(), path)
    paths, copies = _without_copies(list(found.values()))
    left_out = [(path, "the same file again") for path in copies]
    named = [path for key, path in below.items() if key not in found]
    left_out += [(path, f"{IN_SUB_FOLDER}: name the file to have it") for path in named]
    return Inputs(paths, left_out)


def _is_companion(path: Path, folder: Path) -> bool:
    """Whether a file found in `folder` was added by a system, or is hidden or empty."""
    empty = path.is_file() and path.stat().st_size == 0
    return empty or is_hidden(str(path.relative_to(folder)))


def _set_folders(paths: list[Path], folder: Path) -> set[str]:
    """Those folders of the beatmaps, relative to `folder`, that also have a song."""
    parents = {path.parent for path in paths if path.suffix.lower() == ".osu"}
    return {
        str(PurePosixPath(parent.relative_to(folder)))
        for parent in parents
        if any(path.suffix.lower() in SONGS for path in parent.iterdir())
    }


def _expand(pattern: Path, output: Path) -> Iterator[tuple[Path, bool]]:
    """(file, whether it is below a set's folder) for all that a pattern matches."""
    matches = [pattern]
    if set("*?") & set(str(pattern)) and not pattern.exists():
        # Brackets are part of most beatmaps' names; they never stand for one of several letters.
        root = Path(pattern.anchor)
        matches = sorted(root.glob(str(pattern.relative_to(root)).replace("[", "[[]")))
    for match in matches:
        if not match.is_dir():
            wanted = match.suffix.lower() in SUFFIXES and not _is_companion(match, match.parent)
            if match == pattern or wanted:
                yield match, False
            continue
        may_be_results = not match.resolve().is_relative_to(output)
        paths = [
            path
            for path in sorted(match.rglob("*"))
            if path.suffix.lower() in SUFFIXES
            and path.is_file()
            and not _is_companion(path, match)
            and not (may_be_results and path.resolve().is_relative_to(output))
        ]
        sets = _set_folders(paths, match)
        for path in paths:
            is_loose = path.suffix.lower() == ".osu"
            yield path, is_loose and below_a_set(path.relative_to(match).as_posix(), sets)


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
                continue  # opening it later reports why
            if digest in seen:
                copies.add(path)
            seen.add(digest)
    return [p for p in paths if p not in copies], [p for p in paths if p in copies]


def file_md5(path: Path) -> str:
    """MD5 of a file's content, by which the game identifies beatmaps."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def is_archive(path: Path) -> bool:
    """Whether a file shall be read as an archive, by its name or its first bytes."""
    if path.suffix.lower() == ".osz":
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\3\4"
    except OSError:
        return False  # reading it reports why


# --- beatmaps -------------------------------------------------------------------------------------


@contextmanager
def open_jobs(path: Path, choice: Choice) -> Iterator[tuple[list[Job], LeftOut]]:
    """The jobs of a file, and what was left out of an archive.

    Raises `BeatmapError`, `ArchiveError`, and `GameModeError` if all beatmaps are of other modes.
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
    """The job of a beatmap with the folder of its song around it, packed as `archive`."""
    if beatmap.has_song and archive.find(beatmap.audio_filename) is None:
        raise SongError(
            "{0}: its song {1!r} is not beside it, which an .osz needs: "
            "take the file in the song's folder, or {format} osu",
            *(path, beatmap.audio_filename),
        )
    member = archive.find(path.name)
    if member is None:
        raise SongError(
            "{0}: only a .osu file that is not hidden and no link is packed: rename or copy it, "
            "or take {format} osu",
            path,
        )
    title = path.resolve().parent.name
    return Job(path, beatmap.md5, [beatmap], archive, [member], title, choice.separate_set)


def _jobs_of_archive(path: Path, archive: Archive, choice: Choice) -> tuple[list[Job], LeftOut]:
    found, left_out = _difficulties(archive, choice.difficulty)
    if not found:
        other_modes = left_out and all(isinstance(e, LeftOutError) for e in left_out)
        kind = GameModeError if other_modes else BeatmapError
        reasons = (
            "; ".join(str(error) for error in left_out) or "no .osu file in it that has content"
        )
        raise kind(f"{path} has no osu!standard difficulty: {reasons}")
    if not choice.all_difficulties:
        versions, files = [b.version for _, b in found], [m.name for m, _ in found]
        found = [found[choose(path, versions, choice.difficulty, files)]]
    if choice.into_archive(from_archive=True):
        members, beatmaps = [m for m, _ in found], [b for _, b in found]
        job = Job(path, file_md5(path), beatmaps, archive, members, path.stem, choice.separate_set)
        return [job], left_out
    return [Job(path, beatmap.md5, [beatmap]) for _, beatmap in found], left_out


def _difficulties(
    archive: Archive, wanted: str | None
) -> tuple[list[tuple[Member, Beatmap]], LeftOut]:
    """The osu!standard beatmaps of an archive in its order, and the errors of the others.

    Those in sub-folders of a set are left out unless `wanted` is the name of the file.
    """
    found: list[tuple[Member, Beatmap]] = []
    left_out: LeftOut = []
    sets = {str(PurePosixPath(member.name).parent) for member in archive.beatmaps}
    for member in archive.beatmaps:
        name = f"{archive.name}: {member.name}"
        if below_a_set(member.name, sets) and not _is_file(member.name, wanted):
            advice = f"--difficulty with {member.name!r} takes it"
            left_out.append(LeftOutError(f"{name} {IN_SUB_FOLDER}: {advice}"))
            continue
        try:
            found.append((member, parse_beatmap(archive.read(member, MAX_FILE_BYTES), name)))
        except BeatmapError as error:
            left_out.append(error)
        except ArchiveError as error:
            left_out.append(BeatmapError(str(error)))
    return found, left_out


def _is_file(name: str, wanted: str | None) -> bool:
    """Whether `wanted` is the name of a file in an archive."""
    return wanted is not None and find_name(wanted, [name]) is not None


def matching(versions: list[str], wanted: str) -> list[int]:
    """Indices of the difficulties named `versions` that `wanted` may mean.

    `wanted` is a name, if need be in another letter case, a number in the list, or part of a name.
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


def choose(path: Path, versions: list[str], wanted: str | None, files: Sequence[str] = ()) -> int:
    """Index of the difficulty named `wanted`; the error shows the list of `versions`.

    `files` are their names in the archive, which `wanted` may be too. If there is only one
    difficulty, `wanted` may be None.
    """
    file = None if wanted is None else find_name(wanted, files)
    if file is not None:
        return file
    matches = list(range(len(versions))) if wanted is None else matching(versions, wanted)
    if len(matches) == 1:
        return matches[0]
    if wanted is None:
        problem = "choose one by {difficulty} with its name or number"
    elif matches:
        problem = "{difficulty} {3!r} means {4} of them: give the number of one"
    else:
        problem = "{difficulty} {3!r} is none of them by name or number"
    # Difficulties with the same name are told apart by their files.
    twice = {name for name in versions if versions.count(name) > 1}
    names = [
        f"{k}: {name}" + (f" in {files[k - 1]!r}" if files and name in twice else "")
        for k, name in enumerate(versions, 1)
    ]
    raise ChoiceError(
        f"{{0}} has {{1}} difficulties, {problem} ({{2}}), or take {{all_difficulties}}",
        *(path, len(versions), ", ".join(names), wanted, len(matches)),
    )
