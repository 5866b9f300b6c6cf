"""The options of sampling, and what they mean for a model."""

import math
from dataclasses import dataclass

from torch import Tensor

from beatmaps.sequence import SliderVelocity
from checkpoint import LoadedModel
from constraints.spacing import KEEP, Spacing
from constraints.structure import StructureMode
from conventions.errors import FieldError
from diffusion.samplers import SOLVERS, Solver

DEFAULT_STEPS = 12
MAX_STEPS = 1000
MIN_EDIT_STEPS = 4
EDIT_RAMP_PX = (1.31, 655.0)
"""Noise in px from which an edit starts: of a strength just above 0, and of strength 1."""
DEFAULT_GUIDANCE = 2.0
MAX_GUIDANCE = 10.0
STYLE_CFG_SCALE = 2.0
"""Scale of classifier-free guidance with which a style arrives best (docs/notes/styles.md)."""
EXAGGERATED_FROM_PX = 60.0
"""Noise in px below which runs that begin with pure noise do without that guidance: the style has
been decided there, and remaps only come out less real (an interval of noise as by Kynkaanniemi et
al. 2024, https://arxiv.org/abs/2404.07724)."""
GUIDED_FROM_PX = 10.0
"""Noise in px below which the weak model is not used: little is left to decide there."""


@dataclass(frozen=True)
class SampleOptions:
    """How to sample.

    half_window overrides the model's attention band. bounds "playfield" or "screen" (the editor's
    limits) keeps objects there, "off" does not. use_amp computes in bf16, by default if the device
    does that natively. strength 1 starts from noise, a lower one from the source's positions and
    less noise, 0 keeps these; then follow refine_iterations at the lowest noise level. Sampler
    "auto" is the solver that measured best at the default steps for this kind of model. With
    slider_velocity "fit", sliders get the lengths of their paths; write them with "fit", too.
    structure "keep" keeps objects together that share a place in the source, and apart those that
    are clear of each other; "clean" does so with all that are near; both put what is nearly in line
    onto a line. guidance is the weight of guidance by the model's weak companion; None is the best
    one, 1 is none.
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
    guidance: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise FieldError("{steps} {0}: give a number from 1 to {1}", self.steps, MAX_STEPS)
        if not 1 <= self.variants <= 64:
            raise FieldError("{variants} {0}: give a number from 1 to 64", self.variants)
        if self.half_window is not None and self.half_window < 1:
            raise FieldError("{half_window} {0}: must be at least 1", self.half_window)
        if not 0 <= self.strength <= 1:
            raise FieldError("{strength} {0}: give a number from 0 to 1", self.strength)
        if not 0 <= self.refine_iterations <= MAX_STEPS:
            raise FieldError(
                "{refine_iterations} {0}: give a number from 0 to {1}",
                *(self.refine_iterations, MAX_STEPS),
            )
        if self.guidance is not None and not 1 <= self.guidance <= MAX_GUIDANCE:
            raise FieldError(
                "{guidance} {0}: give a number from 1 to {1:g}", self.guidance, MAX_GUIDANCE
            )

    @property
    def sampling_steps(self) -> int:
        """Steps of the solver: fewer for a weaker edit, which has less noise to remove."""
        least = min(self.steps, MIN_EDIT_STEPS) if self.strength else 0
        return max(least, math.ceil(self.strength * self.steps))

    def describe(self) -> list[str]:
        """Words for the name of a result, but for those of edits; none for the defaults."""
        words = [f"spacing {self.spacing}"] if self.spacing != KEEP else []
        words += [f"bounds {self.bounds}"] if self.bounds != "playfield" else []
        words += [f"structure {self.structure}"] if self.structure != "keep" else []
        words += [f"weak guidance {self.guidance:g}"] if self.guidance is not None else []
        words += ["sv fit"] if self.slider_velocity == "fit" else []
        words += [f"guidance {self.cfg_scale:g}"] if self.cfg_scale != 1 else []
        return words


def start_level(loaded: LoadedModel, options: SampleOptions) -> float | None:
    """The noise level from which an edit starts; None for the model's highest.

    Strength follows the spacing of the noise levels in sampling (EDM, equation 5, rho 7), so that
    an edit of strength s does about the last fraction s of a whole run's steps.
    """
    if options.strength == 1:
        return None
    low, high = (px ** (1 / 7) for px in EDIT_RAMP_PX)
    return (low + options.strength * (high - low)) ** 7 / max(loaded.parametrisation.scale)


def check_levels(loaded: LoadedModel, options: SampleOptions, taken_px: float | None) -> None:
    """ValueError if sampling begins with more noise than the model was trained at.

    An expert takes over at `taken_px`; None if there is no expert.
    """
    parametrisation = loaded.parametrisation
    known_px = parametrisation.limit * max(parametrisation.scale)
    if not options.sampling_steps or math.isinf(known_px):
        return
    first_px = float(noise_levels(loaded, options)[0]) * max(parametrisation.scale)
    if first_px > max(known_px * (1 + 1e-6), taken_px or 0.0):
        raise FieldError(
            "{0} was trained on noise up to {1:.0f} px alone, which this run begins above: "
            "give it as {expert} beside a whole model, or with {refine} or a lower {strength}; "
            "{max_noise_step} 1000 if an osu-diffusion v2 is whole",
            *(loaded.path.name, known_px),
        )


def check_spacing(loaded: LoadedModel, spacing: Spacing) -> None:
    """ValueError if distances are to be free and the model needs them."""
    if spacing.mode == "free" and not can_lack_distances(loaded):
        raise FieldError(
            "{spacing} free: {0} was trained with all distances given; take a "
            "model trained with {distance_dropout}, or {spacing} snap:120",
            loaded.path.name,
        )


def can_lack_distances(loaded: LoadedModel) -> bool:
    """Whether a model was also trained without the distances of some windows."""
    metadata = loaded.metadata
    dropout = metadata.get("distance_dropout") or metadata.get("args", {}).get("distance_dropout")
    return bool(dropout)


def structure_mode(options: SampleOptions) -> StructureMode:
    """What is kept of places; with "snap" or "free" distances the source's cannot be.

    With spacing "model" nothing is, because the network's result is not changed.
    """
    if options.spacing.mode == "model":
        return "off"
    if options.spacing.mode in ("snap", "free") and options.structure == "keep":
        return "clean"
    return options.structure


def solver(loaded: LoadedModel, options: SampleOptions) -> Solver:
    """The solver that the options ask for."""
    name = options.sampler
    return SOLVERS[loaded.parametrisation.best_solver if name == "auto" else name]


def noise_levels(loaded: LoadedModel, options: SampleOptions) -> Tensor:
    """The noise levels (steps + 1,) that the options' solver visits, the last one 0."""
    level = start_level(loaded, options)
    return solver(loaded, options).levels(loaded.parametrisation, options.sampling_steps, level)


def guidance_weight(loaded: LoadedModel, options: SampleOptions) -> float:
    """The weight of guidance by the weak model; 1 without it.

    ValueError if it is asked for and the model has no weak one.
    """
    if loaded.weak is None:
        if options.guidance not in (None, 1):
            raise FieldError(
                "{guidance} {0:g}: {1} has no weak model beside it",
                *(options.guidance, loaded.path.name),
            )
        return 1.0
    return DEFAULT_GUIDANCE if options.guidance is None else options.guidance
