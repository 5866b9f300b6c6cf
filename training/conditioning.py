"""The conditions of the maps that a model is trained on, group by group, and what is dropped."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conditions.vocabulary import MapConditions, Vocabulary
from conventions.errors import FieldError
from data_loading import PackedDataset, set_keys
from datasets.filters import likely_mappers, normal_name
from models import DiTConfig, null_classes

DIFFICULTIES, MAX_DIFFICULTY, CIRCLE_SIZES = 26, 12.0, 22
"""Entries for star ratings and circle sizes, in steps of a half, as in osu-diffusion v2."""

FEWEST_MAPS, FEWEST_SETS, MOST_DESCRIPTORS = 3, 3, 256
"""What gets an entry: mappers with at least so many maps; the most frequent descriptors, up to so
many, that are on at least so many beatmapsets."""

STARS_GROUP = 1
"""Index of the group of star ratings."""

Key = TypeVar("Key", int, str, int | str)


class Facts(NamedTuple):
    """What a dataset says of a map; user 0 and the name "" mean that the mapper is unknown."""

    beatmap_id: int
    set_key: str
    user: int
    name: str
    descriptors: tuple[str, ...]
    tags: tuple[str, ...]
    star_rating: float
    circle_size: float


def facts_of(dataset: PackedDataset) -> Iterator[Facts]:
    """The facts of all maps of a dataset, in their order.

    A difficulty whose name has several mappers has no mapper. Words are in lower case.
    """
    beatmaps = dataset.beatmaps
    spelling = {normal_name(name): name for name in beatmaps["creator"]}
    texts = ["creator", "version", "descriptors", "tags"]
    columns = beatmaps[["beatmap_id", "user_id", *texts, "star_rating", "circle_size"]]
    for row, key in zip(columns.itertuples(index=False), set_keys(beatmaps), strict=True):
        beatmap_id, user, creator, version, descriptors, tags, stars, size = row
        mappers = sorted(likely_mappers(creator, version))
        name = mappers[0] if len(mappers) == 1 else ""
        said = dict.fromkeys(filter(None, map(str.strip, descriptors.casefold().split(","))))
        words = dict.fromkeys(tags.casefold().split())
        whose = (user, spelling.get(name, name))
        yield Facts(beatmap_id, key, *whose, tuple(said), tuple(words), stars, size)


# --- a vocabulary of a dataset --------------------------------------------------------------------


def make_vocabulary(dataset: PackedDataset, rows: np.ndarray, groups: Iterable[str]) -> Vocabulary:
    """The vocabulary of the maps `rows`, with the `GROUPS` that are named.

    FieldError for a group of which no map has a value.
    """
    facts = list(facts_of(dataset))
    chosen = [facts[row] for row in rows]
    found = Vocabulary(0, MAX_DIFFICULTY, 0)
    for group in groups:
        found = replace(found, **GROUPS[group](chosen))
    return found


def _beatmaps(facts: Sequence[Facts]) -> dict[str, Any]:
    ids = sorted({fact.beatmap_id for fact in facts if fact.beatmap_id > 0})
    if not ids:
        raise FieldError("{condition_groups} beatmap: none of the maps has a beatmap ID")
    return {"num_beatmaps": len(ids) + 1, "beatmaps": _places(ids)}


def _stars(facts: Sequence[Facts]) -> dict[str, Any]:
    if not any(np.isfinite(fact.star_rating) for fact in facts):
        raise FieldError(
            "{condition_groups} stars: no star rating is known; install rosu-pp-py and pack again"
        )
    return {"difficulties": DIFFICULTIES}


def _circle_sizes(facts: Sequence[Facts]) -> dict[str, Any]:
    return {"circle_sizes": CIRCLE_SIZES}


def _mappers(facts: Sequence[Facts]) -> dict[str, Any]:
    """Mappers by user ID; mappers of whom only the name is known get numbers below 0."""
    users = {fact.name: fact.user for fact in facts if fact.user > 0 and fact.name}
    whose: list[int | str] = [f.user or users.get(f.name) or f.name for f in facts]
    frequent = _frequent((key for key in whose if key), FEWEST_MAPS)
    if not frequent:
        raise FieldError("{condition_groups} mapper: no mapper has {0} maps", FEWEST_MAPS)
    number = {key: key if isinstance(key, int) else -1 - k for k, key in enumerate(frequent)}
    names: dict[int, Counter[str]] = {}
    for fact, key in zip(facts, whose, strict=True):
        if key in number and fact.name:
            names.setdefault(number[key], Counter())[fact.name] += 1
    known = [(f.beatmap_id, number.get(key)) for f, key in zip(facts, whose, strict=True)]
    return {
        "num_mappers": len(number) + 1,
        "mappers": _places(number.values()),
        "mapper_of": {k: user for k, user in known if k > 0 and user is not None},
        "mapper_names": {user: count.most_common(1)[0][0] for user, count in names.items()},
    }


def _descriptors(facts: Sequence[Facts]) -> dict[str, Any]:
    """Descriptors of the dataset if it has any, else words of the maps' tags."""
    from_tags = not any(fact.descriptors for fact in facts)
    said = [fact.tags if from_tags else fact.descriptors for fact in facts]
    of_sets = {(f.set_key, word) for f, words in zip(facts, said, strict=True) for word in words}
    frequent = _frequent((word for _, word in sorted(of_sets)), FEWEST_SETS)
    places = _places(frequent[:MOST_DESCRIPTORS])
    if not places:
        raise FieldError(
            "{condition_groups} descriptors: no word is on {0} beatmapsets", FEWEST_SETS
        )
    known = [
        (fact.beatmap_id, tuple(places[word] for word in words if word in places))
        for fact, words in zip(facts, said, strict=True)
    ]
    return {
        "num_descriptors": len(places) + 1,
        "descriptors": places,
        "descriptors_of": {k: words for k, words in known if k > 0 and words},
        "from_tags": from_tags,
    }


