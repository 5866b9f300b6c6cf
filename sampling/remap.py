"""One beatmap in, new difficulties out: sampled, named, written as files and measured.

`remap` is the way from a request to results for the command, the web page and the evaluation.
"""

import time
from dataclasses import dataclass

import numpy as np

from beatmaps.osu_file import Beatmap, edit_metadata, parse_beatmap
from beatmaps.sequence import Sequence, SliderVelocity, apply_coordinates, beatmap_to_sequence
from beatmaps.shapeless import with_shapes
from conventions.arrays import FloatArray
from metrics.spacing import measure
from sampling.generate import generate, kept_and_wanted
from sampling.progress import Reports
from sampling.request import RemapRequest
from sampling.steering import Models, steer

TAG = "osu-diffusion"


@dataclass(frozen=True)
class Remapped:
    """One new difficulty: its bytes, read back, and how well it and the raw sample keep spacing.

    raw (T, 2) px is the sample before it was put on whole pixels; states are the coordinates
    (T, 2) px that every step predicted, and the result, if asked for; seconds are those of sampling
    all variants.
    """

    data: bytes
    beatmap: Beatmap
    raw: FloatArray
    states: list[FloatArray]
    written: dict[str, float]
    before_rounding: dict[str, float]
    seconds: float


def result_version(beatmap: Beatmap, request: RemapRequest) -> str:
    """The new difficulty's name, which says that it is a remap, and of which kind."""
    label = request.label()
    return f"{beatmap.version} (AI remap{label and ' ' + label} seed {request.options.seed})"


def remapped_file(
    sequence: Sequence,
    xy: FloatArray,
    version: str,
    seed: int,
    set_id: int | None = None,
    slider_velocity: SliderVelocity = "keep",
) -> bytes:
    """The beatmap's file with new coordinates, name, BeatmapID 0 and tags that say "ai-generated".

    The beatmapset's ID stays unless one is given.
    """
    data = apply_coordinates(sequence, xy, slider_velocity)
    tags = [TAG, "ai-generated", f"seed{seed}"]
    return edit_metadata(data, version=version, beatmap_id=0, set_id=set_id, add_tags=tags)


def remap(
    models: Models,
    beatmap: Beatmap,
    versions: list[str],
    request: RemapRequest,
    reports: Reports | None = None,
) -> list[Remapped]:
    """The variants of one beatmap that a request asks for, named `versions`.

    Exceptions from `reports` end the work. Raises ValueError if the request does not fit the
    beatmap or the model.
    """
    reports, options = reports or Reports(), request.options
    steering = steer(models, beatmap, request, reports.learning)
    everything = np.ones(len(beatmap.objects), dtype=bool)
    chosen = everything if steering.chosen is None else steering.chosen
    if options.spacing.mode in ("snap", "free"):
        beatmap = with_shapes(beatmap, chosen)
    sequence = beatmap_to_sequence(beatmap)
    _, wanted = kept_and_wanted(sequence, options.spacing, chosen)
    states: list[FloatArray] = []
    watch = (lambda _, xy: states.append(xy)) if request.pictures.denoising else None
    reports.sampling(0, options.sampling_steps + options.refine_iterations)
    started = time.perf_counter()
    raw, placed = generate(models.sampler, sequence, options, reports.sampling, steering, watch)
    seconds = time.perf_counter() - started
    set_id = -1 if request.choice.separate_set else None
    result = []
    for k, version in enumerate(versions):
        data = remapped_file(
            sequence, placed[k], version, options.seed, set_id, options.slider_velocity
        )
        written = parse_beatmap(data, beatmap.name)
        errors = measure(sequence, beatmap_to_sequence(written).xy, wanted)
        mine = [xy[k] for xy in (*states, placed)] if watch else []
        before = measure(sequence, raw[k], wanted)
        result.append(Remapped(data, written, raw[k], mine, errors, before, seconds))
    return result
