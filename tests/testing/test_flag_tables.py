"""The page of flags is what the commands say, and they say something of every flag."""

import argparse

import flag_tables
import pytest

from conventions import command_line


def test_the_page_is_up_to_date() -> None:
    text = flag_tables.PAGE.read_text(encoding="utf-8")
    assert text == flag_tables.markdown(), "run python testing/flag_tables.py"


@pytest.mark.parametrize("command", flag_tables.COMMANDS)
def test_every_flag_has_a_help_text(command: str) -> None:
    parser = flag_tables.COMMANDS[command]()
    for part in (parser, *flag_tables.subcommands(parser).values()):
        for action in part._actions:
            if flag_tables.is_flag(action):
                assert action.help, f"{command} {action.option_strings or action.dest}"
                assert command == "benchmark.py" or part.usage


def test_help_texts_name_no_place_of_this_machine() -> None:
    for make_parser in flag_tables.COMMANDS.values():
        assert str(flag_tables.ROOT) not in make_parser().format_help()


def test_a_row_of_the_table() -> None:
    parser = argparse.ArgumentParser()
    action = parser.add_argument("--low", choices=["a", "b"], default="a", help="50 %% or | so")
    assert flag_tables.row(action) == "| `--low CHOICE`: `a`, `b` | 50 % or \\| so | `a` |"
    action = parser.add_argument("--on", action=command_line.BooleanFlag, default=True, help="x")
    assert flag_tables.row(action) == "| `--on` | x | `on` |"
    action = parser.add_argument("--many", nargs="+", type=float, help="y; default: the best")
    assert flag_tables.row(action) == "| `--many MANY ...` | y | the best |"
    action = parser.add_argument("file", metavar="FILE", help="z")
    assert flag_tables.row(action) == "| `FILE` | z | needed |"
