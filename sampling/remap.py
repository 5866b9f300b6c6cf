"""One beatmap in, new difficulties out: sampled, named, written as files and measured."""

from dataclasses import dataclass

import numpy as np

from beatmaps.osu_file import Beatmap, edit_metadata, parse_beatmap
from beatmaps.sequence import Sequence, SliderVelocity, apply_coordinates, beatmap_to_sequence
from checkpoint import LoadedModel
from constraints.spacing import KEEP
from metrics.spacing import measure
from sampling.controls import Controls
from sampling.generate import FloatArray, Progress, SampleOptions, generate, kept_and_wanted

TAG = "osu-diffusion"


@dataclass(frozen=True)
class Remapped:
    """One new difficulty: its bytes, read back, and how well it and the raw sample keep spacing.

    states are the coordinates (T, 2) px that every step predicted, and the result, if wanted.
    """

    data: bytes
    beatmap: Beatmap
    states: list[FloatArray]
    written: dict[str, float]
    before_rounding: dict[str, float]


def result_version(beatmap: Beatmap, options: SampleOptions, label: str) -> str:
    """The new difficulty's name, which says what it is; `label` is that of the controls."""
    return f"{beatmap.version} (AI remap{label and ' ' + label} seed {options.seed})"


def option_words(options: SampleOptions) -> list[str]:
    """What the result's name says of how it is to come out, where that is not the default."""
    words = [f"spacing {options.spacing}"] if options.spacing != KEEP else []
    words += [f"bounds {options.bounds}"] if options.bounds != "playfield" else []
    words += ["sv fit"] if options.slider_velocity == "fit" else []
    words += [f"guidance {options.cfg_scale:g}"] if options.cfg_scale != 1 else []
    return words


def remapped_file(
    beatmap: Beatmap,
    sequence: Sequence,
    xy: FloatArray,
    version: str,
    seed: int,
    set_id: int | None = None,
    slider_velocity: SliderVelocity = "keep",
) -> bytes:
    """The beatmap's file with new coordinates, difficulty name, BeatmapID 0 and honest tags.

    The beatmapset's ID stays unless one is given.
    """
    data = apply_coordinates(beatmap, sequence, xy, slider_velocity)
    tags = [TAG, "ai-generated", f"seed{seed}"]
    return edit_metadata(data, version=version, beatmap_id=0, set_id=set_id, add_tags=tags)


def remap_beatmap(
    loaded: LoadedModel,
    beatmap: Beatmap,
    versions: list[str],
    options: SampleOptions,
    steering: Controls,
    progress: Progress,
    *,
    set_id: int | None = None,
    watched: bool = False,
) -> list[Remapped]:
    """The variants of one beatmap, named `versions`; `watched` ones know how they came to be.

    What `progress` raises ends the sampling.
    """
    sequence = beatmap_to_sequence(beatmap)
    everything = np.ones(len(beatmap.objects), dtype=bool)
    chosen = everything if steering.chosen is None else steering.chosen
    _, wanted = kept_and_wanted(beatmap, sequence, options.spacing, chosen)
    states: list[FloatArray] = []
    watch = (lambda _, xy: states.append(xy)) if watched else None
    raw, placed = generate(loaded, beatmap, sequence, options, progress, steering, watch)
    result = []
    for k, version in enumerate(versions):
        data = remapped_file(
            beatmap, sequence, placed[k], version, options.seed, set_id, options.slider_velocity
        )
        written = parse_beatmap(data, beatmap.name)
        errors = measure(sequence, beatmap_to_sequence(written).xy, wanted)
        mine = [xy[k] for xy in (*states, placed)] if watched else []
        result.append(Remapped(data, written, mine, errors, measure(sequence, raw[k], wanted)))
    return result
