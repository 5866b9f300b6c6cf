"""Trains a model, on one device, or started by torchrun on many.

The noise of a step depends on (seed, step) alone and is drawn for the global batch, of which each
rank takes its share: any number of processes computes the same training run. The same command in
the same --results-dir goes on with a run that was stopped, by a signal or by a crash.
"""

import requirements_check  # noqa: F401  (first: says what is missing)

# isort: split
import argparse
import json
import logging
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import cli
from data_loading import PackedDataset
from diffusion.gaussian import EDM, LearnedVariance
from diffusion.schedule import SCHEDULES
from models import ARCHITECTURES, SIZES, DiTConfig
from ranks import Ranks, process_group
from run_folder import RunFolder, open_run
from trainer import Trainer, plain_options
from training_log import Metrics, start_logging
from training_state import TABLE, TrainingState, read_training_state
from watch import Watch

log = logging.getLogger("train")

NOT_OF_THE_RUN = {
    *("data_path", "num_workers", "results_dir", "resume", "keep_last", "keep_every"),
    *("log_every", "ckpt_every", "val_every", "sample_every", "tensorboard", "peak_tflops"),
    *("device", "dist"),
}
"""Options that do not decide what is learnt: a run may go on with others."""


def make_parametrisation(args: argparse.Namespace) -> EDM | LearnedVariance:
    """The parametrisation that the flags ask for."""
    if args.parametrisation == "edm":
        return EDM()
    schedule = SCHEDULES[args.noise_schedule or "squaredcos_cap_v2"]()
    return LearnedVariance(schedule, args.l1_loss is not False)


