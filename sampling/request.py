"""A request to remap: all that can be asked for, by flags, in the page or in Python."""

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path

from beatmaps.inputs import Choice
from beatmaps.selection import Selection
from conventions.bundled import DEFAULT_MODEL, EXAMPLE
from conventions.errors import FieldError
from conventions.identity import INDIFFERENT
from sampling.descriptors import Wishes
from sampling.options import STYLE_CFG_SCALE, SampleOptions
from sampling.style import StyleMix

LABEL_LIMIT = 60


@dataclass(frozen=True)
class Pictures:
    """Which previews of a result are drawn: kinds of `viewer.previews`, a GIF of the denoising.

    They show `width` ms from `start` ms on; without a start, an overview or the busiest part.
    """

    kinds: tuple[str, ...] = field(default=(), metadata=INDIFFERENT)
    denoising: bool = field(default=False, metadata=INDIFFERENT)
    start: float | None = None
    width: float = 2000.0

    @property
    def range(self) -> tuple[float, float] | None:
        """(start, end) ms of what is shown; None without a start."""
        return None if self.start is None else (self.start, self.start + self.width)


def cfg_scale(style: StyleMix, wishes: Wishes, asked: float | None = None) -> float:
    """`SampleOptions.cfg_scale`: what is asked for, else what suits a style, if there is one."""
    if asked is not None:
        return asked
    return STYLE_CFG_SCALE if style or wishes.descriptors else 1.0


@dataclass(frozen=True)
class RemapRequest:
    """What to remap, how, with which models, and where the results go.

    `negative_style` names IDs, mappers and files to keep away from. `refine` only cleans up the
    map's own positions, with strength 0; `refiner` is another model for the refining iterations.
    `beatmap_idx` is the index of beatmap IDs if it does not lie beside the model. `expert` is a
    model that takes over at low noise, by default the one beside the model; `expert_below` px of
    noise is where it does, 0 leaves out the one beside. `max_noise_step` is how many timesteps an
    osu-diffusion v2 was trained at; `wishes` are conditions for such models.
    """

    sources: tuple[Path, ...] = field(default=(EXAMPLE,), metadata=INDIFFERENT)
    choice: Choice = field(default_factory=Choice)
    options: SampleOptions = field(default_factory=SampleOptions)
    selection: Selection = field(default_factory=Selection)
    style: StyleMix = field(default_factory=StyleMix)
    negative_style: tuple[str, ...] = ()
    wishes: Wishes = field(default_factory=Wishes)
    beatmap_idx: Path | None = None
    refine: bool = False
    # Models count by their content, which is in the reports of results.
    model: Path = field(default=DEFAULT_MODEL, metadata=INDIFFERENT)
    refiner: Path | None = field(default=None, metadata=INDIFFERENT)
    expert: Path | None = field(default=None, metadata=INDIFFERENT)
    expert_below: float | None = None
    max_noise_step: int | None = None
    output: Path = field(default=Path("results"), metadata=INDIFFERENT)
    overwrite: bool = field(default=False, metadata=INDIFFERENT)
    pictures: Pictures = field(default_factory=Pictures)

    def __post_init__(self) -> None:
        scale = self.options.cfg_scale
        if scale != 1 and not (self.style or self.negative_style or self.wishes.of_style):
            raise FieldError("{cfg_scale} strengthens a style: give one with {style_id}")
        if self.negative_style and scale <= 1:
            raise FieldError("{negative_style} works through guidance: give a {cfg_scale} above 1")
        if self.wishes.negative_descriptors and scale <= 1:
            raise FieldError(
                "{negative_descriptors} works through guidance: give a {cfg_scale} above 1"
            )
        below = self.expert_below
        if below is not None and not 0 <= below < math.inf:
            raise FieldError("{expert_below} {0:g}: give 0 or a number above it", below)
        if below == 0 and self.expert is not None:
            raise FieldError("{expert_below} 0 leaves an expert out: leave out {expert}, too")

    @property
    def unwanted(self) -> StyleMix:
        """The styles to keep away from."""
        return StyleMix.guess(list(self.negative_style))

    @property
    def style_files(self) -> tuple[Path, ...]:
        """The files whose styles are asked for, wanted or unwanted."""
        return self.style.files + self.unwanted.files

    def label(self) -> str:
        """What distinguishes results of this request from others, for names; empty for defaults."""
        options, style, part = self.options, self.style.describe(), self.selection.describe()
        words = [f"style {style}"] if style else []
        words += [f"without {' '.join(self.negative_style)}"] if self.negative_style else []
        words += self.wishes.describe()
        moved = _expert_beside(self.expert_below)
        words += [f"finished by {self.expert.stem}"] if self.expert else moved
        words += [part] if part else []
        edited = options.strength != 1 and not self.refine
        words += [f"strength {options.strength:g}"] if edited else []
        words += ["cleaned"] if self.refine else []
        words += [f"refined by {self.refiner.stem}"] if self.refiner else []
        words += options.describe()
        text = " ".join(words)
        if len(text.encode("utf-8", "surrogateescape")) <= LABEL_LIMIT:
            return text
        # Names of files must not become too long, and cutting them must not make them equal.
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return f"{text[: LABEL_LIMIT // 4]} {digest}"


def _expert_beside(below_px: float | None) -> list[str]:
    """Where the expert beside a model takes over, for names of results; none for the default."""
    if below_px is None:
        return []
    return [f"expert below {below_px:g}" if below_px else "no expert"]
