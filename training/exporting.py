"""What a finished run leaves to sample with: the averaged weights and the tables of classes."""

import logging
from pathlib import Path

from torch import Tensor

from checkpoint import export_weights, write_class_table
from datasets.class_tables import save_beatmap_idx
from models import size_name
from training.trainer import Trainer

log = logging.getLogger("train")


def export(trainer: Trainer, folder: Path, weights: dict[str, Tensor]) -> None:
    """Writes what sample.py needs into a folder: averaged weights and the tables of classes."""
    metadata = {
        "model": size_name(trainer.model.config),
        "steps": trainer.step,
        "minutes": round(trainer.elapsed / 60, 1),
        "maps": len(trainer.dataset),
        "data_points": len(trainer.dataset.points),
        "distance_dropout": trainer.options.distance_dropout,
        **trainer.saved_vocabulary(),
    }
    export_weights(
        folder / "model.safetensors",
        weights,
        trainer.model.config,
        trainer.objective.parametrisation,
        metadata,
    )
    save_beatmap_idx(folder / "beatmap_idx.pickle", trainer.dataset.beatmap_idx())
    columns = ["class_index", "md5", "beatmap_id", "set_id", "artist", "title"]
    columns += ["creator", "version", "circle_size", "star_rating"]
    rows = trainer.dataset.beatmaps[columns].to_dict("records")
    write_class_table(folder / "model.classes.csv", rows)
    log.info("Exported the EMA weights to %s", folder / "model.safetensors")
