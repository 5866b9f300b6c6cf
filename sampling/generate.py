"""Samples new coordinates for a beatmap's data points: the one entry that all commands share."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beatmaps.osu_file import Beatmap
from beatmaps.selection import Mask, excerpt, hull
from beatmaps.sequence import PointType, Sequence, SliderTopology, SliderVelocity, slider_topology
from beatmaps.slider_velocity import earliest_fit
from checkpoint import LoadedModel
from constraints.bounds import bounds_named
from constraints.pixels import Placement
from constraints.rules import Chain, clamp_prediction, keep_points, keep_spacing, keep_within
from constraints.shapes import SliderShapes
from constraints.structure import StructureMode
from constraints.spacing import KEEP, Spacing, wanted_distances
from diffusion.parametrisation import Denoise, LearnedVariance, Network, guided_network
from diffusion.samplers import (
    DETERMINISTIC,
    Callback,
    sample_ancestral,
    sample_learned_variance,
)
from models import make_context
from sampling.controls import Controls
from sampling.style import Style

DEFAULT_STEPS = 12
MAX_STEPS = 1000
FITS, SWEEPS = 2, 10
"""Iterations for slider shapes and for objects' places in every sampling step."""
ARRANGE_SWEEPS = 4
MIN_EDIT_STEPS = 4
EDIT_RAMP_PX = (1.31, 655.0)
"""Noise in px from which an edit of strength just above 0, and one of 1, starts."""

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""(steps done, steps in all); what it raises ends the sampling."""
Watch = Callable[[int, FloatArray], None]
"""(step, predicted coordinates (variants, T, 2) px); what it raises ends the sampling."""


@dataclass(frozen=True)
class SampleOptions:
    """How to sample.

    half_window overrides the model's attention band; bounds "playfield" or "screen" (the editor's
    limits) keeps objects there, "off" does not; use_amp computes in bf16, by default where the
    device does that natively. strength 1 starts from noise, less from the source's own positions
    with so much noise, 0 leaves them; refine_iterations at the lowest noise level follow. Sampler
    "auto" is the solver that measured best at the default steps for the model's recipe. With
    slider_velocity "fit" sliders get the lengths of their paths, to be written with "fit" too.
    """

    steps: int = DEFAULT_STEPS
    sampler: str = "auto"
    cfg_scale: float = 1.0
    variants: int = 1
    seed: int = 0
    spacing: Spacing = KEEP
    bounds: str = "playfield"
    half_window: int | None = None
    use_amp: bool | None = None
    strength: float = 1.0
    refine_iterations: int = 0
    slider_velocity: SliderVelocity = "keep"
    structure: StructureMode = "keep"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(
                f"--num-sampling-steps {self.steps}: give a number from 1 to {MAX_STEPS}"
            )
        if not 1 <= self.variants <= 64:
            raise ValueError(f"--num-variants {self.variants}: give a number from 1 to 64")
        if self.half_window is not None and self.half_window < 1:
            raise ValueError(f"--seq-len {self.half_window}: must be at least 1")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"--strength {self.strength}: give a number from 0 to 1")
        if not 0 <= self.refine_iterations <= MAX_STEPS:
            raise ValueError(
                f"--refine-iters {self.refine_iterations}: give a number from 0 to {MAX_STEPS}"
            )

    @property
    def sampling_steps(self) -> int:
        """Steps of the solver: a weaker edit has less noise to remove."""
        least = min(self.steps, MIN_EDIT_STEPS) if self.strength else 0
        return max(least, math.ceil(self.strength * self.steps))


def _no_progress(done: int, total: int) -> None:
    """For callers that do not watch."""


@dataclass(frozen=True)
class Part:
    """The part of a map that one run works on: its T data points, and what is known of them.

    times (T,) are ms since the map's first data point, distances (T,) px wanted to the previous
    point or -1, kept (T,) marks points that stay.
    """

    beatmap: Beatmap
    sequence: Sequence
    times: FloatArray
    distances: FloatArray
    kept: Mask


def generate(
    loaded: LoadedModel,
    beatmap: Beatmap,
    sequence: Sequence,
    options: SampleOptions,
    progress: Progress = _no_progress,
    controls: Controls | None = None,
    watch: Watch | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Samples new coordinates for every data point of `sequence`, or of the objects chosen.

    Returns (raw, placed), each (variants, T, 2) px: what the sampler gives, and whole pixels, with
    slider ends where the game will have them; objects that are not remapped are exactly as in
    `sequence`. The result depends on the seed, the map and the choice alone; a variant is the same
    whatever their number. Of a long map only the chosen range and its surroundings are sampled.
    `watch` sees what every step predicts.
    """
    controls = controls or Controls()
    check_spacing(loaded, options.spacing)
    raw, placed = (np.repeat(sequence.xy[None], options.variants, axis=0) for _ in range(2))
    chosen = controls.chosen
    if chosen is None:
        chosen = np.ones(len(beatmap.objects), dtype=bool)
    assert chosen.shape == (len(beatmap.objects),)
    if options.sampling_steps + options.refine_iterations == 0 or not chosen.any():
        return raw, placed
    part, points = choose_part(loaded, beatmap, sequence, options, chosen)
    seeds = [f"{options.seed}/{beatmap.md5}/{k}" for k in range(options.variants)]
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
        loaded, part, placement, noise[:, points], generators, options, controls, report
    )
    for k, xy in enumerate(raw[:, points]):
        if options.spacing.mode == "free":
            placement = make_placement(part, options, like=xy)
        placed[k, points] = placement.place(xy)
    return raw, placed


