"""The training objective: from windows and random numbers to a loss for each window."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from data_loading import Batch
from diffusion.parametrisation import Parametrisation
from models import Conditions, DiTConfig, has_float64, make_context
from training.conditioning import STARS_GROUP, with_groups_dropped
from training.distortion import Distortion
from training.known_points import KnownDraw, known_weight
from training.repeats import Repeats

SIGMA_BANDS_PX = (0.0, 10.0, 30.0, 100.0, 300.0, math.inf)
"""Edges in px of the bands of noise by which losses are reported, from detail to whole shape."""

Network = Callable[..., Tensor]
"""A `DiT`, compiled or not, wrapped for several ranks or not."""


@dataclass(frozen=True)
class Noise:
    """The random numbers of a step, for N windows of T data points."""

    levels: Tensor  # (N,)
    eps: Tensor  # (N, T, 2)
    drop_class: Tensor  # (N,) bool
    drop_distances: Tensor  # (N,) bool
    time_shift: Tensor  # (N, 1) float64 ms
    known: KnownDraw
    drop_groups: Tensor | None = None  # (N, groups) bool
    distortion: Distortion = field(default_factory=Distortion)
    repeats: Repeats | None = None

    @classmethod
    def draw(
        cls,
        parametrisation: Parametrisation,
        shape: tuple[int, int],
        seed: tuple[int, int],
        *,
        class_dropout: float,
        distance_dropout: float,
        known_points: float = 0.0,
        groups: int = 0,
        double_time: float = 0.0,
        distance_noise: float = 0.0,
        repeats: float = 0.0,
    ) -> "Noise":
        """Draws for `shape` (N, T), a global batch; only `seed` (the run's, the step's) matters.

        Each of `groups` of conditions is dropped on its own, with the probability of a class.
        """
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
            torch.rand(n, groups, generator=generator) < class_dropout if groups else None,
            Distortion.draw(shape, double_time, distance_noise, generator),
            Repeats.draw(n, repeats, generator) if repeats else None,
        )

    def part(self, chosen: slice) -> "Noise":
        """The random numbers of some of the windows."""
        return Noise(
            self.levels[chosen],
            self.eps[chosen],
            self.drop_class[chosen],
            self.drop_distances[chosen],
            self.time_shift[chosen],
            self.known.part(chosen),
            None if self.drop_groups is None else self.drop_groups[chosen],
            self.distortion.part(chosen),
            None if self.repeats is None else self.repeats.part(chosen),
        )


@dataclass(frozen=True)
class Objective:
    """How losses are computed: parametrisation, configuration, device and precision."""

    parametrisation: Parametrisation
    config: DiTConfig
    device: torch.device
    dtype: torch.dtype
    half_window: int
    amp: bool
    amp_dtype: torch.dtype = torch.bfloat16

    def losses(self, network: Network, batch: Batch, noise: Noise) -> Tensor:
        """The loss of each window: (N,) on the device."""
        shown = None
        if noise.repeats is not None:
            batch, shown = noise.repeats(batch)
        x0 = self.parametrisation.from_pixels(self._to_device(batch.xy).to(self.dtype))
        conditions, counted, weight = self.conditions(batch.conditions, x0, noise, shown)
        context = make_context(self.config, conditions)
        context = context._replace(features=context.features.to(self.dtype))
        with torch.autocast(self.device.type, self.amp_dtype) if self.amp else nullcontext():
            losses = self.parametrisation.loss(
                lambda x, labels: network(x, labels, context, self.half_window).to(self.dtype),
                x0,
                noise.levels,
                self._to_device(noise.eps).to(self.dtype),
                counted,
            )
        return losses if weight is None else losses * weight

    def conditions(
        self, given: Conditions, x0: Tensor, noise: Noise, shown: Tensor | None = None
    ) -> tuple[Conditions, Tensor | None, Tensor | None]:
        """Network inputs on the device; which points count (N, T); weights of windows (N,).

        As the noise says, parts of `given` are withheld and points of x0 (N, T, 2) are shown. In
        windows in which any of `shown` (N, T) is True, these are.
        """
        given = noise.distortion(given)
        classes = given.classes
        if noise.drop_groups is not None:
            dropped = noise.drop_groups
            if noise.distortion.double_time is not None:
                # In double time a map is harder than its star rating says.
                dropped = dropped.clone()
                dropped[:, STARS_GROUP] |= noise.distortion.double_time
            classes = with_groups_dropped(classes, dropped, self.config)
        elif not classes.is_floating_point():
            classes = torch.where(noise.drop_class, self.config.num_classes, classes)
        times = given.times - given.times[:, :1]
        if self.config.time_dim:
            # An absolute time embedding must see all the times that can occur in sampling.
            times = times + noise.time_shift
        assert given.valid is not None
        distances = torch.where(noise.drop_distances[:, None], -1.0, given.distances)
        padded = None if bool(given.valid.all()) else given.valid
        told = given._replace(times=times, distances=distances, classes=classes, valid=padded)
        told = told.map(self._to_device)
        valid = told.valid
        if not self.config.known_points:
            return told, valid, None
        known = noise.known.mask(given.types, given.valid)
        if shown is not None:
            known = torch.where(shown.any(1, keepdim=True), shown, known)
        known = self._to_device(known)
        real = torch.ones_like(known) if valid is None else valid
        counted = real & ~known
        told = told._replace(known=torch.where(known[..., None], x0, torch.nan))
        return told, counted, known_weight(real, counted)

    def sigmas_px(self, levels: Tensor) -> Tensor:
        """Noise levels (N,) as standard deviations in px along x."""
        return self.parametrisation.level_sigmas(levels) * self.parametrisation.scale[0]

    def _to_device(self, x: Tensor) -> Tensor:
        """A copy for which the host does not wait, where the device can read pinned memory.

        Times are float64: they stay on the CPU if the device has no float64.
        """
        if x.dtype == torch.float64 and not has_float64(self.device):
            return x
        if self.device.type == "cuda" and x.device.type == "cpu":
            return x.pin_memory().to(self.device, non_blocking=True)
        return x.to(self.device)


def loss_by_band(losses: Tensor, sigmas_px: Tensor) -> dict[str, float | None]:
    """Mean of losses (M,) by band of noise (M,); None where a band has none of them."""
    means: dict[str, float | None] = {}
    for low, high in pairwise(SIGMA_BANDS_PX):
        chosen = losses[(sigmas_px >= low) & (sigmas_px < high)]
        name = f"{low:g}-{high:g} px" if math.isfinite(high) else f"over {low:g} px"
        means[name] = float(chosen.mean()) if len(chosen) else None
    return means
