"""The flags of a request to remap, and the request that they make."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from beatmaps.inputs import Choice
from beatmaps.selection import KINDS, Selection, parse_time
from constraints.spacing import Spacing
from conventions import command_line
from conventions.bundled import DEFAULT_MODEL, EXAMPLE
from diffusion.samplers import SOLVERS
from models import SIZES
from sampling.descriptors import Wishes
from sampling.options import DEFAULT_STEPS, SampleOptions
from sampling.request import Pictures, RemapRequest, cfg_scale
from sampling.style import StyleMix
from viewer.previews import SUFFIXES

REFINE_ITERATIONS = 10
NAMES = command_line.flag_names(
    steps="--num-sampling-steps",
    variants="--num-variants",
    half_window="--seq-len",
    refine_iterations="--refine-iters",
    model="--ckpt",
    expert="--expert-ckpt",
)
"""What errors call the fields of a request: its flags."""


def remap_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The command line of sample.py."""
    parser = argparse.ArgumentParser(
        usage="python sample.py [--beatmap FILE ...] [more flags, in any order]",
        description=description,
        epilog="Without flags the bundled example is remapped. README.md shows the common tasks.",
        formatter_class=command_line.HelpFormatter,
    )
    _add_input_flags(parser.add_argument_group("what to remap"))
    _add_selection_flags(parser)
    _add_style_flags(parser)
    _add_edit_flags(parser)
    _add_condition_flags(parser)
    _add_result_flags(parser.add_argument_group("how the result comes out"))
    where = parser.add_argument_group("where it goes, and pictures of it")
    _add_output_flags(where)
    _add_preview_flags(where)
    _add_model_flags(parser.add_argument_group("the model, and how it computes"))
    return parser


def _add_input_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--beatmap",
        type=Path,
        nargs="+",
        default=[EXAMPLE],
        metavar="FILE",
        help=".osu and .osz files, folders (with all below them), or patterns with * and ?; "
        "default: the bundled example",
    )
    add(
        "--difficulty",
        metavar="NAME",
        help="which difficulty of an .osz: its name, a part of the name, its file's name, or its "
        "number in the list that you get without this flag; a .osu file must be that one",
    )
    add(
        "--all-difficulties",
        action=command_line.BooleanFlag,
        default=False,
        help="remap every osu!standard difficulty of an .osz",
    )
    add(
        "--check",
        type=Path,
        metavar="RESULT",
        help="remap nothing: say what differs between this .osu file and the one of --beatmap; "
        "exit code 1 where more does than a remap is to change",
    )


def _add_result_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--seed", type=int, default=0, metavar="NUMBER", help="another seed gives another map")
    add(
        "--num-variants",
        type=int,
        default=1,
        metavar="NUMBER",
        help="how many different maps to make at once",
    )
    add(
        "--spacing",
        default="keep",
        help="distances between objects. keep: as in the map; scale:1.2: 1.2 times those; "
        "snap:120: 120 px a beat; free: the network chooses, for models trained with "
        "--distance-dropout; model: as in the map, but only as well as the network manages",
    )
    add(
        "--structure",
        choices=["keep", "clean", "off"],
        default="keep",
        help="keep: objects that share a place in the map share one again, and those clear of each "
        "other stay so; clean: whatever is seen together is on one place or clear; with both, what "
        "goes on almost straight comes onto a line; off: as the network has it",
    )
    add(
        "--guidance",
        type=float,
        metavar="WEIGHT",
        help="how far to lead away from what a weaker model would do; 1: not at all; default: what "
        "measured best",
    )
    add(
        "--bounds",
        choices=["playfield", "screen", "off"],
        default="playfield",
        help="what objects must stay on: the playfield, what the editor counts as on screen, "
        "or anything",
    )
    add(
        "--slider-velocity",
        choices=["keep", "fit"],
        default="keep",
        help="keep: sliders keep their lengths; fit: they get the lengths of their new paths, and "
        "green lines to last as long as before",
    )


