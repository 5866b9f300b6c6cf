"""Reports a missing package or an unsuitable Python in one line, before a script's imports fail.

The scripts import this first. Pythons that are too old to run them, from 3.8 on, can still parse
both, and only the standard library is needed.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).resolve().parent.parent
OLDEST_PYTHON, NEWEST_TESTED_PYTHON = (3, 11), (3, 13)
IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn"}
"""Packages whose modules have another name."""


def python_problem(version: tuple[int, ...]) -> str:
    """What is wrong with a Python of that version, or ""."""
    if version[:2] >= OLDEST_PYTHON:
        return ""
    return (
        f"Python {_dotted(version[:3])} is too old for osu-diffusion, which needs Python "
        f"{_dotted(OLDEST_PYTHON)} to {_dotted(NEWEST_TESTED_PYTHON)}: get one from python.org, "
        "then make the virtual environment anew with it, as README.md says"
    )


def python_warning(version: tuple[int, ...]) -> str:
    """What may go wrong with a Python of that version, or ""."""
    if version[:2] <= NEWEST_TESTED_PYTHON:
        return ""
    newest = _dotted(NEWEST_TESTED_PYTHON)
    return (
        f"Python {_dotted(version[:3])} is newer than those that osu-diffusion is tested with; "
        f"if something fails, take Python {newest}"
    )


def required_packages(file: Path) -> dict[str, tuple[int, ...]]:
    """The packages of a requirements file and the oldest version of each."""
    lines = re.findall(r"^([\w.-]+)>=([\d.]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower(): _numbers(version) for name, version in lines}


def old_package_problem() -> str:
    """The first of the installed packages that is older than requirements.txt asks for, or ""."""
    from importlib.metadata import PackageNotFoundError, version

    for name, oldest in required_packages(HERE / "requirements.txt").items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue  # not all commands need it; if one does, `missing_problem` reports it
        if _numbers(found) < oldest:
            return (
                f"{name} {found} is too old for osu-diffusion, which needs {_dotted(oldest)} or "
                f"newer: {_remedy('requirements.txt')}"
            )
    return ""


def missing_problem(module: str) -> str:
    """What to do if a module is not installed, or "" if no requirements file has it.

    A missing part of an installed package (torch.x) has another cause, and gives "".
    """
    files = sorted(HERE.glob("requirements*.txt"), key=lambda file: len(file.name))
    for file in files:
        for name in required_packages(file):
            if module == IMPORTED_AS.get(name, name.replace("-", "_")):
                return f"the package {name} is not installed: {_remedy(file.name)}"
    return ""


def report_missing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """An excepthook: a missing package is one line and exit code 2; other errors are as usual."""
    problem = missing_problem(error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    if not problem:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def check() -> None:
    """If the program cannot run here, ends it with exit code 2 and one line on stderr."""
    problem = python_problem(tuple(sys.version_info[:3])) or old_package_problem()
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    sys.excepthook = report_missing
    from multiprocessing import parent_process

    warning = python_warning(tuple(sys.version_info[:3]))
    if warning and parent_process() is None:  # once, not for every worker
        print(f"warning: {warning}", file=sys.stderr)


def announce() -> None:
    """Says that the program has begun: importing PyTorch takes seconds, on a busy computer many.

    Of processes that torchrun starts only the first says so, and none that was asked for help.
    """
    if not {"-h", "--help"} & set(sys.argv) and os.environ.get("RANK", "0") == "0":
        print("osu-diffusion is starting ...", file=sys.stderr, flush=True)


def _remedy(file: str) -> str:
    return (
        f"run python -m pip install -r {file} in osu-diffusion's folder (with its virtual "
        "environment activated, if it has one)"
    )


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, such as (2, 14, 1) of 2.14.1+cu130."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


check()
