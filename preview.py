"""Shows one beatmap, or two of one rhythm: pictures, an animation, a player in a web page."""

from conventions import requirements_check  # noqa: F401  (first: says what is missing)

# isort: split
import argparse
from pathlib import Path

from beatmaps.osu_file import Beatmap, read_beatmap
from beatmaps.sequence import beatmap_to_sequence
from conventions import command_line
from metrics.marks import MarkFinder
from viewer.animation import DEFAULT_CLIP, WIDTH
from viewer.marks import Mark
from viewer.previews import HOW_TO_WATCH, SUFFIXES, write_preview


def make_parser() -> argparse.ArgumentParser:
    """The command line of preview.py."""
    parser = argparse.ArgumentParser(
        usage="python preview.py BEFORE.osu [AFTER.osu] [flags]",
        description=__doc__,
        formatter_class=command_line.HelpFormatter,
    )
    add = parser.add_argument
    add("before", type=Path, help=".osu file to show")
    add("after", type=Path, nargs="?", help=".osu file of the same rhythm to compare it with")
    add("--kinds", nargs="+", choices=list(SUFFIXES), default=["html"], help="what to make")
    add(
        "--start",
        type=float,
        help="ms at which png and gif begin; default: an overview, the busiest part",
    )
    add("--length", type=float, default=DEFAULT_CLIP, help="ms that png and gif show from there")
    add("--width", type=int, default=WIDTH, help="of the gif in pixels")
    add("--output", type=Path, default=Path("results"), help="folder for the results")
    add(
        "--overwrite",
        action=command_line.BooleanFlag,
        default=False,
        help="replace existing results",
    )
    return parser


def marks_of(before: Beatmap, after: Beatmap | None) -> list[Mark]:
    """What to mark of `after`, if it is a remap of `before`: it has as many objects then."""
    if after is None or len(before.objects) != len(after.objects):
        return []
    return MarkFinder(beatmap_to_sequence(before)).find(beatmap_to_sequence(after))


def main() -> int:
    args = make_parser().parse_args()
    before = read_beatmap(args.before)
    after = read_beatmap(args.after) if args.after else None
    stem = (args.after or args.before).stem
    paths = {kind: args.output / f"{stem}{SUFFIXES[kind]}" for kind in args.kinds}
    for path in paths.values():
        command_line.claim_output(path, args.overwrite)
    marks = marks_of(before, after)
    for kind, path in paths.items():
        remark = write_preview(
            kind,
            before,
            after,
            path,
            start_ms=args.start,
            length_ms=args.length,
            width=args.width,
            overwrite=args.overwrite,
            marks=marks,
        )
        print(f"wrote {path}")
        if remark:
            print(remark)
    if "html" in paths:
        print(HOW_TO_WATCH)
    return 0


if __name__ == "__main__":
    command_line.run(main)
