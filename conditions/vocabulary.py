"""Describes a map to a model, group by group, as a vector of zeros and ones.

The groups are those of osu-diffusion v2: the beatmap, its star rating, its mapper, what users call
it ("descriptors") and its circle size. The last entry of a group that has any means "unknown".
"""

import difflib
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from conventions.errors import FieldError

LARGEST_CIRCLE_SIZE = 10.0
MOST_PLACES = 10_000_000
MOST_ENTRIES = 20_000_000
"""Limits for what a file may contain."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class MapConditions:
    """The conditions of a whole map, by name; None or an empty field means unknown.

    Mappers are user IDs. Numbers below 0 stand for mappers of whom only the name is known.
    """

    beatmap: int | None = None
    star_rating: float | None = None
    mapper: int | None = None
    descriptors: tuple[str, ...] = ()
    circle_size: float | None = None

    def without_style(self) -> "MapConditions":
        """A copy without beatmap, mapper and descriptors: the other side of guidance."""
        return replace(self, beatmap=None, mapper=None, descriptors=())


@dataclass(frozen=True)
class Vocabulary:
    """The groups of a model, how many entries each has, and what the entries stand for.

    `beatmaps`, `mappers` and `descriptors` give the index of an entry within its group. `mapper_of`
    and `descriptors_of` give a beatmap ID's user ID and indices of descriptors. Our own models also
    have their mappers' names; `from_tags` says that descriptors are words of the maps' own tags.
    """

    difficulties: int
    max_difficulty: float
    circle_sizes: int
    num_beatmaps: int = 0
    num_mappers: int = 0
    num_descriptors: int = 0
    beatmaps: dict[int, int] = field(default_factory=dict)
    mappers: dict[int, int] = field(default_factory=dict)
    descriptors: dict[str, int] = field(default_factory=dict)
    mapper_of: dict[int, int] = field(default_factory=dict)
    descriptors_of: dict[int, tuple[int, ...]] = field(default_factory=dict)
    mapper_names: dict[int, str] = field(default_factory=dict)
    from_tags: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.max_difficulty < math.inf:
            raise ValueError(f"the highest star rating is {self.max_difficulty!r}")
        for name, count in zip(GROUPS, self.groups, strict=True):
            if not 0 <= count <= MOST_PLACES or count == 1:
                raise ValueError(f"{count} places for {name}: expected none or 2 to {MOST_PLACES}")
        for name, places, count in (
            ("beatmaps", self.beatmaps.values(), self.num_beatmaps),
            ("mappers", self.mappers.values(), self.num_mappers),
            ("descriptors", self.descriptors.values(), self.num_descriptors),
        ):
            if places and not 0 <= min(places) <= max(places) < count - 1:
                raise ValueError(f"a place of {name} is not among their {count}")

    @property
    def groups(self) -> tuple[int, ...]:
        """How many entries each group has, for `DiTConfig.class_groups`."""
        return (
            *(self.num_beatmaps, self.difficulties, self.num_mappers),
            *(self.num_descriptors, self.circle_sizes),
        )

    def has_group(self, field: str) -> bool:
        """Whether there is a group for a field of `MapConditions`, with or without "negative_"."""
        names = ("beatmap", "star_rating", "mapper", "descriptors", "circle_size")
        return bool(dict(zip(names, self.groups, strict=True))[field.removeprefix("negative_")])

    def vector(self, conditions: MapConditions) -> Tensor:
        """The vector (1, G) bool for `conditions`; ValueError for an unknown value."""
        vector = torch.zeros(1, sum(self.groups), dtype=torch.bool)
        vector[0, self.places(conditions)] = True
        return vector

    def places(self, conditions: MapConditions) -> list[int]:
        """Indices of the ones in the vector of `conditions`; ValueError for an unknown value."""
        chosen = (
            [] if conditions.beatmap is None else [self._beatmap(conditions.beatmap)],
            _bucket(conditions.star_rating, self.max_difficulty, self.difficulties),
            [] if conditions.mapper is None else [self._mapper(conditions.mapper)],
            [self._descriptor(name) for name in conditions.descriptors],
            _bucket(conditions.circle_size, LARGEST_CIRCLE_SIZE, self.circle_sizes),
        )
        found, first = [], 0
        for count, places in zip(self.groups, chosen, strict=True):
            if count:
                found += [first + place for place in places or [count - 1]]
            first += count
        return found

    def of_beatmap(self, beatmap_id: int) -> MapConditions:
        """What training used for a beatmap; ValueError, with the nearest IDs, if it is unknown."""
        known = self.mapper_of.keys() | self.descriptors_of.keys() | self.beatmaps.keys()
        if beatmap_id not in known:
            near = sorted(known, key=lambda other: abs(other - beatmap_id))[:3]
            raise FieldError(
                "{style_id} {0} is not among the model's {1} beatmaps; the nearest IDs are {2}",
                *(beatmap_id, len(known), ", ".join(map(str, near))),
            )
        names = {place: name for name, place in self.descriptors.items()}
        said = self.descriptors_of.get(beatmap_id, ())
        mapper = self.mapper_of.get(beatmap_id)
        return MapConditions(
            beatmap_id if beatmap_id in self.beatmaps else None,
            mapper=mapper if mapper in self.mappers else None,
            descriptors=tuple(names[place] for place in said if place in names),
        )

    def mapper_named(self, text: str, names: Mapping[int, str]) -> int:
        """The user ID of a mapper, from an ID or a name.

        If the vocabulary has no names, they come from `names`: beatmap ID -> its mapper's name.
        """
        if text.strip().isascii() and text.strip().isdigit() and int(text) in self.mappers:
            return int(text)
        named = self.named_mappers(names)
        known = {name.casefold(): user for name, user in named.items()}
        wanted = text.strip().casefold()
        if wanted in known:
            return known[wanted]
        ids = [str(user) for user in self.mappers if user > 0]
        hint = f" (their user IDs work best, names are known of {len(known)})" if ids else ""
        raise FieldError(
            "{style_mapper} {0!r} is not among the model's {1} mappers{2}; the nearest are {3}",
            *(text, len(self.mappers), hint, nearest_names(wanted, [*ids, *named])),
        )

    def named_mappers(self, names: Mapping[int, str]) -> dict[str, int]:
        """User IDs of the mappers whose names are known.

        If the vocabulary has no names, they come from `names`: beatmap ID -> its mapper's name.
        """
        if self.mapper_names:
            return {name: user for user, name in self.mapper_names.items()}
        users: dict[str, int] = {}
        # Backwards, so that the first of equal names wins.
        for beatmap_id, name in reversed(list(names.items())):
            user = self.mapper_of.get(beatmap_id)
            if user in self.mappers:
                users[name] = user
        return users

    def _beatmap(self, beatmap_id: int) -> int:
        if beatmap_id not in self.beatmaps:
            raise ValueError(f"beatmap {beatmap_id} is not one that the model was trained on")
        return self.beatmaps[beatmap_id]

    def _mapper(self, user: int) -> int:
        if user not in self.mappers:
            raise ValueError(f"mapper {user} is not among the model's {len(self.mappers)}")
        return self.mappers[user]

    @cached_property
    def _folded(self) -> dict[str, int]:
        """The indices of descriptors by names in lower case."""
        return {known.casefold(): place for known, place in self.descriptors.items()}

    def _descriptor(self, name: str) -> int:
        folded, wanted = self._folded, name.strip().casefold()
        if wanted in folded:
            return folded[wanted]
        # "clean" is enough if only one descriptor ends in "/clean".
        ends = [place for known, place in folded.items() if known.rpartition("/")[2] == wanted]
        if len(ends) == 1:
            return ends[0]
        raise FieldError(
            "{descriptors} {0!r} is not among the model's {1}; the nearest are {2}",
            *(name, len(self.descriptors), nearest_names(wanted, self.descriptors)),
        )


GROUPS = ("beatmaps", "difficulties", "mappers", "descriptors", "circle sizes")


def nearest_names(wanted: str, known: Iterable[str]) -> str:
    """The names most similar to `wanted`, for an error message."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.0)
    return ", ".join(names[key] for key in near) or "none: it knows no names"


