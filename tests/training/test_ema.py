"""The average of the weights, against its formula and timm's."""

import pytest
import torch
from torch import nn

from training.ema import WeightAverage


def weights_of(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def moving_model(seed: int = 0) -> tuple[nn.Linear, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(7, 5)
    move(model, generator)
    return model, generator


@torch.no_grad()
def move(model: nn.Module, generator: torch.Generator) -> None:
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_the_average_follows_its_formula() -> None:
    model, generator = moving_model()
    average = WeightAverage(model, decay=0.9)
    expected = weights_of(model).double()
    for updates in range(200):
        move(model, generator)
        decay = min(0.9, 1 - max(1, updates) ** (-2 / 3))
        expected = decay * expected + (1 - decay) * weights_of(model).double()
        average.update(model, updates)
        actual = weights_of(average.module).double()
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert average.decay_at(10_000) == 0.9 and average.decay_at(1) == 0
    assert not any(p.requires_grad for p in average.module.parameters())


def test_it_is_that_of_timm_bit_by_bit() -> None:
    """Which earlier checkpoints were averaged with."""
    timm = pytest.importorskip("timm.utils")
    model, generator = moving_model()
    ours, theirs = WeightAverage(model, 0.99), timm.ModelEmaV3(model, 0.99, use_warmup=True)
    for updates in range(50):
        move(model, generator)
        ours.update(model, updates)
        theirs.update(model, step=updates)
        assert torch.equal(weights_of(ours.module), weights_of(theirs.module))