def choose_part(
    loaded: LoadedModel,
    beatmap: Beatmap,
    sequence: Sequence,
    options: SampleOptions,
    chosen: Mask,
) -> tuple[Part, slice]:
    """The chosen objects (M,) and what sampling must see around them, and their data points."""
    kept, distances = kept_and_wanted(beatmap, sequence, options.spacing, chosen)
    first, stop = hull(chosen, context_points(loaded, options), sequence.objects)
    part_beatmap, part_sequence, points = excerpt(beatmap, sequence, first, stop)
    times = part_sequence.times - sequence.times[0]
    return Part(part_beatmap, part_sequence, times, distances[points], kept[points]), points


def kept_and_wanted(
    beatmap: Beatmap, sequence: Sequence, spacing: Spacing, chosen: Mask
) -> tuple[Mask, FloatArray]:
    """(T,) which points stay where the objects of `chosen` (M,) are remapped, and (T,) px wanted.

    Distances are those of `wanted_distances`, but from one known point to the next what they are.
    """
    spinner = np.isin(sequence.types, (PointType.SPINNER, PointType.SPINNER_END))
    kept = spinner | ~chosen[sequence.objects]
    known = kept & np.append(True, kept[:-1])
    distances = wanted_distances(beatmap, sequence, spacing)
    return kept, np.where(known, sequence.distances(), distances)


