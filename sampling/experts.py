"""An expert for low noise, as sampling takes it."""

import math
from dataclasses import dataclass, field, replace

from checkpoint import LoadedModel
from conventions.errors import FieldError
from diffusion.experts import expert_limit
from sampling.style import Style


@dataclass(frozen=True)
class Expert:
    """A model that takes over at low noise, and the style as an embedding of its own.

    It takes over at the noise that it was trained at, or below `below_px` if that is less. A model
    that was trained at all noise levels needs `below_px`: ValueError.
    """

    loaded: LoadedModel
    style: Style = field(default_factory=Style)
    below_px: float | None = None

    def __post_init__(self) -> None:
        if math.isinf(self.takes_px):
            raise FieldError(
                "{expert}: {0} was trained at all levels of noise: say from which one it is to "
                "take over, for instance with {expert_below} 80",
                self.loaded.path.name,
            )

    @property
    def takes_px(self) -> float:
        """The noise in px at which it takes over."""
        return expert_limit(self.loaded.parametrisation, self.below_px)


def expert_for(loaded: LoadedModel, chosen: Expert | None) -> Expert | None:
    """The expert that was asked for, else the companion of the model, if it has one.

    The companion is guided by the same weak model, and told no style: little of one is left to
    decide where it takes over.
    """
    if chosen is not None or loaded.expert is None:
        return chosen
    return Expert(replace(loaded.expert, weak=loaded.weak))
