"""Beatmap archives (`.osz`, a ZIP of one song's folder): read safely, extended without unpacking.

Archives that other programs open are opened. Only dangerous ones (names that lead out of the
folder, links, encryption, bombs) and those that cannot be copied faithfully are refused. Nothing is
ever extracted by name, and only the members that are needed are unpacked. Writing copies the stored
bytes of all members that stay, headers included, so names in old code pages, timestamps, order and
content stay as they are, whatever they hold.
"""

from __future__ import annotations

import bz2
import io
import lzma
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO

from beatmaps.file_names import find_name, is_absolute, is_hidden, key_of, leads_out, normalised

MAX_ARCHIVE_BYTES = 2**30
MAX_UNPACKED_BYTES = 2**30
MAX_MEMBERS = 10_000
MAX_DIRECTORY_BYTES = 16 * 2**20
# Blank bitmaps and silent songs compress further than this, so members that are small enough for
# memory are not checked.
MAX_RATIO, RATIO_FREE_BYTES = 200, 64 * 2**20
CHUNK_BYTES = 2**20

# What a song's folder may hold; anything else there is not packed.
SONG_SUFFIXES = {
    *(".osu", ".osb", ".ini"),
    *(".mp3", ".ogg", ".wav", ".flac"),
    *(".png", ".jpg", ".jpeg"),
    *(".avi", ".mp4", ".m4v", ".flv", ".mpg", ".wmv"),
}

_ENCRYPTED = 0x1 | 0x40 | 0x2000  # also strong encryption and masked headers
_UNKNOWN_16, _UNKNOWN_32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 record"
# Layouts and numbers of PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16, 4.4.5,
# 4.5.3 and 4.6.9.
_LOCAL = struct.Struct("<4s5H3L2H")
_RECORD = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_OFFSET_AT = 42  # of the local header's offset within a record of the directory
_ZIP64_FIELD, _UNICODE_NAME_FIELD = 0x0001, 0x7075
_METHOD_NAMES = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd"}
# Encodings of names in old archives, osu!'s first; cp437 can decode every byte. The second byte of
# a character may equal an ASCII backslash.
_OLD_ENCODINGS = ("cp932", "big5", "gbk", "cp437")
_MORE_ENCODINGS = ("cp949", "cp1251", "cp1252")  # tried when a name is searched

Date = tuple[int, int, int, int, int, int]


class ArchiveError(ValueError):
    """An archive that is refused or cannot be read: which, why, what to do."""


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    `name` has slashes between its folders, `raw_name` is as it is stored. `size` and `packed` are
    bytes unpacked and stored. `record` is its entry in the archive's directory; in it, the offset
    of the local header has `offset_size` bytes at `offset_at`. [start, end) is the local header,
    the data (from `data_start` on) and what follows up to the next member.
    """

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    attributes: int
    record: bytes
    offset_at: int
    offset_size: int
    start: int
    data_start: int = 0
    end: int = 0

    @property
    def date(self) -> Date:
        """Its timestamp, to two seconds, in an unknown time zone."""
        time, day = struct.unpack_from("<2H", self.record, 12)
        clock = (time >> 11, time >> 5 & 63, (time & 31) * 2)
        return ((day >> 9) + 1980, day >> 5 & 15, day & 31, *clock)


@dataclass(frozen=True)
class _Directory:
    """Where an archive's directory lies, in bytes, and what lies before the archive itself."""

    start: int
    size: int
    stop: int
    before: int
    comment: bytes
    is_split: bool


