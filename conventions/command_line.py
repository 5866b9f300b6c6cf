"""Conventions that all command lines share: booleans, errors, the choice of a device."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from conventions.errors import LostRankError

if TYPE_CHECKING:
    import torch

Options = TypeVar("Options")

TRUE, FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


class BooleanFlag(argparse.Action):
    """`--x`, `--no-x` and the reference's `--x True|False`."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        negations = [f"--no-{o[2:]}" for o in option_strings if o.startswith("--")]
        super().__init__([*option_strings, *negations], dest, nargs="?", **options)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        negated = bool(option_string) and str(option_string).startswith("--no-")
        text = "true" if values is None else str(values).lower()
        if text not in TRUE | FALSE or (negated and values is not None):
            parser.error(f"{option_string} takes True or False, or nothing, not {values!r}")
        setattr(namespace, self.dest, (text in TRUE) != negated)


class HelpFormatter(argparse.HelpFormatter):
    """Help that shows defaults where there are any, and no paths of the machine it runs on."""

    def _get_help_string(self, action: argparse.Action) -> str:
        default = default_text(action).replace("%", "%%")
        return f"{action.help or ''} (default: {default})" if default else action.help or ""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # The other forms of booleans are for commands written for the public osu-diffusion.
        if isinstance(action, BooleanFlag):
            return ", ".join(action.option_strings)
        return super()._format_action_invocation(action)


def default_text(action: argparse.Action) -> str:
    """A flag's default in words; empty if there is none or if the help text has it."""
    default = action.default
    untold = default is None or default is False or default == argparse.SUPPRESS
    if untold or "default" in (action.help or ""):
        return ""
    if default is True:
        return "on"
    values = default if isinstance(default, list) else [default]
    return " ".join(_in_words(value) for value in values)


def _in_words(value: object) -> str:
    folder = Path(__file__).parent.parent
    if isinstance(value, Path) and value.is_relative_to(folder):
        return value.relative_to(folder).as_posix()
    if isinstance(value, float):
        return f"{value:g}"
    return value.as_posix() if isinstance(value, Path) else str(value)


def options_of(kind: type[Options], args: argparse.Namespace) -> Options:
    """A dataclass from a command line: each field is the flag of the same name.

    Modules below the commands take such a value instead of all flags: it says what they need.
    """
    return kind(**{field.name: getattr(args, field.name) for field in fields(kind)})  # type: ignore[arg-type]


def flag_names(**special: str) -> Callable[[str], str]:
    """What errors call the fields: the flag of the same name, or what `special` has for it."""
    return lambda field: special.get(field, f"--{field.replace('_', '-')}")


def run(main: Callable[[], int | None]) -> None:
    """Runs a command: bad input becomes one line on stderr and exit code 2, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the console cannot encode must not end a run whose work is done.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        if isinstance(error, LostRankError):
            # Threads that still wait for the lost process may abort an orderly end.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(2)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


ADVICE = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file: check the path",
    errno.EISDIR: "name a file in it",
    errno.EACCES: "check who may use it, or choose another place",
    errno.EPERM: "check who may use it, or choose another place",
    errno.EROFS: "choose another place",
    errno.ENOSPC: "make room, or choose another disk",
    errno.EDQUOT: "make room, or choose another disk",
    errno.EFBIG: "choose another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "close other programs, or raise the limit of open files",
    errno.ENFILE: "close other programs, or raise the limit of open files",
    errno.EEXIST: "choose another name",
    errno.EADDRINUSE: "choose another --port",
    errno.EIO: "look whether the disk is sound",
}
"""What to do about the errors of files that a user can cause."""


def in_words(error: BaseException) -> str:
    """An error in one line; for a file error: which file, what is wrong, what to do."""
    if not isinstance(error, OSError) or error.strerror is None:
        return " ".join(str(error).split())
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    what = f"{' or '.join(names)} cannot be used: " if names else ""
    advice = ADVICE.get(error.errno or 0, "choose another file or folder")
    return " ".join(f"{what}{error.strerror}: {advice}".split())


def check_folder(path: Path) -> None:
    """Before the work: checks that a folder of results can be made or written to. Leaves no trace.

    Raises ValueError if not, also if a file has its name.
    """
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not there.is_dir():
            part = "" if there == path else f", {path} cannot be made in it"
            raise ValueError(f"{there} is a file{part}: name a folder for the results")
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = (
            f"{error.strerror or error}: {ADVICE.get(error.errno or 0, 'choose another place')}"
        )
        raise ValueError(f"{path} cannot be written: {reason}") from error


def claim_output(path: Path, overwrite: bool) -> None:
    """Before the work: refuses to replace a file that is there, and makes its folder.

    Raises ValueError, also if the folder cannot be made or written to.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the file to write")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: add --overwrite or choose another name")
    check_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)


def pick_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """CUDA (the local rank's), else MPS, else CPU; or the device that is named, else ValueError."""
    import torch  # not needed by commands that compute nothing

    if name != "auto":
        try:
            if name == "cuda":
                name = f"cuda:{local_rank % max(1, torch.cuda.device_count())}"
            return torch.zeros(1, device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {name!r} cannot be used here: {reason}") from error
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
