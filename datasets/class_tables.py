"""Which class a model has for a beatmap: the index of beatmap IDs, in the reference's format."""

import io
import pickle
import pickletools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from conventions.whole_files import write_atomically

MAX_INDEX_BYTES = 256 * 2**20


def save_beatmap_idx(path: Path, index: dict[int, int]) -> None:
    """Writes beatmap ID -> class index in the reference's format."""
    plain = {int(key): int(value) for key, value in index.items()}
    write_atomically(path, pickle.dumps(plain, protocol=2))


class _IntDictUnpickler(pickle.Unpickler):
    """Admits no classes or functions at all: ints and dicts do not need any."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed here")


_INT_DICT_OPCODES = {
    *("PROTO", "FRAME", "MARK", "STOP"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
}


def _require_int_dict_opcodes(data: bytes) -> None:
    """Refuses a pickle that does anything but build dicts of ints.

    A few bytes can make an unpickler call functions, or allocate gigabytes for its memo.
    """
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _INT_DICT_OPCODES:
            raise ValueError(f"{opcode.name} is not allowed here")
        if "PUT" in opcode.name and int(str(argument)) > len(data):
            raise ValueError(f"{opcode.name} {argument} in {len(data)} bytes")


_UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
)
"""Exceptions of the unpickler for bytes that are not a pickle."""


def load_beatmap_idx(path: Path) -> dict[int, int]:
    """Reads beatmap ID -> class index; anything but a dict of ints is a ValueError."""
    if not path.is_file():
        raise ValueError(f"there is no beatmap index at {path}")
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_INDEX_BYTES >> 20} MiB: no beatmap index")
    try:
        data = path.read_bytes()
        _require_int_dict_opcodes(data)
        index = _IntDictUnpickler(io.BytesIO(data)).load()
    except _UNPICKLING_ERRORS as error:
        raise ValueError(f"{path} is not a beatmap index: {error}") from error
    if not isinstance(index, dict) or not all(_is_int_pair(pair) for pair in index.items()):
        raise ValueError(f"{path} is not a beatmap index: it must hold a dict of ints")
    if any(value < 0 for value in index.values()):
        raise ValueError(f"{path} is not a beatmap index: it holds a negative class")
    return index


def _is_int_pair(pair: Iterable[Any]) -> bool:
    return all(type(value) is int for value in pair)