class Archive:
    """An archive whose directory has been checked; members are read on demand.

    Raises `ArchiveError` if it is not a ZIP file, and for names, kinds of members or sizes that
    would be dangerous to somebody who unpacks it.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
        self._file = file
        self._directory = self._find_directory()
        self.comment = self._directory.comment
        self.members = self._read_members()

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Opens the archive at `path`; it must be closed, best by `with`."""
        try:
            file = path.open("rb")
        except OSError as error:
            reason = error.strerror or error
            raise ArchiveError(f"{path} cannot be read: {reason}: check the path") from error
        try:
            return cls(file, str(path))
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Closes the file."""
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
        """The members that are .osu files.

        Hidden files, files that macOS adds and empty files do not count. Of members with the same
        name the last one counts, as it does when they are unpacked.
        """
        found = [
            member
            for member in self.members
            if member.name.lower().endswith(".osu") and member.size and not is_hidden(member.name)
        ]
        last = {member.name: member for member in found}
        return [member for member in found if last[member.name] is member]

    def find(self, wanted: str) -> Member | None:
        """The member that a `.osu` file calls `wanted`: in any letter case and normal form.

        None if there is none; it raises nothing.
        """
        named = list(reversed([member for member in self.members if not is_hidden(member.name)]))
        index = find_name(wanted, [member.name for member in named])
        if index is not None:
            return named[index]
        for encoding in (*_OLD_ENCODINGS, *_MORE_ENCODINGS):
            names = [member.raw_name.decode(encoding, "replace") for member in named]
            if (index := find_name(wanted, names)) is not None:
                return named[index]
        return None

    def refuse(self, reason: str) -> ArchiveError:
        """The error that says what is wrong with this archive."""
        return ArchiveError(f"{self.name} {reason}")

    # --- reading ----------------------------------------------------------------------------------

    def read(self, member: Member, limit: int = MAX_UNPACKED_BYTES) -> bytes:
        """The content of a member of at most `limit` bytes, whatever the headers say.

        `ArchiveError` for a larger or damaged one, and for a compression method that Python's
        zipfile does not have.
        """
        if member.size > limit:
            raise self.refuse(f"has {member.name!r} with {member.size} bytes, more than {limit}")
        self._file.seek(member.data_start)
        # No real member is stored in so many more bytes than it unpacks to.
        stored = self._file.read(min(member.packed, 2 * member.size + CHUNK_BYTES))
        try:
            data = _unpack(stored, member.method, member.size)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, struct.error) as error:
            raise self.refuse(
                f"has a damaged member {member.name!r} ({error}): get it again"
            ) from error
        if data is None:
            method = _METHOD_NAMES.get(member.method, f"method {member.method}")
            raise self.refuse(
                f"has {member.name!r} compressed by {method}, which cannot be unpacked here: "
                "pack it again with Deflate"
            )
        if zlib.crc32(data) != member.crc:
            raise self.refuse(f"has a damaged member {member.name!r} (its CRC): get it again")
        return data

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

    def _find_directory(self) -> _Directory:
        """The directory; other bytes may lie before the archive, and after its end."""
        total = self._file.seek(0, io.SEEK_END)
        if total > MAX_ARCHIVE_BYTES:
            raise self.refuse(f"has {total} bytes, more than the limit of {MAX_ARCHIVE_BYTES}")
        tail_start = max(0, total - _END.size - _UNKNOWN_16 - 1)
        tail = self._read_at(tail_start, total - tail_start)
        at = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
        if at < 0:
            begins = self._read_at(0, 4) == b"PK\3\4"
            what = "is cut off: get it again" if begins else "is not a ZIP archive: is it a .osz?"
            raise self.refuse(what)
        _, disk, first_disk, _, _, size, offset, comment = _END.unpack_from(tail, at)
        after = at + _END.size
        stop = tail_start + at
        if record := self._zip64_end(stop):
            size, offset = record
            stop -= _LOCATOR.size + _END64.size
        if size > MAX_DIRECTORY_BYTES:
            raise self.refuse(f"has {size} bytes of names, more than {MAX_DIRECTORY_BYTES}")
        start, before = stop - size, stop - size - offset
        if self._read_at(start, 4) != b"PK\1\2" and self._read_at(offset, 4) == b"PK\1\2":
            start, before = offset, 0  # something lies between the directory and the end
        if start < 0:
            raise self.refuse("has a directory that is not where it should be: get it again")
        is_split = (disk, first_disk) != (0, 0)
        return _Directory(start, size, stop, before, tail[after : after + comment], is_split)

    def _zip64_end(self, end: int) -> tuple[int, int] | None:
        """(size, offset) of the directory of a zip64 archive whose end record is at `end`."""
        locator = self._read_at(end - _LOCATOR.size, _LOCATOR.size)
        record = self._read_at(end - _LOCATOR.size - _END64.size, _END64.size)
        if locator[:4] != b"PK\6\7" or record[:4] != b"PK\6\6" or len(record) < _END64.size:
            return None
        size, offset = _END64.unpack(record)[-2:]
        return size, offset

    def _read_at(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start` on; none if that is before the beginning of the file."""
        if not 0 <= start <= MAX_ARCHIVE_BYTES:
            return b""
        self._file.seek(start)
        return self._file.read(size)

    def _read_members(self) -> list[Member]:
        """The members in the order of the directory, each of them checked."""
        directory = self._directory
        listed = list(self._records(self._read_at(directory.start, directory.size)))
        stops = sorted({*(m.start for m in listed), directory.start, directory.stop})
        ends = dict(zip(stops, [*stops[1:], directory.stop], strict=True))
        members, starts = [], set()
        for entry in listed:
            self._check_kind(entry)
            if entry.start in starts:
                raise self.refuse(f"has members that overlap ({entry.name!r} and another one)")
            starts.add(entry.start)
            members.append(self._placed(entry, ends[entry.start]))
        total = sum(member.size for member in members)
        if total > MAX_UNPACKED_BYTES:
            raise self.refuse(f"unpacks to {total} bytes, more than {MAX_UNPACKED_BYTES}")
        return members

    def _records(self, directory: bytes) -> Iterator[Member]:
        """The members by their records in the directory, whose own count of them is ignored."""
        at = number = 0
        while at < len(directory):
            number += 1
            if number > MAX_MEMBERS:
                raise self.refuse(f"has more members than the limit of {MAX_MEMBERS}")
            fixed = directory[at : at + _RECORD.size]
            if len(fixed) < _RECORD.size or fixed[:4] != b"PK\1\2":
                raise self._misplaced()
            lengths = list(struct.unpack_from("<3H", fixed, 28))
            record = bytearray(directory[at : at + _RECORD.size + sum(lengths)])
            if missing := _RECORD.size + sum(lengths) - len(record):
                if self._directory.start + self._directory.size < self._directory.stop:
                    raise self._misplaced()
                # Other programs accept a last record cut short; in a copy its lengths must fit.
                lengths = _shortened(lengths, missing)
                struct.pack_into("<3H", record, 28, *lengths)
            yield self._member(bytes(record), lengths[0], lengths[1])
            at += len(record)

    def _misplaced(self) -> ArchiveError:
        if self._directory.is_split:
            return self.refuse("is part of a split archive: join the parts")
        return self.refuse("has a damaged directory: get it again")

    def _member(self, record: bytes, name_length: int, extra_length: int) -> Member:
        """A member by its record, before its local header has been looked at."""
        _, _, _, flags, method, _, _, crc, *sizes, _, _, _, _, _, attributes, offset = (
            _RECORD.unpack_from(record)
        )
        raw = record[_RECORD.size : _RECORD.size + name_length]
        extra_start = _RECORD.size + name_length
        fields = _extra_fields(record[extra_start : extra_start + extra_length])
        # Values too large for the record are in an extra field, in this order.
        values = {"size": sizes[1], "packed": sizes[0], "offset": offset}
        at, offset_at, offset_size = fields.get(_ZIP64_FIELD, (0, b""))[0], _OFFSET_AT, 4
        long = fields.get(_ZIP64_FIELD, (0, b""))[1]
        for key in [key for key, value in values.items() if value == _UNKNOWN_32]:
            if len(long) < 8:
                break  # then this number is the value, or it is damaged
            values[key] = int.from_bytes(long[:8], "little")
            if key == "offset":
                offset_at, offset_size = extra_start + at, 8
            at, long = at + 8, long[8:]
        name = _name(_raw_name(raw, fields))
        return Member(
            name=normalised(name.partition("\0")[0]),
            raw_name=raw,
            flags=flags,
            method=method,
            crc=crc,
            packed=values["packed"],
            size=values["size"],
            attributes=attributes,
            record=record,
            offset_at=offset_at,
            offset_size=offset_size,
            start=values["offset"] + self._directory.before,
        )

    def _check_kind(self, member: Member) -> None:
        """Refuses links, encryption and what unpacks to far too much."""
        name, size = member.name, member.size
        self._check_name(member.record, _RECORD.size, 28)
        if stat.S_ISLNK(member.attributes >> 16):
            raise self.refuse(f"has a link {name!r}: replace it by the file and pack it again")
        if member.flags & _ENCRYPTED:
            raise self.refuse(f"has an encrypted member {name!r}: pack it without a password")
        if size > RATIO_FREE_BYTES and size > MAX_RATIO * member.packed:
            raise self.refuse(f"has {name!r} of {member.packed} bytes that would unpack to {size}")

    def _check_name(self, header: bytes, fixed: int, lengths_at: int) -> None:
        """Refuses a header with a name, after `fixed` bytes, that leads out of the folder."""
        name_length, extra_length = struct.unpack_from("<2H", header, lengths_at)
        raw = header[fixed : fixed + name_length]
        extra = header[fixed + name_length : fixed + name_length + extra_length]
        # However a program decodes the name, it must not lead out.
        readings = _readings(_raw_name(raw, _extra_fields(extra))) + _readings(raw)
        for name in (*readings, raw.decode("latin-1")):
            if is_absolute(name):
                raise self.refuse(f"has a member {name!r} with an absolute path: pack it again")
            if leads_out(name):
                raise self.refuse(f"has a member {name!r} that leads out of its folder")

    def _placed(self, member: Member, end: int) -> Member:
        """`member` with the position of its data, which no other member may share.

        Sizes are those of the directory; those of the local header are ignored.
        """
        head = self._read_at(member.start, _LOCAL.size)
        if len(head) < _LOCAL.size or head[:4] != b"PK\3\4":
            if self._directory.is_split:
                raise self._misplaced()
            raise self.refuse(f"has no member where it says that {member.name!r} is: get it again")
        _, _, flags, *_, name_length, extra_length = _LOCAL.unpack(head)
        self._check_name(head + self._file.read(name_length + extra_length), _LOCAL.size, 26)
        if flags & _ENCRYPTED:
            raise self.refuse(
                f"has an encrypted member {member.name!r}: pack it without a password"
            )
        data_start = member.start + _LOCAL.size + name_length + extra_length
        if data_start + member.packed > end:
            raise self.refuse(f"has members that overlap ({member.name!r} and the next one)")
        return replace(member, data_start=data_start, end=end)


