"""Measures speed and memory as ratios within one run; times of different runs do not compare."""

from conventions import requirements_check  # noqa: F401  (first: says what is missing)

# isort: split
import argparse
from collections.abc import Callable

from benchmarks import data as benchmark_data
from benchmarks import gpu as benchmark_gpu
from benchmarks import sampling as benchmark_sample
from benchmarks.training import add_train_flags, benchmark_train
from conventions import command_line
from conventions.errors import naming

Benchmark = Callable[[argparse.Namespace], int]


def make_parser() -> argparse.ArgumentParser:
    """The command line of benchmark.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    data = commands.add_parser(
        "data",
        help="windows a second of the loader",
        formatter_class=command_line.HelpFormatter,
    )
    benchmark_data.add_flags(data)
    data.set_defaults(run=benchmark_data.run)
    sampling = commands.add_parser(
        "sample",
        help="time, memory and quality of sampling",
        formatter_class=command_line.HelpFormatter,
    )
    benchmark_sample.add_flags(sampling)
    sampling.set_defaults(run=benchmark_sample.run)
    training = commands.add_parser(
        "train",
        help="a training step, also beside that of the public osu-diffusion",
        formatter_class=command_line.HelpFormatter,
    )
    add_train_flags(training)
    training.set_defaults(run=benchmark_train)
    gpu = commands.add_parser(
        "gpu",
        help="all that only a GPU can tell, in one run of some minutes",
        formatter_class=command_line.HelpFormatter,
    )
    benchmark_gpu.add_flags(gpu)
    gpu.set_defaults(run=benchmark_gpu.run)
    return parser


def parse_args() -> argparse.Namespace:
    return make_parser().parse_args()


@naming(command_line.flag_names())
def main() -> int:
    args = parse_args()
    run: Benchmark = args.run
    return run(args)


if __name__ == "__main__":
    command_line.run(main)
