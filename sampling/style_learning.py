"""A style of any beatmaps: one more class embedding, learnt with the model frozen.

Textual inversion (Gal et al. 2022, https://arxiv.org/abs/2208.01618) for a class.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from beatmaps.sequence import Sequence
from checkpoint import LoadedModel
from conventions.playfield import PLAYFIELD, PLAYFIELD_CENTRE
from data_loading import MARGIN_PX, Batch, conditions_of, near_playfield
from models import Conditions
from sampling.progress import Progress, no_progress
from training.known_points import KnownDraw
from training.objective import Noise, Objective


@dataclass(frozen=True)
class Learning:
    """How an embedding is learnt: steps of AdamW on windows of the maps, from a seed."""

    steps: int = 60
    windows: int = 16
    lr: float = 0.03
    seed: int = 0
    candidates: int = 16
    nearest: int = 4


def embeddings_of(loaded: LoadedModel) -> Tensor:
    """The class table (classes + 1, D); the null class is the last row."""
    return loaded.model.class_table().detach()


def draw_windows(
    sequences: list[Sequence], n: int, length: int, embedding: Tensor, rng: np.random.Generator
) -> Batch:
    """n windows of `length` data points in the style `embedding` (D,), mirrored as in training.

    Every point is drawn equally often. Maps shorter than that are padded. Points too far off the
    playfield are not learnt from.
    """
    counts = np.array([len(sequence) for sequence in sequences])
    rows = rng.choice(len(sequences), n, p=counts / counts.sum())
    no_class, xy = torch.zeros(1, dtype=torch.int64), np.zeros((n, length, 2))
    windows = []
    for i, row in enumerate(rows):
        sequence = sequences[row]
        start = int(rng.integers(0, max(len(sequence) - length, 0) + 1))
        part = sequence.xy[start : start + length]
        sign = 1.0 - 2.0 * rng.integers(0, 2, 2)
        xy[i, : len(part)] = (part - PLAYFIELD_CENTRE) * sign + PLAYFIELD_CENTRE
        whole = conditions_of(sequence, no_class, times=sequence.times)
        windows.append(whole.window(start, length))
    conditions = Conditions.cat(windows)
    assert conditions.valid is not None
    conditions = conditions._replace(
        classes=embedding.expand(n, -1),
        valid=conditions.valid & torch.from_numpy(near_playfield(xy)),
    )
    xy = np.clip(xy, -MARGIN_PX, np.add(PLAYFIELD, MARGIN_PX))
    return Batch(torch.from_numpy(xy).float(), conditions)


class Learner:
    """The loss of embeddings on windows of maps; windows and noise are drawn first."""

    def __init__(self, loaded: LoadedModel, sequences: list[Sequence], learning: Learning) -> None:
        self.loaded, self.sequences, self.learning = loaded, sequences, learning
        self.rng = np.random.default_rng(learning.seed)
        self.generator = torch.Generator().manual_seed(learning.seed)
        # The models here were trained with windows of twice the half window of sampling.
        self.length = 2 * loaded.model.config.half_window
        self.objective = Objective(
            loaded.parametrisation,
            loaded.model.config,
            loaded.device,
            torch.float32,
            self.length,
            amp=False,
        )

    def draw(self, n: int) -> tuple[Batch, Noise]:
        """n windows, without a style yet, and their noise."""
        null = embeddings_of(self.loaded)[-1]
        batch = draw_windows(self.sequences, n, self.length, null, self.rng)
        shape = (n, self.length)
        noise = Noise(
            self.loaded.parametrisation.draw_levels(n, self.generator),
            torch.randn(*shape, 2, generator=self.generator),
            drop_class=torch.zeros(n, dtype=torch.bool),
            drop_distances=torch.zeros(n, dtype=torch.bool),
            time_shift=torch.zeros(n, 1, dtype=torch.float64),
            known=KnownDraw.nothing(shape),
        )
        return batch, noise

    def loss(self, embedding: Tensor, drawn: tuple[Batch, Noise]) -> Tensor:
        """The training loss of windows in the style `embedding` (D,)."""
        batch, noise = drawn
        classes = embedding.expand(len(batch.xy), -1)
        styled = Batch(batch.xy, batch.conditions._replace(classes=classes))
        return self.objective.losses(self.loaded.model, styled, noise).mean()


def learn_embedding(
    loaded: LoadedModel,
    sequences: list[Sequence],
    learning: Learning,
    progress: Progress = no_progress,
) -> Tensor:
    """The class embedding (D,) with which the frozen model fits the maps `sequences` best.

    Starts at the mean of the classes that fit best, takes `learning.steps` of AdamW with a cosine
    decay, and returns the average over the second half of them.
    """
    progress(0, learning.steps)
    learner = Learner(loaded, sequences, learning)
    embedding = nearest_classes_mean(learner).clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([embedding], lr=learning.lr, betas=(0.9, 0.99), weight_decay=0.0)
    average, averaged = torch.zeros_like(embedding), 0
    for step in range(learning.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning.lr * (1 + math.cos(math.pi * step / learning.steps)) / 2
        optimizer.zero_grad()
        learner.loss(embedding, learner.draw(learning.windows)).backward()
        optimizer.step()
        if step >= learning.steps // 2:
            average, averaged = average + embedding.detach(), averaged + 1
        progress(step + 1, learning.steps)
    return average / averaged if averaged else embedding.detach()


def nearest_classes_mean(learner: Learner) -> Tensor:
    """The mean of the classes with the least loss on the maps, the null class included.

    Losses of all classes would take minutes; the gradient at the null class shows which to try.
    """
    table, learning = embeddings_of(learner.loaded), learner.learning
    null = table[-1].clone().requires_grad_(True)
    drawn = learner.draw(2 * learning.windows)
    (slope,) = torch.autograd.grad(learner.loss(null, drawn), null)
    promising = ((table - table[-1]) @ slope).argsort()[: learning.candidates]
    drawn = learner.draw(learning.windows)
    with torch.no_grad():
        losses = torch.stack([learner.loss(table[i], drawn) for i in promising])
    best = promising[losses.argsort()[: learning.nearest]]
    return table[best].mean(dim=0)
