"""The flags of a training run, and the options that they make."""

import argparse
from dataclasses import MISSING, fields
from pathlib import Path

from conventions import command_line
from conventions.precision import AMP_DTYPES
from diffusion.schedule import SCHEDULES
from models import ARCHITECTURES, SIZES
from training.conditioning import GROUPS
from training.options import TrainingOptions


def training_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The command line of train.py."""
    parser = argparse.ArgumentParser(
        usage="python train.py --data-path FOLDER [flags]",
        description=description,
        formatter_class=command_line.HelpFormatter,
    )
    _add_data_flags(parser.add_argument_group("data"))
    _add_model_flags(parser.add_argument_group("model"))
    _add_run_flags(parser.add_argument_group("run"))
    _add_start_flags(parser.add_argument_group("what to begin with"))
    _add_device_flags(parser.add_argument_group("devices and speed"))
    _add_watching_flags(parser.add_argument_group("checkpoints and watching"))
    values = {option.name: option.default for option in fields(TrainingOptions)}
    parser.set_defaults(**{name: v for name, v in values.items() if v is not MISSING})
    return parser


def _add_data_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--data-path",
        type=Path,
        required=True,
        help="packed dataset, or any source that create_dataset.py takes",
    )
    add("--data-start", type=int, help="first track of a Mapperator dataset; default: all")
    add("--data-end", type=int, help="track after the last one; default: all")
    add("--seq-len", type=int, help="data points in a window")
    add("--stride", type=int, help="data points between windows")
    add("--validation-fraction", type=float, help="share of beatmapsets held out")
    add("--fine-tune-ids", help="train on these beatmap IDs only (1,2,3 or a file)")
    add("--num-workers", type=int, help="processes for packing a source; default: one a core")


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", choices=list(SIZES), help="size of the network")
    add(
        "--depth",
        type=int,
        help="number of blocks; default: that of --model. A --ckpt that has fewer grows: the new "
        "blocks change nothing at first",
    )
    add("--num-classes", type=int, help="style classes; default: the dataset's")
    add(
        "--condition-groups",
        nargs="+",
        choices=list(GROUPS),
        metavar="GROUP",
        help="what the model is told of a map instead of its class, each for itself and with "
        f"--class-dropout: {', '.join(GROUPS)}; default: the class",
    )
    add(
        "--architecture",
        choices=list(ARCHITECTURES),
        help="ours, ours without what tells a point's neighbours, or the public osu-diffusion's",
    )
    add(
        "--parametrisation",
        choices=["edm", "learned-variance"],
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
    add("--class-dropout", type=float, help="share of windows without a style")
    add(
        "--distance-dropout",
        type=float,
        help="share of windows without distances, for --spacing free in sampling",
    )
    add(
        "--known-points",
        type=float,
        help="share of windows some of whose points are given, for remapping parts of a map",
    )
    add(
        "--max-noise-px",
        type=float,
        metavar="PX",
        help="train an expert for low noise, up to this much; default: all noise",
    )
    add(
        "--noise-log-mean",
        type=float,
        help="of edm: mean of the logarithm of the noise levels, in units of 131 px: -1 is 48 px",
    )
    add(
        "--noise-log-std",
        type=float,
        help="of edm: standard deviation of the logarithm of the noise levels; less means fewer "
        "windows with very much and very little noise",
    )
    add(
        "--augment-double-time",
        type=float,
        help="share of windows in double time, which is 1.5 times as fast",
    )
    add(
        "--augment-distances",
        type=float,
        help="the distances that are told are multiplied by 2 to the power of a normal number of "
        "this deviation",
    )
    add(
        "--augment-rotation",
        type=float,
        help="degrees that windows are turned by at most, as far as they fit the playfield then",
    )
    add(
        "--augment-scale",
        type=float,
        help="windows are scaled by 2 to the power of a normal number of this deviation",
    )
    add(
        "--augment-repeats",
        type=float,
        help="share of windows in which passages come again, mirrored, turned or moved, most of "
        "whose points are given: what it takes to continue patterns",
    )


def _add_run_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--epochs", type=int, help="times through the data")
    add("--max-steps", type=int, help="end after so many steps")
    add(
        "--max-minutes",
        type=float,
        help="end after so long; the decay follows the clock, so that no two runs are alike",
    )
    add("--global-batch-size", type=int, help="windows over all ranks")
    add("--accumulate", type=int, help="parts of a rank's windows, one after another")
    add("--global-seed", type=int, help="another seed gives another run")
    add("--lr", type=float, help="peak learning rate")
    add("--warmup-steps", type=int, help="steps in which the rate rises to --lr")
    add(
        "--lr-decay",
        action=command_line.BooleanFlag,
        help="the rate falls to 5 percent, linearly",
    )
    add("--clip", type=float, help="largest gradient norm")
    add(
        "--ema-decay",
        type=float,
        help="of the averaged weights that are exported; reached after a warm-up",
    )


def _add_start_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--resume",
        help="auto: go on with the newest unfinished run in --results-dir that has the same "
        "options and data, if there is one; never; or a run's folder or newest checkpoint",
    )
    add(
        "--ckpt",
        type=Path,
        help="training checkpoint, also of the public osu-diffusion, the folder of an "
        "osu-diffusion v2, or weights (.safetensors, or hf:OWNER/NAME on the Hugging Face Hub) "
        "that a new run begins with",
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
        help="begin with a new class table, to learn other styles",
    )
    add("--embed-only-epochs", type=int, help="epochs that train the class table alone")


def _add_device_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--device", help="cuda, mps, cpu or auto")
    add(
        "--dist",
        choices=["nccl", "gloo"],
        help="with torchrun; gloo on CPUs and on Windows",
    )
    add(
        "--dist-timeout",
        type=float,
        metavar="MINUTES",
        help="with torchrun: how long a rank waits in a step for one that does not answer",
    )
    add(
        "--shard",
        action=command_line.BooleanFlag,
        help="with torchrun: weights, gradients, moments and average are shared out over the ranks "
        "(FSDP2), for models that are too large for one device",
    )
    add("--use-amp", action=command_line.BooleanFlag, help="half precision; default: on CUDA")
    add(
        "--amp-dtype",
        choices=["auto", *AMP_DTYPES],
        help="of --use-amp; auto: bf16, but float16 on CUDA cards before Ampere, which lack bf16",
    )
    add("--dtype", choices=["float32", "float64"], help="float64: for checks")
    add(
        "--compile",
        action=command_line.BooleanFlag,
        help="torch.compile, where it works; default: on CUDA",
    )
    add(
        "--grad-checkpointing",
        action=command_line.BooleanFlag,
        help="a third more computing for a fraction of the memory: blocks are computed twice",
    )
    add("--peak-tflops", type=float, help="of one device, for the MFU; default: measured")


def _add_watching_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--results-dir", type=Path, help="folder for the run's folder")
    add("--log-every", type=int, help="steps between log lines")
    add("--ckpt-every", type=int, help="steps between checkpoints")
    add("--keep-last", type=int, help="checkpoints that are kept")
    add("--keep-every", type=int, help="steps whose multiples are kept as well")
    add("--val-every", type=int, help="steps between losses on held-out sets")
    add("--sample-every", type=int, help="steps between pictures of sampled held-out maps")
    add(
        "--tensorboard",
        action=command_line.BooleanFlag,
        help="write TensorBoard events",
    )
    add("--wandb", metavar="PROJECT", help="log to this project of Weights & Biases")
    add("--profile", type=int, metavar="STEPS", help="write trace.json of so many steps")


def training_options(args: argparse.Namespace) -> TrainingOptions:
    """The options that parsed flags make."""
    groups = tuple(args.condition_groups)
    # The order of a model's groups does not depend on the order of the flag.
    chosen = tuple(group for group in GROUPS if group in groups)
    return TrainingOptions(**{**vars(args), "condition_groups": chosen})
