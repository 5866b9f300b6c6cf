"""Remaps a beatmap: keeps its rhythm and spacing, gives every object a new position."""

import argparse
import json
import platform
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import cli
from animation import DEFAULT_CLIP, animate_denoising, check_length
from beatmap import Beatmap, edit_metadata, parse_beatmap, read_beatmap, write_new_file
from checkpoint import LoadedModel, load_model
from data_loading import load_beatmap_idx
from diffusion.samplers import SAMPLERS
from generation import DEFAULT_STEPS, FloatArray, SampleOptions, generate, measure
from models import SIZES
from plotting import time_slices
from preview import SUFFIXES, write_preview
from sequence import Sequence, apply_coordinates, beatmap_to_sequence

HERE = Path(__file__).parent
EXAMPLE = HERE / "example" / "osu-diffusion - First Steps (osu-diffusion) [Original].osu"
DEFAULT_MODEL = HERE / "checkpoints" / "osu-diffusion-xs.safetensors"
TAG = "osu-diffusion"
UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')


def result_version(beatmap: Beatmap, options: SampleOptions, style_id: int | None) -> str:
    """The new difficulty's name, which says what it is."""
    style = "" if style_id is None else f" style {style_id}"
    return f"{beatmap.version} (AI remap{style} seed {options.seed})"


def safe_name(text: str, limit: int = 100) -> str:
    """`text` as a file name that Windows, macOS and Linux accept, cut to `limit` bytes."""
    name = UNSAFE.sub("-", text).strip(" .")
    cut = name.encode("utf-8", "ignore")[:limit].decode("utf-8", "ignore")
    return cut.strip(" .") or "beatmap"


def remapped_file(
    beatmap: Beatmap, sequence: Sequence, xy: FloatArray, version: str, seed: int
) -> bytes:
    """The beatmap's file with new coordinates, difficulty name, BeatmapID 0 and honest tags."""
    data = apply_coordinates(beatmap, sequence, xy)
    tags = [TAG, "ai-generated", f"seed{seed}"]
    return edit_metadata(data, version=version, beatmap_id=0, add_tags=tags)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add, boolean = parser.add_argument, cli.BooleanFlag
    add("--beatmap", type=Path, default=EXAMPLE, help=".osu file whose rhythm and spacing to keep")
    add("--ckpt", type=Path, default=DEFAULT_MODEL, help="model: .safetensors or .pt")
    add("--output", type=Path, default=Path("results"), help="folder for the results")
    add("--overwrite", action=boolean, default=False, help="replace existing results")
    add("--seed", type=int, default=0, help="another seed gives another map")
    add("--num-variants", type=int, default=1, help="different maps of one run")
    add("--style-id", type=int, help="beatmap ID of a training map whose style to use")
    add("--cfg-scale", type=float, default=1.0, help="above 1 exaggerates the style")
    add("--num-sampling-steps", type=int, default=DEFAULT_STEPS, help="1 to 1000")
    add("--sampler", choices=SAMPLERS, default="dpmpp-2m")
    add("--spacing", choices=["keep", "model"], default="keep", help="keep: the source's distances")
    add("--bounds", choices=["playfield", "off"], default="playfield")
    add("--plot-time", type=float, help="ms at which the picture begins; default: overview")
    add("--plot-width", type=float, default=2000, help="ms that the picture shows after plot-time")
    add("--preview", nargs="+", choices=list(SUFFIXES), default=["png"], help="what to draw")
    add("--make-animation", action=boolean, default=False, help="draw the denoising as a GIF")
    add("--device", default="auto", help="cuda, mps, cpu or auto")
    add("--use-amp", action=boolean, default=None, help="bf16 autocast; default: on CUDA")
    add("--seq-len", type=int, help="attention half window; default: the model's")
    add("--model", choices=list(SIZES), help="checked against the checkpoint")
    add("--num-classes", type=int, help="checked against the checkpoint")
    add("--beatmap-idx", "--beatmap_idx", type=Path, help="index of styles; default: the model's")
    add("--refine-ckpt", type=Path, help="not available yet")
    add("--refine-iters", type=int, default=10, help="not available yet")
    return parser.parse_args()


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