GROUPS = {
    "beatmap": _beatmaps,
    "stars": _stars,
    "mapper": _mappers,
    "descriptors": _descriptors,
    "circle-size": _circle_sizes,
}
"""The groups by name, with functions that return the vocabulary's fields for facts."""


def _frequent(keys: Iterable[Key], fewest: int) -> list[Key]:
    """Keys that occur at least `fewest` times, the most frequent first, then by name."""
    counts = Counter(keys)
    found = [key for key, count in counts.items() if count >= fewest]
    return sorted(found, key=lambda key: (-counts[key], str(key)))


def _places(keys: Iterable[Key]) -> dict[Key, int]:
    return {key: place for place, key in enumerate(keys)}


# --- the conditions of maps -----------------------------------------------------------------------


class ConditionTable:
    """The conditions of every map of a dataset: [rows] (N,) gives vectors (N, G) bool.

    Only indices are stored: all vectors together would take maps times entries bytes.
    """

    def __init__(self, places: list[NDArray[np.int32]], groups: int) -> None:
        self.places, self.groups = places, groups

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: np.ndarray) -> NDArray[np.bool_]:
        vectors = np.zeros((len(rows), self.groups), dtype=bool)
        for vector, row in zip(vectors, rows, strict=True):
            vector[self.places[row]] = True
        return vectors


def condition_table(vocabulary: Vocabulary, dataset: PackedDataset) -> ConditionTable:
    """The conditions of every map of a dataset.

    For a beatmap in the vocabulary its values are used, else those of the dataset, without mappers
    and words that the vocabulary does not have.
    """
    found = []
    names = {place: name for name, place in vocabulary.descriptors.items()}
    users = {normal_name(name): user for user, name in vocabulary.mapper_names.items()}
    for fact in facts_of(dataset):
        user = fact.user or users.get(normal_name(fact.name))
        mapper = vocabulary.mapper_of.get(fact.beatmap_id, user)
        words = fact.tags if vocabulary.from_tags else fact.descriptors
        said = [names.get(place) for place in vocabulary.descriptors_of.get(fact.beatmap_id, ())]
        conditions = MapConditions(
            fact.beatmap_id if fact.beatmap_id in vocabulary.beatmaps else None,
            fact.star_rating,
            mapper if mapper in vocabulary.mappers else None,
            tuple(word for word in said or words if word in vocabulary.descriptors),
            fact.circle_size,
        )
        found.append(np.array(vocabulary.places(conditions), np.int32))
    return ConditionTable(found, sum(vocabulary.groups))


def with_groups_dropped(classes: Tensor, dropped: Tensor, config: DiTConfig) -> Tensor:
    """Vectors (N, G) bool with the groups marked in `dropped` (N, groups) set to unknown."""
    sizes = torch.tensor(config.class_groups)
    return torch.where(dropped.repeat_interleave(sizes, dim=1), null_classes(config), classes)
