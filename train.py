"""Trains a model, on one device, or started by torchrun on many.

The noise of a step depends on (seed, step) alone and is drawn for the global batch, of which each
rank takes its share: any number of processes computes the same training run. The same command in
the same --results-dir goes on with a run that was stopped, by a signal or by a crash.
"""

from conventions import requirements_check  # noqa: F401  (first: says what is missing)

# isort: split
import argparse
import json
import logging
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from conventions import command_line
from conventions.ranks import process_group
from training.log import Metrics, start_logging
from training.monitor import Watch
from training.options import check_args, training_parser
from training.run_folder import RunFolder, open_run
from training.setup import make_trainer, open_data, run_options
from training.trackers import make_trackers
from training.trainer import Trainer, plain_options

log = logging.getLogger("train")


def make_parser() -> argparse.ArgumentParser:
    """The command line of train.py."""
    return training_parser(__doc__)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    return make_parser().parse_args(argv)


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
                where = {"tensorboard": args.tensorboard, "wandb": args.wandb}
                trackers = make_trackers(folder.path, trainer.step, options, **where)
                metrics = Metrics(folder.path, trainer.step, trackers)
            trainer.connect()
            watch = Watch(args, ranks, trainer.loader, trainer.objective, metrics)
            return trainer.run(folder, watch)


if __name__ == "__main__":
    command_line.run(main)