def find_style(loaded: LoadedModel, args: argparse.Namespace) -> int | None:
    """The class index of --style-id, checked against the model."""
    if args.style_id is None:
        return None
    path = args.beatmap_idx or loaded.class_index_path()
    index = load_beatmap_idx(path)
    classes = loaded.model.config.num_classes
    if index and max(index.values()) >= classes:
        raise ValueError(
            f"{path} has class {max(index.values())}, the checkpoint only {classes} classes: "
            "give the model's own index with --beatmap-idx"
        )
    if args.style_id not in index:
        near = sorted(index, key=lambda known: abs(known - args.style_id))[:3]
        raise ValueError(
            f"--style-id {args.style_id} is not among the {len(index)} styles of {path.name}; "
            f"the nearest IDs are {', '.join(map(str, near))}"
        )
    return index[args.style_id]


def options_from(
    args: argparse.Namespace, style: int | None, device: torch.device
) -> SampleOptions:
    """The sampling options that the command line asks for."""
    return SampleOptions(
        steps=args.num_sampling_steps,
        sampler=args.sampler,
        cfg_scale=args.cfg_scale,
        style=style,
        variants=args.num_variants,
        seed=args.seed,
        spacing=args.spacing,
        bounds=args.bounds,
        half_window=args.seq_len,
        use_amp=device.type == "cuda" if args.use_amp is None else args.use_amp,
    )


@dataclass(frozen=True)
class Outputs:
    """Where the files of one remap go: a folder, and per variant a beatmap and previews by kind."""

    folder: Path
    versions: list[str]
    beatmaps: list[Path]
    previews: list[dict[str, Path]]
    report: Path

    @classmethod
    def plan(cls, beatmap: Beatmap, args: argparse.Namespace, options: SampleOptions) -> "Outputs":
        """Chooses the names and makes sure that nothing is overwritten unasked."""
        if args.output.exists() and not args.output.is_dir():
            raise ValueError(f"--output {args.output} is a file: give a folder")
        song = f"{beatmap.artist} - {beatmap.title}"
        number = f"{beatmap.beatmap_id} " if beatmap.beatmap_id > 0 else ""
        folder = args.output / safe_name(f"{number}{song}", 60)
        version = result_version(beatmap, options, args.style_id)
        several = options.variants > 1
        versions = [f"{version} #{k + 1}" if several else version for k in range(options.variants)]
        stem, short = safe_name(song, 40), safe_name(beatmap.version, 40)
        kinds = {kind: SUFFIXES[kind] for kind in args.preview}
        if args.make_animation:
            kinds["denoising"] = ".denoising.gif"
        # What tells results apart stands at the end, where it must not be cut off.
        names = [f"{stem} [{short}{v.removeprefix(beatmap.version)}]" for v in versions]
        plan = cls(
            folder,
            versions,
            [folder / f"{name}.osu" for name in names],
            [{kind: folder / f"{name}{kinds[kind]}" for kind in kinds} for name in names],
            folder / f"{short}{version.removeprefix(beatmap.version)}.result.json",
        )
        drawn = [path for previews in plan.previews for path in previews.values()]
        existing = [p for p in (*plan.beatmaps, *drawn, plan.report) if p.exists()]
        if existing and not args.overwrite:
            raise ValueError(f"{existing[0]} exists: add --overwrite or choose another --seed")
        return plan