def _bucket(value: float | None, largest: float, count: int) -> list[int]:
    """The index of a value in 0..largest, in all entries but the last; none for an unknown value.

    Entries begin at equal steps, and `largest` has one of its own: with the published sizes, values
    are rounded down to a half. The rule, and its order of operations, are those of the public
    format (osu_diffusion/utils/tokenizer.py of Mapperatorinator).
    """
    if value is None or not math.isfinite(value) or count < 2:
        return []
    return [int(min(max(value * (count - 2) / largest, 0), count - 2))]


# --- our own files: the tables of a tokenizer -----------------------------------------------------


NUMBERED = ("beatmap_idx", "mapper_idx", "beatmap_mapper", "beatmap_descriptors", "mapper_names")
"""Tables whose keys are numbers, which JSON writes as text."""


def to_dict(vocabulary: Vocabulary) -> dict[str, Any]:
    """Plain values for JSON or a `weights_only` checkpoint."""
    return {
        "num_classes": vocabulary.num_beatmaps,
        "num_diff_classes": vocabulary.difficulties,
        "max_difficulty": vocabulary.max_difficulty,
        "num_mapper_classes": vocabulary.num_mappers,
        "num_descriptor_classes": vocabulary.num_descriptors,
        "num_cs_classes": vocabulary.circle_sizes,
        "beatmap_idx": dict(vocabulary.beatmaps),
        "mapper_idx": dict(vocabulary.mappers),
        "descriptor_idx": dict(vocabulary.descriptors),
        "beatmap_mapper": dict(vocabulary.mapper_of),
        "beatmap_descriptors": {k: list(v) for k, v in vocabulary.descriptors_of.items()},
        "mapper_names": dict(vocabulary.mapper_names),
        "descriptors_from_tags": vocabulary.from_tags,
    }


