"""Trains a model, on one device, or started by torchrun on many.

The noise of a step depends on (seed, step) alone and is drawn for the global batch, of which each
rank takes its share: any number of processes computes the same training run. The same command in
the same --results-dir goes on with a run that was stopped, by a signal or by a crash.
"""

from conventions import requirements_check  # (first: says what is missing)

if __name__ == "__main__":
    requirements_check.announce()

# isort: split
import argparse
import json
import logging
from contextlib import closing, nullcontext
from typing import Any

from conventions import command_line
from conventions.errors import naming
from conventions.precision import amp_warning
from conventions.ranks import process_group
from diffusion.parametrisation import EDM
from models import size_name
from training.connecting import connect
from training.flags import training_options, training_parser
from training.log import Metrics, start_logging
from training.monitor import Watch
from training.options import TrainingOptions
from training.run import Run
from training.run_folder import RunFolder, open_run
from training.setup import make_trainer, open_data, run_identity
from training.trackers import make_trackers
from training.trainer import Trainer

log = logging.getLogger("train")


def make_parser() -> argparse.ArgumentParser:
    """The command line of train.py."""
    return training_parser(__doc__)


def warn_of_ignored(options: TrainingOptions) -> None:
    """Names flags that have no effect."""
    ignored = options.noise_schedule or options.l1_loss is not None
    if options.parametrisation == "edm" and ignored:
        log.warning(
            "--noise-schedule and --l1-loss have no effect on edm; they belong to "
            "--parametrisation learned-variance"
        )
    drawn = (options.noise_log_mean, options.noise_log_std)
    if options.parametrisation != "edm" and drawn != (EDM().log_mean, EDM().log_std):
        log.warning(
            "--noise-log-mean and --noise-log-std have no effect on %s", options.parametrisation
        )


def describe(trainer: Trainer, folder: RunFolder | None, identity: dict[str, Any]) -> None:
    """The first lines of the log."""
    options, loader = trainer.options, trainer.loader
    if folder is not None:
        log.info("Experiment directory: %s", folder.path)
        for name, (before, now) in folder.differences(identity).items():
            log.warning("--%s was %s, is %s now", name.replace("_", "-"), before, now)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    size = size_name(trainer.model.config)
    log.info("%s Parameters: %s on %s", size, f"{parameters:,}", trainer.device)
    log.info("Dataset: %d maps, %d data points", len(loader.rows), loader.num_points)
    log.info("Options: %s", json.dumps(options.plain()))
    if warning := amp_warning(trainer.device, options.use_amp, options.amp_dtype):
        log.warning(warning)
    length = f"{trainer.total_steps} steps"
    if options.max_minutes is not None:
        length = f"{options.max_minutes:g} minutes, at most {length},"
    log.info("Training for %s of %d in an epoch", length, loader.batches_per_epoch)
    if trainer.progress() >= 1:
        log.warning(
            "Nothing is left of this run, at step %d after %.1f minutes: ask for more than that "
            "with --epochs, --max-steps or --max-minutes",
            trainer.step,
            trainer.elapsed / 60,
        )


@naming(command_line.flag_names())
def main() -> int:
    options = training_options(make_parser().parse_args())
    with process_group(options.dist, options.dist_timeout) as ranks:
        dataset = open_data(options, ranks)
        identity = run_identity(options, dataset)
        folder = ranks.only_on_main(
            lambda: open_run(options.results_dir, options.model, identity, options.resume)
        )
        start_logging(ranks.is_main, None if folder is None else folder.path)
        with closing(folder) if folder is not None else nullcontext():
            checkpoint = ranks.from_main(lambda: folder.newest_checkpoint() if folder else None)
            warn_of_ignored(options)
            trainer = make_trainer(options, ranks, dataset, checkpoint)
            describe(trainer, folder, identity)
            metrics = None
            if folder is not None:
                folder.require_space(trainer.checkpoint_bytes(), options.keep_last)
                trackers = make_trackers(folder.path, trainer.step, options)
                metrics = Metrics(folder.path, trainer.step, trackers)
            connect(trainer)
            watch = Watch(options, ranks, trainer.loader, trainer.objective, metrics)
            return Run(trainer, folder, watch).to_the_end()


if __name__ == "__main__":
    command_line.run(main)
