"""Hostile inputs and what must hold for them, shared by the short test and the long run.

A target takes one input and returns nothing. Documented errors are caught in it; anything else
that is raised, a broken promise (an assertion), more than `MAX_SECONDS` or more than `MAX_BYTES`
is a finding. `python testing/fuzzing.py --examples 200000` runs all targets for long.
"""

import argparse
import faulthandler
import io
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from beatmaps.osu_file import BeatmapError, edit_metadata, parse_beatmap  # noqa: E402
from beatmaps.osz import Archive, ArchiveError, write_archive  # noqa: E402
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


names = st.one_of(
    st.sampled_from(["a.osu", "b.mp3", "sb/c.png", "../d.osu", "/e", "C:f", "g\\h", "A.OSU", "."]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8),
)


@st.composite
def archive_files(draw: st.DrawFn) -> bytes:
    """A ZIP file with names and contents of all kinds, perhaps damaged."""
    file = io.BytesIO()
    method = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]))
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # names that occur twice are part of the game
        for name in draw(st.lists(names, max_size=4)):
            archive.writestr(name, draw(st.binary(max_size=99)))
    return draw(damaged(file.getvalue()))


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


def read_archive(data: bytes) -> None:
    """An archive whose copy holds the same members, or an `ArchiveError`."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.osz")
        try:
            with Archive(io.BytesIO(data), "fuzz") as archive:
                contents = {member.name: archive.read(member) for member in archive.members}
                added = {"new of fuzzing.osu": (b"new", (2000, 1, 1, 0, 0, 0))}
                write_archive(copy, archive, archive.members, added)
        except ArchiveError as error:
            assert "\n" not in str(error)
            return
        with Archive.open(copy) as archive:
            again = {member.name: archive.read(member) for member in archive.members}
        assert again == contents | {"new of fuzzing.osu": b"new"}


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
    "osz": (read_archive, archive_files() | st.binary(max_size=200)),
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
