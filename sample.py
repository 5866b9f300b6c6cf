"""Remaps a beatmap: keeps its rhythm and spacing, gives every object a new position."""

from conventions import requirements_check  # noqa: F401  (first: says what is missing)

# isort: split
import argparse
import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from beatmaps.inputs import Choice, Job, find_inputs, open_jobs, read_beatmaps
from beatmaps.osu_file import Beatmap
from beatmaps.sequence import beatmap_to_sequence
from checkpoint import LoadedModel, load_model
from constraints.spacing import Spacing, suggestion
from conventions import command_line
from conventions.bundled import DEFAULT_MODEL, EXAMPLE
from conventions.ranks import Ranks, process_group
from diffusion.samplers import SOLVERS
from models import SIZES
from sampling import controls
from sampling.options import DEFAULT_STEPS, SampleOptions
from sampling.remap import Remapped, option_words, remap_beatmap, result_version
from sampling.results import Outputs, Result, put_bytes, run_key
from sampling.tally import Tally
from viewer.animation import DEFAULT_CLIP, animate_denoising, check_length
from viewer.pictures import time_slices
from viewer.previews import SUFFIXES, write_preview


def make_parser() -> argparse.ArgumentParser:
    """The command line of sample.py."""
    parser = argparse.ArgumentParser(
        usage="python sample.py [--beatmap FILE ...] [more flags, in any order]",
        description=__doc__,
        epilog="Without flags the bundled example is remapped. README.md shows the common tasks.",
        formatter_class=command_line.HelpFormatter,
    )
    add_input_flags(parser.add_argument_group("what to remap"))
    controls.add_flags(parser)
    add_result_flags(parser.add_argument_group("how the result comes out"))
    where = parser.add_argument_group("where it goes, and pictures of it")
    add_output_flags(where)
    add_preview_flags(where)
    add_model_flags(parser.add_argument_group("the model, and how it computes"))
    return parser


def add_input_flags(group: argparse._ArgumentGroup) -> None:
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
        help="which difficulty of an .osz: its name, a part of the name, or its number in the list "
        "that you get without this flag; a .osu file must be that one",
    )
    add(
        "--all-difficulties",
        action=command_line.BooleanFlag,
        default=False,
        help="remap every osu!standard difficulty of an .osz",
    )


def add_result_flags(group: argparse._ArgumentGroup) -> None:
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


def add_output_flags(group: argparse._ArgumentGroup) -> None:
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


def add_preview_flags(group: argparse._ArgumentGroup) -> None:
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


