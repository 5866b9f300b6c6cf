"""Packs beatmaps from any sources into one dataset that `train.py` reads without `slider`.

A second run into the same --output adds what is new; the classes of maps that were there stay.
"""

from conventions import requirements_check  # (first: says what is missing)

if __name__ == "__main__":
    requirements_check.announce()

# isort: split
import argparse
from pathlib import Path

from conventions import command_line
from conventions.errors import naming
from datasets import filters
from datasets.labels import read_labels
from datasets.pack import default_workers, pack
from datasets.sources import WHAT_IS_FOUND, find_beatmaps


def make_parser() -> argparse.ArgumentParser:
    """The command line of create_dataset.py."""
    parser = argparse.ArgumentParser(
        usage="python create_dataset.py SOURCE [SOURCE ...] --output FOLDER [flags]",
        description=__doc__,
        formatter_class=command_line.HelpFormatter,
    )
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help=f"folder with {WHAT_IS_FOUND}"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the packed dataset")
    parser.add_argument(
        "--data-start", type=int, help="first track of a Mapperator dataset; default: all"
    )
    parser.add_argument("--data-end", type=int, help="track after the last one; default: all")
    parser.add_argument(
        "--num-workers",
        type=int,
        default=default_workers(),
        help="processes; default: one a core",
    )
    parser.add_argument(
        "--overwrite",
        action=command_line.BooleanFlag,
        default=False,
        help="replace a dataset in --output instead of adding to it; classes begin at 0",
    )
    filters.add_arguments(parser)
    labels = parser.add_argument_group("what is known of beatmaps, for groups of conditions")
    labels.add_argument(
        "--users",
        type=Path,
        metavar="FILE",
        help="JSON with beatmap IDs and user IDs of who made the difficulty; default: the names of "
        "creators and of guests in the difficulties' names",
    )
    labels.add_argument(
        "--descriptors",
        type=Path,
        metavar="FILE",
        help='lines of a beatmap ID, a comma and a word for it, such as "53,grid snap"; default: '
        "the maps' tags",
    )
    return parser


@naming(command_line.flag_names())
def main() -> int:
    args = make_parser().parse_args()
    chosen = filters.from_arguments(args)
    paths = [path.absolute() for path in args.sources]  # the next run recognises them by these
    sources = find_beatmaps(*paths, data_start=args.data_start, data_end=args.data_end)
    command_line.check_folder(args.output)
    labels = read_labels(args.users, args.descriptors)
    report = pack(sources, args.output, max(1, args.num_workers), chosen, args.overwrite, labels)
    print(*report.lines(args.output), sep="\n")
    return 0


if __name__ == "__main__":
    command_line.run(main)
