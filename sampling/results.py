"""Where results go, what they are called, and whether they exist already."""

from __future__ import annotations

import filecmp
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from beatmaps.inputs import Job
from beatmaps.osu_file import Beatmap
from beatmaps.osz import free_name, write_archive
from conventions.errors import FieldError
from conventions.whole_files import replacing

UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
ADVICE = "add {overwrite} or choose another {seed} or {output}"


def safe_name(text: str, limit: int = 100) -> str:
    """`text` as a file name that Windows, macOS and Linux accept, cut to `limit` bytes."""
    name = UNSAFE.sub("-", text).strip(" .")
    cut = name.encode("utf-8", "ignore")[:limit].decode("utf-8", "ignore")
    return cut.strip(" .") or "beatmap"


def beatmap_stem(beatmap: Beatmap, version: str) -> str:
    """A file name without suffix, as osu! makes them, for `beatmap` with a longer difficulty name.

    What distinguishes results is at the end of `version`, which must not be cut off.
    """
    song = f"{beatmap.artist} - {beatmap.title}"
    short = safe_name(beatmap.version, 40) + version.removeprefix(beatmap.version)
    return f"{safe_name(song, 40)} ({safe_name(beatmap.creator, 20)}) [{safe_name(short, 160)}]"


@dataclass(frozen=True)
class Result:
    """One new difficulty: its name, its file (in the folder, or in the archive), its previews."""

    version: str
    file: str
    previews: dict[str, Path]


@dataclass(frozen=True)
class Outputs:
    """The files of a job: of every beatmap its variants and previews, an archive, a report."""

    folder: Path
    results: list[list[Result]]
    archive: Path | None
    report: Path

    @classmethod
    def plan(
        cls, job: Job, output: Path, versions: list[str], variants: int, kinds: Mapping[str, str]
    ) -> Outputs:
        """Names for a job's results below `output`; versions[k] is beatmaps[k]'s new name.

        `kinds` are the previews to draw, with the endings of their files.

        The folder's name has eight digits of the source's hash, and for an archive also of the
        chosen difficulties': results of two maps, or two versions of one, never share a folder.
        """
        if output.exists() and not output.is_dir():
            raise FieldError("{output} {0} is a file: give a folder", output)
        first = job.beatmaps[0]
        tail = safe_name(versions[0].removeprefix(first.version))
        # One variant and four variants of a map are different runs, which may lie side by side.
        tail += f" x{variants}" if variants > 1 else ""
        if len(job.beatmaps) == 1:
            chosen = f"[{safe_name(first.version, 25)}] {tail}"
        else:
            chosen = f"[all] {tail}"
        if job.archive is None:
            number = f"{first.beatmap_id} " if first.beatmap_id > 0 else ""
            song = safe_name(f"{number}{first.artist} - {first.title}", 60)
            folder = output / f"{song} {job.md5[:8]}"
            archive = None
            report = folder / f"{safe_name(first.version, 40)} {tail}.result.json"
        else:
            digest = hashlib.sha256("".join([job.md5, *(b.md5 for b in job.beatmaps)]).encode())
            folder = output / f"{safe_name(job.title, 30)} {digest.hexdigest()[:8]} {chosen}"
            name = f"{safe_name(job.title, 60)} {chosen}" if job.separate_set else job.title
            archive = folder / f"{safe_name(name, 140)}.osz"
            report = folder / f"{safe_name(name, 140)}.result.json"
        results = _plan_results(job, folder, versions, variants, kinds)
        return cls(folder, results, archive, report)

    def finished(self, is_same: Callable[[dict[str, Any]], bool]) -> bool:
        """Whether all results of the same run exist already; `is_same` checks a report.

        Raises ValueError if results of another run are in their place, or changed ones.
        """
        if not self.report.exists():
            return False  # files of an interrupted run are compared when they are written
        try:
            report = json.loads(self.report.read_bytes())
            same = is_same(report)
            hashes = {entry["file"]: entry["sha256"] for entry in report["files"]}
        except (ValueError, KeyError, TypeError, AttributeError):
            same = False
        if not same:
            raise FieldError("{0} exists, of a run with other options: " + ADVICE, self.report)
        results = [result for row in self.results for result in row]
        whole = all(path.exists() for result in results for path in result.previews.values())
        for path in self.files():
            if not path.exists():
                whole = False
            elif file_sha256(path) != hashes.get(path.name):
                raise FieldError("{0} exists and was changed since it was written: " + ADVICE, path)
        return whole

    def files(self) -> list[Path]:
        """The archive, or the beatmaps."""
        if self.archive is not None:
            return [self.archive]
        return [self.folder / result.file for row in self.results for result in row]

    def write(self, job: Job, data: list[list[bytes]], overwrite: bool) -> list[dict[str, str]]:
        """Writes data[k][v], variant v of beatmaps[k]; returns the names and hashes of `files`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.archive is None:
            contents = [content for row in data for content in row]
            pairs = zip(self.files(), contents, strict=True)
            return [put_bytes(path, content, overwrite) for path, content in pairs]
        assert job.archive is not None
        archive, keep = job.archive, job.archive.members
        if job.separate_set:
            keep = [member for member in keep if not member.name.lower().endswith(".osu")]
        added = {
            result.file: (content, member.date)
            for member, results, row in zip(job.members, self.results, data, strict=True)
            for result, content in zip(results, row, strict=True)
        }
        return [put(self.archive, lambda p: write_archive(p, archive, keep, added), overwrite)]


def _plan_results(
    job: Job, folder: Path, versions: list[str], variants: int, kinds: Mapping[str, str]
) -> list[list[Result]]:
    taken = [] if job.archive is None else [member.name for member in job.archive.members]
    drawn: list[str] = []
    rows = []
    for k, beatmap in enumerate(job.beatmaps):
        row = []
        place = PurePosixPath(job.members[k].name).parent if job.members else PurePosixPath()
        for v in range(variants):
            version = f"{versions[k]} #{v + 1}" if variants > 1 else versions[k]
            stem = beatmap_stem(beatmap, version)
            taken.append(free_name(str(place / f"{stem}.osu"), taken))
            drawn.append(free_name(f"{stem}.png", drawn))  # a stem that no other result has
            name = drawn[-1].removesuffix(".png")
            previews = {kind: folder / f"{name}{suffix}" for kind, suffix in kinds.items()}
            row.append(Result(version, taken[-1], previews))
        rows.append(row)
    return rows


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def put(path: Path, write: Callable[[Path], object], overwrite: bool) -> dict[str, str]:
    """Writes a file whole or not at all, by `write` to a temporary name; returns name and hash.

    ValueError if the file exists with other content and `overwrite` is false.
    """
    with replacing(path) as temporary:
        write(temporary)
        if path.exists() and not overwrite and not filecmp.cmp(temporary, path, shallow=False):
            raise FieldError("{0} exists: " + ADVICE, path)
        digest = file_sha256(temporary)
    return {"file": path.name, "sha256": digest}


def put_bytes(path: Path, data: bytes, overwrite: bool) -> dict[str, str]:
    """`put` for content in memory."""
    return put(path, lambda temporary: temporary.write_bytes(data), overwrite)
