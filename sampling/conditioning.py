"""The conditions of models of osu-diffusion v2's kind, as embeddings."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from beatmaps.osu_file import Beatmap
from beatmaps.star_rating import star_rating
from checkpoint import LoadedModel
from conditions.vocabulary import MapConditions, Vocabulary
from conventions.bundled import DEFAULT_MODEL
from conventions.errors import FieldError
from sampling.descriptors import Wishes
from sampling.progress import Progress
from sampling.request import RemapRequest
from sampling.style import Style, StyleMix, style_of_files, weighted_parts


def check_models(models: Sequence[LoadedModel | None], wishes: Wishes) -> None:
    """ValueError if a wish is given that none of the models has a group for."""
    vocabularies = [m.vocabulary for m in models if m is not None and m.vocabulary is not None]
    name = models[0].path.name if models[0] else "the model"
    for wish in wishes.given:
        if not vocabularies:
            raise FieldError(
                f"{{{wish}}}: {{0}} knows beatmaps alone; models like osu-diffusion v2, and those "
                "trained with --condition-groups, are told such things (as {model} or {expert})",
                name,
            )
        if not any(vocabulary.has_group(wish) for vocabulary in vocabularies):
            raise FieldError(f"{{{wish}}}: {{0}} was trained without such a group", name)


def of_beatmap(beatmap: Beatmap, wishes: Wishes) -> MapConditions:
    """The map's star rating and circle size, unless the wishes have others."""
    stars = star_rating(beatmap.raw) if wishes.star_rating is None else wishes.star_rating
    size = beatmap.circle_size if wishes.circle_size is None else wishes.circle_size
    return MapConditions(star_rating=stars, circle_size=size)


def style(
    loaded: LoadedModel, beatmap: Beatmap, request: RemapRequest, progress: Progress
) -> Style:
    """The embeddings of the wanted conditions of a map, and of the negative ones.

    If nothing is unwanted, the negative side of guidance is an unknown style.
    """
    wishes, cache = request.wishes, request.output / ".cache"
    conditions = of_beatmap(beatmap, wishes)
    return Style(
        *(
            embedding(loaded, replace(conditions, descriptors=names), mix, cache, progress)
            for names, mix in (
                (wishes.descriptors, request.style),
                (wishes.negative_descriptors, request.unwanted),
            )
        )
    )


def embedding(
    loaded: LoadedModel,
    conditions: MapConditions,
    request: StyleMix,
    cache: Path,
    progress: Progress,
) -> Tensor:
    """The embedding (D,) of a map with `conditions`, in the styles of a request.

    Several styles are mixed by their weights.
    """
    vocabulary = loaded.vocabulary
    assert vocabulary is not None
    parts: list[tuple[Tensor, float]] = []
    for text in request.ids:
        for name, weight in weighted_parts("style_id", text, ", "):
            parts.append((embedded(loaded, as_beatmap(vocabulary, name, conditions)), weight))
    for text in request.mappers:
        for name, weight in weighted_parts("style_mapper", text, ","):
            mapper = vocabulary.mapper_named(name, bundled_names())
            parts.append((embedded(loaded, replace(conditions, mapper=mapper)), weight))
    if request.files:
        parts.append((style_of_files(loaded, request.files, cache, progress), 1.0))
    if not parts:
        return embedded(loaded, conditions)
    total = sum(weight for _, weight in parts)
    return torch.stack([part * (weight / total) for part, weight in parts]).sum(dim=0)


def as_beatmap(vocabulary: Vocabulary, text: str, conditions: MapConditions) -> MapConditions:
    """`conditions` with the mapper and the descriptors of a beatmap of the training data."""
    if not (text.isascii() and text.isdigit()):
        raise FieldError("{style_id} {0!r}: give beatmap IDs, which are numbers", text)
    known = vocabulary.of_beatmap(int(text))
    names = dict.fromkeys([*known.descriptors, *conditions.descriptors])
    return replace(conditions, beatmap=known.beatmap, mapper=known.mapper, descriptors=tuple(names))


def embedded(loaded: LoadedModel, conditions: MapConditions) -> Tensor:
    """The embedding (D,) of these conditions."""
    assert loaded.vocabulary is not None
    with torch.no_grad():
        vector = loaded.vocabulary.vector(conditions).to(loaded.device)
        return loaded.model.y_embedder(vector)[0]


def bundled_names() -> dict[int, str]:
    """Mappers' names by beatmap ID, from the bundled model's class table."""
    path = DEFAULT_MODEL.with_name(f"{DEFAULT_MODEL.stem}.classes.csv")
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row["beatmap_id"]): row["creator"] for row in csv.DictReader(file)}
