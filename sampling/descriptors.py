"""The conditions that a user wants for models of osu-diffusion v2's kind."""

import math
from dataclasses import dataclass

from conventions.errors import FieldError


@dataclass(frozen=True)
class Wishes:
    """Descriptors to follow and to keep away from, and numbers that replace the map's own.

    Descriptors are user tags, by their whole name or the end of it. Only guidance (`cfg_scale`
    above 1) leads away from the negative ones.
    """

    descriptors: tuple[str, ...] = ()
    negative_descriptors: tuple[str, ...] = ()
    star_rating: float | None = None
    circle_size: float | None = None

    def __post_init__(self) -> None:
        for name in ("star_rating", "circle_size"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise FieldError(f"{{{name}}} {{0:g}}: give a number from 0 on", value)

    @property
    def given(self) -> list[str]:
        """The fields that are set."""
        return [name for name, value in vars(self).items() if value not in (None, ())]

    @property
    def of_style(self) -> bool:
        """Whether any descriptors are set, wanted or negative."""
        return bool(self.descriptors or self.negative_descriptors)

    def describe(self) -> list[str]:
        """Words for the name of a result; none for the defaults."""
        words = [" ".join(self.descriptors)] if self.descriptors else []
        if self.negative_descriptors:
            words.append(f"without {' '.join(self.negative_descriptors)}")
        words += [f"{self.star_rating:g} stars"] if self.star_rating is not None else []
        words += [f"CS {self.circle_size:g}"] if self.circle_size is not None else []
        # Names of descriptors have slashes, names of files do not.
        return [text.replace("/", " ") for text in words]
