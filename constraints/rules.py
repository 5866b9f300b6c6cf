"""Wrappers of `denoise` that keep what the mapper asked for: fixed points, spacing, playfield.

Spacing is a chain of distances from each data point to the previous one. Predictions are projected
towards it by position-based dynamics (Mueller et al. 2007), inside the sampling loop, so that the
model goes on from shapes that already have the right spacing. Coordinates here are playfield px.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from constraints.bounds import Bounds
from diffusion.parametrisation import Denoise, Parametrisation

ARRANGE_BELOW_PX = 300.0

Settle = Callable[[Tensor], Tensor]
"""(N, T, 2) px on the CPU -> the same with slider shapes and objects in place."""


@dataclass(frozen=True)
class Chain:
    """What the constraints need to know of a sequence of T data points.

    distances (T,) px to the previous point, the first one's to `origin`; fixed (T,) bool marks
    points that stay at `fixed_xy` (T, 2); `settle` knows what is no distance between neighbours:
    path lengths, slider ends, bodies; points stay within `bounds`.
    """

    distances: Tensor
    fixed: Tensor
    fixed_xy: Tensor
    settle: Settle
    arrange: Settle | None = None
    bounds: Bounds | None = None
    origin: tuple[float, float] = (256.0, 192.0)
    mobility: Tensor = field(init=False)

    def __post_init__(self) -> None:
        # Inverse masses of the T points behind the immovable origin, as position-based dynamics
        # has them: (T + 1, 1).
        mobile = torch.cat([torch.zeros(1), (~self.fixed).float()])
        object.__setattr__(self, "mobility", mobile[:, None])

    def pin(self, xy: Tensor) -> Tensor:
        """xy (N, T, 2) with the fixed points where they belong."""
        return torch.where(self.fixed[:, None].to(xy.device), self.fixed_xy.to(xy), xy)

    def settled(self, xy: Tensor) -> Tensor:
        """xy (N, T, 2), on any device, with slider shapes and objects in place."""
        return self.settle(xy.detach().cpu()).to(xy)


def project_spacing(xy: Tensor, chain: Chain, sweeps: int) -> Tensor:
    """Moves xy (N, T, 2) px towards the chain's distances; points move as little as it takes.

    Odd and even constraints in turn: those of one kind share no point, so each half sweep is one
    vector operation.
    """
    origin = xy.new_tensor(chain.origin).expand(len(xy), 1, 2)
    x = torch.cat([origin, chain.pin(xy)], dim=1)  # (N, T + 1, 2)
    mobility, distances = chain.mobility.to(x), chain.distances.to(x)[:, None]
    halves = [slice(start, None, 2) for start in (0, 1)]
    for _ in range(sweeps):
        for half in halves:
            _satisfy(x, mobility, distances, half)
        if chain.bounds is not None:
            x[:, 1:] = chain.pin(clamp(x[:, 1:], chain.bounds))
    return x[:, 1:]


def _satisfy(x: Tensor, mobility: Tensor, distances: Tensor, half: slice) -> None:
    """Meets every other distance between neighbours of x (N, T + 1, 2), in place."""
    first, second = x[:, :-1][:, half], x[:, 1:][:, half]  # views
    masses = mobility[:-1][half] + mobility[1:][half]
    offset = second - first
    length = offset.norm(dim=-1, keepdim=True)
    # Points on top of each other have no direction to part in; the model separates them.
    excess = torch.where(length > 1e-6, 1 - distances[half] / length.clamp(min=1e-6), 0.0)
    correction = offset * excess / masses.clamp(min=1.0)
    first += correction * mobility[:-1][half]
    second -= correction * mobility[1:][half]


def clamp(xy: Tensor, bounds: Bounds) -> Tensor:
    """xy (..., 2) px moved into the bounds."""
    return xy.maximum(xy.new_tensor(bounds.low)).minimum(xy.new_tensor(bounds.high))


def keep_points(denoise: Denoise, parametrisation: Parametrisation, chain: Chain) -> Denoise:
    """A denoiser that knows where the fixed points are, as in in-painting."""

    def kept(x: Tensor, sigma: Tensor) -> Tensor:
        xy = parametrisation.to_pixels(denoise(x, sigma))
        return parametrisation.from_pixels(chain.pin(xy))

    return kept


def keep_spacing(
    denoise: Denoise,
    parametrisation: Parametrisation,
    chain: Chain,
    *,
    below_px: float = 60.0,
    arrange_below_px: float = ARRANGE_BELOW_PX,
    sweeps: int = 10,
) -> Denoise:
    """A denoiser whose predictions keep distances, path lengths and bounds, below `below_px`.

    At higher noise levels the prediction is a blurred mean that has no spacing yet.
    """

    def spaced(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoise(x, sigma)
        px = float(sigma) * max(parametrisation.scale)
        if px >= below_px:
            if chain.arrange is None or px >= arrange_below_px:
                return x0
            xy = parametrisation.to_pixels(x0)
            return parametrisation.from_pixels(chain.arrange(xy.detach().cpu()).to(xy))
        xy = project_spacing(parametrisation.to_pixels(x0), chain, sweeps)
        return parametrisation.from_pixels(chain.settled(xy))

    return spaced


def keep_within(
    denoise: Denoise, parametrisation: Parametrisation, bounds: Bounds, *, below_px: float = 60.0
) -> Denoise:
    """A denoiser whose predictions stay within bounds, without regard to spacing."""

    def bounded(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoise(x, sigma)
        if float(sigma) * max(parametrisation.scale) >= below_px:
            return x0
        return parametrisation.from_pixels(clamp(parametrisation.to_pixels(x0), bounds))

    return bounded


def clamp_prediction(denoise: Denoise, low: float = -1.0, high: float = 2.0) -> Denoise:
    """The reference's clamp of x0 (in its network units), which its samplers have on."""

    def clamped(x: Tensor, sigma: Tensor) -> Tensor:
        return denoise(x, sigma).clamp(low, high)

    return clamped