def make_config(args: argparse.Namespace, dataset_classes: int) -> DiTConfig:
    """The model that the flags ask for."""
    num_classes = args.num_classes or dataset_classes
    if num_classes < dataset_classes:
        raise ValueError(
            f"--num-classes {num_classes} is too small: the dataset has {dataset_classes} classes"
        )
    learn_sigma = args.parametrisation == "learned-variance"
    return DiTConfig(
        **{
            **SIZES[args.model],
            **ARCHITECTURES[args.architecture],
            "num_classes": num_classes,
            "learn_sigma": learn_sigma,
            "known_points": args.known_points > 0 and args.architecture != "reference",
            # In sampling a point sees as many neighbours as, on average, in training.
            "half_window": args.half_window or max(1, args.seq_len // 2),
        }
    )


def choose_rows(args: argparse.Namespace, dataset: PackedDataset) -> tuple[np.ndarray, np.ndarray]:
    """The beatmaps to train on and those held out.

    The held-out ones are whole sets; --fine-tune-ids names what to train on, whatever set it is of.
    """
    rows, held_out = dataset.split_by_set(args.validation_fraction, args.global_seed)
    if args.validation_fraction and not len(held_out):
        raise ValueError(
            f"--validation-fraction {args.validation_fraction} holds out no beatmapset: "
            "give a larger share, or none"
        )
    if args.fine_tune_ids is None:
        return rows, held_out
    text = args.fine_tune_ids
    # A long list of IDs is no file name that a system accepts.
    if not set(text) <= set("0123456789, ") and Path(text).is_file():
        text = Path(text).read_text(encoding="utf-8")
    try:
        wanted = {int(part) for part in text.replace(",", " ").split()}
    except ValueError as error:
        raise ValueError(
            f"--fine-tune-ids {args.fine_tune_ids!r}: give beatmap IDs separated by commas, "
            "or a text file of them"
        ) from error
    ids = dataset.beatmaps["beatmap_id"].to_numpy()
    missing = sorted(wanted - set(ids.tolist()))
    if missing:
        raise ValueError(f"--fine-tune-ids: the dataset has no beatmap {missing[:5]}")
    chosen = np.flatnonzero(np.isin(ids, list(wanted)))
    return chosen, np.setdiff1d(held_out, chosen)


def run_options(args: argparse.Namespace, dataset: PackedDataset) -> dict[str, Any]:
    """What makes two commands the same run: its options and its data."""
    options = {k: v for k, v in plain_options(args).items() if k not in NOT_OF_THE_RUN}
    return {**options, "data": dataset.description["files"]}


def make_parser() -> argparse.ArgumentParser:
    """The command line of train.py."""
    parser = argparse.ArgumentParser(
        usage="python train.py --data-path FOLDER [flags]",
        description=__doc__,
        formatter_class=cli.HelpFormatter,
    )
    add_data_flags(parser.add_argument_group("data"))
    add_model_flags(parser.add_argument_group("model"))
    add_run_flags(parser.add_argument_group("run"))
    add_start_flags(parser.add_argument_group("what to begin with"))
    add_device_flags(parser.add_argument_group("devices and speed"))
    add_watching_flags(parser.add_argument_group("checkpoints and watching"))
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    return make_parser().parse_args(argv)


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
    add("--l1-loss", action=cli.BooleanFlag, help="of learned-variance: L1, the default, or L2")
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
    add("--augment-rotation", type=float, default=0.0, help="windows turned by up to so many degrees")
    add(
        "--augment-scale",
        type=float,
        default=0.0,
        help="windows and distances scaled by 2 to the power of a normal number of this deviation",
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
        action=cli.BooleanFlag,
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
        help="training checkpoint, also of the public osu-diffusion, or weights (.safetensors) "
        "that a new run begins with",
    )
    add(
        "--heads",
        type=int,
        help="attention heads of a --ckpt of the public osu-diffusion of a "
        "size that it has no name for",
    )
    add(
        "--relearn-embeds",
        action=cli.BooleanFlag,
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
    add("--use-amp", action=cli.BooleanFlag, default=None, help="bf16; default: on CUDA")
    add("--dtype", choices=["float32", "float64"], default="float32", help="float64: for checks")
    add("--compile", action=cli.BooleanFlag, default=False, help="torch.compile, where it works")
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
    add("--tensorboard", action=cli.BooleanFlag, default=False, help="write TensorBoard events")


POSITIVE = (
    *("epochs", "max_steps", "max_minutes", "global_batch_size", "accumulate", "seq_len"),
    *("half_window", "train_half_window", "num_classes", "heads", "peak_tflops"),
    *("log_every", "ckpt_every", "keep_last", "keep_every", "val_every", "sample_every"),
)


def check_args(args: argparse.Namespace) -> None:
    """Refuses numbers that make no sense and flags that would be ignored: ValueError."""
    for name in POSITIVE:
        _require_positive(args, name)
    if args.relearn_embeds and args.ckpt is None:
        raise ValueError("--relearn-embeds renews the class table of a --ckpt: give one")
    if args.sample_every and not args.validation_fraction:
        raise ValueError("--sample-every samples held-out maps: add --validation-fraction 0.05")


def _require_positive(args: argparse.Namespace, name: str) -> None:
    value = getattr(args, name)
    if value is not None and value <= 0:
        raise ValueError(f"--{name.replace('_', '-')} {value}: give a number above 0")


def open_data(args: argparse.Namespace, ranks: Ranks) -> PackedDataset:
    """The packed dataset; the main rank packs a folder of beatmaps, the others find the result."""

    def pack() -> Path:
        if (args.data_path / "dataset.json").is_file():
            return args.data_path
        # Reading beatmaps needs packages that training on packed ones does not.
        from create_dataset import open_or_pack

        span = (args.data_start, args.data_end)
        return open_or_pack(args.data_path, args.results_dir, *span, args.num_workers).folder

    return PackedDataset(ranks.from_main(pack))


def starting_point(args: argparse.Namespace, checkpoint: Path | None) -> TrainingState | None:
    """What to begin with: the run's own checkpoint, else --ckpt, else nothing.

    With other maps or a new class table it is a new run, which counts its steps from 0.
    """
    if checkpoint is not None:
        return read_training_state(checkpoint)
    if args.ckpt is None:
        return None
    state = read_training_state(args.ckpt, args.heads)
    return state.as_new_run() if args.relearn_embeds or args.fine_tune_ids else state


def make_trainer(
    args: argparse.Namespace, ranks: Ranks, dataset: PackedDataset, checkpoint: Path | None
) -> Trainer:
    """The trainer of a run, as its last checkpoint, or --ckpt, left it."""
    state = starting_point(args, checkpoint)
    config, parametrisation = make_config(args, dataset.num_classes), make_parametrisation(args)
    if state is not None and (state.source == "reference" or checkpoint is not None):
        # A run is what it began as; the reference's commands have no flags for what it is.
        config = replace(state.config, num_classes=config.num_classes)
        parametrisation = state.parametrisation
    trainer = Trainer(args, ranks, dataset, choose_rows(args, dataset), config, parametrisation)
    if state is None:
        return trainer
    if args.relearn_embeds and checkpoint is None:
        table = trainer.model.state_dict()[TABLE].clone()
        state = state.with_fresh_table(table, config.num_classes)
    if config.known_points and not state.config.known_points and checkpoint is None:
        state = state.with_known_points()
    state.require(config, parametrisation)
    trainer.restore(state)
    if checkpoint is None and trainer.progress() >= 1:
        raise ValueError(
            f"{args.ckpt} is at step {trainer.step}, the run ends at {trainer.total_steps}: "
            "ask for more with --epochs, --max-steps or --max-minutes"
        )
    return trainer


def warn_of_ignored(args: argparse.Namespace) -> None:
    """Names flags that have no effect."""
    if args.parametrisation == "edm" and (args.noise_schedule or args.l1_loss is not None):
        log.warning(
            "--noise-schedule and --l1-loss have no effect on edm; they belong to "
            "--parametrisation learned-variance"
        )


def describe(trainer: Trainer, folder: RunFolder | None, options: dict[str, Any]) -> None:
    """The first lines of the log."""
    args, loader = trainer.args, trainer.loader
    if folder is not None:
        log.info("Experiment directory: %s", folder.path)
        for name, (before, now) in folder.differences(options).items():
            log.warning("--%s was %s, is %s now", name.replace("_", "-"), before, now)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    log.info("%s Parameters: %s on %s", args.model, f"{parameters:,}", trainer.device)
    log.info("Dataset: %d maps, %d data points", len(loader.rows), loader.num_points)
    log.info("Options: %s", json.dumps(plain_options(args)))
    length = f"{trainer.total_steps} steps"
    if args.max_minutes is not None:
        length = f"{args.max_minutes:g} minutes, at most {length},"
    log.info("Training for %s of %d in an epoch", length, loader.batches_per_epoch)


def main() -> int:
    args = parse_args()
    check_args(args)
    with process_group(args.dist) as ranks:
        dataset = open_data(args, ranks)
        options = run_options(args, dataset)
        folder: RunFolder | None = None

        def open_folder() -> Path | None:
            nonlocal folder
            folder = open_run(args.results_dir, args.model, options, args.resume)
            start_logging(ranks.is_main, folder.path)
            return folder.newest_checkpoint()

        checkpoint = ranks.from_main(open_folder)
        if not ranks.is_main:
            start_logging(False, None)
        with closing(folder) if folder is not None else nullcontext():
            warn_of_ignored(args)
            trainer = make_trainer(args, ranks, dataset, checkpoint)
            describe(trainer, folder, options)
            metrics = None
            if folder is not None:
                folder.require_space(trainer.checkpoint_bytes(), args.keep_last)
                metrics = Metrics(folder.path, trainer.step, args.tensorboard)
            trainer.connect()
            watch = Watch(args, ranks, trainer.loader, trainer.objective, metrics)
            return trainer.run(folder, watch)


if __name__ == "__main__":
    cli.run(main)