def _shortened(lengths: Sequence[int], by: int) -> list[int]:
    """The lengths reduced by `by` in all, from the last one on."""
    short = list(lengths)
    for k in reversed(range(len(short))):
        taken = min(short[k], by)
        short[k], by = short[k] - taken, by - taken
    return short


def _extra_fields(extra: bytes) -> dict[int, tuple[int, bytes]]:
    """(place in `extra`, content) of its fields by number, the first of each."""
    fields: dict[int, tuple[int, bytes]] = {}
    at = 0
    while at + 4 <= len(extra):
        number, length = struct.unpack_from("<2H", extra, at)
        fields.setdefault(number, (at + 4, extra[at + 4 : at + 4 + length]))
        at += 4 + length
    return fields


def _raw_name(raw: bytes, fields: Mapping[int, tuple[int, bytes]]) -> bytes:
    """A member's name; one in Unicode beside it (APPNOTE.TXT 4.6.9) wins if it belongs to it."""
    unicode = fields.get(_UNICODE_NAME_FIELD, (0, b""))[1]
    return unicode[5:] if unicode[:5] == b"\1" + struct.pack("<L", zlib.crc32(raw)) else raw


def _readings(raw: bytes) -> list[str]:
    """Possible texts of a member's name: UTF-8 if it is valid, else by some old code pages."""
    try:
        return [raw.decode("utf-8")]
    except UnicodeDecodeError:
        pass
    readings = []
    for encoding in _OLD_ENCODINGS:
        try:
            readings.append(raw.decode(encoding))
        except UnicodeDecodeError:
            continue
    return readings


