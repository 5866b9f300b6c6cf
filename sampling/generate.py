"""Samples new coordinates for a beatmap's data points: the one entry point of all commands."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from beatmaps.selection import Mask, excerpt, hull
from beatmaps.sequence import Sequence, SliderTopology
from beatmaps.slider_velocity import earliest_fit
from checkpoint import LoadedModel
from constraints.bounds import bounds_named
from constraints.rounding import Placement
from constraints.rules import Chain, Rule, make_rules, with_rules
from constraints.shapes import SliderShapes
from constraints.spacing import Spacing, wanted_distances
from constraints.structure import StructureMode
from conventions.arrays import FloatArray
from conventions.point_types import SPINNERS
from diffusion.parametrisation import Denoise
from diffusion.samplers import Callback, noise_source
from sampling.experts import companion_of
from sampling.map_inputs import MapInputs
from sampling.network import Part, make_denoiser
from sampling.options import (
    SampleOptions,
    check_levels,
    check_spacing,
    noise_levels,
    solver,
    structure_mode,
)
from sampling.progress import Progress, no_progress

FITS, SWEEPS = 2, 10
"""Iterations for slider shapes and for objects' places in every sampling step."""
ARRANGE_SWEEPS = 4

Watch = Callable[[int, FloatArray], None]
"""(step, predicted coordinates (variants, T, 2) px); an exception from it ends the sampling."""


