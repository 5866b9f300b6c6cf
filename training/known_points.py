"""Which points of a training window the network is given, as sampling gives it parts of a map."""

from dataclasses import dataclass

import torch
from torch import Tensor

from conventions.point_types import PointType

LAST_START = PointType.SLIDER_HEAD_NC
"""Types up to this one, but spinner ends, begin an object."""


@dataclass(frozen=True)
class KnownDraw:
    """Random numbers for N windows of T data points, from which `mask` chooses points.

    kinds (N,) int64: -1 nothing is known; 0 single objects, each with the same probability;
    1 all but a run of objects; 2 all before an object. places (N, 2) and objects (N, T) are
    uniform on [0, 1).
    """

    kinds: Tensor
    places: Tensor
    objects: Tensor

    @classmethod
    def draw(cls, shape: tuple[int, int], share: float, generator: torch.Generator) -> "KnownDraw":
        """For `shape` (N, T); `share` is that of windows in which something is known."""
        n, length = shape
        some = torch.rand(n, generator=generator) < share
        kinds = torch.randint(0, 3, (n,), generator=generator)
        return cls(
            torch.where(some, kinds, -1),
            torch.rand(n, 2, generator=generator),
            torch.rand(n, length, generator=generator),
        )

    @classmethod
    def nothing(cls, shape: tuple[int, int]) -> "KnownDraw":
        """For `shape` (N, T): no point is known."""
        n, length = shape
        return cls(torch.full((n,), -1), torch.zeros(n, 2), torch.zeros(n, length))

    def part(self, chosen: slice) -> "KnownDraw":
        """Those of some of the windows."""
        return KnownDraw(self.kinds[chosen], self.places[chosen], self.objects[chosen])

    def mask(self, types: Tensor, valid: Tensor) -> Tensor:
        """(N, T) bool, True where a point of types (N, T) is known; whole objects are.

        Padding, False in valid (N, T), is no object and never known.
        """
        starts = (types <= LAST_START) & (types != PointType.SPINNER_END) & valid
        index = starts.long().cumsum(1)  # (N, T) which object a point belongs to, 0 if cut off
        last = index[:, -1:]
        count = last + 1
        scattered = self.objects.gather(1, index.clamp(max=types.shape[1] - 1)) < self.places[:, :1]
        # Lengths of runs are drawn evenly in their logarithm: single objects are as likely to be
        # asked for as long passages.
        length = (count.float() ** self.places[:, :1]).floor().long()
        first = (self.places[:, 1:2] * (count - length + 1)).floor().long()
        outside = (index < first) | (index >= first + length)
        before = index < count - length
        choices = torch.stack([scattered, outside, before])  # (3, N, T)
        chosen = choices.gather(0, self.kinds.clamp(min=0)[None, :, None].expand_as(choices[:1]))[0]
        return chosen & (self.kinds >= 0)[:, None] & valid


def known_weight(real: Tensor, counted: Tensor) -> Tensor:
    """Weights (N,) of windows, given which points are no padding and which of them count, (N, T).

    A window's loss is a sum over its unknown points. By that alone a lone object, which is the
    hardest thing to place, would count a hundredth of a whole window; the square root lies between
    counting points alike and counting windows alike.
    """
    return (real.sum(1) / counted.sum(1).clamp(min=1)).sqrt()
