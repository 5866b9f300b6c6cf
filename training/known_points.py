"""Which points of a training window the network is given, like the known parts in sampling."""

from dataclasses import dataclass

import torch
from torch import Tensor

from conventions.point_types import PointType

LAST_START = PointType.SLIDER_HEAD_NC
"""Types up to this one, except spinner ends, begin an object."""


@dataclass(frozen=True)
class KnownDraw:
    """Random numbers for N windows of T data points, from which `mask` chooses points.

    kinds (N,) int64: -1 no point is known; 0 each object is known with the same probability; 1 all
    objects except a run of them are known; 2 all objects before one are known. places (N, 2) and
    objects (N, T) are uniform on [0, 1).
    """

    kinds: Tensor
    places: Tensor
    objects: Tensor

    @classmethod
    def draw(cls, shape: tuple[int, int], share: float, generator: torch.Generator) -> "KnownDraw":
        """For `shape` (N, T); in a fraction `share` of the windows something is known."""
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
        """The random numbers of some of the windows."""
        return KnownDraw(self.kinds[chosen], self.places[chosen], self.objects[chosen])

    def mask(self, types: Tensor, valid: Tensor) -> Tensor:
        """(N, T) bool, True where a point of types (N, T) is known; objects are known as a whole.

        Padding, False in valid (N, T), is never known.
        """
        starts = (types <= LAST_START) & (types != PointType.SPINNER_END) & valid
        index = starts.long().cumsum(1)  # (N, T) which object a point belongs to, 0 if cut off
        last = index[:, -1:]
        count = last + 1
        scattered = self.objects.gather(1, index.clamp(max=types.shape[1] - 1)) < self.places[:, :1]
        # Lengths of runs are uniform in their logarithm: single objects are as likely to be unknown
        # as long passages.
        length = (count.float() ** self.places[:, :1]).floor().long()
        first = (self.places[:, 1:2] * (count - length + 1)).floor().long()
        outside = (index < first) | (index >= first + length)
        before = index < count - length
        choices = torch.stack([scattered, outside, before])  # (3, N, T)
        chosen = choices.gather(0, self.kinds.clamp(min=0)[None, :, None].expand_as(choices[:1]))[0]
        return chosen & (self.kinds >= 0)[:, None] & valid


def known_weight(real: Tensor, counted: Tensor) -> Tensor:
    """Weights (N,) of windows; real and counted (N, T) are False for padding and for known points.

    A window's loss is a sum over its unknown points. With this alone, a window with one unknown
    object, the hardest case, would count a hundredth of a whole window. The square root is a middle
    way between equal weights of points and equal weights of windows.
    """
    return (real.sum(1) / counted.sum(1).clamp(min=1)).sqrt()
