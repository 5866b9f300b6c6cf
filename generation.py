"""Samples new coordinates for a beatmap's data points: the one entry that all commands share."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beatmap import Beatmap
from checkpoint import LoadedModel
from constraints import (
    Chain,
    clamp_prediction,
    keep_on_playfield,
    keep_points,
    keep_spacing,
)
from diffusion.gaussian import Denoise, LearnedVariance, Network, guided_network
from diffusion.samplers import (
    DETERMINISTIC,
    Callback,
    sample_ancestral,
    sample_learned_variance,
)
from models import make_context
from placement import place
from sequence import PointType, Sequence, SliderTopology, slider_topology
from slider_path import PathSet

DEFAULT_STEPS = 12
MAX_STEPS = 1000

FloatArray = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""(steps done, steps in all); what it raises ends the sampling."""
Watch = Callable[[int, FloatArray], None]
"""(step from 0, its prediction of the coordinates (variants, T, 2) px)."""


@dataclass(frozen=True)
class SampleOptions:
    """How to sample.

    style is a class index of the model, None for no style; half_window overrides the model's
    attention band; spacing "keep" meets the source's distances, "model" takes what the network
    gives; bounds "playfield" keeps objects on it, "off" does not.
    """

    steps: int = DEFAULT_STEPS
    sampler: str = "dpmpp-2m"
    cfg_scale: float = 1.0
    style: int | None = None
    variants: int = 1
    seed: int = 0
    spacing: str = "keep"
    bounds: str = "playfield"
    half_window: int | None = None
    use_amp: bool = False

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
    watch: Watch | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Samples new coordinates for every data point of `sequence`.

    Returns (raw, placed), each (variants, T, 2) px: what the sampler gives, and whole pixels, with
    slider ends where the game will have them. The result depends on the seed and the map alone; a
    variant is the same whatever their number. `watch` sees what every step predicts.
    """
    topology = slider_topology(beatmap, sequence)
    distances = sequence.distances()
    chain = make_chain(sequence, topology, distances)
    network = make_network(loaded, sequence, chain, options)
    parametrisation = loaded.parametrisation
    device = next(loaded.model.parameters()).device
    seeds = [f"{options.seed}/{beatmap.md5}/{k}" for k in range(options.variants)]
    generators = [torch.Generator().manual_seed(_seed_of(text)) for text in seeds]
    noise = torch.stack([torch.randn(len(sequence), 2, generator=g) for g in generators])
    sigma = parametrisation.sigmas(options.steps)[0]
    x = noise.to(device) * float((sigma**2 + 1).sqrt())

    def report(step: int, x0: Tensor) -> None:
        progress(step + 1, options.steps)
        if watch is not None:
            watch(step, parametrisation.to_pixels(x0.float()).cpu().double().numpy())

    with torch.inference_mode():
        x = solve(loaded, network, chain, options, x, report, generators)
        raw = parametrisation.to_pixels(x.float()).cpu().double().numpy()
    placed = [
        place(
            sequence,
            topology,
            xy,
            distances,
            keep_spacing=options.spacing == "keep",
            on_playfield=options.bounds == "playfield",
        )
        for xy in raw
    ]
    return raw, np.stack(placed)


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
    sigmas = parametrisation.sigmas(options.steps)
    if options.sampler == "ancestral":
        return sample_ancestral(denoise, x, sigmas, report, generator=generators)
    return DETERMINISTIC[options.sampler](denoise, x, sigmas, report)


def _seed_of(text: str) -> int:
    """A generator's seed from any text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def make_chain(sequence: Sequence, topology: SliderTopology, distances: FloatArray) -> Chain:
    """What the constraints know of this map: distances, spinners in the middle, slider ends."""
    paths = PathSet(topology.sliders)

    def slider_ends(xy: Tensor) -> Tensor:
        ends = [paths.evaluate(points)[0] for points in xy.double().numpy()]
        return torch.from_numpy(np.stack(ends))

    spinner = np.isin(sequence.types, (PointType.SPINNER, PointType.SPINNER_END))
    return Chain(
        distances=torch.from_numpy(distances).float(),
        fixed=torch.from_numpy(spinner),
        fixed_xy=torch.from_numpy(sequence.xy).float(),
        ends=torch.from_numpy(topology.ends),
        slider_ends=slider_ends,
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

    def network(x: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.use_amp):
            return model(x, labels, context, options.half_window).float()

    return guided_network(network, options.cfg_scale) if guided else network


def constrained(
    denoise: Denoise, loaded: LoadedModel, chain: Chain, options: SampleOptions
) -> Denoise:
    """`denoise` with what is known of the map: fixed points, spacing, playfield."""
    parametrisation = loaded.parametrisation
    if loaded.is_reference:
        denoise = clamp_prediction(denoise)
    denoise = keep_points(denoise, parametrisation, chain)
    on_playfield = options.bounds == "playfield"
    if options.spacing == "keep":
        return keep_spacing(denoise, parametrisation, chain, on_playfield=on_playfield)
    return keep_on_playfield(denoise, parametrisation) if on_playfield else denoise


def spacing_errors(source: Sequence, xy: FloatArray) -> FloatArray:
    """(T,) px by which each distance of xy (T, 2) to the previous point is off that of `source`."""
    return np.abs(replace(source, xy=xy).distances() - source.distances())


def summarise_errors(error: FloatArray, starts: NDArray[np.bool_]) -> dict[str, float]:
    """Median and p95 of spacing errors (T,): of all points, of object starts, of the others."""
    result = {}
    for name, chosen in (("all", starts | True), ("object", starts), ("inner", ~starts)):
        values = error[chosen] if chosen.any() else np.zeros(1)
        result[f"{name}_spacing_error_median"] = float(np.median(values))
        result[f"{name}_spacing_error_p95"] = float(np.quantile(values, 0.95))
    return result


def measure(source: Sequence, xy: FloatArray) -> dict[str, float]:
    """How well coordinates xy (T, 2) px keep the distances of `source` and the playfield.

    Spacing errors in px, of all points, of those that start an object and of the inner ones;
    shares off the playfield of all points and of objects' centres.
    """
    off = np.any((xy < 0) | (xy > (512, 384)), axis=1)
    starts = source.object_starts
    result = summarise_errors(spacing_errors(source, xy), starts)
    result["points_off_playfield"] = float(off.mean())
    result["centres_off_playfield"] = float(off[starts].mean())
    return result
