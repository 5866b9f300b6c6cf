"""From the values of the page's controls to a request, the same that flags make."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from beatmaps.selection import Selection
from constraints.spacing import WITH_FACTOR, Spacing
from conventions.errors import FieldError, in_words
from sampling.descriptors import Wishes
from sampling.options import STYLE_CFG_SCALE, SampleOptions
from sampling.request import RemapRequest, cfg_scale
from sampling.style import StyleMix
from web.choices import split_styles

MAX_STEPS, MAX_VARIANTS = 100, 8
"""Less than the command line allows: others are waiting."""

LABELS = {
    "steps": "Steps",
    "variants": "Variants",
    "strength": "Strength",
    "spacing": "Distances",
    "cfg_scale": "Exaggerate the style",
    "time_start": "the start",
    "time_end": "the end",
    "objects": "Objects",
    "style_id": "Style",
    "style_mapper": "Style",
    "style_beatmap": "the style of other maps",
    "descriptors": "User tags to follow",
    "negative_descriptors": "User tags to avoid",
    "star_rating": "Star rating",
    "circle_size": "Circle size",
    "parts": "Parts",
    "seed": "Seed",
}
"""What the page calls the fields of a request."""

DEFAULTS: dict[str, Any] = {
    "timeline": None,
    "objects": "",
    "styles": [],
    "style_files": None,
    "mappers": [],
    "descriptors": [],
    "negative_descriptors": [],
    "star_rating": "",
    "circle_size": "",
    "guidance": STYLE_CFG_SCALE,
    "spacing": "keep",
    "factor": 1.0,
    "strength": 1.0,
    "steps": SampleOptions.steps,
    "variants": 1,
    "seed": 0,
}
"""The controls that say how a map is remapped, and what they hold at first."""


def label_of(field: str) -> str:
    """What the page calls a field, for errors."""
    return LABELS.get(field, in_words(field))


def page_request(base: RemapRequest | None = None, /, **values: Any) -> RemapRequest:
    """The request of a page whose controls have these values, and the others `DEFAULTS`.

    `base` says which models are loaded. Without a style there is nothing to exaggerate, and
    `guidance` goes unused. ValueError for values that cannot be.
    """
    given: Mapping[str, Any] = DEFAULTS | values
    for name, most in (("steps", MAX_STEPS), ("variants", MAX_VARIANTS)):
        if not 1 <= given[name] <= most:
            raise ValueError(f"{LABELS[name]} {given[name]}: give a number from 1 to {most}")
    spacing, factor = given["spacing"], given["factor"]
    if given["seed"] is None or (factor is None and spacing in WITH_FACTOR):
        raise ValueError("Give numbers where numbers are asked for.")
    ids, mappers = split_styles(given["styles"])
    mix = StyleMix(
        tuple(ids),
        (*mappers, *given["mappers"]),
        tuple(map(Path, given["style_files"] or ())),
    )
    wishes = Wishes(
        tuple(given["descriptors"]),
        tuple(given["negative_descriptors"]),
        *(own_number(name, given[name]) for name in ("star_rating", "circle_size")),
    )
    asked = given["guidance"] if mix or wishes.of_style else None
    start, end = chosen_range(given["timeline"])
    objects = given["objects"].strip()
    return replace(
        base or RemapRequest(),
        options=SampleOptions(
            steps=int(given["steps"]),
            cfg_scale=cfg_scale(mix, wishes, asked),
            variants=int(given["variants"]),
            seed=int(given["seed"]),
            spacing=Spacing.parse(f"{spacing}:{factor:g}" if spacing in WITH_FACTOR else spacing),
            strength=given["strength"],
        ),
        selection=Selection(start, end, objects=(objects,) if objects else ()),
        style=mix,
        wishes=wishes,
    )


def own_number(name: str, text: str) -> float | None:
    """The number in a field that may be left empty; None for the map's own."""
    if not text.strip():
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise FieldError(f"{{{name}}} {{0!r}}: give a number, or nothing", text) from None


def chosen_range(value: object) -> tuple[float | None, float | None]:
    """(start, end) ms of what the page's timeline holds; None for an end of the map."""
    ends = [value.get("start"), value.get("end")] if isinstance(value, dict) else [None, None]
    for end in ends:
        if end is not None and not (isinstance(end, int | float) and math.isfinite(end)):
            raise ValueError(f"{end!r} is no time of the map in ms")
    start, stop = ends
    return start, stop
