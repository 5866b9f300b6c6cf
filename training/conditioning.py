"""What a model with groups of conditions is told of the maps it is trained on, and what is not."""

import numpy as np
import torch
from torch import Tensor

from conditions.vocabulary import Told, Vocabulary
from data_loading import PackedDataset
from models import DiTConfig, null_classes

STARS_GROUP = 1
"""Which of the groups of a model is that of star ratings."""


def told_table(vocabulary: Vocabulary, dataset: PackedDataset) -> np.ndarray:
    """(maps, G) bool: what the model is told of every map of a dataset.

    Mappers and descriptors are those that the vocabulary has of a beatmap; of others they are
    unknown.
    """
    table = np.zeros((len(dataset), sum(vocabulary.groups)), dtype=bool)
    names = {place: name for name, place in vocabulary.descriptors.items()}
    columns = dataset.beatmaps[["beatmap_id", "star_rating", "circle_size"]]
    for row, (beatmap_id, stars, size) in enumerate(columns.itertuples(index=False)):
        mapper = vocabulary.mapper_of.get(beatmap_id)
        said = vocabulary.descriptors_of.get(beatmap_id, ())
        told = Told(
            beatmap_id if beatmap_id in vocabulary.beatmaps else None,
            stars,
            mapper if mapper in vocabulary.mappers else None,
            tuple(names[place] for place in said if place in names),
            size,
        )
        table[row] = vocabulary.vector(told)[0].numpy()
    return table


def with_groups_dropped(classes: Tensor, dropped: Tensor, config: DiTConfig) -> Tensor:
    """Vectors (N, G) bool with the groups that `dropped` (N, groups) marks unknown."""
    sizes = torch.tensor(config.class_groups)
    return torch.where(dropped.repeat_interleave(sizes, dim=1), null_classes(config), classes)
