"""Samples new coordinates for a beatmap's data points: the one entry that all commands share."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beatmap import Beatmap
from checkpoint import LoadedModel
from constraints import (
    Chain,
    clamp_prediction,
    keep_points,
    keep_spacing,
    keep_within,
)
from diffusion.gaussian import EDM, Denoise, LearnedVariance, Network, guided_network
from diffusion.samplers import (
    DETERMINISTIC,
    Callback,
    sample_ancestral,
    sample_learned_variance,
)
from models import make_context
from placement import Placement
from playfield import bounds_named
from sequence import PointType, Sequence, slider_topology
from slider_shapes import SliderShapes
from spacing import KEEP, Spacing, wanted_distances

DEFAULT_STEPS = 12
MAX_STEPS = 1000
FITS, SWEEPS = 2, 10
"""Iterations for slider shapes and for objects' places in every sampling step."""

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""(steps done, steps in all); what it raises ends the sampling."""


@dataclass(frozen=True)
class SampleOptions:
    """How to sample.

    style is a class index of the model, None for no style; half_window overrides the model's
    attention band; bounds "playfield" or "screen" (the editor's limits) keeps objects there, "off"
    does not; use_amp computes in bf16, by default where the device does that natively; sampler
    "auto" is the solver that measured best at the default steps for the model's recipe.
    """

    steps: int = DEFAULT_STEPS
    sampler: str = "auto"
    cfg_scale: float = 1.0
    style: int | None = None
    variants: int = 1
    seed: int = 0
    spacing: Spacing = KEEP
    bounds: str = "playfield"
    half_window: int | None = None
    use_amp: bool | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(
                f"--num-sampling-steps {self.steps}: give a number from 1 to {MAX_STEPS}"
            )
        if not 1 <= self.variants <= 64:
            raise ValueError(f"--num-variants {self.variants}: give a number from 1 to 64")
        if self.half_window is not None and self.half_window < 1:
            raise ValueError(f"--seq-len {self.half_window}: must be at least 1")


def _no_progress(done: int, total: int) -> None:
    """For callers that do not watch."""


def generate(
    loaded: LoadedModel,
    beatmap: Beatmap,
    sequence: Sequence,
    options: SampleOptions,
    progress: Progress = _no_progress,
) -> tuple[FloatArray, FloatArray]:
    """Samples new coordinates for every data point of `sequence`.

    Returns (raw, placed), each (variants, T, 2) px: what the sampler gives, and whole pixels, with
    slider ends where the game will have them. The result depends on the seed and the map alone; a
    variant is the same whatever their number.
    """
    check_spacing(loaded, options.spacing)
    placement = make_placement(beatmap, sequence, options)
    chain = make_chain(beatmap, placement, options)
    network = make_network(loaded, sequence, chain, options)
    parametrisation = loaded.parametrisation
    device = next(loaded.model.parameters()).device
    seeds = [f"{options.seed}/{beatmap.md5}/{k}" for k in range(options.variants)]
    generators = [torch.Generator().manual_seed(_seed_of(text)) for text in seeds]
    noise = torch.stack([torch.randn(len(sequence), 2, generator=g) for g in generators])
    sigma = noise_levels(parametrisation, options)[0]
    x = noise.to(device) * float((sigma**2 + 1).sqrt())

    def report(step: int, x0: Tensor) -> None:
        progress(step + 1, options.steps)

    with torch.inference_mode():
        x = solve(loaded, network, chain, options, x, report, generators)
        raw = parametrisation.to_pixels(x.float()).cpu().double().numpy()
    if options.spacing.mode == "free":
        placed = [make_placement(beatmap, sequence, options, xy).place(xy) for xy in raw]
    else:
        placed = [placement.place(xy) for xy in raw]
    return raw, np.stack(placed)


def check_spacing(loaded: LoadedModel, spacing: Spacing) -> None:
    """ValueError where the model cannot do without distances and is asked to."""
    metadata = loaded.metadata
    dropout = metadata.get("distance_dropout") or metadata.get("args", {}).get("distance_dropout")
    if spacing.mode == "free" and not dropout:
        raise ValueError(
            f"--spacing free: {loaded.path.name} was trained with all distances given; take a "
            "model trained with --distance-dropout, or --spacing snap:120"
        )


def make_placement(
    beatmap: Beatmap, sequence: Sequence, options: SampleOptions, like: FloatArray | None = None
) -> Placement:
    """What moves objects to their distances, lengths and bounds.

    With coordinates `like` (T, 2) sliders keep the shapes that they have there, lengthened where
    their paths are too short.
    """
    topology = slider_topology(beatmap, sequence)
    distances = wanted_distances(beatmap, sequence, options.spacing)
    if like is not None:
        distances = replace(sequence, xy=like).distances()
    kept = np.isin(sequence.types, (PointType.SPINNER, PointType.SPINNER_END))
    shapes = SliderShapes(sequence, topology, distances, kept, like)
    return Placement(
        beatmap,
        sequence,
        shapes,
        distances if options.spacing.kept else None,
        kept,
        bounds_named(options.bounds, beatmap),
        fitted=options.spacing.mode != "model",
    )


def noise_levels(parametrisation: EDM | LearnedVariance, options: SampleOptions) -> Tensor:
    """The noise levels (steps + 1,) that the options' solver visits, the last one 0."""
    if isinstance(parametrisation, LearnedVariance) and options.sampler != "ancestral":
        return parametrisation.solver_sigmas(options.steps)
    return parametrisation.sigmas(options.steps)


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
    parametrisation = loaded.parametrisation

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        return parametrisation.denoise(network, x, sigma)

    def unchanged(x0: Tensor, sigma: Tensor) -> Tensor:
        return x0

    if options.sampler == "ancestral" and isinstance(parametrisation, LearnedVariance):
        constrain = constrained(unchanged, loaded, chain, options)
        return sample_learned_variance(
            parametrisation, network, x, options.steps, constrain, report, generator=generators
        )
    denoise = constrained(predict, loaded, chain, options)
    sigmas = noise_levels(parametrisation, options)
    if options.sampler == "ancestral":
        return sample_ancestral(denoise, x, sigmas, report, generator=generators)
    best = "dpmpp-3m" if loaded.is_reference else "dpmpp-2m"
    name = best if options.sampler == "auto" else options.sampler
    return DETERMINISTIC[name](denoise, x, sigmas, report)


def _seed_of(text: str) -> int:
    """A generator's seed from any text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def make_chain(beatmap: Beatmap, placement: Placement, options: SampleOptions) -> Chain:
    """What the constraints know of this map: distances, spinners in the middle, placement."""
    sequence = placement.sequence

    def settle(xy: Tensor) -> Tensor:
        moved = [placement.settle(points, FITS, SWEEPS) for points in xy.double().numpy()]
        return torch.from_numpy(np.stack(moved))

    return Chain(
        distances=torch.from_numpy(wanted_distances(beatmap, sequence, options.spacing)).float(),
        fixed=torch.from_numpy(placement.kept),
        fixed_xy=torch.from_numpy(sequence.xy).float(),
        settle=settle,
        bounds=placement.bounds,
    )


def make_network(
    loaded: LoadedModel, sequence: Sequence, chain: Chain, options: SampleOptions
) -> Network:
    """The model with this map and style bound to it, guided where that makes a difference."""
    model = loaded.model
    device = next(model.parameters()).device
    guided = options.style is not None and options.cfg_scale != 1
    n = options.variants
    classes = torch.full((n,), model.null_class if options.style is None else options.style)
    if guided:
        classes = torch.cat([classes, torch.full((n,), model.null_class)])
    times = torch.from_numpy(sequence.times - sequence.times[0])
    context = make_context(
        model.config,
        times[None],
        chain.distances[None].to(device),
        torch.from_numpy(sequence.types)[None].to(device),
        torch.zeros(1, dtype=torch.int64, device=device),
    )
    context = context.repeat(len(classes)).with_classes(classes.to(device))

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


def spacing_errors(
    source: Sequence, xy: FloatArray, wanted: FloatArray | None = None
) -> FloatArray:
    """(T,) px by which each distance of xy (T, 2) to the previous point is off.

    Off `wanted` (T,) where that is given and known, or else off that of `source`.
    """
    distances = source.distances()
    if wanted is not None:
        distances = np.where(wanted < 0, distances, wanted)
    return np.abs(replace(source, xy=xy).distances() - distances)


def summarise_errors(error: FloatArray, starts: NDArray[np.bool_]) -> dict[str, float]:
    """Median and p95 of spacing errors (T,): of all points, of object starts, of the others."""
    result = {}
    for name, chosen in (("all", starts | True), ("object", starts), ("inner", ~starts)):
        values = error[chosen] if chosen.any() else np.zeros(1)
        result[f"{name}_spacing_error_median"] = float(np.median(values))
        result[f"{name}_spacing_error_p95"] = float(np.quantile(values, 0.95))
    return result


def measure(source: Sequence, xy: FloatArray, wanted: FloatArray | None = None) -> dict[str, float]:
    """How well coordinates xy (T, 2) px keep distances, see `spacing_errors`, and the playfield.

    Spacing errors in px, of all points, of those that start an object and of the inner ones;
    shares off the playfield of all points and of objects' centres.
    """
    off = np.any((xy < 0) | (xy > (512, 384)), axis=1)
    starts = source.object_starts
    result = summarise_errors(spacing_errors(source, xy, wanted), starts)
    result["points_off_playfield"] = float(off.mean())
    result["centres_off_playfield"] = float(off[starts].mean())
    return result
