"""The options of a training run: its flags, and which of their values make no sense."""

import argparse
from pathlib import Path

from conventions import command_line
from diffusion.schedule import SCHEDULES
from models import ARCHITECTURES, SIZES


def training_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The command line of train.py."""
    parser = argparse.ArgumentParser(
        usage="python train.py --data-path FOLDER [flags]",
        description=description,
        formatter_class=command_line.HelpFormatter,
    )
    add_data_flags(parser.add_argument_group("data"))
    add_model_flags(parser.add_argument_group("model"))
    add_run_flags(parser.add_argument_group("run"))
    add_start_flags(parser.add_argument_group("what to begin with"))
    add_device_flags(parser.add_argument_group("devices and speed"))
    add_watching_flags(parser.add_argument_group("checkpoints and watching"))
    return parser


def add_data_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--data-path",
        type=Path,
        required=True,
        help="packed dataset, or any source that create_dataset.py takes",
    )
    add("--data-start", type=int, help="first track of a Mapperator dataset; default: all")
    add("--data-end", type=int, help="track after the last one; default: all")
    add("--seq-len", type=int, default=128, help="data points in a window")
    add("--stride", type=int, default=16, help="data points between windows")
    add("--validation-fraction", type=float, default=0.0, help="share of beatmapsets held out")
    add("--fine-tune-ids", help="train on these beatmap IDs only (1,2,3 or a file)")
    add("--num-workers", type=int, help="processes for packing a source; default: one a core")


def add_model_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", choices=list(SIZES), default="DiT-B", help="size of the network")
    add("--num-classes", type=int, help="style classes; default: the dataset's")
    add(
        "--architecture",
        choices=list(ARCHITECTURES),
        default="local",
        help="ours, ours without what tells a point's neighbours, or the public osu-diffusion's",
    )
    add(
        "--parametrisation",
        choices=["edm", "learned-variance"],
        default="edm",
        help="what the network predicts",
    )
    add(
        "--noise-schedule",
        choices=list(SCHEDULES),
        help="of learned-variance; default there: squaredcos_cap_v2",
    )
    add(
        "--l1-loss",
        action=command_line.BooleanFlag,
        help="of learned-variance: L1, the default, or L2",
    )
    add("--half-window", type=int, help="W of the attention band in sampling; default: seq-len / 2")
    add("--train-half-window", type=int, help="W in training; default: whole windows, seq-len")
    add("--class-dropout", type=float, default=0.1, help="share of windows without a style")
    add(
        "--distance-dropout",
        type=float,
        default=0.0,
        help="share of windows without distances, for --spacing free in sampling",
    )
    add(
        "--known-points",
        type=float,
        default=0.5,
        help="share of windows some of whose points are given, for remapping parts of a map",
    )
    add(
        "--max-noise-px",
        type=float,
        metavar="PX",
        help="train an expert for low noise, up to this much; default: all noise",
    )
    add(
        "--augment-double-time",
        type=float,
        default=0.0,
        help="share of windows at double speed",
    )
    add(
        "--augment-distances",
        type=float,
        default=0.0,
        help="the distances that are told are multiplied by 2 to the power of a normal number of "
        "this deviation",
    )
    add(
        "--augment-rotation",
        type=float,
        default=0.0,
        help="degrees that windows are turned by at most, as far as they fit the playfield then",
    )
    add(
        "--augment-scale",
        type=float,
        default=0.0,
        help="windows are scaled by 2 to the power of a normal number of this deviation",
    )


def add_run_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--epochs", type=int, default=1400, help="times through the data")
    add("--max-steps", type=int, help="end after so many steps")
    add(
        "--max-minutes",
        type=float,
        help="end after so long; the decay follows the clock, so that no two runs are alike",
    )
    add("--global-batch-size", type=int, default=256, help="windows over all ranks")
    add("--accumulate", type=int, default=1, help="parts of a rank's windows, one after another")
    add("--global-seed", type=int, default=0, help="another seed gives another run")
    add("--lr", type=float, default=5e-4, help="peak learning rate")
    add("--warmup-steps", type=int, default=100, help="steps in which the rate rises to --lr")
    add(
        "--lr-decay",
        action=command_line.BooleanFlag,
        default=True,
        help="the rate falls to 5 percent, linearly",
    )
    add("--clip", type=float, default=1.0, help="largest gradient norm")
    add(
        "--ema-decay",
        type=float,
        default=0.9999,
        help="of the averaged weights that are exported; reached after a warm-up",
    )


def add_start_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--resume",
        default="auto",
        help="auto: go on with the newest unfinished run in --results-dir that has the same "
        "options and data, if there is one; never; or a run's folder or newest checkpoint",
    )
    add(
        "--ckpt",
        type=Path,
        help="training checkpoint, also of the public osu-diffusion, the folder of an "
        "osu-diffusion v2, or weights (.safetensors) that a new run begins with",
    )
    add(
        "--max-noise-step",
        type=int,
        metavar="STEP",
        help="of 1000 timesteps, how many a --ckpt of osu-diffusion v2 was trained at, and is "
        "from here on; default: 100, as the published one",
    )
    add(
        "--heads",
        type=int,
        help="attention heads of a --ckpt of the public osu-diffusion of a "
        "size that it has no name for",
    )
    add(
        "--relearn-embeds",
        action=command_line.BooleanFlag,
        default=False,
        help="begin with a new class table, to learn other styles",
    )
    add("--embed-only-epochs", type=int, default=0, help="epochs that train the class table alone")


def add_device_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--device", default="auto", help="cuda, mps, cpu or auto")
    add(
        "--dist",
        choices=["nccl", "gloo"],
        default="nccl",
        help="with torchrun; gloo on CPUs and on Windows",
    )
    add("--use-amp", action=command_line.BooleanFlag, default=None, help="bf16; default: on CUDA")
    add("--dtype", choices=["float32", "float64"], default="float32", help="float64: for checks")
    add(
        "--compile",
        action=command_line.BooleanFlag,
        default=False,
        help="torch.compile, where it works",
    )
    add("--peak-tflops", type=float, help="of one device, for the MFU; default: measured")


def add_watching_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--results-dir", type=Path, default=Path("results"), help="folder for the run's folder")
    add("--log-every", type=int, default=100, help="steps between log lines")
    add("--ckpt-every", type=int, default=50_000, help="steps between checkpoints")
    add("--keep-last", type=int, default=3, help="checkpoints that are kept")
    add("--keep-every", type=int, help="steps whose multiples are kept as well")
    add("--val-every", type=int, default=1000, help="steps between losses on held-out sets")
    add("--sample-every", type=int, help="steps between pictures of sampled held-out maps")
    add(
        "--tensorboard",
        action=command_line.BooleanFlag,
        default=False,
        help="write TensorBoard events",
    )


POSITIVE = (
    *("epochs", "max_steps", "max_minutes", "global_batch_size", "accumulate", "seq_len"),
    *("max_noise_px", "half_window", "train_half_window", "num_classes", "heads", "peak_tflops"),
    *("log_every", "ckpt_every", "keep_last", "keep_every", "val_every", "sample_every"),
)


def check_args(args: argparse.Namespace) -> None:
    """Refuses numbers that make no sense and flags that would be ignored: ValueError."""
    for name in POSITIVE:
        _require_positive(args, name)
    if not 0 <= args.augment_double_time <= 1:
        raise ValueError(f"--augment-double-time {args.augment_double_time}: give 0 to 1")
    if not 0 <= args.augment_distances <= 1:
        raise ValueError(f"--augment-distances {args.augment_distances}: give 0 to 1")
    if args.relearn_embeds and args.ckpt is None:
        raise ValueError("--relearn-embeds renews the class table of a --ckpt: give one")
    if args.sample_every and not args.validation_fraction:
        raise ValueError("--sample-every samples held-out maps: add --validation-fraction 0.05")


def _require_positive(args: argparse.Namespace, name: str) -> None:
    value = getattr(args, name)
    if value is not None and value <= 0:
        raise ValueError(f"--{name.replace('_', '-')} {value}: give a number above 0")
