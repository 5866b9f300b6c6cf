"""What the loaded models can be asked for: styles, user tags, whether they may choose distances."""

from collections import Counter
from collections.abc import Iterable, Sequence

from checkpoint import LoadedModel
from conditions.vocabulary import Vocabulary
from constraints.spacing import Spacing
from sampling.conditioning import bundled_names
from sampling.loaded_models import Models
from sampling.options import check_spacing
from sampling.style import ClassEntry, read_class_table

LISTED = 40
"""Styles that a search shows."""


def class_table(loaded: LoadedModel) -> list[ClassEntry]:
    """The model's class table; none for a model that comes without one."""
    try:
        return read_class_table(loaded)
    except ValueError:
        return []


def find_styles(
    table: Sequence[ClassEntry], query: str, picked: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """(text, value) of styles to choose from: the picked ones, then mappers and maps that match.

    Every word of the query must be in the text, in any case. Without a query the mappers with the
    most maps are found. Values are as `split_styles` takes them.
    """
    maps = Counter(entry.creator for entry in table)
    known = {
        f"mapper:{name}": f"{name} ({count} map{'s' * (count != 1)})"
        for name, count in maps.most_common()
    }
    known |= {
        f"map:{entry.beatmap_id}": f"{entry.song} [{entry.version}] by {entry.creator}"
        for entry in table
        if entry.beatmap_id > 0
    }
    words = query.casefold().split()
    found = [value for value, text in known.items() if all(w in text.casefold() for w in words)]
    listed = dict.fromkeys([*(value for value in picked if value in known), *found[:LISTED]])
    return [(known[value], value) for value in listed]


def split_styles(values: Iterable[str]) -> tuple[list[str], list[str]]:
    """(IDs, mappers) of values such as map:1180619 and mapper:NAME."""
    ids: list[str] = []
    mappers: list[str] = []
    for value in values:
        kind, _, name = value.partition(":")
        if kind not in ("map", "mapper"):
            raise ValueError(f"style {value!r}: choose one of the list")
        (ids if kind == "map" else mappers).append(name)
    return ids, mappers


def can_choose_distances(models: Models) -> bool:
    """Whether all models that place objects can do without distances."""
    try:
        for loaded in (models.sampler, models.expert or models.sampler.expert):
            if loaded is not None:
                check_spacing(loaded, Spacing("free"))
    except ValueError:
        return False
    return True


def vocabularies(models: Models) -> list[Vocabulary]:
    """What those of the models that have groups of conditions can be told of a map."""
    found = [m.vocabulary for m in (models.sampler, models.expert) if m is not None]
    return [vocabulary for vocabulary in found if vocabulary is not None]


def known_descriptors(models: Models) -> list[str]:
    """The user tags that one of the models knows, by name."""
    return sorted({name for vocabulary in vocabularies(models) for name in vocabulary.descriptors})


def known_mappers(models: Models) -> list[str]:
    """The mappers of a sampling model with groups of conditions whose names are known.

    It has no class table; of others it knows the user IDs.
    """
    vocabulary = models.sampler.vocabulary
    return [] if vocabulary is None else sorted(vocabulary.named_mappers(bundled_names()))
