"""Archives as all kinds of programs write them: each is opened and extended, or refused, and why.

The identifiers of the tests are the table: what is unusual, and for what is refused the reason.
"""

import bz2
import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from beatmaps.inputs import Choice, open_jobs
from beatmaps.osu_file import BeatmapError
from beatmaps.osz import Archive, ArchiveError, Member, write_archive
from tests.conftest import beatmap_text

OSU = beatmap_text("100,100,1000,1,0").encode()
SONG = b"ID3" + bytes(range(256)) * 20
DEFLATE64, ZSTANDARD = 9, 93


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def lzma_packed(data: bytes) -> bytes:
    """As ZIP has LZMA: a header of its own before the raw stream, which asks for 4 GiB here."""
    filters = [{"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 2**16}]
    return struct.pack("<2HBL", 0, 5, 93, 2**32 - 1) + lzma.compress(
        data, lzma.FORMAT_RAW, filters=filters
    )


def extra_field(number: int, content: bytes) -> bytes:
    return struct.pack("<2H", number, len(content)) + content


def unicode_name(raw: bytes, name: str) -> bytes:
    """Info-ZIP's field with a member's name in Unicode."""
    return extra_field(0x7075, b"\1" + struct.pack("<L", zlib.crc32(raw)) + name.encode())


@dataclass(frozen=True)
class Entry:
    """A member; what begins with `local` replaces a value in the header before its data."""

    name: bytes
    data: bytes = b"x" * 60
    method: int = 8
    packed: bytes | None = None
    flags: int = 0
    attributes: int = 0
    system: int = 0
    crc: int | None = None
    size: int | None = None
    extra: bytes = b""
    sizes: tuple[int, int] | None = None  # packed and unpacked, as the directory has them
    local: dict[str, Any] = field(default_factory=dict)
    descriptor: bytes = b""
    zip64_offset: bool = False

    def stored(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflated(self.data) if self.method == 8 else self.data

    def numbers(self) -> tuple[int, int, int]:
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        return crc, len(self.stored()), len(self.data) if self.size is None else self.size

    def body(self) -> bytes:
        """The local header, the data, and what comes after it."""
        crc, packed, size = self.numbers()
        values = {"name": self.name, "flags": self.flags, "crc": crc, "packed": packed}
        values |= {"size": size, "extra": b"", "magic": b"PK\3\4", "method": self.method}
        v: dict[str, Any] = values | self.local
        head = struct.pack("<4s5H", v["magic"], 45, v["flags"], v["method"], 0x3D05, 0x3EA6)
        head += struct.pack(
            "<3L2H", v["crc"], v["packed"], v["size"], len(v["name"]), len(v["extra"])
        )
        return bytes(head + v["name"] + v["extra"] + self.stored() + self.descriptor)

    def record(self, offset: int) -> bytes:
        """The entry in the directory."""
        crc, packed, size = self.numbers()
        packed, size = self.sizes or (packed, size)
        extra = self.extra
        if self.zip64_offset:
            extra += extra_field(1, struct.pack("<Q", offset))
            offset = 2**32 - 1
        head = struct.pack(
            "<4sBB5H", b"PK\1\2", 20, self.system, 45, self.flags, self.method, 0, 33
        )
        head += struct.pack("<3L2H", crc, packed, size, len(self.name), len(extra))
        return head + struct.pack("<3H2L", 0, 0, 0, self.attributes, offset) + self.name + extra


def archive(
    entries: Sequence[Entry],
    *,
    before: bytes = b"",
    counts_before: bool = False,
    gap: bytes = b"",
    after_directory: bytes = b"",
    zip64: bool = False,
    count: int | None = None,
    disk: int = 0,
    size: int | None = None,
    comment: bytes = b"",
    comment_size: int | None = None,
    after: bytes = b"",
) -> bytes:
    """The bytes of an archive, with every part of its own."""
    body, directory = before, b""
    shift = 0 if counts_before else len(before)
    for entry in entries:
        directory += entry.record(len(body) - shift)
        body += entry.body() + gap
    start, number = len(body) - shift, len(entries) if count is None else count
    length = len(directory) if size is None else size
    end = after_directory
    if zip64:
        head = (b"PK\6\6", 44, 45, 45, 0, 0, number, number, length, start)
        locator = (b"PK\6\7", 0, len(body) + len(directory), 1)
        end += struct.pack("<4sQ2H2L4Q", *head) + struct.pack("<4sLQL", *locator)
        number, length, start = 0xFFFF, 2**32 - 1, 2**32 - 1
    said = len(comment) if comment_size is None else comment_size
    end += struct.pack("<4s4H2LH", b"PK\5\6", disk, disk, number, number, length, start, said)
    return body + directory + end + comment + after


MAP, MUSIC = Entry(b"a.osu", OSU), Entry(b"audio.mp3", SONG, method=0)
PLAIN = [MAP, MUSIC]
BIG5, SJIS = "功蓋.mp3".encode("big5"), "ソ表.png".encode("cp932")
assert b"\\" in BIG5 and b"\\" in SJIS
SIZES64 = struct.pack("<2Q", len(SONG), len(SONG))
UNKNOWN = 2**32 - 1
DAMAGED = replace(MUSIC, crc=1)

OPENED: dict[str, bytes] = {
    "backslashes between folders": archive([*PLAIN, Entry(b"SB\\star.png"), Entry(b"SB\\")]),
    "Big5, second byte a backslash": archive([*PLAIN, Entry(BIG5)]),
    "Shift-JIS, second byte a backslash": archive([*PLAIN, Entry(SJIS)]),
    "Windows-1251": archive([*PLAIN, Entry("Музыка.mp3".encode("cp1251"))]),
    "two names that differ in case": archive([*PLAIN, Entry(b"kick.wav"), Entry(b"KICK.wav")]),
    "two names that differ in normal form": archive(
        [*PLAIN, Entry("é.wav".encode()), Entry("e\u0301.wav".encode())]
    ),
    "the same name twice": archive([Entry(b"a.osu", b"old"), *PLAIN]),
    "names that Windows takes for one": archive([*PLAIN, Entry(b"b"), Entry(b"b."), Entry(b"./b")]),
    "a song by Deflate64": archive([MAP, replace(MUSIC, method=DEFLATE64)]),
    "a picture by Zstandard": archive([*PLAIN, Entry(b"bg.png", method=ZSTANDARD, packed=b"z")]),
    "a beatmap by bzip2": archive([replace(MAP, method=12, packed=bz2.compress(OSU)), MUSIC]),
    "a beatmap by LZMA": archive([replace(MAP, method=14, packed=lzma_packed(OSU)), MUSIC]),
    "two bytes after the end": archive(PLAIN, after=b"\r\n"),
    "60 KB of zeros after the end": archive(PLAIN, after=bytes(60_000)),
    "a program before it": archive(PLAIN, before=b"MZ" * 500),
    "a program before it, which offsets count": archive(
        PLAIN, before=b"MZ" * 500, counts_before=True
    ),
    "a zip64 end": archive(PLAIN, zip64=True),
    "a zip64 end, and a program before it": archive(PLAIN, zip64=True, before=b"MZ" * 500),
    "zip64 fields before the data, small sizes": archive(
        [
            MAP,
            replace(
                MUSIC, local={"packed": UNKNOWN, "size": UNKNOWN, "extra": b"\1\0\20\0" + SIZES64}
            ),
        ]
    ),
    "zip64 sizes in the directory": archive(
        [MAP, replace(MUSIC, sizes=(UNKNOWN, UNKNOWN), extra=extra_field(1, SIZES64))]
    ),
    "zip64 offsets in the directory": archive([replace(e, zip64_offset=True) for e in PLAIN]),
    "a wrong number of members": archive(PLAIN, count=7),
    "65,535 members, it says": archive(PLAIN, count=0xFFFF),
    "a number of disks": archive(PLAIN, disk=1),
    "a comment that is cut off": archive(PLAIN, comment=b"made", comment_size=99),
    "a comment that begins as an end": archive(PLAIN, comment=b"PK\5\6"),
    "a signature after the directory": archive(PLAIN, after_directory=b"PK\5\5\2\0ab"),
    "gaps between members": archive(PLAIN, gap=bytes(77)),
    "names from the folder on": archive([Entry(b"./", b""), *PLAIN, Entry(b"./bg.png")]),
    "a name that goes up and stays inside": archive([*PLAIN, Entry(b"SB/../bg.png")]),
    "a name of no characters": archive([*PLAIN, Entry(b"", b"")]),
    "control characters in a name": archive([*PLAIN, Entry(b"bg\n\1.png")]),
    "a name that ends early": archive([*PLAIN, Entry(b"bg.png\0\0\0")]),
    "UTF-8, it says, and is not": archive([*PLAIN, Entry(b"\xff\xfe.png", flags=0x800)]),
    "UTF-8 in the directory alone": archive(
        [*PLAIN, Entry("é.png".encode(), flags=0x800, local={"flags": 0})]
    ),
    "the name in Unicode beside an old one": archive(
        [*PLAIN, Entry(b"??.png", extra=unicode_name(b"??.png", "背景.png"))]
    ),
    "sizes after the data": archive(
        [
            MAP,
            replace(
                MUSIC,
                flags=8,
                local={"crc": 0, "packed": 0, "size": 0},
                descriptor=b"PK\7\10" + struct.pack("<3L", zlib.crc32(SONG), len(SONG), len(SONG)),
            ),
        ]
    ),
    "no sizes before the data": archive(
        [replace(e, local={"crc": 0, "packed": 0, "size": 0}) for e in PLAIN]
    ),
    "another method before the data": archive([MAP, replace(MUSIC, local={"method": 8})]),
    "another name before the data": archive([MAP, replace(MUSIC, local={"name": b"music.mp3"})]),
    "a damaged song": archive([MAP, DAMAGED]),
    "a song that says to be larger": archive([MAP, replace(MUSIC, size=10**6)]),
    "another difficulty damaged": archive([*PLAIN, Entry(b"b.osu", OSU, crc=5)]),
    "another difficulty by Deflate64": archive([*PLAIN, Entry(b"b.osu", OSU, method=DEFLATE64)]),
    "a silent song of 40 MB": archive([MAP, Entry(b"audio.wav", bytes(40 * 2**20))]),
    "companions of macOS": archive(
        [*PLAIN, Entry(b"__MACOSX/._a.osu", b"\0\5\26\7"), Entry(b"._b.osu", b"\0\5\26\7")]
    ),
}

LINK = (stat.S_IFLNK | 0o777) << 16
HIDING = unicode_name(b"??.png", "../../run.bat")
TWICE = archive([MAP, MUSIC])
AT = TWICE.rindex(b"PK\1\2") + 42
REFUSED: dict[str, tuple[bytes, str]] = {
    "leads out: ..": (archive([*PLAIN, Entry(b"../run.bat")]), "leads out of its folder"),
    "leads out: ..\\": (archive([*PLAIN, Entry(b"SB\\..\\..\\run.bat")]), "leads out"),
    "leads out on Windows alone": (archive([*PLAIN, Entry(b".. ./run.bat")]), "leads out"),
    "leads out after the name ends": (archive([*PLAIN, Entry(b"a\0/../../b")]), "leads out"),
    "leads out for who reads single bytes": (
        archive([*PLAIN, Entry(b"\x83\\../../run.bat")]),
        "leads out",
    ),
    "leads out by the name in Unicode": (
        archive([*PLAIN, Entry(b"??.png", extra=HIDING)]),
        "leads out",
    ),
    "leads out by the name before the data": (
        archive([MAP, replace(MUSIC, local={"name": b"../../run.bat"})]),
        "leads out",
    ),
    "absolute": (archive([*PLAIN, Entry(b"/etc/passwd")]), "absolute path"),
    "absolute: a drive": (archive([*PLAIN, Entry(b"C:\\run.bat")]), "absolute path"),
    "absolute: a server": (archive([*PLAIN, Entry(b"\\\\server\\run.bat")]), "absolute path"),
    "a link": (archive([*PLAIN, Entry(b"b", system=3, attributes=LINK)]), "a link 'b'"),
    "encrypted": (archive([*PLAIN, Entry(b"b.png", flags=1)]), "an encrypted member 'b.png'"),
    "encrypted, the data's header says": (
        archive([*PLAIN, Entry(b"b.png", local={"flags": 1})]),
        "an encrypted member 'b.png'",
    ),
    "a bomb: unpacks to far more": (
        archive([*PLAIN, Entry(b"b.png", b"", packed=b"a" * 999, size=2**28)]),
        "would unpack to 268435456",
    ),
    "a bomb: two records of one member": (
        TWICE[:AT] + bytes(4) + TWICE[AT + 4 :],
        "overlap",
    ),
    "a bomb: members within each other": (
        archive([replace(MAP, sizes=(len(deflated(OSU)) + 50, len(OSU))), MUSIC]),
        "overlap",
    ),
    "impossible: no member there": (
        archive([MAP, replace(MUSIC, local={"magic": b"PK\0\0"})]),
        "no member where it says that 'audio.mp3' is: get it again",
    ),
    "impossible: a part of several": (archive(PLAIN, disk=3)[60:], "split archive: join the parts"),
    "impossible: the directory is too short": (archive(PLAIN, size=99), "damaged directory"),
    "impossible: cut off": (archive(PLAIN)[:400], "is cut off: get it again"),
    "impossible: another format": (b"Rar!\x1a\7\0" + bytes(99), "is not a ZIP archive"),
    "impossible: the map by Deflate64": (
        archive([replace(MAP, method=DEFLATE64), MUSIC]),
        "compressed by Deflate64, which cannot be unpacked here",
    ),
    "impossible: the map is damaged": (archive([replace(MAP, crc=1), MUSIC]), "damaged member"),
}


def stored(source: Archive, member: Member) -> bytes:
    output = io.BytesIO()
    source.copy_stored(member, output)
    return output.getvalue()


def zipfile_reads(path: Path) -> list[tuple[str, bytes | None]] | None:
    """Names and contents as Python's zipfile has them; None where it does not open the file."""
    try:
        with zipfile.ZipFile(path) as opened:
            found: list[tuple[str, bytes | None]] = []
            for info in opened.infolist():
                try:
                    found.append((info.orig_filename, opened.read(info)))
                except (zipfile.BadZipFile, NotImplementedError):
                    found.append((info.orig_filename, None))
            return found
    except (zipfile.BadZipFile, UnicodeDecodeError):
        return None


@pytest.mark.filterwarnings("ignore:Overlapped entries")
@pytest.mark.parametrize("name", OPENED)
def test_an_archive_that_others_open_is_opened_and_extended(name: str, tmp_path: Path) -> None:
    source, target = tmp_path / "set.osz", tmp_path / "new.osz"
    source.write_bytes(OPENED[name])
    with open_jobs(source, Choice(difficulty="a.osu")) as (jobs, _):
        (job,) = jobs
        opened = job.archive
        assert opened is not None and job.beatmaps[0].raw == OSU
        before = [(m.name, stored(opened, m)) for m in opened.members]
        write_archive(target, opened, opened.members, {"new.osu": (b"new", (2011,) + (1,) * 5)})
    with Archive.open(target) as extended:
        after = [(m.name, stored(extended, m)) for m in extended.members]
        assert extended.read(extended.members[-1]) == b"new"
    assert after[:-1] == before and len(before) >= 2
    read, reread = zipfile_reads(source), zipfile_reads(target)
    # Zipfile does not know the directory behind a signature or a wrong comment.
    assert reread is None or read is None or reread == [*read, ("new.osu", b"new")]
    assert read is None or reread is not None


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_dangerous_or_impossible_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "set.osz"
    data, message = REFUSED[name]
    path.write_bytes(data)
    refused = pytest.raises((ArchiveError, BeatmapError), match=message)
    with refused as caught, open_jobs(path, Choice()):
        pass
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def find(names: Sequence[bytes], wanted: str) -> str | None:
    """The content of the member that is found among those of these names."""
    data = archive([Entry(name, name) for name in names])
    with Archive(io.BytesIO(data), "set.osz") as opened:
        member = opened.find(wanted)
        return None if member is None else opened.read(member).decode("latin-1")


@pytest.mark.parametrize(
    ("stored_name", "wanted"),
    [
        ("e\u0301.mp3".encode(), "é.mp3"),
        ("é.mp3".encode(), "e\u0301.mp3"),
        ("ポップ é.wav".encode(), "ポップ é.wav"),
        (b"AUDIO.MP3", "audio.mp3"),
        (b"SB\\bg.png", "sb/BG.png"),
        (b"SB/bg.png", "SB\\bg.png"),
        (b"./hit.wav", "hit.wav"),
        ("功蓋.mp3".encode("big5"), "功蓋.mp3"),
        ("音乐.mp3".encode("gbk"), "音乐.mp3"),
        ("음악.mp3".encode("cp949"), "음악.mp3"),
        ("ソ表.avi".encode("cp932"), "ソ表.avi"),
    ],
)
def test_songs_pictures_and_sounds_are_found_however_they_are_spelt(
    stored_name: bytes, wanted: str
) -> None:
    assert find([b"other.mp3", stored_name], wanted) == stored_name.decode("latin-1")
    assert find([b"other.mp3"], wanted) is None


@pytest.mark.parametrize("name", ["功.osu", "成功/功課.osu", "許功蓋 [Insane].osu"])
def test_a_character_with_a_backslash_hides_no_difficulty(name: str, tmp_path: Path) -> None:
    path = tmp_path / "set.osz"
    path.write_bytes(archive([Entry(name.encode("big5"), OSU), MUSIC]))
    with open_jobs(path, Choice()) as (jobs, left_out):
        assert [m.name for m in jobs[0].members] == [name] and not left_out


def test_the_same_spelling_is_taken_before_another() -> None:
    assert find([b"A.mp3", b"a.mp3", b"a.MP3"], "a.mp3") == "a.mp3"
    assert find([b"__MACOSX/._a.mp3", b"A.mp3"], "a.mp3") == "A.mp3"
    assert find([b"a.mp3"], "") is None