def context_points(loaded: LoadedModel, options: SampleOptions) -> int:
    """Data points on either side of a range that sampling sees: what two layers reach.

    Through all layers a point is reached from further away, but to no effect: see NOTES.md.
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
    controls: Controls,
    report: Callback,
) -> FloatArray:
    """Coordinates (N, T, 2) px of a part, from unit noise (N, T, 2): sampled, then refined.

    `report` is given every prediction, (N, T, 2) px on the CPU.
    """
    steps = options.sampling_steps
    chain = make_chain(part, placement)
    source = torch.from_numpy(part.sequence.xy).float().expand_as(noise)

    def in_pixels(model: LoadedModel, first: int) -> Callback:
        to_pixels = model.parametrisation.to_pixels
        return lambda step, x0: report(first + step, to_pixels(x0.float()).cpu())

    with torch.inference_mode():
        xy = source
        if steps:
            network = make_network(loaded, part, options, controls.style)
            x = start(loaded, chain, options, source, noise)
            x = solve(loaded, network, chain, options, x, in_pixels(loaded, 0), generators)
            xy = loaded.parametrisation.to_pixels(x.float()).cpu()
        if options.refine_iterations:
            refiner, style = loaded, controls.style
            if controls.refiner is not None:
                refiner, style = controls.refiner, controls.refiner_style
            network = make_network(refiner, part, options, style)
            xy = refine(refiner, network, chain, options, xy, in_pixels(refiner, steps))
        # Float32 cannot hold every coordinate of a file.
        return np.where(part.kept[:, None], part.sequence.xy, xy.double().numpy())


def start_level(loaded: LoadedModel, options: SampleOptions) -> float | None:
    """The noise level from which an edit starts; None for the model's highest.

    Strength runs along the ramp on which sampling spaces its levels (EDM, equation 5, rho 7),
    so that an edit of strength s does about the last share s of a whole run's steps.
    """
    if options.strength == 1:
        return None
    low, high = (px ** (1 / 7) for px in EDIT_RAMP_PX)
    return (low + options.strength * (high - low)) ** 7 / max(loaded.parametrisation.scale)


def check_spacing(loaded: LoadedModel, spacing: Spacing) -> None:
    """ValueError where the model cannot do without distances and is asked to."""
    if spacing.mode == "free" and not can_lack_distances(loaded):
        raise ValueError(
            f"--spacing free: {loaded.path.name} was trained with all distances given; take a "
            "model trained with --distance-dropout, or --spacing snap:120"
        )


def can_lack_distances(loaded: LoadedModel) -> bool:
    """Whether a model was also trained on points whose distance it was not told."""
    metadata = loaded.metadata
    dropout = metadata.get("distance_dropout") or metadata.get("args", {}).get("distance_dropout")
    return bool(dropout)


def make_placement(part: Part, options: SampleOptions, like: FloatArray | None = None) -> Placement:
    """What moves objects to their distances, lengths and bounds.

    With coordinates `like` (T, 2) sliders keep the shapes that they have there, lengthened where
    their paths are too short.
    """
    topology = slider_topology(part.beatmap, part.sequence)
    if options.slider_velocity == "fit":
        topology = with_free_lengths(part, topology)
    distances = part.distances
    if like is not None:
        distances = replace(part.sequence, xy=like).distances()
    shapes = SliderShapes(part.sequence, topology, distances, part.kept, like)
    return Placement(
        part.beatmap,
        part.sequence,
        shapes,
        distances if options.spacing.kept else None,
        part.kept,
        bounds_named(options.bounds, part.beatmap),
        fitted=options.spacing.mode != "model",
        structure=structure_mode(options),
    )


def structure_mode(options: SampleOptions) -> StructureMode:
    """What is kept of how objects lie to each other: distances of another kind want other places."""
    if options.spacing.mode in ("snap", "free") and options.structure == "keep":
        return "clean"
    return options.structure


def with_free_lengths(part: Part, topology: SliderTopology) -> SliderTopology:
    """Sliders without a length where they are remapped and may get a velocity of their own."""
    first = earliest_fit(part.beatmap)
    sliders = [
        (segments, length if kept or part.beatmap.objects[index].time < first else None)
        for (segments, length), index, kept in zip(
            topology.sliders, topology.objects, part.kept[topology.heads], strict=True
        )
    ]
    return replace(topology, sliders=sliders)


def solver_name(loaded: LoadedModel, options: SampleOptions) -> str:
    """The solver that the options ask for.

    Models of the reference's recipe know little of the coarse noise levels, and new noise in every
    step takes back what was decided wrongly there: for them few ancestral steps measured best.
    """
    if options.sampler != "auto":
        return options.sampler
    return "ancestral" if loaded.is_reference else "dpmpp-2m"


def noise_levels(loaded: LoadedModel, options: SampleOptions) -> Tensor:
    """The noise levels (steps + 1,) that the options' solver visits, the last one 0."""
    parametrisation, level = loaded.parametrisation, start_level(loaded, options)
    if isinstance(parametrisation, LearnedVariance) and solver_name(loaded, options) != "ancestral":
        return parametrisation.solver_sigmas(options.sampling_steps, level)
    return parametrisation.sigmas(options.sampling_steps, level)


def start(
    loaded: LoadedModel, chain: Chain, options: SampleOptions, source: Tensor, noise: Tensor
) -> Tensor:
    """What a solver starts from (N, T, 2): noise, about the source's positions for an edit.

    The points that are known have theirs from the beginning. `source` is (N, T, 2) px.
    """
    parametrisation = loaded.parametrisation
    sigma = float(noise_levels(loaded, options)[0])
    about = parametrisation.from_pixels(source) + sigma * noise
    if options.strength == 1:
        about = torch.where(chain.fixed[:, None], about, noise * math.sqrt(sigma**2 + 1))
    return about.to(next(loaded.model.parameters()).device)


