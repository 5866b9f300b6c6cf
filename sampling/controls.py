"""What a mapper steers a sampling run with, beside its numbers, and the flags that say it.

The objects to remap, the style, and the model that refines; what `generate` takes as `controls`.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from beatmaps.osu_file import Beatmap
from beatmaps.selection import KINDS, Mask, Selection, choose_objects, parse_time
from checkpoint import LoadedModel
from conventions import command_line
from sampling import told
from sampling.experts import Expert
from sampling.style import Progress, Request, Style, resolve

REFINE_ITERATIONS = 10
LABEL_LIMIT = 60


@dataclass(frozen=True)
class Controls:
    """What `generate` is told about one map.

    chosen (M,) marks the objects to remap, None all of them; a refiner is another model for the
    refining iterations, with the style in its own terms; an expert takes over at low noise.
    """

    chosen: Mask | None = None
    style: Style = field(default_factory=Style)
    refiner: LoadedModel | None = None
    refiner_style: Style = field(default_factory=Style)
    expert: Expert | None = None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of what to remap, of styles and of edits."""
    _add_selection_flags(parser)
    _add_style_flags(parser)
    _add_edit_flags(parser)
    told.add_flags(parser)


def _add_selection_flags(parser: argparse.ArgumentParser) -> None:
    part = parser.add_argument_group(
        "which objects to remap (the rest stays as it is)"
    ).add_argument
    time = "mm:ss:mmm, as osu!'s editor copies it, or ms"
    part("--time-start", metavar="TIME", help=f"remap from here on: {time}")
    part("--time-end", metavar="TIME", help=f"remap up to here: {time}")
    part(
        "--align-combos",
        choices=["off", "grow", "shrink"],
        default="off",
        help="widen or narrow the range to whole combos",
    )
    part("--only", choices=list(KINDS), help="remap only these")
    part(
        "--keep-objects",
        nargs="+",
        metavar="SELECTION",
        help='objects that stay, as osu!\'s editor copies a selection: "00:51:123 (1,2,3) -"',
    )


def _add_style_flags(parser: argparse.ArgumentParser) -> None:
    style = parser.add_argument_group("style (several are mixed, by weights if given)").add_argument
    style(
        "--style-id",
        nargs="+",
        metavar="ID[:WEIGHT]",
        help="beatmap IDs of training maps, such as 1180619:2 303335",
    )
    style(
        "--style-mapper",
        nargs="+",
        metavar="NAME[:WEIGHT]",
        help="mappers in the model's class table: the mean of their maps",
    )
    style(
        "--style-beatmap",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="any .osu or .osz files, whose style is learnt first (about a minute; kept)",
    )
    style(
        "--negative-style",
        nargs="+",
        metavar="STYLE",
        help="IDs, mappers or files to keep away from; needs a --cfg-scale above 1",
    )
    style(
        "--cfg-scale",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="how strong the style is: above 1 it is exaggerated",
    )


def _add_edit_flags(parser: argparse.ArgumentParser) -> None:
    edit = parser.add_argument_group("edits of the positions that are there").add_argument
    edit(
        "--strength",
        type=float,
        default=1.0,
        metavar="0..1",
        help="0 changes nothing, 1 redoes it all",
    )
    edit(
        "--refine",
        action=command_line.BooleanFlag,
        default=False,
        help="only clean the map's own positions up, which moves them by a pixel or two",
    )
    edit(
        "--refine-ckpt",
        type=Path,
        metavar="FILE",
        help="another model that cleans up at the end of any run",
    )
    edit(
        "--refine-iters",
        type=int,
        default=REFINE_ITERATIONS,
        metavar="NUMBER",
        help="how often the clean-up is repeated",
    )


def check_flags(args: argparse.Namespace) -> None:
    """Refuses flags that would have no effect: ValueError."""
    told.check_flags(args)
    styled = wanted_style(args) or args.negative_style or told.says_style(args)
    if args.cfg_scale != 1 and not styled:
        raise ValueError("--cfg-scale strengthens a style: give one with --style-id")
    if args.negative_style and args.cfg_scale <= 1:
        raise ValueError("--negative-style works through guidance: give a --cfg-scale above 1")
    if args.refine and args.strength != 1:
        raise ValueError(
            "--refine cleans up the map's own positions and --strength changes them: give one "
            "(--refine-ckpt cleans up after an edit)"
        )
    selection_from(args)


