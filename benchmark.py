"""Measures speed and memory as ratios within one run; times of different runs do not compare."""

from conventions import requirements_check  # noqa: F401  (first: says what is missing)

# isort: split
import argparse
from collections.abc import Callable

from benchmarks import data, gpu, sampling, training
from conventions import command_line
from conventions.errors import naming

Benchmark = Callable[[argparse.Namespace], int]

BENCHMARKS = {
    "data": (data, "windows a second of the loader"),
    "sample": (sampling, "time, memory and quality of sampling"),
    "train": (training, "a training step, also beside that of the public osu-diffusion"),
    "gpu": (gpu, "all that only a GPU can tell, in one run of some minutes"),
}


def make_parser() -> argparse.ArgumentParser:
    """The command line of benchmark.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    for name, (room, text) in BENCHMARKS.items():
        command = commands.add_parser(name, help=text, formatter_class=command_line.HelpFormatter)
        room.add_flags(command)
        command.set_defaults(run=room.run)
    return parser


@naming(command_line.flag_names())
def main() -> int:
    args = make_parser().parse_args()
    run: Benchmark = args.run
    return run(args)


if __name__ == "__main__":
    command_line.run(main)