def remap(loaded: LoadedModel, args: argparse.Namespace) -> int:
    """Reads the beatmap, samples, writes all results and says what was written."""
    beatmap = read_beatmap(args.beatmap)
    device = next(loaded.model.parameters()).device
    options = options_from(args, find_style(loaded, args), device)
    outputs = Outputs.plan(beatmap, args, options)
    check_pictures(beatmap, args)
    sequence = beatmap_to_sequence(beatmap)
    print(f"{len(beatmap.objects)} hit objects, {len(sequence)} data points", file=sys.stderr)
    predictions: list[FloatArray] = []
    watch = (lambda _, xy: predictions.append(xy)) if args.make_animation else None
    with tqdm(total=options.steps, desc="sampling", unit="step", file=sys.stderr) as bar:
        raw, placed = generate(
            loaded, beatmap, sequence, options, lambda done, total: bar.update(done - bar.n), watch
        )
    outputs.folder.mkdir(parents=True, exist_ok=True)
    variants = []
    for k, xy in enumerate(placed):
        data = remapped_file(beatmap, sequence, xy, outputs.versions[k], args.seed)
        written = parse_beatmap(data, outputs.beatmaps[k].name)
        errors = measure(sequence, beatmap_to_sequence(written).xy)
        write_new_file(outputs.beatmaps[k], data, overwrite=args.overwrite)
        draw(beatmap, written, outputs.previews[k], args)
        if args.make_animation:
            steps, path = [xy[k] for xy in predictions], outputs.previews[k]["denoising"]
            animate_denoising(beatmap, sequence, steps, placed[k], path, times=plot_range(args))
        variants.append(
            {
                "beatmap": outputs.beatmaps[k].name,
                "previews": [path.name for path in outputs.previews[k].values()],
                "written": errors,
                "before_rounding": measure(sequence, raw[k]),
            }
        )
        print(f"wrote {outputs.beatmaps[k]}")
        for path in outputs.previews[k].values():
            print(f"wrote {path}")
        print(
            f"object spacing error: median {errors['object_spacing_error_median']:.2f} px, "
            f"95 % below {errors['object_spacing_error_p95']:.2f} px; "
            f"objects off the playfield: {errors['centres_off_playfield']:.1%}"
        )
    report = describe(loaded, beatmap, args, options, variants)
    text = json.dumps(report, indent=1, ensure_ascii=False)
    data = text.encode("utf-8", "backslashreplace")
    write_new_file(outputs.report, data, overwrite=args.overwrite)
    print(f"wrote {outputs.report}")
    print("To play it, copy the .osu file into the song's folder and press F5 in osu!'s song list.")
    return 0


def plot_range(args: argparse.Namespace) -> tuple[float, float] | None:
    """(start, end) ms that --plot-time and --plot-width ask for."""
    if args.plot_time is None:
        return None
    return args.plot_time, args.plot_time + args.plot_width


def check_pictures(beatmap: Beatmap, args: argparse.Namespace) -> None:
    """Refuses a range with nothing to draw before sampling rather than after it."""
    time_slices(beatmap, *(plot_range(args) or (None, None)))
    if "gif" in args.preview and args.plot_time is not None:
        check_length(args.plot_width)


def draw(
    before: Beatmap, after: Beatmap, previews: dict[str, Path], args: argparse.Namespace
) -> None:
    """The previews that --preview asks for, in the range that --plot-time asks for."""
    length = DEFAULT_CLIP if args.plot_time is None else args.plot_width
    for kind in args.preview:
        remark = write_preview(
            kind,
            before,
            after,
            previews[kind],
            start_ms=args.plot_time,
            length_ms=length,
            overwrite=args.overwrite,
        )
        if remark:
            print(remark, file=sys.stderr)


def describe(
    loaded: LoadedModel,
    beatmap: Beatmap,
    args: argparse.Namespace,
    options: SampleOptions,
    variants: list[dict[str, Any]],
) -> dict[str, Any]:
    """All that is needed to repeat the run, and what was measured of its results."""
    return {
        "source": {"file": Path(args.beatmap).name, "md5": beatmap.md5},
        "checkpoint": {"file": loaded.path.name, "sha256": loaded.sha256},
        "style_id": args.style_id,
        "options": asdict(options),
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "platform": platform.system(),
        },
        "variants": variants,
    }


def main() -> int:
    args = parse_args()
    if args.cfg_scale != 1 and args.style_id is None:
        raise ValueError("--cfg-scale strengthens a style: give one with --style-id")
    if args.refine_ckpt is not None:
        raise ValueError("--refine-ckpt is not available yet: leave it out")
    device = cli.pick_device(args.device)
    loaded = load_model(args.ckpt, device)
    check_model(loaded, args)
    return remap(loaded, args)


if __name__ == "__main__":
    cli.run(main)
