"""Measures speed and memory as ratios within one run; times of different runs do not compare."""

import argparse
from collections.abc import Callable

import cli
from benchmark_train import add_train_flags, benchmark_train

Benchmark = Callable[[argparse.Namespace], int]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_subparsers(required=True, metavar="WHAT")
    train = what.add_parser("train", help="a training step, beside the reference's own")
    add_train_flags(train)
    train.set_defaults(run=benchmark_train)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    run: Benchmark = args.run
    return run(args)


if __name__ == "__main__":
    cli.run(main)
