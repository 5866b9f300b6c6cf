"""Booleans on the command line, errors as one line, the choice of a device."""

import argparse
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conventions import command_line
from conventions.whole_files import replacing
from tests.conftest import run_command


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


# --- errors of files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOENT, "check the path"),
        (errno.ENOSPC, "make room, or choose another disk"),
        (errno.EACCES, "check who may use it, or choose another place"),
        (errno.EROFS, "choose another place"),
        (errno.ENOTDIR, "a part of the path is a file: check the path"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.ELOOP, "choose another file or folder"),
    ],
)
def test_an_error_of_a_file_says_what_where_and_what_to_do(
    number: int, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise OSError(number, os.strerror(number), "some\nwhere/map.osu")

    assert run_command(main) == 2
    line = f"error: some where/map.osu cannot be used: {os.strerror(number)}: {advice}\n"
    assert capsys.readouterr().err == line


def test_an_error_of_no_file_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise OSError("no port is free")

    assert run_command(main) == 2
    assert capsys.readouterr().err == "error: no port is free\n"


def test_a_place_where_nothing_can_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    command_line.check_folder(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="file is a file: name a folder for the results"):
        command_line.check_folder(tmp_path / "file")
    with pytest.raises(ValueError, match=r"file is a file, .*folder cannot be made in it: name"):
        command_line.check_folder(tmp_path / "file" / "folder")
    with pytest.raises(ValueError, match="cannot be made in it"):
        command_line.claim_output(tmp_path / "file" / "folder" / "x.png", overwrite=True)
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder of the system's own")
def test_a_folder_that_is_there_and_cannot_be_written_in_is_told() -> None:
    with pytest.raises(ValueError, match="/proc/self cannot be written: "):
        command_line.check_folder(Path("/proc/self"))


def test_a_failed_write_names_the_file_and_not_a_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "no folder" / "map.osu"
    with pytest.raises(FileNotFoundError) as caught, replacing(path) as temporary:
        temporary.write_bytes(b"new")
    assert command_line.in_words(caught.value).startswith(f"{path} cannot be used: ")
