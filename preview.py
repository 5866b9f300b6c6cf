"""Shows one beatmap, or two of one rhythm: pictures, an animation, a player in a web page."""

from conventions import requirements_check  # noqa: F401  (first: says what is missing)

# isort: split
import argparse
from pathlib import Path

from animation import DEFAULT_CLIP, WIDTH, animate_play
from beatmaps.osu_file import Beatmap, read_beatmap
from conventions import command_line
from player import check_audio, find_audio, write_player
from plotting import contact_sheet, passages_picture

SUFFIXES = {"png": ".png", "sheet": ".sheet.png", "gif": ".gif", "html": ".html"}
"""Kinds of previews, and how their files' names end."""


def write_preview(
    kind: str,
    before: Beatmap,
    after: Beatmap | None,
    path: Path,
    *,
    start_ms: float | None = None,
    length_ms: float | None = None,
    width: int = WIDTH,
    audio: bytes | None = None,
    overwrite: bool = False,
) -> str:
    """Writes one kind of `SUFFIXES` to `path`; returns what there is to say about it, or "".

    A range narrows "png" and "gif". `audio` is the song for "html", by default the one beside the
    map's file. Raises ValueError where there is nothing to show in the range, and where the file
    exists and `overwrite` is false.
    """
    command_line.claim_output(path, overwrite)
    maps = [("before", before), ("after", after)] if after else [("", before)]
    if kind == "png":
        end = None if start_ms is None else start_ms + (length_ms or DEFAULT_CLIP)
        passages_picture(maps, path, start_ms=start_ms, end_ms=end)
    elif kind == "sheet":
        contact_sheet(maps, path)
    elif kind == "gif":
        length = length_ms or DEFAULT_CLIP
        animate_play(maps, path, start_ms=start_ms, length_ms=length, width=width)
    elif kind == "html":
        if audio is None:
            song, why_silent = find_audio(before)
        else:
            song, why_silent = check_audio(audio, before.audio_filename)
        write_player(path, before, after, song, overwrite=overwrite)
        return why_silent
    else:
        raise ValueError(f"preview {kind!r}: give one of {', '.join(SUFFIXES)}")
    return ""


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


def parse_args() -> argparse.Namespace:
    return make_parser().parse_args()


def main() -> int:
    args = parse_args()
    before = read_beatmap(args.before)
    after = read_beatmap(args.after) if args.after else None
    stem = (args.after or args.before).stem
    paths = {kind: args.output / f"{stem}{SUFFIXES[kind]}" for kind in args.kinds}
    for path in paths.values():
        command_line.claim_output(path, args.overwrite)
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
        )
        print(f"wrote {path}")
        if remark:
            print(remark)
    return 0


if __name__ == "__main__":
    command_line.run(main)