def from_dict(values: Mapping[str, Any]) -> Vocabulary:
    """Inverse of `to_dict`, also after JSON; ValueError for anything else."""
    numbered = [name for name in NUMBERED if name in values]
    tables = {name: {int(k): v for k, v in values[name].items()} for name in numbered}
    return vocabulary_of({**values, **tables})


# --- tokenizer.pkl of osu-diffusion v2 ------------------------------------------------------------


def vocabulary_of(tokenizer: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary in a v2 folder's `tokenizer.pkl`; ValueError if there is none in it."""
    counts = (
        *("num_classes", "num_diff_classes", "num_mapper_classes"),
        *("num_descriptor_classes", "num_cs_classes", "max_difficulty"),
    )
    tables = ("beatmap_idx", "mapper_idx", "descriptor_idx", "beatmap_mapper")
    missing = [key for key in (*counts, *tables, "beatmap_descriptors") if key not in tokenizer]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for key in counts:
        number = tokenizer[key]
        # Only the highest star rating may have a fraction.
        if type(number) is not int and not (key == "max_difficulty" and type(number) is float):
            raise ValueError(f"{key} is {str(number)[:40]!r}, no number")
    return Vocabulary(
        tokenizer["num_diff_classes"],
        float(tokenizer["max_difficulty"]),
        tokenizer["num_cs_classes"],
        tokenizer["num_classes"],
        tokenizer["num_mapper_classes"],
        tokenizer["num_descriptor_classes"],
        _table(tokenizer, "beatmap_idx", int, _whole),
        _table(tokenizer, "mapper_idx", int, _whole),
        _table(tokenizer, "descriptor_idx", str, _whole),
        _table(tokenizer, "beatmap_mapper", int, _whole),
        _table(tokenizer, "beatmap_descriptors", int, _whole_numbers),
        # The public format has neither of these.
        _table({"mapper_names": {}, **tokenizer}, "mapper_names", int, _text),
        tokenizer.get("descriptors_from_tags") is True,
    )


def _table(
    tokenizer: Mapping[str, Any], key: str, kind: type[Key], read: Callable[[object], Any]
) -> dict[Key, Any]:
    """A table of the tokenizer with keys of one type; ValueError for anything else."""
    table = tokenizer[key]
    if not isinstance(table, dict) or len(table) > MOST_ENTRIES:
        raise ValueError(f"{key} is no table of a size that a model has")
    if not all(type(name) is kind for name in table):
        raise ValueError(f"{key} has keys that are no {kind.__name__}")
    try:
        return {name: read(value) for name, value in table.items()}
    except TypeError as error:
        raise ValueError(f"{key} has {error}") from error


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"the value {str(value)[:40]!r}, no whole number")
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError(f"the value {str(value)[:40]!r}, no text")
    return value


def _whole_numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or len(value) > 10_000:
        raise TypeError(f"the value {str(value)[:40]!r}, no list of whole numbers")
    return tuple(_whole(item) for item in value)
