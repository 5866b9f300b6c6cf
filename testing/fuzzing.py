"""Hostile inputs and what must hold for them, shared by the short test and the long run.

A target takes one input and returns nothing. Documented errors are caught in it; anything else
that is raised, a broken promise (an assertion), more than `MAX_SECONDS` or more than `MAX_BYTES`
is a finding. `python testing/fuzzing.py --examples 200000` runs all targets for long.
"""

import argparse
import faulthandler
import io
import random
import re
import struct
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from beatmaps.osu_file import BeatmapError, edit_metadata, parse_beatmap  # noqa: E402
from beatmaps.osz import (  # noqa: E402
    Archive,
    ArchiveError,
    Member,
    write_archive,
)
from beatmaps.sequence import SliderVelocity, apply_coordinates, beatmap_to_sequence  # noqa: E402
from checkpoint import CheckpointError, load_model, save_training_checkpoint  # noqa: E402
from datasets.class_tables import load_beatmap_idx, save_beatmap_idx  # noqa: E402

MAX_SECONDS = 5.0
VELOCITIES: tuple[SliderVelocity, ...] = ("keep", "fit")
MAX_BYTES = 2**30
MAX_CORPUS_FILE = 12_000  # larger ones are slower, and no stranger

Target = Callable[[Any], None]


# --- inputs ---------------------------------------------------------------------------------------

NUMBERS = [
    *("", " ", " 7 ", "0", "1", "-1", "2", "5", "8", "12", "100", "128", "300", "9000", "9001"),
    *("131072", "131073", "2147483647", "2147483648", "-2147483649", "99999999999999999999"),
    *("1e9", "1e-300", "1E+300", "1e400", "nan", "NaN", "inf", "-inf", "0x10", "1_000", "+5"),
    *("-0", ".5", "5.", "1.5", "-0.0", "00012", "٣", "1,5"),
]
numbers = st.one_of(
    st.sampled_from(NUMBERS),
    st.integers(-600, 10_000).map(str),
    st.floats(-1000, 1000).map(repr),
)
plain_numbers = st.integers(-50, 600).map(str)
junk = st.text(st.characters(codec="utf-8"), max_size=6)


def joined(separator: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Texts of these parts with a separator between them."""
    return st.tuples(*parts).map(separator.join)


def rarely(strange: st.SearchStrategy[str], usual: st.SearchStrategy[str]) -> Any:
    """Mostly the usual, so that a line gets past its first field."""
    return st.integers(0, 9).flatmap(lambda k: strange if k == 0 else usual)


coordinate = rarely(numbers, plain_numbers)
hit_time = rarely(numbers, st.integers(0, 20_000).map(str))
curve_point = rarely(junk | numbers, joined(":", coordinate, coordinate))
curve_letter = rarely(
    junk | st.sampled_from(["b", "B3", "B99", "P0", "X"]), st.sampled_from("BPLC")
)
curve = st.builds(
    lambda letter, points, more: "|".join([letter, *points, *more]),
    curve_letter,
    st.lists(curve_point, max_size=7),
    st.just([]) | st.tuples(curve_letter, curve_point).map(list),
)
slides = rarely(numbers, st.integers(1, 5).map(str))
length = rarely(numbers, st.floats(0.5, 900).map(repr))
extras = st.sampled_from(["", ",0:0:0:0:", ",1|2,0:0|0:0,0:0:0:0:a,b.wav", ",", ",,,", "// c"])
flags = rarely(numbers, st.sampled_from(["1", "2", "5", "6", "8", "12", "128", "22", "3"]))
hit_object = st.one_of(
    joined(",", coordinate, coordinate, hit_time, flags, st.just("0")),
    st.builds(
        "{},{},{},{},0,{},{},{}{}".format,
        *(coordinate, coordinate, hit_time, st.sampled_from("26"), curve, slides, length, extras),
    ),
    joined(",", coordinate, coordinate, hit_time, st.just("12,0"), hit_time),
)
timing_point = joined(
    ",",
    *(hit_time, rarely(numbers, st.floats(-1000, 1000).map(repr)), rarely(numbers, st.just("4"))),
    *(st.just("1,0,100"), st.sampled_from(["0", "1", ""]), rarely(numbers, st.just("0"))),
)
pair = joined(
    ":",
    st.sampled_from(
        [
            *("Mode", "StackLeniency", "Title", "Artist", "Creator", "Version", "Tags", "Combo1"),
            *("BeatmapID", "BeatmapSetID", "CircleSize", "ApproachRate", "OverallDifficulty"),
            *("SliderMultiplier", "SliderTickRate", "AudioFilename"),
        ]
    ),
    st.sampled_from(["0", "0", "4", "1.4", "255,0,128", "a b // c"]) | numbers | junk,
)
SECTION_LINES = {
    "General": pair,
    "Metadata": pair,
    "Difficulty": pair,
    "Colours": pair,
    "Events": joined(",", st.sampled_from(["2", "Break", "0"]), hit_time, hit_time),
    "TimingPoints": timing_point,
    "HitObjects": hit_object,
}


def section(name: str) -> st.SearchStrategy[list[str]]:
    """A header and lines that belong below it, or lines of any kind."""
    lines = st.lists(SECTION_LINES[name] | junk, max_size=8)
    return lines.map(lambda found: [f"[{name}]", *found])


@st.composite
def beatmap_files(draw: st.DrawFn) -> bytes:
    """Bytes that are a beatmap, or nearly one."""
    first = f"osu file format v{draw(st.sampled_from([14, 14, 14, 3, 4, 7, 9, 128, 128, 0, 999]))}"
    names = draw(st.lists(st.sampled_from(list(SECTION_LINES)), max_size=6))
    # Without hit objects a file is refused at once; most inputs should get further.
    parts = [draw(section(name)) for name in (*names, "TimingPoints", "HitObjects")]
    lines = [first, *(line for part in parts for line in part)]
    text = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"])).join(lines)
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return draw(damaged(text.encode(encoding, "replace")))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data`, in one of four cases with a few bytes replaced, cut out, doubled or put in."""
    if draw(st.integers(0, 3)):
        return data
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 40))
        put = draw(st.binary(max_size=8) | st.just(data[at : at + size] * 2))
        data = data[:at] + put + data[at + size * draw(st.booleans()) :]
    return data


