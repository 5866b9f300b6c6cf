"""The training objective: from windows and random numbers to a loss for each window."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from data_loading import Batch
from diffusion.parametrisation import EDM, LearnedVariance
from models import DiTConfig, make_context

SIGMA_BANDS_PX = (0.0, 10.0, 30.0, 100.0, 300.0, math.inf)
"""Edges of the noise levels that losses are reported by: from fine detail to the whole shape."""

Network = Callable[..., Tensor]
"""A `DiT`, compiled or not, alone or one of many ranks."""


@dataclass(frozen=True)
class Noise:
    """The random numbers of a step, for N windows of T data points."""

    levels: Tensor  # (N,)
    eps: Tensor  # (N, T, 2)
    drop_class: Tensor  # (N,) bool
    drop_distances: Tensor  # (N,) bool
    time_shift: Tensor  # (N, 1) float64 ms
    known: KnownDraw

    @classmethod
    def draw(
        cls,
        parametrisation: EDM | LearnedVariance,
        shape: tuple[int, int],
        seed: tuple[int, int],
        *,
        class_dropout: float,
        distance_dropout: float,
        known_points: float = 0.0,
    ) -> "Noise":
        """Draws for `shape` (N, T), a global batch, from `seed` (the run's, the step's) alone."""
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state >> 1))
        n = shape[0]
        return cls(
            parametrisation.draw_levels(n, generator),
            torch.randn(*shape, 2, generator=generator),
            torch.rand(n, generator=generator) < class_dropout,
            torch.rand(n, generator=generator) < distance_dropout,
            torch.rand(n, 1, generator=generator, dtype=torch.float64) * 100_000,
            KnownDraw.draw(shape, known_points, generator),
        )

    def part(self, chosen: slice) -> "Noise":
        """Those of some of the windows."""
        return Noise(
            self.levels[chosen],
            self.eps[chosen],
            self.drop_class[chosen],
            self.drop_distances[chosen],
            self.time_shift[chosen],
            self.known.part(chosen),
        )


@dataclass(frozen=True)
class Objective:
    """How losses are computed: what the network predicts, and where and how precisely."""

    parametrisation: EDM | LearnedVariance
    config: DiTConfig
    device: torch.device
    dtype: torch.dtype
    half_window: int
    amp: bool

    def losses(self, network: Network, batch: Batch, noise: Noise) -> Tensor:
        """The loss of each window: (N,) on the device."""
        config = self.config
        classes = torch.where(noise.drop_class, config.num_classes, batch.classes)
        distances = torch.where(noise.drop_distances[:, None], -1.0, batch.distances)
        times = batch.times - batch.times[:, :1]
        if config.time_dim:
            # An absolute time embedding must see all the times that sampling may give it.
            times = times + noise.time_shift
        valid = None if bool(batch.valid.all()) else self._to_device(batch.valid)
        x0 = self.parametrisation.from_pixels(self._to_device(batch.xy).to(self.dtype))
        known, share = None, None
        counted = valid
        if config.known_points:
            shown = self._to_device(noise.known.mask(batch.types))
            known = torch.where(shown[..., None], x0, torch.nan)
            real = torch.ones_like(shown) if valid is None else valid
            counted = real & ~shown
            share = self.known_weight(real, counted)
        context = make_context(
            config,
            times if self.device.type == "mps" else self._to_device(times),
            self._to_device(distances),
            self._to_device(batch.types),
            self._to_device(classes),
            valid,
            known,
        )
        context = context._replace(features=context.features.to(self.dtype))
        eps = self._to_device(noise.eps).to(self.dtype)
        levels = noise.levels
        if isinstance(self.parametrisation, EDM):  # the other's index a table on the CPU
            levels = self._to_device(levels)
        with torch.autocast(self.device.type, torch.bfloat16) if self.amp else nullcontext():
            losses = self.parametrisation.loss(
                lambda x, labels: network(x, labels, context, self.half_window).to(self.dtype),
                x0,
                levels,
                eps,
                counted,
            )
        return losses if share is None else losses * share

    @staticmethod
    def known_weight(real: Tensor, counted: Tensor) -> Tensor:
        """Weights (N,) of windows of which some points are known, given (N, T) masks.

        A window's loss is a sum over its unknown points. By that alone a lone object, which is
        the hardest thing to place, would count a hundredth of a whole window; the square root
        lies between counting points alike and counting windows alike.
        """
        return (real.sum(1) / counted.sum(1).clamp(min=1)).sqrt()

    def sigmas_px(self, levels: Tensor) -> Tensor:
        """Noise levels (N,) as standard deviations in px along x."""
        return self.parametrisation.level_sigmas(levels) * self.parametrisation.scale[0]

    def _to_device(self, x: Tensor) -> Tensor:
        """A copy that the host does not wait for, where the device can fetch from its memory."""
        if self.device.type == "cuda":
            x = x.pin_memory()
        return x.to(self.device, non_blocking=True)


def loss_by_band(losses: Tensor, sigmas_px: Tensor) -> dict[str, float | None]:
    """Mean of losses (M,) by band of noise (M,); None where a band has none of them."""
    means: dict[str, float | None] = {}
    for low, high in pairwise(SIGMA_BANDS_PX):
        chosen = losses[(sigmas_px >= low) & (sigmas_px < high)]
        name = f"{low:g}-{high:g} px" if math.isfinite(high) else f"over {low:g} px"
        means[name] = float(chosen.mean()) if len(chosen) else None
    return means