def _name(raw: bytes) -> str:
    """The likeliest reading: the first with the fewest backslashes between folders."""
    return min(_readings(raw), key=lambda name: name.count("\\"))


def _unpack(stored: bytes, method: int, size: int) -> bytes | None:
    """At most `size` bytes of what is stored; None for a method that this program does not know."""
    if method == zipfile.ZIP_STORED:
        return stored[:size]
    if not size:  # decompressors read a limit of 0 as no limit
        return (
            b"" if method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA) else None
        )
    if method == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, size)
    if method == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor().decompress(stored, size)
    if method == zipfile.ZIP_LZMA:
        _, length, packed, dictionary = struct.unpack_from("<2HBL", stored)
        if len(stored) < 4 + length:
            return b""
        settings = {"id": lzma.FILTER_LZMA1, "lc": packed % 9, "lp": packed // 9 % 5}
        # A dictionary larger than the content is useless, whatever the header asks for.
        settings |= {"pb": packed // 45, "dict_size": max(4096, min(dictionary, size))}
        reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[settings])
        return reader.decompress(stored[4 + length :], size)
    return None


# --- writing --------------------------------------------------------------------------------------


def free_name(wanted: str, taken: Sequence[str]) -> str:
    """`wanted`, or with a number before its suffix if it is among the `taken` names."""
    keys = {key_of(name) for name in taken}
    stem, dot, suffix = wanted.rpartition(".")
    name, number = wanted, 1
    while key_of(name) in keys:
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
            stop = member.offset_at + member.offset_size
            record[member.offset_at : stop] = output.tell().to_bytes(member.offset_size, "little")
            source.copy_stored(member, output)
            directory += record
        start = output.tell()
        output.write(directory)
        count, comment = len(parts), archive.comment
        end = (b"PK\5\6", 0, 0, count, count, len(directory), start, len(comment))
        output.write(_END.pack(*end) + comment)


def pack_folder(folder: Path, file: IO[bytes]) -> None:
    """Packs a song's folder into `file`, a new archive: what osu! reads.

    Links, hidden files and the rest are left out. Raises `ArchiveError` for a folder that is too
    large, and OSError for a file that cannot be read.
    """
    paths = [path for path in sorted(folder.rglob("*")) if _belongs(path, folder)]
    total = sum(path.stat().st_size for path in paths)
    if total > MAX_UNPACKED_BYTES or len(paths) > MAX_MEMBERS:
        raise ArchiveError(
            f"{folder} has {len(paths)} files with {total} bytes, too much for one song: "
            "is it a song's folder?"
        )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as new:
        for path, name in zip(paths, _packed_names(paths, folder), strict=True):
            try:
                new.write(path, name)
            except UnicodeEncodeError as error:
                raise ArchiveError(f"{path}: rename it, its name is no Unicode text") from error


def _belongs(path: Path, folder: Path) -> bool:
    """Whether osu! reads a file of a song's folder."""
    if path.suffix.lower() not in SONG_SUFFIXES or is_hidden(str(path.relative_to(folder))):
        return False
    return path.is_file() and not _is_link(path, folder)


def _packed_names(paths: Sequence[Path], folder: Path) -> list[str]:
    """The names of a folder's files in an archive.

    The two normal forms of a name are the same on macOS, not on other systems. A name that the maps
    spell differently is packed in the composed form, which other systems write.
    """
    names = [path.relative_to(folder).as_posix() for path in paths]
    if all(unicodedata.is_normalized("NFC", name) for name in names):
        return names
    texts = [
        path.read_bytes().decode("utf-8", "replace").replace("\\", "/")
        for path in paths
        if path.suffix.lower() in (".osu", ".osb") and path.stat().st_size <= RATIO_FREE_BYTES
    ]
    taken = set(names)
    for k, name in enumerate(names):
        composed = unicodedata.normalize("NFC", name)
        if composed not in taken and not any(name in text for text in texts):
            names[k] = composed
            taken.add(composed)
    return names


def _is_link(path: Path, folder: Path) -> bool:
    """Whether `path` is a link, or is reached through one below `folder`."""
    below = [path, *(parent for parent in path.parents if folder in parent.parents)]
    return any(part.is_symlink() for part in below)