def refine_iterations(args: argparse.Namespace) -> int:
    """How many refining iterations follow: none unless a flag asks for them."""
    return args.refine_iters if args.refine or args.refine_ckpt is not None else 0


def wanted_style(args: argparse.Namespace) -> Request:
    """The styles that the flags ask for."""
    return Request(
        tuple(args.style_id or ()), tuple(args.style_mapper or ()), tuple(args.style_beatmap or ())
    )


def style_files(args: argparse.Namespace) -> tuple[Path, ...]:
    """The files whose styles the flags ask for, wanted or not."""
    return wanted_style(args).files + Request.guess(args.negative_style or []).files


def selection_from(args: argparse.Namespace) -> Selection:
    """The objects that the flags choose, before a beatmap is known."""
    start, end = (None if t is None else parse_time(t) for t in (args.time_start, args.time_end))
    return Selection(start, end, args.align_combos, args.only, tuple(args.keep_objects or ()))


def label(args: argparse.Namespace, more: Sequence[str] = ()) -> str:
    """What tells a result of these flags from others, for its name; empty for the defaults.

    `more` are words for other flags.
    """
    style, part = wanted_style(args).describe(), selection_from(args).describe()
    words = [f"style {style}"] if style else []
    words += [f"without {' '.join(args.negative_style)}"] if args.negative_style else []
    words += told.describe(args)
    words += [part] if part else []
    words += [f"strength {args.strength:g}"] if args.strength != 1 and not args.refine else []
    words += ["cleaned"] if args.refine else []
    words += [f"refined by {args.refine_ckpt.stem}"] if args.refine_ckpt else []
    text = " ".join([*words, *more])
    if len(text.encode("utf-8", "surrogateescape")) <= LABEL_LIMIT:
        return text
    # Names of files must not become too long, nor equal by being cut.
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{text[: LABEL_LIMIT // 4]} {digest}"


@contextmanager
def learning_bar() -> Iterator[Progress]:
    """A progress bar that appears when there is something to learn."""
    with ExitStack() as stack:
        bars: list[tqdm[NoReturn]] = []

        def progress(done: int, total: int) -> None:
            if not bars:
                bar = tqdm(total=total, desc="learning the style", unit="step", file=sys.stderr)
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].n)

        yield progress


def resolve_styles(
    loaded: LoadedModel, args: argparse.Namespace, progress: Progress | None = None
) -> Style:
    """The embeddings of the wanted and of the negative style in a model's terms.

    Learning shows a bar, unless it is told where to report its progress.
    """
    embeddings = []
    for request in (wanted_style(args), Request.guess(args.negative_style or [])):
        with learning_bar() if progress is None else nullcontext(progress) as report:
            embedding = resolve(
                loaded,
                request,
                index_path=args.beatmap_idx,
                cache=args.output / ".cache",
                progress=report,
            )
        embeddings.append(embedding)
    return Style(*embeddings)


def load_controls(
    loaded: LoadedModel,
    refiner: LoadedModel | None,
    beatmap: Beatmap,
    args: argparse.Namespace,
    progress: Progress | None = None,
    expert: LoadedModel | None = None,
) -> Controls:
    """What the flags ask for on one beatmap; ValueError where they fit none of its objects.

    Styles come last: one that is new has to be learnt, see `resolve_styles` for `progress`.
    """
    selection = selection_from(args)
    chosen = None if selection.is_everything else choose_objects(beatmap, selection)
    told.check_models([loaded, refiner, expert], args)
    styles: dict[str, Style] = {}

    def style_for(model: LoadedModel) -> Style:
        if model.sha256 not in styles:
            styles[model.sha256] = style_of(model, beatmap, args, progress)
        return styles[model.sha256]

    return Controls(
        chosen,
        style_for(loaded),
        refiner,
        style_for(refiner or loaded),
        None if expert is None else Expert(expert, style_for(expert), args.expert_below),
    )


def style_of(
    loaded: LoadedModel,
    beatmap: Beatmap,
    args: argparse.Namespace,
    progress: Progress | None = None,
) -> Style:
    """The style that the flags ask for, in the terms of a model of either kind."""
    if loaded.vocabulary is None:
        return resolve_styles(loaded, args, progress)
    told_of = told.of_beatmap(beatmap, args)
    requests = wanted_style(args), Request.guess(args.negative_style or [])
    with learning_bar() if progress is None else nullcontext(progress) as report:
        return told.style(loaded, told_of, requests, args, report)