def solve(
    loaded: LoadedModel,
    network: Network,
    chain: Chain,
    options: SampleOptions,
    x: Tensor,
    report: Callback,
    generators: list[torch.Generator],
) -> Tensor:
    """Runs the solver that the options name from noise x (N, T, 2) to coordinates, unitless."""
    parametrisation, name = loaded.parametrisation, solver_name(loaded, options)

    def unchanged(x0: Tensor, sigma: Tensor) -> Tensor:
        return x0

    if name == "ancestral" and isinstance(parametrisation, LearnedVariance):
        constrain = constrained(unchanged, loaded, chain, options)
        return sample_learned_variance(
            parametrisation,
            network,
            x,
            options.sampling_steps,
            constrain,
            report,
            generator=generators,
            start=start_level(loaded, options),
        )
    denoise = constrained(predictor(loaded, network), loaded, chain, options)
    sigmas = noise_levels(loaded, options)
    if name == "ancestral":
        return sample_ancestral(denoise, x, sigmas, report, generator=generators)
    return DETERMINISTIC[name](denoise, x, sigmas, report)


def predictor(loaded: LoadedModel, network: Network) -> Denoise:
    """`denoise` of a model's network, without constraints."""

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        return loaded.parametrisation.denoise(network, x, sigma)

    return predict


def refine(
    loaded: LoadedModel,
    network: Network,
    chain: Chain,
    options: SampleOptions,
    xy: Tensor,
    report: Callback,
) -> Tensor:
    """Coordinates xy (N, T, 2) px cleaned up: denoised again and again at the lowest noise level.

    For models of the public osu-diffusion that is its refinement: the ancestral step at timestep
    0, which adds no noise, repeated.
    """
    parametrisation = loaded.parametrisation
    denoise = constrained(predictor(loaded, network), loaded, chain, options)
    sigma = parametrisation.sigmas(2)[1]
    x = parametrisation.from_pixels(xy.to(next(loaded.model.parameters()).device))
    for i in range(options.refine_iterations):
        x = denoise(x, sigma)
        report(i, x)
    return parametrisation.to_pixels(x.float()).cpu()


def _seed_of(text: str) -> int:
    """A generator's seed from any text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def make_chain(part: Part, placement: Placement) -> Chain:
    """What the constraints know of a part: distances, points that stay, placement."""

    def settle(xy: Tensor) -> Tensor:
        moved = [placement.settle(points, FITS, SWEEPS) for points in xy.double().numpy()]
        return torch.from_numpy(np.stack(moved))

    def arrange(xy: Tensor) -> Tensor:
        moved = [placement.arrange(points, ARRANGE_SWEEPS) for points in xy.double().numpy()]
        return torch.from_numpy(np.stack(moved))

    return Chain(
        distances=torch.from_numpy(part.distances).float(),
        fixed=torch.from_numpy(part.kept),
        fixed_xy=torch.from_numpy(part.sequence.xy).float(),
        settle=settle,
        arrange=None if placement.structure is None else arrange,
        bounds=placement.bounds,
    )


def make_network(loaded: LoadedModel, part: Part, options: SampleOptions, style: Style) -> Network:
    """The model with a part of a map and a style bound to it, guided where that matters."""
    model = loaded.model
    device = next(model.parameters()).device
    null = model.y_embedder.embedding_table.weight[model.null_class]
    wanted = null if style.embedding is None else style.embedding.to(device)
    unwanted = null if style.negative is None else style.negative.to(device)
    guided = options.cfg_scale != 1 and not torch.equal(wanted, unwanted)
    classes = wanted.expand(options.variants, -1)  # (N, D)
    if guided:
        classes = torch.cat([classes, unwanted.expand(options.variants, -1)])
    context = make_context(
        model.config,
        torch.from_numpy(part.times)[None],
        torch.from_numpy(part.distances).float()[None].to(device),
        torch.from_numpy(part.sequence.types)[None].to(device),
        torch.zeros(1, dtype=torch.int64, device=device),
    )
    context = context.repeat(len(classes)).with_classes(classes)
    use_amp = has_bf16(device) if options.use_amp is None else options.use_amp

    def network(x: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=use_amp):
            return model(x, labels, context, options.half_window).float()

    return guided_network(network, options.cfg_scale) if guided else network


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 natively, which is faster there; emulated it is slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def constrained(
    denoise: Denoise, loaded: LoadedModel, chain: Chain, options: SampleOptions
) -> Denoise:
    """`denoise` with what is known of the map: fixed points, spacing, playfield."""
    parametrisation = loaded.parametrisation
    if loaded.is_reference:
        denoise = clamp_prediction(denoise)
    denoise = keep_points(denoise, parametrisation, chain)
    if options.spacing.kept:
        return keep_spacing(denoise, parametrisation, chain)
    if chain.bounds is not None:
        return keep_within(denoise, parametrisation, chain.bounds)
    return denoise
