"""Conventions that all command lines share: booleans, errors, the choice of a device."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

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
    """Help that ends in the default where there is one to tell, without paths of this machine."""

    def _get_help_string(self, action: argparse.Action) -> str:
        default = default_text(action).replace("%", "%%")
        return f"{action.help or ''} (default: {default})" if default else action.help or ""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # What else a boolean takes is for commands written for the public osu-diffusion.
        if isinstance(action, BooleanFlag):
            return ", ".join(action.option_strings)
        return super()._format_action_invocation(action)


def default_text(action: argparse.Action) -> str:
    """A flag's default in words; empty where there is none or where its help says it."""
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


def flag_names(**special: str) -> Callable[[str], str]:
    """What errors call fields here: --time-start for time_start, or what `special` has."""
    return lambda field: special.get(field, f"--{field.replace('_', '-')}")


def run(main: Callable[[], int | None]) -> None:
    """Runs a command: bad input becomes one line on stderr and exit code 2, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the console's encoding lacks must not end a run whose work is done.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        text = " ".join(str(error).split())
        print(f"error: {text}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def claim_output(path: Path, overwrite: bool) -> None:
    """Before the work: refuses to replace a file that is there (ValueError), makes its folder."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the file to write")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: add --overwrite or choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)


def pick_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """CUDA (the local rank's), else MPS, else CPU; or the one that is named."""
    import torch  # commands that compute nothing start without it

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
