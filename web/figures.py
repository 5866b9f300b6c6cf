"""Figures of a map that the page shows: its difficulty settings, how its objects are placed."""

import math

import numpy as np

from beatmaps.game_rules import format_time
from beatmaps.osu_file import Beatmap
from beatmaps.sequence import beatmap_to_sequence
from beatmaps.star_rating import star_rating
from metrics.realism import object_features

LONGEST_BEAT_MS, SHORTEST_BEAT_MS = 60_000.0, 6.0
"""Beats that count as a tempo: mappers use others for effects."""


def difficulty_settings(beatmap: Beatmap) -> dict[str, str]:
    """What the game makes of a difficulty, by the names that the editor has for it."""
    first, last = beatmap.objects[0].time, max(hit.end_time for hit in beatmap.objects)
    counts = {
        kind: sum(hit.kind == kind for hit in beatmap.objects)
        for kind in ("circle", "slider", "spinner")
    }
    kinds = ", ".join(f"{n} {kind}{'s' * (n != 1)}" for kind, n in counts.items() if n)
    settings = {
        "CS": f"{beatmap.circle_size:g}",
        "AR": f"{beatmap.approach_rate:g}",
        "OD": f"{beatmap.overall_difficulty:g}",
        "HP": f"{beatmap.hp_drain_rate:g}",
        "BPM": tempo(beatmap),
        "Slider multiplier": f"{beatmap.slider_multiplier:g}",
        "Length": format_time(last - first).rpartition(":")[0],
        "Objects": f"{len(beatmap.objects)} ({kinds})",
    }
    stars = star_rating(beatmap.raw)
    return settings if stars is None else settings | {"Stars": f"{stars:.2f}"}


def tempo(beatmap: Beatmap) -> str:
    """The tempo that most of the map has, in beats a minute, and its range where it changes."""
    last = max(hit.end_time for hit in beatmap.objects)
    red = [
        line
        for line in beatmap.timing_lines
        if line.red and SHORTEST_BEAT_MS <= line.beat_length <= LONGEST_BEAT_MS
    ]
    red.sort(key=lambda line: line.time)
    lasting: dict[float, float] = {}
    for line, until in zip(red, [*(line.time for line in red[1:]), last], strict=True):
        bpm = round(60_000 / line.beat_length, 2)
        lasting[bpm] = lasting.get(bpm, 0.0) + max(0.0, until - line.time)
    if not lasting:
        return "unknown"
    main = max(lasting, key=lambda bpm: lasting[bpm])
    if len(lasting) == 1:
        return f"{main:g}"
    return f"{main:g} ({min(lasting):g} to {max(lasting):g})"


def placement_figures(beatmap: Beatmap) -> dict[str, float]:
    """How a map's objects are placed, by three of the features that realism is measured by.

    The mean turning angle in degrees, and the shares of objects that overlap others and that are
    where an earlier one was; without those that no object has a value of.
    """
    features = object_features(beatmap_to_sequence(beatmap))
    means = {
        "turn": math.degrees(features["turning_angle"].mean()),
        "overlapping": float(features["overlapping"].mean()),
        "repeated": float(features["repeated_position"].mean()),
    }
    return {name: value for name, value in means.items() if np.isfinite(value)}