corpus: list[bytes] = []
"""Real beatmaps, small ones, to damage; filled by `--corpus`."""
corpus_files = st.deferred(lambda: st.sampled_from(corpus or [b""]).flatmap(damaged))
any_files = st.booleans().flatmap(lambda b: corpus_files if b and corpus else beatmap_files())
moves = st.tuples(any_files, st.integers(0, 2**32 - 1), st.sampled_from([1.0, 40.0, 1e5]))


NAMES = [
    *("a.osu", "b.mp3", "sb/c.png", "../d.osu", "/e", "C:f", "g\\h", "A.OSU", ".", "x/../y.osu"),
    *("..\\i", "sub/", "__MACOSX/._a.osu", "m\\..\\..\\n", "é.mp3", "e\u0301.mp3", "a.osu\nb"),
]
names = st.one_of(
    st.sampled_from(NAMES),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8),
)
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


class _NoSeeking(io.BytesIO):
    """A stream, to which sizes are written after the data."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError("a stream has no place")


@st.composite
def archive_files(draw: st.DrawFn) -> bytes:
    """A ZIP file with names and contents of all kinds, zip64 fields and descriptors, damaged."""
    file = draw(st.sampled_from([io.BytesIO, _NoSeeking]))()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # names that occur twice are part of the game
        for name in draw(st.lists(names, max_size=4)):
            info = zipfile.ZipInfo(name)
            info.compress_type = draw(st.sampled_from(METHODS))
            with archive.open(info, "w", force_zip64=draw(st.booleans())) as member:
                member.write(draw(st.binary(max_size=99)))
        archive.comment = draw(st.sampled_from([b"", b"", b"made by hand", b"PK\5\6"]))
    data = file.getvalue()
    if draw(st.integers(0, 3)) == 0:
        data = with_zip64_end(data)
    if draw(st.integers(0, 3)) == 0:
        data = draw(st.sampled_from([b"", b"MZ" * 9])) + data + draw(st.binary(max_size=30))
    return draw(damaged(data))


COPIES = 19
FIELDS = [0, 1, 2, 5, 8, 9, 12, 20, 0x800, 0x7075, 0xFFFF, 0x4B50]


def family(data: bytes, number: int) -> list[bytes]:
    """An archive, and copies with fields of two bytes set, or with bytes cut out or put in.

    Drawing them one by one would take ten times as long as testing them.
    """
    rng = random.Random(number)
    copies = [data]
    for _ in range(COPIES):
        copy = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(copy))
            if rng.random() < 0.8:
                copy[at : at + 2] = struct.pack("<H", rng.choice([*FIELDS, rng.randrange(65536)]))
            else:
                size = rng.randint(0, 30)
                copy[at : at + size] = copy[at : at + rng.choice([0, size, 2 * size])]
        copies.append(bytes(copy))
    return copies


def with_zip64_end(data: bytes) -> bytes:
    """A whole archive with its end as zip64 writers have it."""
    at = data.rfind(b"PK\5\6", 0, len(data) - 18)
    if at < 0:
        return data
    count, size, offset = struct.unpack_from("<H2L", data, at + 10)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    unknown = struct.pack("<2H2L", 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    return data[:at] + record + locator + data[at : at + 8] + unknown + data[at + 20 :]


@cache
def index_bytes() -> bytes:
    """A small beatmap index as the program writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index.pickle")
        save_beatmap_idx(path, {100 + k: k for k in range(20)})
        return path.read_bytes()


