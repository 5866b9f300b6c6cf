"""Writes docs/flags.md, the tables of every command's flags, from the commands' own parsers."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import app
import benchmark
import create_dataset
import evaluate
import preview
import sample
import train
from conventions import command_line
from conventions.whole_files import replacing

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "flags.md"
COMMANDS = {
    "sample.py": sample.make_parser,
    "app.py": app.make_parser,
    "preview.py": preview.make_parser,
    "create_dataset.py": create_dataset.make_parser,
    "train.py": train.make_parser,
    "evaluate.py": evaluate.make_parser,
    "benchmark.py": benchmark.make_parser,
}
HEAD = """# Every flag

This page is made from the commands themselves by `python testing/flag_tables.py`: change the help
texts in the scripts, not this page. `python sample.py --help` and so on show the same.

A flag that takes nothing (`--overwrite`) is switched off by `--no-` before its name
(`--no-overwrite`). Names may be shortened as long as they are unique.
"""


def markdown() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, make_parser in COMMANDS.items():
        parser = make_parser()
        parts.append(f"## {name}\n\n{describe(parser)}\n")
        parts += tables(parser)
        for part, subparser in subcommands(parser).items():
            parts.append(f"### {name} {part}\n")
            parts += tables(subparser)
    return "\n".join(parts)


def describe(parser: argparse.ArgumentParser) -> str:
    """The first sentence of a command's description."""
    return " ".join((parser.description or "").split("\n\n")[0].split())


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a command's parts, by name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A table for each group of flags that is not empty."""
    for group in parser._action_groups:
        rows = [row(action) for action in group._group_actions if is_flag(action)]
        if not rows:
            continue
        title = group.title or ""
        if title not in ("options", "positional arguments"):
            yield f"**{title[0].upper()}{title[1:]}**\n"
        yield "| flag | what it does | default |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def is_flag(action: argparse.Action) -> bool:
    """Whether a flag is one of the command's own."""
    return not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)


def row(action: argparse.Action) -> str:
    """The line of a flag."""
    names = [o for o in action.option_strings if not o.startswith("--no-")]
    taken = "" if isinstance(action, command_line.BooleanFlag) else value(action)
    words = ", ".join(f"`{f'{name} {taken}'.strip()}`" for name in names or [""])
    if action.choices is not None:
        words += ": " + ", ".join(f"`{choice}`" for choice in action.choices)
    what, _, default = (action.help or "").replace("%%", "%").partition("; default: ")
    shown = command_line.default_text(action)
    needed = "needed" if action.required and action.nargs not in ("?", "*") else ""
    return f"| {words} | {escape(what)} | {f'`{shown}`' if shown else escape(default) or needed} |"


def value(action: argparse.Action) -> str:
    """What a flag takes, in a word."""
    choice = "CHOICE" if action.choices is not None else None
    name = action.metavar or choice or action.dest.rpartition("_")[2].upper()
    return f"{name} ..." if action.nargs in ("+", "*") else str(name)


def escape(text: str) -> str:
    """Text as a cell of a table shows it."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=command_line.HelpFormatter
    )
    parser.parse_args()
    with replacing(PAGE) as temporary:
        temporary.write_text(markdown(), encoding="utf-8", newline="\n")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
