"""Booleans on the command line, errors as one line, the choice of a device."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from conventions import command_line


def parse(*arguments: str, default: bool | None = False) -> bool | None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--use-amp", action=command_line.BooleanFlag, default=default, help="half")
    parser.add_argument("--other", type=int)
    value = parser.parse_args(arguments).use_amp
    assert value is None or isinstance(value, bool)
    return value


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--use-amp", True),
        ("--no-use-amp", False),
        ("--use-amp True", True),
        ("--use-amp False", False),
        ("--use-amp=False", False),
        ("--use-amp true", True),
        ("--use-amp 0", False),
        ("--use-amp yes", True),
        ("--use-amp OFF", False),
        ("--use-amp --other 3", True),
        ("--no-use-amp --other 3", False),
        ("--use-amp --no-use-amp", False),
        ("--no-use-amp --use-amp", True),
    ],
)
def test_a_boolean_flag_takes_every_form(arguments: str, expected: bool) -> None:
    assert parse(*arguments.split()) is expected
    assert parse(*arguments.split(), default=not expected) is expected


@pytest.mark.parametrize("default", [True, False, None])
def test_a_boolean_flag_that_is_not_given_has_its_default(default: bool | None) -> None:
    assert parse(default=default) is default


@pytest.mark.parametrize("arguments", ["--use-amp maybe", "--use-amp 2", "--no-use-amp True"])
def test_anything_else_is_a_usage_error(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        parse(*arguments.split())
    assert ending.value.code == 2
    assert "takes True or False" in capsys.readouterr().err


def test_the_help_text_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        parse("--help")
    assert ending.value.code == 0
    assert "--no-use-amp" in capsys.readouterr().out


def exit_code(main: Callable[[], int | None]) -> object:
    with pytest.raises(SystemExit) as ending:
        command_line.run(main)
    return ending.value.code or 0


@pytest.mark.parametrize("error", [ValueError, OSError, FileNotFoundError, UnicodeError])
def test_bad_input_is_one_line_and_exit_code_2(
    error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise error("steps 5000:\n  the limit\tis 1000")

    assert exit_code(main) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: steps 5000: the limit is 1000\n"
    assert captured.out == ""


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> int:
        raise AssertionError("an invariant")

    with pytest.raises(AssertionError, match="an invariant"):
        command_line.run(main)


def test_interruption_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise KeyboardInterrupt

    assert exit_code(main) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("value", [None, 0, 1])
def test_the_exit_code_is_what_main_returns(value: int | None) -> None:
    assert exit_code(lambda: value) == (value or 0)


def test_a_device_that_is_not_there_is_an_error() -> None:
    assert command_line.pick_device("cpu").type == "cpu"
    assert command_line.pick_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match="device 'toaster' cannot be used here"):
        command_line.pick_device("toaster")


def test_an_output_is_claimed_before_the_work(tmp_path: Path) -> None:
    """A new file's folder is made; a file stays without leave, and a folder is no file."""
    path = tmp_path / "new" / "table.csv"
    command_line.claim_output(path, overwrite=False)
    assert path.parent.is_dir() and not path.exists()
    path.write_text("a", encoding="utf-8")
    with pytest.raises(ValueError, match="add --overwrite"):
        command_line.claim_output(path, overwrite=False)
    command_line.claim_output(path, overwrite=True)
    assert path.read_text(encoding="utf-8") == "a"
    with pytest.raises(ValueError, match="is a folder"):
        command_line.claim_output(path.parent, overwrite=True)