def _add_output_flags(group: argparse._ArgumentGroup) -> None:
    add, boolean = group.add_argument, command_line.BooleanFlag
    add(
        "--output",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="results go into a folder of their own in this one",
    )
    add(
        "--format",
        choices=["osu", "osz"],
        help="osu: only the new difficulty's file; osz: a copy of the archive, or of the song's "
        "folder, with the new difficulty in it; default: as the input is",
    )
    add(
        "--separate-set",
        action=boolean,
        default=False,
        help="write an .osz without the old difficulties, a beatmapset of its own",
    )
    add("--overwrite", action=boolean, default=False, help="replace results that are there")


def _add_preview_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--picture",
        action=command_line.BooleanFlag,
        default=None,
        help="draw previews; default: when one beatmap is remapped",
    )
    add(
        "--preview",
        nargs="+",
        choices=list(SUFFIXES),
        default=["png"],
        help="which previews: a picture of some passages, a sheet of the whole map, an animation, "
        "a player for the browser",
    )
    add(
        "--make-animation",
        action=command_line.BooleanFlag,
        default=False,
        help="draw as a GIF how the noise becomes a map",
    )
    add(
        "--plot-time",
        type=float,
        metavar="MS",
        help="when the picture and the GIF begin; default: an overview, the busiest part",
    )
    add(
        "--plot-width",
        type=float,
        default=2000,
        metavar="MS",
        help="how much the picture and the GIF show from --plot-time on",
    )


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    add, checked = group.add_argument, "accepted and checked: the checkpoint knows its own"
    add(
        "--ckpt",
        type=Path,
        default=DEFAULT_MODEL,
        metavar="FILE",
        help="a model: .safetensors, or .pt, also of the public osu-diffusion, or the folder of an "
        "osu-diffusion v2, or hf:OWNER/NAME on the Hugging Face Hub, also with @REVISION",
    )
    add(
        "--num-sampling-steps",
        type=int,
        default=DEFAULT_STEPS,
        metavar="NUMBER",
        help="1 to 1000; more take longer and are hardly better",
    )
    add(
        "--sampler",
        choices=["auto", *SOLVERS],
        default="auto",
        help="how a step is computed; auto: what suits the model",
    )
    add("--device", default="auto", help="cuda (also for AMD's ROCm), mps, cpu, or auto")
    add(
        "--use-amp",
        action=command_line.BooleanFlag,
        default=None,
        help="compute in bf16; default: where that is fast",
    )
    add(
        "--seq-len",
        type=int,
        metavar="POINTS",
        help="how many data points on either side the network sees; default: the model's",
    )
    add(
        "--beatmap-idx",
        "--beatmap_idx",
        type=Path,
        metavar="FILE",
        help="index of the beatmap IDs for --style-id; default: the one beside the model",
    )
    add("--model", choices=list(SIZES), help=checked)
    add("--num-classes", type=int, metavar="NUMBER", help=checked)


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
    part(
        "--objects",
        nargs="+",
        metavar="SELECTION",
        help='objects to remap alone, as osu!\'s editor copies a selection: "00:51:123 (1,2,3) -"',
    )
    part("--only", choices=list(KINDS), help="remap only these")
    part(
        "--keep-objects",
        nargs="+",
        metavar="SELECTION",
        help="objects that stay, written so too",
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
        help="mappers in the model's class table: the mean of their maps; for models that are told "
        "of mappers, also user IDs",
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
        metavar="FACTOR",
        help="how strong the style is: above 1 it is exaggerated; default: 2 with a style",
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


def add_expert_flags(add: Callable[..., object]) -> None:
    """The flags of a second model, by the `add_argument` of a parser or of a group."""
    add(
        "--expert-ckpt",
        type=Path,
        metavar="FILE",
        help="a model that takes over where there is little noise, such as an osu-diffusion v2; "
        "default: the one beside --ckpt, NAME.expert.safetensors, if there is one",
    )
    add(
        "--expert-below",
        type=float,
        metavar="PX",
        help="px of noise below which the expert takes over, at most what it was trained at; "
        "0: without the one beside --ckpt; default: what it was trained at",
    )
    add(
        "--max-noise-step",
        type=int,
        metavar="STEP",
        help="of 1000 timesteps, how many an osu-diffusion v2 was trained at; default: 100, as the "
        "published one",
    )


def _add_condition_flags(parser: argparse.ArgumentParser) -> None:
    told = parser.add_argument_group(
        "a second model, and what models like osu-diffusion v2 are told of the map"
    ).add_argument
    add_expert_flags(told)
    told("--descriptors", nargs="+", metavar="NAME", help='user tags, such as "style/clean"')
    told(
        "--negative-descriptors",
        nargs="+",
        metavar="NAME",
        help="user tags to keep away from; needs a --cfg-scale above 1",
    )
    told("--star-rating", type=float, metavar="STARS", help="default: the map's")
    told("--circle-size", type=float, metavar="CS", help="default: the map's")


def request_from(args: argparse.Namespace) -> RemapRequest:
    """The request that parsed flags make."""
    if args.refine and args.strength != 1:
        raise ValueError(
            "--refine cleans up the map's own positions and --strength changes them: give one "
            "(--refine-ckpt cleans up after an edit)"
        )
    style = StyleMix(
        tuple(args.style_id or ()),
        tuple(args.style_mapper or ()),
        tuple(map(Path, args.style_beatmap or ())),
    )
    wishes = Wishes(
        tuple(args.descriptors or ()),
        tuple(args.negative_descriptors or ()),
        args.star_rating,
        args.circle_size,
    )
    return RemapRequest(
        sources=tuple(args.beatmap),
        choice=Choice(args.difficulty, args.all_difficulties, args.format, args.separate_set),
        options=options_from(args, cfg_scale(style, wishes, args.cfg_scale)),
        selection=selection_from(args),
        style=style,
        negative_style=tuple(args.negative_style or ()),
        wishes=wishes,
        beatmap_idx=None if args.beatmap_idx is None else Path(args.beatmap_idx),
        refine=args.refine,
        model=Path(args.ckpt),
        refiner=None if args.refine_ckpt is None else Path(args.refine_ckpt),
        expert=None if args.expert_ckpt is None else Path(args.expert_ckpt),
        expert_below=args.expert_below,
        max_noise_step=args.max_noise_step,
        output=Path(args.output),
        overwrite=args.overwrite,
        pictures=Pictures(
            tuple(args.preview) if args.picture else (),
            args.make_animation,
            args.plot_time,
            args.plot_width,
        ),
    )


def request_of_report(arguments: Mapping[str, Any]) -> RemapRequest:
    """The request of a result, from the flags in its report.

    Flags that did not exist yet when the report was written get their defaults.
    """
    sources = [Path(arguments["beatmap"])]
    stored = argparse.Namespace(**{**arguments, "beatmap": sources})
    return request_from(remap_parser().parse_args([], stored))


def options_from(args: argparse.Namespace, style_scale: float) -> SampleOptions:
    """The sampling options that parsed flags ask for."""
    refined = args.refine or args.refine_ckpt is not None
    return SampleOptions(
        steps=args.num_sampling_steps,
        sampler=args.sampler,
        cfg_scale=style_scale,
        variants=args.num_variants,
        seed=args.seed,
        spacing=Spacing.parse(args.spacing),
        bounds=args.bounds,
        structure=args.structure,
        guidance=args.guidance,
        half_window=args.seq_len,
        use_amp=args.use_amp,
        strength=0.0 if args.refine else args.strength,
        refine_iterations=args.refine_iters if refined else 0,
        slider_velocity=args.slider_velocity,
    )


def selection_from(args: argparse.Namespace) -> Selection:
    """The objects that parsed flags choose, before a beatmap is known."""
    start, end = (None if t is None else parse_time(t) for t in (args.time_start, args.time_end))
    objects, keep = (tuple(texts or ()) for texts in (args.objects, args.keep_objects))
    return Selection(start, end, args.align_combos, args.only, keep, objects)