def add_model_flags(group: argparse._ArgumentGroup) -> None:
    add, checked = group.add_argument, "accepted and checked: the checkpoint knows its own"
    add(
        "--ckpt",
        type=Path,
        default=DEFAULT_MODEL,
        metavar="FILE",
        help="a model: .safetensors, or .pt, also of the public osu-diffusion, or the folder of an "
        "osu-diffusion v2",
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


def parse_args() -> argparse.Namespace:
    return make_parser().parse_args()


def check_model(loaded: LoadedModel, args: argparse.Namespace) -> None:
    """`--model` and `--num-classes`, where given, must be those of the checkpoint."""
    config = loaded.model.config
    size = {"width": config.width, "depth": config.depth, "heads": config.heads}
    if args.model is not None and SIZES[args.model] != size:
        found = next((name for name, s in SIZES.items() if s == size), str(size))
        raise ValueError(f"--model {args.model}: the checkpoint holds a {found}; leave --model out")
    if args.num_classes is not None and args.num_classes != config.num_classes:
        raise ValueError(
            f"--num-classes {args.num_classes}: the checkpoint has {config.num_classes}; "
            "leave --num-classes out"
        )


def options_from(args: argparse.Namespace) -> SampleOptions:
    """The sampling options that the command line asks for."""
    return SampleOptions(
        steps=args.num_sampling_steps,
        sampler=args.sampler,
        cfg_scale=args.cfg_scale,
        variants=args.num_variants,
        seed=args.seed,
        spacing=Spacing.parse(args.spacing),
        bounds=args.bounds,
        half_window=args.seq_len,
        use_amp=args.use_amp,
        strength=0.0 if args.refine else args.strength,
        refine_iterations=controls.refine_iterations(args),
        slider_velocity=args.slider_velocity,
    )


@dataclass(frozen=True)
class Models:
    """The model that samples, one that refines what it gives, and one that ends the sampling."""

    sampler: LoadedModel
    refiner: LoadedModel | None = None
    expert: LoadedModel | None = None


def sample_beatmap(
    loaded: LoadedModel,
    beatmap: Beatmap,
    versions: list[str],
    options: SampleOptions,
    steering: controls.Controls,
    set_id: int | None,
    quiet: bool,
    watched: bool,
) -> list[Remapped]:
    """`remap_beatmap` with a progress bar, and with advice on the map's spacing."""
    sequence = beatmap_to_sequence(beatmap)
    if not quiet:
        print(f"{len(beatmap.objects)} hit objects, {len(sequence)} data points", file=sys.stderr)
    if hint := suggestion(sequence, options.spacing):
        tqdm.write(f"{beatmap.name}: {hint}", file=sys.stderr)
    total = options.sampling_steps + options.refine_iterations
    with tqdm(total=total, desc="sampling", unit="step", file=sys.stderr, disable=quiet) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        return remap_beatmap(
            loaded, beatmap, versions, options, steering, progress, set_id=set_id, watched=watched
        )


def remap(
    models: Models, job: Job, args: argparse.Namespace, options: SampleOptions, quiet: bool
) -> bool:
    """Samples a job's beatmaps and writes the results; False if they were there already."""
    label = controls.label(args, option_words(options))
    versions = [result_version(beatmap, options, label) for beatmap in job.beatmaps]
    outputs = Outputs.plan(job, args.output, versions, options.variants, preview_kinds(args))
    report = describe(models, job, args, options)
    if not args.overwrite and outputs.finished(run_key(report)):
        tqdm.write(f"done before: {outputs.report}")
        return False
    for beatmap in job.beatmaps:
        check_previews(beatmap, args)
    set_id = -1 if job.separate_set else None
    loaded, remapped = models.sampler, []
    for beatmap, row in zip(job.beatmaps, outputs.results, strict=True):
        steering = controls.load_controls(
            loaded, models.refiner, beatmap, args, expert=models.expert
        )
        names, watched = [r.version for r in row], args.make_animation
        remapped.append(
            sample_beatmap(loaded, beatmap, names, options, steering, set_id, quiet, watched)
        )
    data = [[variant.data for variant in row] for row in remapped]
    report["files"] = outputs.write(job, data, args.overwrite)
    for path in outputs.files():
        tqdm.write(f"wrote {path}")
    report["variants"] = describe_results(job, outputs, remapped, args)
    text = json.dumps(report, indent=1, ensure_ascii=False)
    # A report that is there is of the same run, or may be replaced: `finished` has looked.
    put_bytes(outputs.report, text.encode("utf-8", "backslashreplace"), overwrite=True)
    tqdm.write(f"wrote {outputs.report}")
    for variant in [] if quiet else report["variants"]:
        print(outcome(variant["written"], options.spacing))
    return True


def outcome(written: dict[str, float], spacing: Spacing) -> str:
    """How well a written map does; where no distances were asked for, nothing of them."""
    off = f"objects off the playfield: {written['centres_off_playfield']:.1%}"
    if spacing.mode == "free":
        return off
    return (
        f"object spacing error: median {written['object_spacing_error_median']:.2f} px, "
        f"95 % below {written['object_spacing_error_p95']:.2f} px; {off}"
    )


def describe_results(
    job: Job, outputs: Outputs, remapped: list[list[Remapped]], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Draws the previews and says of every new difficulty what was measured."""
    variants = []
    for before, results, row in zip(job.beatmaps, outputs.results, remapped, strict=True):
        for result, made in zip(results, row, strict=True):
            draw(job, before, made, result, args)
            variants.append(
                {
                    "difficulty": before.version,
                    "beatmap": result.file,
                    "previews": [path.name for path in result.previews.values()],
                    "written": made.written,
                    "before_rounding": made.before_rounding,
                }
            )
    return variants


def preview_kinds(args: argparse.Namespace) -> dict[str, str]:
    """What is to be drawn, and the endings of the files."""
    kinds = {kind: SUFFIXES[kind] for kind in args.preview if args.picture}
    return kinds | ({"denoising": ".denoising.gif"} if args.make_animation else {})


def plot_range(args: argparse.Namespace) -> tuple[float, float] | None:
    """(start, end) ms that --plot-time and --plot-width ask for."""
    if args.plot_time is None:
        return None
    return args.plot_time, args.plot_time + args.plot_width


def check_previews(beatmap: Beatmap, args: argparse.Namespace) -> None:
    """Refuses a range with nothing to draw before sampling rather than after it."""
    if not preview_kinds(args):
        return
    time_slices(beatmap, *(plot_range(args) or (None, None)))
    if "gif" in args.preview and args.plot_time is not None:
        check_length(args.plot_width)


def draw(
    job: Job, before: Beatmap, made: Remapped, result: Result, args: argparse.Namespace
) -> None:
    """The previews that are asked for; one that is there already stays unless --overwrite."""
    for kind, path in result.previews.items():
        if path.exists() and not args.overwrite:
            continue
        if kind == "denoising":
            sequence, (*steps, final) = beatmap_to_sequence(before), made.states
            animate_denoising(before, sequence, steps, final, path, times=plot_range(args))
        else:
            length = DEFAULT_CLIP if args.plot_time is None else args.plot_width
            remark = write_preview(
                kind,
                before,
                made.beatmap,
                path,
                start_ms=args.plot_time,
                length_ms=length,
                audio=job.song(before) if kind == "html" else None,
                overwrite=args.overwrite,
            )
            if remark:
                tqdm.write(remark, file=sys.stderr)
        tqdm.write(f"wrote {path}")


def describe(
    models: Models, job: Job, args: argparse.Namespace, options: SampleOptions
) -> dict[str, Any]:
    """All that is needed to repeat the run."""
    loaded = models.sampler
    arguments = vars(args) | {"beatmap": job.path}
    return {
        "source": {
            "file": job.path.name,
            "md5": job.md5,
            "difficulties": [{"name": b.version, "md5": b.md5} for b in job.beatmaps],
        },
        "checkpoint": {"file": loaded.path.name, "sha256": loaded.sha256},
        "refiner": models.refiner and models.refiner.sha256,
        "expert": models.expert and models.expert.sha256,
        "style": controls.wanted_style(args).describe() or None,
        "style_files": [
            beatmap.md5 for path in controls.style_files(args) for beatmap in read_beatmaps(path)
        ],
        "options": asdict(options),
        "arguments": json.loads(json.dumps(arguments, default=str)),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "platform": platform.system(),
        },
    }


def remap_input(
    models: Models, path: Path, args: argparse.Namespace, options: SampleOptions, tally: Tally
) -> None:
    """Remaps what is chosen of one file, and counts it."""
    choice = choice_from(args)
    with tally.guard(str(path)), open_jobs(path, choice) as (jobs, left_out):
        for error in left_out:
            if choice.all_difficulties:
                tally.leave_out(error, str(path))
            else:
                tqdm.write(f"skipped {error}", file=sys.stderr)
        for job in jobs:
            with tally.guard(str(job)):
                if remap(models, job, args, options, quiet=not tally.strict):
                    tally.done += len(job.beatmaps)
                else:
                    tally.finished += len(job.beatmaps)


def remap_inputs(
    models: Models,
    paths: list[Path],
    copies: list[Path],
    args: argparse.Namespace,
    options: SampleOptions,
    ranks: Ranks,
) -> int:
    """Remaps this rank's share of many files on one model; returns the exit code of all."""
    tally = Tally(strict=False)
    for path in copies if ranks.is_main else []:
        tally.skipped += 1
        print(f"skipped {path}: the same file again", file=sys.stderr)
    share = paths[ranks.rank :: ranks.world_size]
    desc = "remapping" if ranks.world_size == 1 else f"rank {ranks.rank}"
    for path in tqdm(share, desc=desc, unit="file", file=sys.stderr, position=ranks.rank):
        remap_input(models, path, args, options, tally)
    return tally.close(ranks)


def choice_from(args: argparse.Namespace) -> Choice:
    """What the command line takes of archives, and writes."""
    return Choice(args.difficulty, args.all_difficulties, args.format, args.separate_set)


def load_models(args: argparse.Namespace, device: torch.device) -> Models:
    """The models that the flags name."""

    def load(path: Path) -> LoadedModel:
        return load_model(path, device, known_steps=args.max_noise_step)

    others = (None if p is None else load(p) for p in (args.refine_ckpt, args.expert_ckpt))
    return Models(load(args.ckpt), *others)


def check_args(args: argparse.Namespace) -> None:
    """Refuses combinations that mean nothing, before anything is loaded."""
    choice_from(args)
    controls.check_flags(args)


def main() -> int:
    args = parse_args()
    check_args(args)
    with process_group("gloo", hours=24 * 14) as ranks:
        device = command_line.pick_device(args.device, ranks.local_rank)
        models, options = load_models(args, device), options_from(args)
        check_model(models.sampler, args)
        paths, copies = find_inputs(args.beatmap, args.output)
        single = len(paths) == 1 and not copies and not args.all_difficulties
        if args.picture is None:
            args.picture = single
        if not single or ranks.world_size > 1:
            return remap_inputs(models, paths, copies, args, options, ranks)
        remap_input(models, paths[0], args, options, Tally(strict=True))
    print(
        "To play it: a .osu file goes into the song's folder, then press F5 in osu!'s song list; "
        "an .osz file is opened with osu!."
    )
    return 0


if __name__ == "__main__":
    command_line.run(main)
