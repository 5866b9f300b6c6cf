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


def companion_of(
    loaded: LoadedModel, begins_px: float, below_px: float | None = None
) -> Expert | None:
    """The expert that lies beside a model, for a run that begins at that much noise; None without.

    With `below_px` it takes over as `Expert` says. It is guided by the same weak model if that has
    its units, and told no style: where it takes over, the style has been decided. So a run that
    begins below that is the model's own.
    """
    if loaded.expert is None:
        return None
    same_units = loaded.expert.parametrisation.scale == loaded.parametrisation.scale
    expert = Expert(
        replace(loaded.expert, weak=loaded.weak if same_units else None), below_px=below_px
    )
    return expert if begins_px > expert.takes_px else None
