"""Beatmap archives (`.osz`, a ZIP of one song's folder): read safely, extended without unpacking.

Nothing is ever extracted by name. Writing copies the stored bytes of the members that stay, headers
included, so that names in old code pages, timestamps, order and content survive as they are.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

MAX_ARCHIVE_BYTES = 2**30
MAX_UNPACKED_BYTES = 2**30
MAX_MEMBERS = 10_000
MAX_DIRECTORY_BYTES = 16 * 2**20
# Blank bitmaps and silent samples compress further than this: small members are let through.
MAX_RATIO, RATIO_FREE_BYTES = 200, 8 * 2**20
CHUNK_BYTES = 2**20

# What a song's folder may hold; anything else there is not packed.
SONG_SUFFIXES = {
    *(".osu", ".osb", ".ini"),
    *(".mp3", ".ogg", ".wav", ".flac"),
    *(".png", ".jpg", ".jpeg"),
    *(".avi", ".mp4", ".m4v", ".flv", ".mpg", ".wmv"),
}

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # also strong encryption and masked headers
_UTF8, _DESCRIPTOR = 0x800, 0x8
_UNKNOWN_16, _UNKNOWN_32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 record"
# Layouts of PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16.
_LOCAL = struct.Struct("<4s5H3L2H")
_RECORD = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_OFFSET_AT = 42  # of the local header's offset within a record of the directory

Date = tuple[int, int, int, int, int, int]


class ArchiveError(ValueError):
    """An archive that is refused or cannot be read: which, why, what to do."""


@dataclass(frozen=True)
class Member:
    """One file of an archive: its name, unpacked size in bytes, and where its stored bytes lie.

    `record` is its entry in the archive's directory; [start, end) are its local header, data and
    what follows up to the next member.
    """

    name: str
    size: int
    info: zipfile.ZipInfo
    record: bytes
    start: int
    end: int

    @property
    def date(self) -> Date:
        """Its timestamp, to two seconds, in an unknown time zone."""
        return self.info.date_time


class Archive:
    """An archive whose directory has been checked; members are read on demand.

    Raises `ArchiveError` for what is no ZIP file, for the zip64 and multi-disk variants, and for
    names, kinds of members or sizes that a beatmap archive has no use for.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self._file = file
        self.directory_start, size, self.comment = self._end_record()
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise self.refuse(f"has a damaged directory ({error}): get it again") from error
        file.seek(self.directory_start)
        self.members = self._read_members(file.read(size))

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Opens the archive at `path`; it must be closed, best by `with`."""
        try:
            file = path.open("rb")
        except OSError as error:
            raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error
        try:
            return cls(file, str(path))
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def beatmaps(self) -> list[Member]:
        """The members that are .osu files."""
        return [member for member in self.members if member.name.lower().endswith(".osu")]

    def refuse(self, reason: str) -> ArchiveError:
        """The error that says what is wrong with this archive."""
        return ArchiveError(f"{self.name} {reason}")

    # --- reading ----------------------------------------------------------------------------------

    def read(self, member: Member, limit: int = MAX_UNPACKED_BYTES) -> bytes:
        """The content of a member of at most `limit` bytes, whatever the headers say."""
        if member.size > limit:
            raise self.refuse(f"has {member.name!r} with {member.size} bytes, more than {limit}")
        data = io.BytesIO()
        self._unpack(member, data)
        return data.getvalue()

    def check(self) -> None:
        """Unpacks every member to nowhere: `ArchiveError` if one is damaged or has another size."""
        for member in self.members:
            self._unpack(member, None)

    def _unpack(self, member: Member, output: IO[bytes] | None) -> None:
        size = 0
        try:
            with self._zip.open(member.info) as source:
                while chunk := source.read(CHUNK_BYTES):
                    size += len(chunk)
                    if output is not None:
                        output.write(chunk)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise self.refuse(f"has a damaged member {member.name!r} ({error})") from error
        if size != member.size:
            raise self.refuse(f"has {size} bytes in {member.name!r}, not {member.size} as it says")

    def copy_stored(self, member: Member, output: IO[bytes]) -> None:
        """Writes the member's local header and stored bytes to `output` as they are."""
        self._file.seek(member.start)
        left = member.end - member.start
        while left:
            chunk = self._file.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise self.refuse("became shorter while it was read")
            output.write(chunk)
            left -= len(chunk)

    # --- checks -----------------------------------------------------------------------------------

    def _end_record(self) -> tuple[int, int, bytes]:
        """Start and size of the directory, and the archive's comment."""
        total = self._file.seek(0, io.SEEK_END)
        if total > MAX_ARCHIVE_BYTES:
            raise self.refuse(f"has {total} bytes, more than the limit of {MAX_ARCHIVE_BYTES}")
        tail_start = max(0, total - _END.size - _UNKNOWN_16)
        self._file.seek(tail_start)
        tail = self._file.read()
        at = tail.rfind(b"PK\5\6")
        if at < 0 or at + _END.size > len(tail):
            self._file.seek(0)
            begins = self._file.read(4) == b"PK\3\4"
            what = "is cut off: get it again" if begins else "is not a ZIP archive: is it a .osz?"
            raise self.refuse(what)
        _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(tail, at)
        if at + _END.size + comment != len(tail):
            raise self.refuse("has other data after its end: get it again")
        zip64 = tail[max(0, at - 20) : at].startswith(b"PK\6\7")
        if zip64 or _UNKNOWN_16 in (here, count) or _UNKNOWN_32 in (size, start):
            raise self.refuse("is in the zip64 format, which beatmaps do not need: pack it again")
        if (disk, first_disk) != (0, 0) or here != count:
            raise self.refuse("is part of a split archive: pack it again")
        if count > MAX_MEMBERS or size > MAX_DIRECTORY_BYTES:
            raise self.refuse(f"has {count} members, more than the limit of {MAX_MEMBERS}")
        if start + size != tail_start + at:
            raise self.refuse("has a directory that is not where it should be: pack it again")
        self._count = count
        return start, size, tail[at + _END.size :]

    def _read_members(self, directory: bytes) -> list[Member]:
        """The members in the order of the directory, each of them checked."""
        infos = self._zip.infolist()
        if len(infos) != self._count:
            raise self.refuse(f"lists {len(infos)} members and says {self._count}: pack it again")
        starts = sorted(info.header_offset for info in infos)
        if len(set(starts)) < len(starts):
            raise self.refuse("has members that overlap: pack it again")
        ends = dict(zip(starts, [*starts, self.directory_start][1:], strict=True))
        members, names, at = [], set(), 0
        for info in infos:
            length = _RECORD.size + sum(struct.unpack_from("<3H", directory, at + 28))
            record = directory[at : at + length]
            at += length
            start = info.header_offset
            name = decode_name(info)
            member = Member(name, info.file_size, info, record, start, ends[start])
            self._check_name(member)
            self._check_kind(member)
            self._check_place(member)
            unique = _unique_key(name)
            if unique in names:
                raise self.refuse(f"has {name!r} twice: remove one and pack it again")
            names.add(unique)
            members.append(member)
        total = sum(member.size for member in members)
        if total > MAX_UNPACKED_BYTES:
            raise self.refuse(f"unpacks to {total} bytes, more than {MAX_UNPACKED_BYTES}")
        return members

    def _check_name(self, member: Member) -> None:
        """Refuses names that lead out of the folder on any system."""
        name = member.name
        # A second byte of Shift-JIS may be a backslash: for programs that take it for one, what
        # stands between must not lead out either.
        single_bytes = _raw_name(member.info).decode("latin-1").replace("\\", "/")
        if not name.strip("/. ") or any(ord(c) < 32 for c in name):
            raise self.refuse(f"has a member with the name {name!r}, which is no file's")
        if "\\" in name or name.startswith("/") or re.match(r"[A-Za-z]:", name):
            raise self.refuse(f"has a member {name!r} with an absolute or Windows path")
        if ".." in (*name.split("/"), *single_bytes.split("/")):
            raise self.refuse(f"has a member {name!r} that leads out of its folder")

    def _check_kind(self, member: Member) -> None:
        """Refuses links, encryption, rare compression, zip64 and what unpacks to far too much."""
        name, info = member.name, member.info
        if stat.S_ISLNK(info.external_attr >> 16):
            raise self.refuse(f"has a link {name!r}: replace it by the file and pack it again")
        if info.flag_bits & _ENCRYPTED:
            raise self.refuse(f"has an encrypted member {name!r}: pack it without a password")
        if info.compress_type not in _METHODS:
            raise self.refuse(f"has {name!r} compressed with method {info.compress_type}")
        packed, size, *_, offset = _RECORD.unpack_from(member.record)[8:]
        if _UNKNOWN_32 in (packed, size, offset):
            raise self.refuse(f"has {name!r} in the zip64 format: pack it again")
        if size > RATIO_FREE_BYTES and size > MAX_RATIO * packed:
            raise self.refuse(f"has {name!r} of {packed} bytes that would unpack to {size}")

    def _check_place(self, member: Member) -> None:
        """The local header must say the same as the directory, and members must not overlap."""
        info = member.info
        self._file.seek(member.start)
        head = self._file.read(_LOCAL.size)
        if len(head) < _LOCAL.size or head[:4] != b"PK\3\4":
            raise self.refuse(f"has no member where it says that {member.name!r} is")
        _, _, flags, method, _, _, crc, packed, size, name_length, extra = _LOCAL.unpack(head)
        data_start = member.start + _LOCAL.size + name_length + extra
        if data_start + info.compress_size > member.end:
            raise self.refuse(f"has members that overlap ({member.name!r} and the next one)")
        known = (info.CRC, info.compress_size, info.file_size)
        agree = (
            method == info.compress_type
            and not flags & _ENCRYPTED
            and self._file.read(name_length) == _raw_name(info)
            and (member.name.isascii() or not (flags ^ info.flag_bits) & _UTF8)
            and (bool(flags & _DESCRIPTOR) or (crc, packed, size) == known)
        )
        if not agree:
            raise self.refuse(f"says two different things of {member.name!r}: pack it again")


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    """The member's name as it is stored; Python's cp437 maps every byte, and back."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")


def decode_name(info: zipfile.ZipInfo) -> str:
    """The member's name as text: UTF-8 if it is, else Shift-JIS as osu! wrote it, else cp437."""
    raw = _raw_name(info)
    for encoding in ("utf-8", "cp932"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("cp437")


def _unique_key(name: str) -> str:
    """Names with the same key are one file on some system."""
    parts = [part.rstrip(". ") for part in name.split("/") if part not in ("", ".")]
    return unicodedata.normalize("NFC", "/".join(parts)).casefold()


# --- writing --------------------------------------------------------------------------------------


def free_name(wanted: str, taken: Sequence[str]) -> str:
    """`wanted`, or with a number before its suffix if it is among the `taken` names."""
    keys = {_unique_key(name) for name in taken}
    stem, dot, suffix = wanted.rpartition(".")
    name, number = wanted, 1
    while _unique_key(name) in keys:
        number += 1
        name = f"{stem} ({number}){dot}{suffix}"
    return name


def write_archive(
    path: Path, archive: Archive, keep: Sequence[Member], added: Mapping[str, tuple[bytes, Date]]
) -> None:
    """Writes the `keep` members of `archive` as they are stored, and `added` after them, to `path`.

    `added` gives content and timestamp by name. Use it with `whole_files.replacing`.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name, (data, date) in added.items():
            info = zipfile.ZipInfo(name, date)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            new.writestr(info, data, zipfile.ZIP_DEFLATED)
    extra = Archive(buffer, str(path))
    parts = [(archive, member) for member in keep] + [(extra, member) for member in extra.members]
    directory = bytearray()
    with path.open("wb") as output:
        for source, member in parts:
            record = bytearray(member.record)
            struct.pack_into("<L", record, _OFFSET_AT, output.tell())
            source.copy_stored(member, output)
            directory += record
        start = output.tell()
        output.write(directory)
        count, comment = len(parts), archive.comment
        end = (b"PK\5\6", 0, 0, count, count, len(directory), start, len(comment))
        output.write(_END.pack(*end) + comment)


def pack_folder(folder: Path, file: IO[bytes]) -> None:
    """Packs a song's folder into `file`, a new archive: what osu! reads, links and the rest not."""
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SONG_SUFFIXES and path.is_file() and not _is_link(path, folder)
    ]
    total = sum(path.stat().st_size for path in paths)
    if total > MAX_UNPACKED_BYTES or len(paths) > MAX_MEMBERS:
        raise ArchiveError(
            f"{folder} has {len(paths)} files with {total} bytes, too much for one song: "
            "is it a song's folder?"
        )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as new:
        for path in paths:
            try:
                new.write(path, path.relative_to(folder).as_posix())
            except UnicodeEncodeError as error:
                raise ArchiveError(f"{path}: rename it, its name is no Unicode text") from error


def _is_link(path: Path, folder: Path) -> bool:
    """Whether `path` is a link, or is reached through one below `folder`."""
    below = [path, *(parent for parent in path.parents if folder in parent.parents)]
    return any(part.is_symlink() for part in below)
