"""Rules that predictions keep while they are sampled: fixed points, spacing, places, playfield.

Spacing is a chain of distances from each data point to the previous one. Predictions are projected
towards it by position-based dynamics (Mueller et al. 2007) inside the sampling loop, so that the
model continues from shapes that already have the right spacing. Coordinates here are playfield px.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from constraints.bounds import Bounds
from conventions.playfield import PLAYFIELD_CENTRE
from diffusion.parametrisation import Denoise, Parametrisation

if TYPE_CHECKING:  # rules need no reader of beatmaps
    from constraints.spacing import Spacing

SPACED_BELOW_PX = 60.0
ARRANGED_BELOW_PX = 1000.0

Rule = Callable[[Tensor, float], Tensor]
"""(predicted coordinates (N, T, 2) px, noise in px) -> the same, changed so that a rule holds."""

Settle = Callable[[Tensor], Tensor]
"""(N, T, 2) px on the CPU -> the same with slider shapes and objects moved into place."""

Arrange = Callable[[Tensor, bool], Tensor]
"""(N, T, 2) px on the CPU, whether heads alone are looked at -> the same with objects on one place
or clear of each other."""


@dataclass(frozen=True)
class Chain:
    """What the rules need to know of a sequence of T data points.

    distances (T,) px to the previous point, the first one's to `origin`; fixed (T,) bool marks
    points that stay at `fixed_xy` (T, 2); `settle` does what distances between neighbours do not
    cover: path lengths, slider ends, bodies; points stay within `bounds`.
    """

    distances: Tensor
    fixed: Tensor
    fixed_xy: Tensor
    settle: Settle
    bounds: Bounds | None = None
    origin: tuple[float, float] = PLAYFIELD_CENTRE
    mobility: Tensor = field(init=False)

    def __post_init__(self) -> None:
        # Inverse masses (T + 1, 1) of the immovable origin and the T points, for position-based
        # dynamics.
        mobile = torch.cat([torch.zeros(1), (~self.fixed).float()])
        object.__setattr__(self, "mobility", mobile[:, None])

    def pin(self, xy: Tensor) -> Tensor:
        """xy (N, T, 2) with the fixed points moved to `fixed_xy`."""
        return torch.where(self.fixed[:, None].to(xy.device), self.fixed_xy.to(xy), xy)


def project_spacing(xy: Tensor, chain: Chain, sweeps: int) -> Tensor:
    """Moves xy (N, T, 2) px towards the chain's distances; points move as little as possible.

    Even and odd constraints alternate: constraints of one parity share no point, so each half
    sweep is one vector operation.
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
    # Points on top of each other have no direction to move apart in; the model separates them.
    excess = torch.where(length > 1e-6, 1 - distances[half] / length.clamp(min=1e-6), 0.0)
    correction = offset * excess / masses.clamp(min=1.0)
    first += correction * mobility[:-1][half]
    second -= correction * mobility[1:][half]


def clamp(xy: Tensor, bounds: Bounds) -> Tensor:
    """xy (..., 2) px moved into the bounds."""
    return xy.maximum(xy.new_tensor(bounds.low)).minimum(xy.new_tensor(bounds.high))


def pinned(chain: Chain) -> Rule:
    """Puts the fixed points where they belong at every noise level, as in in-painting."""
    return lambda xy, sigma: chain.pin(xy)


def spaced(chain: Chain, *, below_px: float = SPACED_BELOW_PX, sweeps: int = 10) -> Rule:
    """Meets distances, path lengths and bounds where noise is below `below_px`.

    At higher noise x0 is a blurred mean that has no spacing yet.
    """

    def rule(xy: Tensor, sigma: float) -> Tensor:
        if sigma >= below_px:
            return xy
        return on_cpu(chain.settle)(project_spacing(xy, chain, sweeps))

    return rule


def within(bounds: Bounds, *, below_px: float = SPACED_BELOW_PX) -> Rule:
    """Moves points into the bounds where noise is below `below_px`, without regard to spacing."""
    return lambda xy, sigma: xy if sigma >= below_px else clamp(xy, bounds)


def arranged(
    arrange: Arrange, *, below_px: float = ARRANGED_BELOW_PX, above_px: float = SPACED_BELOW_PX
) -> Rule:
    """Puts objects on one place or clear of each other at noise from `above_px` to `below_px`.

    Where noise is `SPACED_BELOW_PX` or more, only heads are looked at: where sliders go is a guess
    there. At lower levels `spaced` does all that together with the distances, if any are kept.
    """

    def rule(xy: Tensor, sigma: float) -> Tensor:
        if not above_px <= sigma < below_px:
            return xy
        return on_cpu(lambda points: arrange(points, sigma >= SPACED_BELOW_PX))(xy)

    return rule


def on_cpu(settle: Settle) -> Settle:
    """`settle` for coordinates on any device."""
    return lambda xy: settle(xy.detach().cpu()).to(xy)


class RuleOptions(Protocol):
    """What the rules read of the options of sampling, by the names that it has there."""

    @property
    def spacing(self) -> "Spacing": ...


def make_rules(chain: Chain, arrange: Arrange | None, options: RuleOptions) -> list[Rule]:
    """The rules for predictions in sampling: fixed points, places, spacing, playfield.

    They apply in this order, so that the last one has the last word. `arrange` puts objects on one
    place or clear of each other; None leaves that to the network.
    """
    rules = [pinned(chain)]
    if arrange is not None:
        above = SPACED_BELOW_PX if options.spacing.kept else 0.0
        rules.append(arranged(arrange, above_px=above))
    if options.spacing.kept:
        rules.append(spaced(chain))
    elif chain.bounds is not None:
        rules.append(within(chain.bounds))
    return rules


def with_rules(
    denoise: Denoise, parametrisation: Parametrisation, rules: Sequence[Rule]
) -> Denoise:
    """A denoiser whose predictions keep the rules, applied one after the other.

    Only here network units and px meet: noise in px is that of the axis with more px per unit.
    """

    def ruled(x: Tensor, sigma: Tensor) -> Tensor:
        xy = parametrisation.to_pixels(denoise(x, sigma))
        for rule in rules:
            xy = rule(xy, float(sigma) * max(parametrisation.scale))
        return parametrisation.from_pixels(xy)

    return ruled
