"""Makes data, model and trainer of a run from its options, for a new run or a continued one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conditions.vocabulary import Vocabulary
from conventions.errors import FieldError
from conventions.ranks import Ranks
from data_loading import PackedDataset
from diffusion.parametrisation import EDM, LearnedVariance, Parametrisation
from diffusion.schedule import SCHEDULES
from models import ARCHITECTURES, SIZES, DiTConfig
from training.conditioning import make_vocabulary
from training.options import TrainingOptions
from training.state import TABLE, TrainingState, read_training_state
from training.trainer import Trainer


def make_parametrisation(options: TrainingOptions) -> Parametrisation:
    """The parametrisation that the options ask for."""
    schedule = SCHEDULES[options.noise_schedule or "squaredcos_cap_v2"]()
    whole: Parametrisation = EDM(options.noise_log_mean, options.noise_log_std)
    if options.parametrisation != "edm":
        whole = LearnedVariance(schedule, options.l1_loss is not False)
    return whole if options.max_noise_px is None else whole.limited(options.max_noise_px)


def make_config(
    options: TrainingOptions, dataset_classes: int, vocabulary: Vocabulary | None = None
) -> DiTConfig:
    """The model that the options ask for, conditioned on classes or on the vocabulary's groups."""
    num_classes = options.num_classes or dataset_classes
    if num_classes < dataset_classes:
        raise FieldError(
            "{num_classes} {0} is too small: the dataset has {1} classes",
            *(num_classes, dataset_classes),
        )
    learn_sigma = options.parametrisation == "learned-variance"
    return DiTConfig(
        **{
            **SIZES[options.model],
            **({} if options.depth is None else {"depth": options.depth}),
            **ARCHITECTURES[options.architecture],
            "num_classes": num_classes if vocabulary is None else 0,
            "class_groups": () if vocabulary is None else vocabulary.groups,
            "learn_sigma": learn_sigma,
            "known_points": options.known_points > 0 and options.architecture != "reference",
            # In sampling a point sees as many neighbours as it does on average in training.
            "half_window": options.half_window or max(1, options.seq_len // 2),
        }
    )


def choose_rows(options: TrainingOptions, dataset: PackedDataset) -> tuple[np.ndarray, np.ndarray]:
    """The beatmaps to train on and those held out.

    Whole sets are held out; fine_tune_ids names the beatmaps to train on, whatever their sets.
    """
    rows, held_out = dataset.split_by_set(options.validation_fraction, options.global_seed)
    if options.validation_fraction and not len(held_out):
        raise FieldError(
            "{validation_fraction} {0} holds out no beatmapset: give a larger share, or none",
            options.validation_fraction,
        )
    if options.fine_tune_ids is None:
        return rows, held_out
    text = options.fine_tune_ids
    # A long list of IDs would be too long for a file name.
    if not set(text) <= set("0123456789, ") and Path(text).is_file():
        text = Path(text).read_text(encoding="utf-8")
    try:
        wanted = {int(part) for part in text.replace(",", " ").split()}
    except ValueError as error:
        raise FieldError(
            "{fine_tune_ids} {0!r}: give beatmap IDs separated by commas, or a text file of them",
            options.fine_tune_ids,
        ) from error
    ids = dataset.beatmaps["beatmap_id"].to_numpy()
    missing = sorted(wanted - set(ids.tolist()))
    if missing:
        raise FieldError("{fine_tune_ids}: the dataset has no beatmap {0}", missing[:5])
    chosen = np.flatnonzero(np.isin(ids, list(wanted)))
    return chosen, np.setdiff1d(held_out, chosen)


def run_identity(options: TrainingOptions, dataset: PackedDataset) -> dict[str, Any]:
    """What makes two commands the same run: its options and its data."""
    return {**options.identity(), "data": dataset.description["files"]}


def open_data(options: TrainingOptions, ranks: Ranks) -> PackedDataset:
    """The packed dataset; the main rank packs a folder of beatmaps, the others find the result."""

    def pack() -> Path:
        if (options.data_path / "dataset.json").is_file():
            return options.data_path
        # Reading beatmaps needs packages that training on packed ones does not.
        from datasets.pack import open_or_pack

        span = (options.data_start, options.data_end)
        return open_or_pack(
            options.data_path, options.results_dir, *span, options.num_workers
        ).folder

    return PackedDataset(ranks.from_main(pack))


def starting_point(options: TrainingOptions, checkpoint: Path | None) -> TrainingState | None:
    """The state to begin with: the run's own checkpoint, else `ckpt`, else None.

    With other maps, a new class table or more blocks it is a new run, whose steps count from 0.
    """
    if checkpoint is not None:
        return read_training_state(checkpoint)
    if options.ckpt is None:
        return None
    state = read_training_state(options.ckpt, options.heads, options.max_noise_step)
    state = state.at_noise(options.max_noise_px, options.noise_log_mean, options.noise_log_std)
    other = options.relearn_embeds or options.fine_tune_ids or options.condition_groups
    if options.depth is not None and options.depth < state.config.depth:
        raise FieldError(
            "{depth} {0}: {1} has {2} blocks, of which none can be taken away",
            *(options.depth, state.path, state.config.depth),
        )
    if options.depth is not None and options.depth > state.config.depth:
        state, other = state.deepened(options.depth), True
    return state.as_new_run() if other else state


def without_table(options: TrainingOptions, state: TrainingState, *, is_new: bool) -> DiTConfig:
    """The configuration for a checkpoint of a model with groups.

    It stays as it was, whatever the options say about sizes and classes. Options of a class table,
    and groups of the new run's own, are a ValueError.
    """
    if options.condition_groups and is_new:
        raise FieldError(
            "{0} has groups of its own, which a run goes on with: leave out {condition_groups}",
            state.path,
        )
    if options.relearn_embeds or options.embed_only_epochs:
        raise FieldError(
            "{0} has no class table for {relearn_embeds} and {embed_only_epochs}: "
            "it is told of a map by its mapper, descriptors, star rating and circle size",
            state.path,
        )
    return state.config


def make_trainer(
    options: TrainingOptions, ranks: Ranks, dataset: PackedDataset, checkpoint: Path | None
) -> Trainer:
    """The trainer of a run, in the state of its last checkpoint, or of `ckpt`."""
    state = starting_point(options, checkpoint)
    rows = choose_rows(options, dataset)
    vocabulary = None
    if options.condition_groups and checkpoint is None:
        vocabulary = make_vocabulary(dataset, rows[0], options.condition_groups)
    config, parametrisation = (
        make_config(options, dataset.num_classes, vocabulary),
        make_parametrisation(options),
    )
    if state is not None and (state.source == "reference" or checkpoint is not None):
        # A run keeps its configuration; the reference's commands have no flags for it.
        config = replace(
            state.config, num_classes=config.num_classes, class_groups=config.class_groups
        )
        parametrisation = state.parametrisation
    if state is not None and state.vocabulary is not None:
        config = without_table(options, state, is_new=checkpoint is None)
        parametrisation, vocabulary = state.parametrisation, state.vocabulary
    if options.augment_repeats and not config.known_points:
        raise FieldError(
            "{augment_repeats} is for models that can be given points, unlike this one: leave it "
            "out, or train a new one with {known_points} 0.5 and another {architecture}"
        )
    trainer = Trainer(options, ranks, dataset, rows, config, parametrisation, vocabulary)
    if state is None:
        return trainer
    if options.relearn_embeds and checkpoint is None:
        table = trainer.model.state_dict()[TABLE].clone()
        state = state.with_fresh_table(table, config.num_classes)
    if vocabulary is not None and state.vocabulary is None:
        state = state.with_groups(trainer.model.state_dict(), config)
    if config.known_points and not state.config.known_points and checkpoint is None:
        state = state.with_known_points()
    state.require(config, parametrisation)
    trainer.restore(state)
    if checkpoint is None and trainer.progress() >= 1:
        raise FieldError(
            "{0} is at step {1}, the run ends at {2}: "
            "ask for more with {epochs}, {max_steps} or {max_minutes}",
            *(options.ckpt, trainer.step, trainer.total_steps),
        )
    return trainer
