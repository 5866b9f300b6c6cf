"""Beatmap archives: what is read, what is refused, and that other members survive byte for byte."""

import io
import shutil
import stat
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beatmaps import osz
from beatmaps.osz import Archive, ArchiveError, free_name, pack_folder, write_archive

DATE = (2011, 5, 6, 7, 8, 10)
NFC, NFD = "\u00e9", "e\u0301"
JAPANESE = "音楽ソ表.png"  # ソ and 表 end in a backslash in Shift-JIS


def zip_bytes(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive as the standard library writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as new:
        for name, data in members.items():
            new.writestr(zipfile.ZipInfo(name, DATE), data, method)
    return buffer.getvalue()


def open_bytes(data: bytes) -> Archive:
    return Archive(io.BytesIO(data), "song.osz")


def raw_zip(entries: list[tuple[bytes, bytes]], *, descriptors: bool = False) -> bytes:
    """An archive with names as raw bytes, as old programs wrote it, optionally as a stream."""
    body, directory = b"", b""
    for name, data in entries:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(data) + packer.flush()
        sums = struct.pack("<3L", zlib.crc32(data), len(packed), len(data))
        fixed = struct.pack("<4H", 8 if descriptors else 0, 8, 0x3D05, 0x3EA6)
        lengths = struct.pack("<2H", len(name), 0)
        directory += b"PK\1\2" + struct.pack("<2H", 20, 20) + fixed + sums + lengths
        directory += struct.pack("<3H2L", 0, 0, 0, 0, len(body)) + name
        body += b"PK\3\4" + struct.pack("<H", 20) + fixed + (bytes(12) if descriptors else sums)
        body += lengths + name + packed + (b"PK\7\x08" + sums if descriptors else b"")
    count, comment = len(entries), b"made long ago"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 13)
    return body + directory + end + comment


