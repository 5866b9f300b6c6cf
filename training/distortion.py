"""Augmentations of the conditions: maps in double time, distances that are not exact."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models import Conditions

DOUBLE_TIME = 1.5
"""How much faster the game plays a map in double time."""


@dataclass(frozen=True)
class Distortion:
    """How N windows of T data points are distorted: (N,) bool in double time, (N, T) factors.

    None leaves windows as they are. Double time is the game's mod of that name.
    """

    double_time: Tensor | None = None
    factors: Tensor | None = None

    @classmethod
    def draw(
        cls, shape: tuple[int, int], double_time: float, noise: float, generator: torch.Generator
    ) -> "Distortion":
        """A share `double_time` of windows in double time, distances times 2 ** N(0, noise^2)."""
        faster = torch.rand(shape[0], generator=generator) < double_time if double_time else None
        factors = 2 ** (noise * torch.randn(shape, generator=generator)) if noise else None
        return cls(faster, factors)

    def part(self, chosen: slice) -> "Distortion":
        """The distortion of some of the windows."""
        faster, factors = self.double_time, self.factors
        return Distortion(
            None if faster is None else faster[chosen], None if factors is None else factors[chosen]
        )

    def __call__(self, given: Conditions) -> Conditions:
        """The conditions of windows `given`, distorted. Coordinates stay."""
        if self.double_time is not None:
            times = torch.where(self.double_time[:, None], given.times / DOUBLE_TIME, given.times)
            given = given._replace(times=times)
        if self.factors is not None:
            given = given._replace(distances=given.distances * self.factors)
        return given