def generate(
    loaded: LoadedModel,
    sequence: Sequence,
    options: SampleOptions,
    progress: Progress = no_progress,
    inputs: MapInputs | None = None,
    watch: Watch | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Samples new coordinates for every data point of `sequence`, or of the objects chosen.

    Returns (raw, placed), each (variants, T, 2) px: the sampler's result, and whole pixels, with
    slider ends where the game will have them; objects that are not remapped are exactly as in
    `sequence`. The result depends only on the seed, the map and the request; a variant is the same
    whatever the number of variants. Of a long map only the chosen range and its surroundings are
    sampled. `watch` gets the prediction of every step.
    """
    inputs = inputs or MapInputs()
    if inputs.expert is None and options.sampling_steps:
        begins_px = float(noise_levels(loaded, options)[0]) * max(loaded.parametrisation.scale)
        companion = companion_of(loaded, begins_px, inputs.companion_below)
        inputs = replace(inputs, expert=companion)
    check_models(loaded, options, inputs)
    raw, placed = (np.repeat(sequence.xy[None], options.variants, axis=0) for _ in range(2))
    chosen = inputs.chosen
    if chosen is None:
        chosen = np.ones(len(sequence.beatmap.objects), dtype=bool)
    assert chosen.shape == (len(sequence.beatmap.objects),)
    if options.sampling_steps + options.refine_iterations == 0 or not chosen.any():
        return raw, placed
    expert = None if inputs.expert is None else inputs.expert.loaded
    part, points = choose_part(loaded, sequence, options, chosen, expert)
    seeds = [f"{options.seed}/{sequence.beatmap.md5}/{k}" for k in range(options.variants)]
    generators = [torch.Generator().manual_seed(_seed_of(text)) for text in seeds]
    noise = torch.stack([torch.randn(len(sequence), 2, generator=g) for g in generators])
    placement = make_placement(part, options)
    total = options.sampling_steps + options.refine_iterations

    def report(step: int, xy: Tensor) -> None:
        if watch is not None:
            seen = raw.copy()
            seen[:, points] = xy.double().numpy()
            watch(step, seen)
        progress(step + 1, total)

    raw[:, points] = sample_part(
        loaded, part, placement, noise[:, points], generators, options, inputs, report
    )
    for k, xy in enumerate(raw[:, points]):
        if options.spacing.mode == "free":
            placement = make_placement(part, options, like=xy)
        placed[k, points] = placement.place(xy)
    return raw, placed


def check_models(loaded: LoadedModel, options: SampleOptions, inputs: MapInputs) -> None:
    """ValueError if a model cannot do what the options ask for."""
    check_levels(loaded, options, None if inputs.expert is None else inputs.expert.takes_px)
    check_spacing(loaded, options.spacing)
    if inputs.expert is not None:
        check_spacing(inputs.expert.loaded, options.spacing)


def choose_part(
    loaded: LoadedModel,
    sequence: Sequence,
    options: SampleOptions,
    chosen: Mask,
    expert: LoadedModel | None = None,
) -> tuple[Part, slice]:
    """The chosen objects (M,) and what sampling must see around them, and their data points."""
    seeing = [loaded] if expert is None else [loaded, expert]
    around = max(context_points(model, options) for model in seeing)
    kept, distances = kept_and_wanted(sequence, options.spacing, chosen)
    first, stop = hull(chosen, around, sequence.objects)
    part_sequence, points = excerpt(sequence, first, stop)
    times = part_sequence.times - sequence.times[0]
    return Part(part_sequence, times, distances[points], kept[points]), points


def kept_and_wanted(sequence: Sequence, spacing: Spacing, chosen: Mask) -> tuple[Mask, FloatArray]:
    """(T,) bool: points that stay if the objects of `chosen` (M,) are remapped; (T,) px wanted.

    Distances are those of `wanted_distances`, but between two known points their real distance.
    """
    spinner = np.isin(sequence.types, SPINNERS)
    kept = spinner | ~chosen[sequence.objects]
    known = kept & np.append(True, kept[:-1])
    distances = wanted_distances(sequence, spacing)
    return kept, np.where(known, sequence.distances(), distances)


def context_points(loaded: LoadedModel, options: SampleOptions) -> int:
    """How many data points on either side of a range sampling sees: the reach of two layers.

    More layers reach further, but without a measurable effect
    (docs/notes/parts-and-edits.md).
    """
    config = loaded.model.config
    return 2 * (options.half_window or config.half_window) + int(config.neighbours)


def sample_part(
    loaded: LoadedModel,
    part: Part,
    placement: Placement,
    noise: Tensor,
    generators: list[torch.Generator],
    options: SampleOptions,
    inputs: MapInputs,
    report: Callback,
) -> FloatArray:
    """Coordinates (N, T, 2) px of a part, from unit noise (N, T, 2): sampled, then refined.

    `report` is given every prediction, (N, T, 2) px on the CPU.
    """
    steps = options.sampling_steps
    rules = rules_for(part, placement, options)
    source = torch.from_numpy(part.sequence.xy).float().expand_as(noise)
    with torch.inference_mode():
        xy = source
        if steps:
            watched = in_pixels(loaded, 0, report)
            denoise, std = make_denoiser(loaded, part, options, inputs.style, inputs.expert)
            denoise = with_rules(denoise, loaded.parametrisation, rules)
            x = start(loaded, part, options, source, noise)
            sigmas, draw = noise_levels(loaded, options), noise_source(generators)
            x = solver(loaded, options)(denoise, x, sigmas, watched, draw, std)
            xy = loaded.parametrisation.to_pixels(x.float()).cpu()
        if options.refine_iterations:
            refiner, style = loaded, inputs.style
            if inputs.refiner is not None:
                refiner, style = inputs.refiner, inputs.refiner_style
            told = replace(options, guidance=1, strength=0)  # by its noise, an edit
            denoise, _ = make_denoiser(refiner, part, told, style)
            denoise = with_rules(denoise, refiner.parametrisation, rules)
            watched = in_pixels(refiner, steps, report)
            xy = refine(refiner, denoise, options.refine_iterations, xy, watched)
        # Float32 cannot hold every coordinate of a file.
        return np.where(part.kept[:, None], part.sequence.xy, xy.double().numpy())


def in_pixels(loaded: LoadedModel, first: int, report: Callback) -> Callback:
    """`report` for predictions in network units, with steps that count from `first`."""
    to_pixels = loaded.parametrisation.to_pixels
    return lambda step, x0: report(first + step, to_pixels(x0.float()).cpu())


def start(
    loaded: LoadedModel, part: Part, options: SampleOptions, source: Tensor, noise: Tensor
) -> Tensor:
    """Where a solver starts (N, T, 2): noise, for an edit around the source's positions.

    Known points have their positions from the start. `source` is (N, T, 2) px.
    """
    parametrisation = loaded.parametrisation
    sigma = float(noise_levels(loaded, options)[0])
    about = parametrisation.from_pixels(source) + sigma * noise
    if options.strength == 1:
        kept = torch.from_numpy(part.kept)[:, None]
        about = torch.where(kept, about, noise * math.sqrt(sigma**2 + 1))
    return about.to(loaded.device)


def refine(
    loaded: LoadedModel, denoise: Denoise, iterations: int, xy: Tensor, report: Callback
) -> Tensor:
    """xy (N, T, 2) px cleaned up: denoised `iterations` times at the lowest noise level.

    For models of the public osu-diffusion that is its refinement: the ancestral step at timestep
    0, which adds no noise, repeated.
    """
    parametrisation = loaded.parametrisation
    sigma = torch.tensor(parametrisation.sigma_min, dtype=torch.float64)
    x = parametrisation.from_pixels(xy.to(loaded.device))
    for i in range(iterations):
        x = denoise(x, sigma)
        report(i, x)
    return parametrisation.to_pixels(x.float()).cpu()


def make_placement(
    part: Part,
    options: SampleOptions,
    like: FloatArray | None = None,
    *,
    mode: StructureMode | None = None,
    structure_of: FloatArray | None = None,
) -> Placement:
    """What moves objects to their distances, lengths and bounds.

    With coordinates `like` (T, 2) sliders keep the shapes that they have there, lengthened where
    their paths are too short. `mode` is another structure than the options', `structure_of` as
    `Placement` takes it.
    """
    topology = part.sequence.topology
    if options.slider_velocity == "fit":
        topology = with_free_lengths(part, topology)
    distances = part.distances
    if like is not None:
        distances = part.sequence.moved(like).distances()
    shapes = SliderShapes(part.sequence, topology, distances, part.kept, like)
    return Placement(
        part.sequence,
        shapes,
        distances if options.spacing.kept else None,
        part.kept,
        bounds_named(options.bounds, part.sequence.beatmap),
        fitted=options.spacing.mode != "model",
        structure=structure_mode(options) if mode is None else mode,
        structure_of=structure_of,
    )


def with_free_lengths(part: Part, topology: SliderTopology) -> SliderTopology:
    """`topology` without lengths for sliders that are remapped and may get their own velocity."""
    first = earliest_fit(part.sequence.beatmap)
    sliders = [
        (segments, length if kept or part.sequence.beatmap.objects[index].time < first else None)
        for (segments, length), index, kept in zip(
            topology.sliders, topology.objects, part.kept[topology.heads], strict=True
        )
    ]
    return replace(topology, sliders=sliders)


def _seed_of(text: str) -> int:
    """A generator's seed from any text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def rules_for(part: Part, placement: Placement, options: SampleOptions) -> list[Rule]:
    """The rules that predictions of a part keep while it is sampled."""

    def by_variant(move: Callable[[FloatArray], FloatArray], xy: Tensor) -> Tensor:
        return torch.from_numpy(np.stack([move(points) for points in xy.double().numpy()]))

    def settle(xy: Tensor) -> Tensor:
        return by_variant(lambda points: placement.settle(points, FITS, SWEEPS), xy)

    def arrange(xy: Tensor, heads_alone: bool) -> Tensor:
        return by_variant(
            lambda points: placement.arrange(points, ARRANGE_SWEEPS, heads_alone=heads_alone), xy
        )

    chain = Chain(
        distances=torch.from_numpy(part.distances).float(),
        fixed=torch.from_numpy(part.kept),
        fixed_xy=torch.from_numpy(part.sequence.xy).float(),
        settle=settle,
        bounds=placement.bounds,
    )
    return make_rules(chain, None if placement.mode == "off" else arrange, options)
