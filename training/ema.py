"""EMA: the average of a model's weights over its training steps, which sampling uses."""

import copy
from typing import Generic, TypeVar

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Model = TypeVar("Model", bound=nn.Module)


class WeightAverage(Generic[Model]):
    """A copy of a model that follows its weights; `decay` is reached after a warm-up.

    torch's own `AveragedModel` counts in a tensor for which the host waits at each step.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.module: Model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    def decay_at(self, updates: int) -> float:
        """The decay of the update after `updates` others; the first two copy the weights.

        Crowson's warm-up with a power of 2/3: 0.999 after 31,600 steps, 0.9999 after a million.
        """
        step = max(0, updates - 1)
        return min(1 - (1 + step) ** (-2 / 3), self.decay)

    def update(self, model: Model, updates: int) -> None:
        """Moves the average towards the model's weights, with a few kernels for all of them."""
        average = get_ema_multi_avg_fn(self.decay_at(updates))
        average(list(self.module.parameters()), list(model.parameters()), None)
