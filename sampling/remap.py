"""One beatmap in, new difficulties out: sampled, named, written as files and measured.

`remap` is the way from a request to results for the command, the web page and the evaluation.
"""

import time
from dataclasses import dataclass, field

import numpy as np

from beatmaps.osu_file import Beatmap, edit_metadata, parse_beatmap
from beatmaps.rhythm_only import with_shapes
from beatmaps.selection import Mask
from beatmaps.sequence import Sequence, SliderVelocity, apply_coordinates, beatmap_to_sequence
from conventions.arrays import FloatArray
from metrics.marks import MarkFinder
from metrics.spacing import measure
from sampling.generate import generate, kept_and_wanted
from sampling.loaded_models import Models
from sampling.map_inputs import map_inputs
from sampling.options import SampleOptions
from sampling.progress import Reports
from sampling.request import RemapRequest
from viewer.marks import Mark

TAG = "osu-diffusion"


@dataclass(frozen=True)
class Remapped:
    """One new difficulty: its bytes, read back, and how well it and the raw sample keep spacing.

    raw (T, 2) px is the sample before it was put on whole pixels; states are the coordinates
    (T, 2) that every step predicted, and the result, if wanted; seconds are those of sampling
    all variants; marks are places to look at, see `metrics.marks`.
    """

    data: bytes
    beatmap: Beatmap
    raw: FloatArray
    states: list[FloatArray]
    written: dict[str, float]
    before_rounding: dict[str, float]
    seconds: float
    marks: list[Mark] = field(default_factory=list)


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


def to_remap(
    beatmap: Beatmap, options: SampleOptions, chosen: Mask | None
) -> tuple[Sequence, Mask]:
    """The data points that a run works on, and (M,) the objects that it places: by default all.

    Sliders without a shape have one there where distances are new.
    """
    if chosen is None:
        chosen = np.ones(len(beatmap.objects), dtype=bool)
    if options.spacing.mode in ("snap", "free"):
        beatmap = with_shapes(beatmap, chosen)
    return beatmap_to_sequence(beatmap), chosen


def finish(
    sequence: Sequence, xy: FloatArray, wanted: FloatArray, version: str, request: RemapRequest
) -> tuple[bytes, Sequence, dict[str, float]]:
    """A new difficulty's bytes, read back, and how well it keeps the distances `wanted` (T,) px."""
    options, set_id = request.options, -1 if request.choice.separate_set else None
    data = remapped_file(sequence, xy, version, options.seed, set_id, options.slider_velocity)
    written = beatmap_to_sequence(parse_beatmap(data, sequence.beatmap.name))
    return data, written, measure(sequence, written.xy, wanted)


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
    inputs = map_inputs(models, beatmap, request, reports.learning)
    sequence, chosen = to_remap(beatmap, options, inputs.chosen)
    _, wanted = kept_and_wanted(sequence, options.spacing, chosen)
    states: list[FloatArray] = []
    watch = (lambda _, xy: states.append(xy)) if request.pictures.denoising else None
    reports.sampling(0, options.sampling_steps + options.refine_iterations)
    started = time.perf_counter()
    raw, placed = generate(models.sampler, sequence, options, reports.sampling, inputs, watch)
    seconds = time.perf_counter() - started
    result, finder = [], MarkFinder(sequence)
    for k, version in enumerate(versions):
        data, written, errors = finish(sequence, placed[k], wanted, version, request)
        mine = [xy[k] for xy in (*states, placed)] if watch else []
        before = measure(sequence, raw[k], wanted)
        marks = finder.find(written)
        result.append(Remapped(data, written.beatmap, raw[k], mine, errors, before, seconds, marks))
    return result
