"""From the values of the page's controls to a request, the same that flags make."""

import math
from collections.abc import Iterable
from pathlib import Path

from beatmaps.selection import Selection
from constraints.spacing import Spacing
from conventions.errors import in_words
from sampling.options import SampleOptions
from sampling.request import RemapRequest
from sampling.style import StyleMix
from web.offers import split_styles

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
    "style_id": "Style",
    "style_mapper": "Style",
    "style_beatmap": "the style of other maps",
}
"""What the page calls the fields of a request."""


def label_of(field: str) -> str:
    """What the page calls a field, for errors."""
    return LABELS.get(field, in_words(field))


def page_request(
    *,
    styles: Iterable[str] = (),
    style_files: Iterable[Path] = (),
    guidance: float = 1.0,
    start: float | None = None,
    end: float | None = None,
    spacing: str = "keep",
    steps: int = SampleOptions.steps,
    strength: float = 1.0,
    variants: int = 1,
    seed: int = 0,
) -> RemapRequest:
    """The request of a page whose controls have these values.

    `start` and `end` are ms, `spacing` is as `Spacing.parse` takes it. Without a style there is
    nothing for `guidance` to exaggerate.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"{steps} steps: give a number from 1 to {MAX_STEPS}")
    if not 1 <= variants <= MAX_VARIANTS:
        raise ValueError(f"{variants} variants: give a number from 1 to {MAX_VARIANTS}")
    ids, mappers = split_styles(styles)
    mix = StyleMix(tuple(ids), tuple(mappers), tuple(style_files))
    return RemapRequest(
        options=SampleOptions(
            steps=steps,
            cfg_scale=guidance if mix else 1.0,
            variants=variants,
            seed=seed,
            spacing=Spacing.parse(spacing),
            strength=strength,
        ),
        selection=Selection(start, end),
        style=mix,
    )


def chosen_range(value: object) -> tuple[float | None, float | None]:
    """(start, end) ms of what the page's timeline holds; None for an end of the map."""
    ends = [value.get("start"), value.get("end")] if isinstance(value, dict) else [None, None]
    for end in ends:
        if end is not None and not (isinstance(end, int | float) and math.isfinite(end)):
            raise ValueError(f"{end!r} is no time of the map in ms")
    start, stop = ends
    return start, stop