def members_of(path: Path) -> list[tuple[object, ...]]:
    """What another reader sees of every member, content included."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        fields = "orig_filename date_time flag_bits CRC compress_size extra external_attr comment"
        fields += " create_system create_version compress_type"
        return [
            (*(getattr(info, field) for field in fields.split()), archive.read(info))
            for info in archive.infolist()
        ]


# --- reading and writing --------------------------------------------------------------------------


def test_members_are_read_by_name_and_date() -> None:
    contents = {"a.osu": b"text", "SB/é.png": bytes(100), "SB/": b"", "empty.wav": b""}
    with open_bytes(zip_bytes(contents)) as archive:
        assert {m.name: archive.read(m) for m in archive.members} == contents
        assert [m.name for m in archive.members] == list(contents)
        assert all(m.date == DATE for m in archive.members)
        with pytest.raises(ArchiveError, match=r"song.osz has 'SB/é.png' with 100 bytes"):
            archive.read(archive.members[1], limit=99)


@pytest.mark.parametrize("descriptors", [False, True])
def test_names_of_old_archives_are_understood_and_kept(tmp_path: Path, descriptors: bool) -> None:
    names = [JAPANESE.encode("cp932"), "Straße.mp3".encode("cp437"), "plain é.wav".encode()]
    source = tmp_path / "old.osz"
    entries = [(name, name * 50) for name in names]
    source.write_bytes(raw_zip(entries, descriptors=descriptors))
    target = tmp_path / "new.osz"
    with Archive.open(source) as archive:
        read = [member.name for member in archive.members]
        assert read[0] == JAPANESE and read[2] == "plain é.wav"
        write_archive(target, archive, archive.members, {"新.osu": (b"new", DATE)})
    before, after = members_of(source), members_of(target)
    assert after[:-1] == before
    assert after[-1][0] == "新.osu" and after[-1][-1] == b"new"
    stored = source.read_bytes()
    assert target.read_bytes().startswith(stored[: stored.index(b"PK\1\2")])
    with zipfile.ZipFile(target) as archive2:
        assert archive2.comment == b"made long ago"


def test_an_extended_archive_keeps_every_other_byte_and_opens_anywhere(tmp_path: Path) -> None:
    contents = {"b.osu": b"x" * 999, "a.mp3": bytes(range(256)) * 9, "SB/": b"", "SB/c.png": b"c"}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        source, target = tmp_path / f"{method}.osz", tmp_path / f"{method} new.osz"
        source.write_bytes(zip_bytes(contents, method))
        with Archive.open(source) as archive:
            added = {f"new {k}.osu": (b"data %d" % k, DATE) for k in (1, 2)}
            write_archive(target, archive, archive.members, added)
        assert members_of(target)[:4] == members_of(source)
        with Archive.open(target) as archive:
            found = {m.name: archive.read(m) for m in archive.members}
        assert found == contents | {name: data for name, (data, _) in added.items()}
        if program := shutil.which("unzip"):
            subprocess.run([program, "-tq", target], check=True, capture_output=True, timeout=60)


def test_members_can_be_left_out(tmp_path: Path) -> None:
    source, target = tmp_path / "a.osz", tmp_path / "b.osz"
    source.write_bytes(zip_bytes({"a.osu": b"1" * 50, "a.mp3": b"2" * 70, "b.osu": b"3", "c": b""}))
    with Archive.open(source) as archive:
        keep = [m for m in archive.members if not m.name.endswith(".osu")]
        write_archive(target, archive, keep, {"n.osu": (b"4", DATE)})
    before = {m[0]: m for m in members_of(source)}
    after = members_of(target)
    assert [m[0] for m in after] == ["a.mp3", "c", "n.osu"]
    assert after[:2] == [before["a.mp3"], before["c"]]


def test_the_same_input_gives_the_same_archive(tmp_path: Path) -> None:
    data = zip_bytes({"a.osu": b"a"})
    for name in ("1", "2"):
        with open_bytes(data) as archive:
            write_archive(tmp_path / name, archive, archive.members, {"b.osu": (b"b", DATE)})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_free_names_differ_on_every_system() -> None:
    assert free_name("a.osu", ["b.osu"]) == "a.osu"
    assert free_name("a.osu", ["A.OSU", "a (2).osu"]) == "a (3).osu"
    assert free_name("x/\u00e9.osu", ["x/e\u0301.osu"]) == "x/\u00e9 (2).osu"


def test_a_folder_is_packed_without_links_and_foreign_files(tmp_path: Path) -> None:
    folder = tmp_path / "song"
    (folder / "SB").mkdir(parents=True)
    contents = {"a.osu": b"a", "audio.MP3": b"m" * 99, "SB/x.png": b"p"}
    for name, data in {**contents, "taxes.pdf": b"no", "noext": b"no"}.items():
        (folder / name).write_bytes(data)
    (tmp_path / "secret.png").write_bytes(b"secret")
    try:
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
        (folder / "out").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pass  # Windows lets few users make links
    (folder / "._a.osu").write_bytes(b"a companion of macOS")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "b.osu").write_bytes(b"b")
    buffer = io.BytesIO()
    pack_folder(folder, buffer)
    with Archive(buffer, "song") as archive:
        assert {m.name: archive.read(m) for m in archive.members} == contents


@pytest.mark.parametrize(("wanted", "packed"), [(NFC, NFC), (NFD, NFD), ("other", NFC)])
def test_packed_names_are_spelt_as_the_maps_do(tmp_path: Path, wanted: str, packed: str) -> None:
    """Where the normal forms of a name are two names, a song would not be found by the other."""
    (tmp_path / "a.osu").write_text(f"AudioFilename: {wanted}.mp3", encoding="utf-8")
    (tmp_path / f"{NFD}.mp3").write_bytes(b"music")
    buffer = io.BytesIO()
    pack_folder(tmp_path, buffer)
    with Archive(buffer, "song") as archive:
        assert [m.name for m in archive.members] == ["a.osu", f"{packed}.mp3"]


def test_a_folder_beyond_the_limits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp3").write_bytes(bytes(11))
    monkeypatch.setattr(osz, "MAX_UNPACKED_BYTES", 10)
    with pytest.raises(ArchiveError, match="1 files with 11 bytes"):
        pack_folder(tmp_path, io.BytesIO())


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil.osu", "leads out"),
        ("a/../../evil.osu", "leads out"),
        ("..", "leads out"),
        ("/etc/passwd", "absolute"),
        ("C:/evil.osu", "absolute"),
        ("c:evil.osu", "absolute"),
        ("..\\evil.osu", "leads out"),
        ("a\n/../../b.osu", "leads out"),
    ],
)
def test_unsafe_names_are_refused(name: str, message: str) -> None:
    for entries in ([(name.encode(), b"x")], [(b"a.mp3", b"x"), (name.encode(), b"x")]):
        with pytest.raises(ArchiveError, match=message) as caught:
            open_bytes(raw_zip(entries))
        assert str(caught.value).startswith("song.osz ") and "\n" not in str(caught.value)


def test_links_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        info = zipfile.ZipInfo("a.mp3")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        new.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match=r"link 'a.mp3'"):
        open_bytes(buffer.getvalue())


def edited(data: bytes, at: int, layout: str, *values: int, central: bool = True) -> bytes:
    """`data` with a field of its first directory record, or local header, replaced."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, at + (data.index(b"PK\1\2") if central else 0), *values)
    return bytes(changed)


