"""From the options of a run to its data, its model and its trainer, as it begins or goes on."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conventions.ranks import Ranks
from data_loading import PackedDataset
from diffusion.parametrisation import EDM, LearnedVariance, Parametrisation
from diffusion.schedule import SCHEDULES
from models import ARCHITECTURES, SIZES, DiTConfig
from training.state import TABLE, TrainingState, read_training_state
from training.trainer import Trainer, plain_options

NOT_OF_THE_RUN = {
    *("data_path", "num_workers", "results_dir", "resume", "keep_last", "keep_every"),
    *("log_every", "ckpt_every", "val_every", "sample_every", "tensorboard", "peak_tflops"),
    *("device", "dist"),
}
"""Options that do not decide what is learnt: a run may go on with others."""


def make_parametrisation(args: argparse.Namespace) -> Parametrisation:
    """The parametrisation that the flags ask for."""
    schedule = SCHEDULES[args.noise_schedule or "squaredcos_cap_v2"]()
    whole: Parametrisation = EDM()
    if args.parametrisation != "edm":
        whole = LearnedVariance(schedule, args.l1_loss is not False)
    return whole if args.max_noise_px is None else whole.limited(args.max_noise_px)


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


def open_data(args: argparse.Namespace, ranks: Ranks) -> PackedDataset:
    """The packed dataset; the main rank packs a folder of beatmaps, the others find the result."""

    def pack() -> Path:
        if (args.data_path / "dataset.json").is_file():
            return args.data_path
        # Reading beatmaps needs packages that training on packed ones does not.
        from datasets.pack import open_or_pack

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
    state = read_training_state(args.ckpt, args.heads, args.max_noise_step)
    state = state.at_noise_up_to(args.max_noise_px)
    return state.as_new_run() if args.relearn_embeds or args.fine_tune_ids else state


def without_table(args: argparse.Namespace, state: TrainingState) -> DiTConfig:
    """The configuration of a model that is told of maps in groups; ValueError for a table's flags.

    It is what it began as, whatever the flags say of sizes and classes.
    """
    if args.relearn_embeds or args.embed_only_epochs:
        raise ValueError(
            f"{state.path} has no class table for --relearn-embeds and --embed-only-epochs: "
            "it is told of a map by its mapper, descriptors, star rating and circle size"
        )
    return state.config


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
    vocabulary = None if state is None else state.vocabulary
    if state is not None and vocabulary is not None:
        config = without_table(args, state)
        parametrisation = state.parametrisation
    rows = choose_rows(args, dataset)
    trainer = Trainer(args, ranks, dataset, rows, config, parametrisation, vocabulary)
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
