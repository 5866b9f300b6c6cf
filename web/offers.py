"""What the loaded model can be asked for: the styles it knows, whether it may choose distances."""

from collections import Counter
from collections.abc import Iterable, Sequence

from checkpoint import LoadedModel
from constraints.spacing import Spacing
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


def can_choose_distances(loaded: LoadedModel) -> bool:
    """Whether the model can do without distances."""
    try:
        check_spacing(loaded, Spacing("free"))
    except ValueError:
        return False
    return True