@cache
def checkpoint_bytes(kind: str) -> bytes:
    """A tiny model as an export or as a training checkpoint."""
    from checkpoint import export_weights
    from diffusion.parametrisation import EDM
    from models import DiT, DiTConfig

    config = DiTConfig(width=8, depth=1, heads=1, num_classes=2)
    state = DiT(config).state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        if kind == "export":
            export_weights(path, state, config, EDM(), {})
        else:
            saved: dict[str, Any] = {
                "model": state,
                "ema": state,
                "opt": {},
                "config": config.to_dict(),
            }
            saved |= {"parametrisation": EDM().to_dict(), "step": 1, "args": {}}
            save_training_checkpoint(path, saved)
        return path.read_bytes()


@st.composite
def checkpoint_files(draw: st.DrawFn) -> bytes:
    """A model's file, damaged; of a training checkpoint the pickle inside, zipped up again."""
    kind = draw(st.sampled_from(["export", "training", "pickle"]))
    if kind != "pickle":
        return draw(damaged(checkpoint_bytes(kind)))
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(checkpoint_bytes("training"))) as source,
        zipfile.ZipFile(packed, "w") as target,
    ):
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, draw(damaged(data)) if name.endswith("data.pkl") else data)
    return packed.getvalue()


# --- targets --------------------------------------------------------------------------------------


def read(data: bytes) -> None:
    """Any bytes are a beatmap, or a `BeatmapError`; unchanged coordinates give the same bytes."""
    try:
        beatmap = parse_beatmap(data, "fuzz")
    except BeatmapError as error:
        assert "\n" not in str(error)
        return
    sequence = beatmap_to_sequence(beatmap)
    assert np.isfinite(sequence.xy).all() and np.isfinite(sequence.times).all()
    assert apply_coordinates(sequence, sequence.xy) == data


def write(move: tuple[bytes, int, float]) -> None:
    """A map with other coordinates is read again, with the same objects and durations."""
    data, number, size = move
    try:
        beatmap = parse_beatmap(data, "fuzz")
    except BeatmapError:
        return
    sequence = beatmap_to_sequence(beatmap)
    rng = np.random.default_rng(number)
    moved = sequence.xy + rng.normal(0, size, sequence.xy.shape)
    for velocity in VELOCITIES:
        patched = apply_coordinates(sequence, moved, velocity)
        again = parse_beatmap(edit_metadata(patched, version="fuzz", add_tags=["a"]), "fuzz result")
        assert len(again.objects) == len(beatmap.objects)
        for old, new in zip(beatmap.objects, again.objects, strict=True):
            assert (old.kind, old.time, old.slides) == (new.kind, new.time, new.slides)
            assert abs(old.end_time - new.end_time) <= 1


REFUSED = re.compile("leads out|absolute path|a link|encrypted|overlap|would unpack")
"""For what an archive that others open may be refused; the rest is not dangerous."""


def opened_by_zipfile(data: bytes) -> list[bytes] | None:
    """What Python's zipfile reads of all members; None when something is wrong for it."""
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(io.BytesIO(data)) as archive:
            warnings.simplefilter("ignore")
            return [archive.open(info).read() for info in archive.infolist()]
    except Exception:  # zipfile raises of all kinds for damaged files
        return None