PLAIN = zip_bytes({"a.osu": b"0123456789" * 30, "b.mp3": b"b" * 500})
OLD = raw_zip([(JAPANESE.encode("cp932"), b"x")])
END = PLAIN.index(b"PK\5\6")


def end_edited(at: int, layout: str, *values: int) -> bytes:
    changed = bytearray(PLAIN)
    struct.pack_into(layout, changed, END + at, *values)
    return bytes(changed)


CASES: list[tuple[str, bytes, str]] = [
    ("encrypted", edited(PLAIN, 8, "<H", 1), "encrypted member 'a.osu'"),
    ("strongly encrypted", edited(PLAIN, 8, "<H", 0x40), "encrypted"),
    ("encrypted locally", edited(PLAIN, 6, "<H", 1, central=False), "encrypted member 'a.osu'"),
    ("zip64 offset", edited(PLAIN, 42, "<L", 0xFFFFFFFF), "no member where"),
    ("directory place", end_edited(16, "<L", 3), "no member where"),
    ("directory size", end_edited(12, "<2L", 10, END - 10), "damaged directory"),
    ("directory before the file", end_edited(12, "<2L", END + 9, 0), "not where it should be"),
    ("truncated", PLAIN[: len(PLAIN) // 2], "is cut off"),
    ("truncated end", PLAIN[:-1], "is cut off"),
    ("no zip", b"osu file format v14\n", "not a ZIP archive"),
    ("empty", b"", "not a ZIP archive"),
]


@pytest.mark.parametrize(("data", "message"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_bad_archives_are_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=message) as caught:
        open_bytes(data)
    assert str(caught.value).startswith("song.osz ") and "\n" not in str(caught.value)


def damage_first_data(data: bytes) -> bytes:
    """`data` with a bit of the first member's content turned."""
    at = 30 + struct.unpack_from("<H", data, 26)[0] + 3
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def test_members_beyond_the_limits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(osz, "MAX_MEMBERS", 1)
    with pytest.raises(ArchiveError, match="more members than the limit of 1"):
        open_bytes(PLAIN)
    monkeypatch.setattr(osz, "MAX_DIRECTORY_BYTES", 50)
    with pytest.raises(ArchiveError, match="bytes of names, more than 50"):
        open_bytes(PLAIN)


def lying(size: int) -> bytes:
    """Both headers of the first member say that it unpacks to `size` bytes (really 300)."""
    return edited(edited(PLAIN, 24, "<L", size), 22, "<L", size, central=False)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (damage_first_data(PLAIN), "damaged member 'a.osu'"),
        (lying(299), "damaged member 'a.osu'"),
        (edited(PLAIN, 16, "<L", 7), "damaged member 'a.osu' .its CRC."),
    ],
    ids=["damaged", "says less", "other CRC"],
)
def test_content_that_is_not_what_the_headers_say_is_refused(data: bytes, message: str) -> None:
    with open_bytes(data) as archive:
        with pytest.raises(ArchiveError, match=message):
            archive.read(archive.members[0])
        assert archive.read(archive.members[1]) == b"b" * 500


def test_overlapping_members_are_refused() -> None:
    """Two records of one stored member, and members that quote each other's headers."""
    both = edited(PLAIN, 42, "<L", 0)
    second = both.index(b"PK\1\2", both.index(b"PK\1\2") + 4)
    same = both[: second + 42] + struct.pack("<L", 0) + both[second + 46 :]
    with pytest.raises(ArchiveError, match="overlap"):
        open_bytes(same)
    packed = struct.unpack_from("<L", PLAIN, 18)[0] + 40  # reaches into the second local header
    quoted = edited(edited(PLAIN, 20, "<L", packed), 18, "<L", packed, central=False)
    with pytest.raises(ArchiveError, match="overlap"):
        open_bytes(quoted)


def test_bombs_are_refused_and_real_sets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArchiveError, match="would unpack to 68157440"):
        open_bytes(zip_bytes({"bomb.osb": bytes(65 * 2**20)}))
    blank = zip_bytes({"blank.bmp": bytes(6 * 2**20), "silence.wav": bytes(12 * 2**20)})
    with open_bytes(blank) as archive:
        assert archive.read(archive.members[0]) == bytes(6 * 2**20)
    monkeypatch.setattr(osz, "MAX_UNPACKED_BYTES", 799)
    with pytest.raises(ArchiveError, match="unpacks to 800 bytes, more than 799"):
        open_bytes(PLAIN)
    monkeypatch.setattr(osz, "MAX_ARCHIVE_BYTES", len(PLAIN) - 1)
    with pytest.raises(ArchiveError, match="more than the limit of"):
        open_bytes(PLAIN)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_that_lies_of_its_size_is_not_unpacked(
    method: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = zip_bytes({"bomb.osb": bytes(20 * 2**20)}, method)
    small = edited(edited(data, 24, "<L", 100), 22, "<L", 100, central=False)
    made: list[int] = []
    original = osz._unpack

    def unpack(stored: bytes, method: int, size: int) -> bytes | None:
        unpacked = original(stored, method, size)
        made.append(len(unpacked or b""))
        return unpacked

    monkeypatch.setattr(osz, "_unpack", unpack)
    with open_bytes(small) as archive, pytest.raises(ArchiveError, match="damaged member"):
        archive.read(archive.members[0])
    assert made == [100]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="cannot be read"):
        Archive.open(tmp_path / "none.osz")


def mutations(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with bytes replaced and perhaps cut."""
    edits = st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=6)

    def apply(changes: list[tuple[int, int]], cut: int) -> bytes:
        changed = bytearray(data)
        for at, value in changes:
            changed[at] = value
        return bytes(changed[: len(changed) - cut])

    cut: st.SearchStrategy[int] = st.one_of(st.just(0), st.integers(0, len(data)))
    return st.builds(apply, edits, cut)


@pytest.mark.parametrize(
    "make", [lambda: PLAIN, lambda: raw_zip([(b"a", b"b" * 40)], descriptors=True)]
)
def test_damaged_archives_raise_nothing_else(make: Callable[[], bytes]) -> None:
    @settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no finding
    @given(mutations(make()))
    def check(data: bytes) -> None:
        try:
            with open_bytes(data) as archive:
                for member in archive.members:
                    archive.read(member)
        except ArchiveError as error:
            assert "\n" not in str(error)

    check()
