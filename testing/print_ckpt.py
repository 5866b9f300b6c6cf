"""Prints what a checkpoint or an exported model holds: python testing/print_ckpt.py FILE..."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import safetensors
from torch import Tensor

from checkpoint import CheckpointError, load_training_checkpoint
from conventions import command_line

LONGEST_TABLE = 100
"""Entries of a table that are shown one by one; what a model is told of maps may have many more."""


def lines(value: Any, name: str, tensors: bool) -> Iterator[str]:
    """A line a value, nested ones indented; tensors one by one or only counted."""
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Tensor):
        spread = f", std {value.float().std():.4g}" if value.numel() > 1 else f", {value.item():g}"
        yield f"{name}: {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}{spread}"
        return
    if isinstance(value, dict) and value and all(isinstance(v, Tensor) for v in value.values()):
        numbers = sum(v.numel() for v in value.values())
        yield f"{name}: {len(value)} tensors, {numbers:,} numbers"
        entries = value if tensors else {}
    elif isinstance(value, dict) and name == "state" and not tensors:
        yield f"{name}: moments of {len(value)} parameters"
        return
    elif isinstance(value, dict) and len(value) > LONGEST_TABLE:
        yield f"{name}: {len(value)} entries"
        return
    elif isinstance(value, dict):
        yield f"{name}:"
        entries = value
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield f"{name}:"
        entries = dict(enumerate(value))
    else:
        text = repr(value)
        yield f"{name}: {text if len(text) < 200 else text[:200] + '...'}"
        return
    for key, entry in entries.items():
        yield from (f"  {line}" for line in lines(entry, str(key), tensors))


def read(path: Path) -> dict[str, Any]:
    """The content of a .pt or .safetensors file, without running code from it."""
    if path.suffix != ".safetensors":
        return load_training_checkpoint(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            return {**header, "weights": {k: file.get_tensor(k) for k in file.keys()}}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--tensors", action=command_line.BooleanFlag, default=False, help="one by one"
    )
    args = parser.parse_args()
    for path in args.files:
        print("\n".join(lines(read(path), str(path), args.tensors)))
    return 0


if __name__ == "__main__":
    command_line.run(main)