class MemoryFile:
    """In the place of a path to write to: files on disk take longer than all the rest."""

    def __init__(self) -> None:
        self.data = b""

    @contextmanager
    def open(self, mode: str) -> Iterator[io.BytesIO]:
        file = io.BytesIO()
        yield file
        self.data = file.getvalue()

    def __str__(self) -> str:
        return "memory"


def read_archive(data: bytes) -> None:
    """What zipfile opens is opened or dangerous; a copy has the same bytes and one member more."""
    others = opened_by_zipfile(data)
    copy = MemoryFile()
    try:
        with Archive(io.BytesIO(data), "fuzz") as archive:
            before = [stored_bytes(archive, member) for member in archive.members]
            added = {"new of fuzzing.osu": (b"new", (2000, 1, 1, 0, 0, 0))}
            write_archive(cast(Path, copy), archive, archive.members, added)
            if others is not None:
                assert [archive.read(member) for member in archive.members] == others
            for name in ("a.osu", "É.MP3"):
                archive.find(name)
    except ArchiveError as error:
        assert "\n" not in str(error)
        assert others is None or REFUSED.search(str(error)), error
        return
    with Archive(io.BytesIO(copy.data), "copy") as archive:
        again = [stored_bytes(archive, member) for member in archive.members]
        assert archive.read(archive.members[-1]) == b"new"
    assert again[:-1] == before
    if others is not None:
        assert opened_by_zipfile(copy.data) == [*others, b"new"]


def read_archives(family: list[bytes]) -> None:
    """`read_archive` for an archive and its damaged copies."""
    for data in family:
        read_archive(data)


def stored_bytes(archive: Archive, member: Member) -> tuple[str, bytes]:
    """A member's name and all that is stored of it."""
    stored = io.BytesIO()
    archive.copy_stored(member, stored)
    return member.name, stored.getvalue()


def read_index(data: bytes) -> None:
    """A dict of ints, or a `ValueError`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index.pickle")
        path.write_bytes(data)
        try:
            index = load_beatmap_idx(path)
        except ValueError:
            return
    assert all(type(key) is type(value) is int for key, value in index.items())


def read_checkpoint(data: bytes) -> None:
    """A model, or a `CheckpointError`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        path.write_bytes(data)
        try:
            load_model(path)
        except CheckpointError as error:
            assert "\n" not in str(error)


TARGETS: dict[str, tuple[Target, st.SearchStrategy[Any]]] = {
    "reader": (read, any_files),
    "writer": (write, moves),
    "osz": (
        read_archives,
        st.builds(family, archive_files() | st.binary(max_size=200), st.integers(0, 2**32 - 1)),
    ),
    "beatmap_idx": (read_index, st.deferred(lambda: damaged(index_bytes()) | st.binary())),
    "checkpoint": (read_checkpoint, checkpoint_files()),
}


# --- runs -----------------------------------------------------------------------------------------


def peak_bytes() -> int:
    """Most memory that this process has had; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def limited() -> Iterator[None]:
    """Ends the process, with a traceback, at a true hang; asserts the limit of memory."""
    before = peak_bytes()
    faulthandler.dump_traceback_later(20 * MAX_SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert peak_bytes() - before <= MAX_BYTES, "too much memory"


def run_target(
    name: str, examples: int, number: int, progress: Callable[[], object] = lambda: None
) -> int:
    """Runs one target on so many inputs; raises what it finds, with the smallest input."""
    target, inputs = TARGETS[name]
    count = 0

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=MAX_SECONDS * 1000,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(inputs)
    def check(value: Any) -> None:
        nonlocal count
        count += 1
        progress()
        with limited():
            target(value)

    check()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=200_000, help="inputs over all targets")
    parser.add_argument("--target", choices=list(TARGETS), help="one target alone")
    parser.add_argument("--corpus", type=Path, help="folder of real .osu files to damage as well")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.corpus:
        files = sorted(args.corpus.rglob("*.osu"))
        corpus.extend(path.read_bytes() for path in files if path.stat().st_size < MAX_CORPUS_FILE)
    names = [args.target] if args.target else list(TARGETS)
    for name in names:
        share = args.examples // len(names)
        with tqdm(total=share, desc=name, unit="input", file=sys.stderr, mininterval=2) as bar:
            # Hypothesis remembers what it has tried; runs of this size keep that small.
            done = sum(
                run_target(name, min(2000, share - first), args.seed + first, bar.update)
                for first in range(0, share, 2000)
            )
        print(f"{name}: {done} inputs without a finding")
    print(f"peak memory {peak_bytes() / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
