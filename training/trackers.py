"""Where else the metrics of a run go: TensorBoard, Weights & Biases, imported only if wanted."""

import hashlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from conventions.errors import FieldError
from training.options import TrainingOptions

Scalars = Sequence[tuple[str, float]]


class Tracker(Protocol):
    """Takes values by name; any exception but an OSError ends the run."""

    def write(self, step: int, scalars: Scalars) -> None:
        """The figures of a step."""
        ...


class TensorBoard:
    """Events in the run's folder; those of steps that will be trained again are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FieldError(
                "{tensorboard} needs the package tensorboard: python -m pip install tensorboard"
            ) from error
        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, scalars: Scalars) -> None:
        for tag, value in scalars:
            self.writer.add_scalar(tag, value, step)
        self.writer.flush()


class Wandb:
    """A run of a Weights & Biases project; a continued training run continues it."""

    def __init__(self, project: str, folder: Path, options: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise FieldError(
                "{wandb} needs the package wandb: python -m pip install wandb"
            ) from error
        place = f"{socket.gethostname()}/{folder.resolve()}"
        self.run: Any = wandb.init(
            project=project,
            name=folder.name,
            id=hashlib.sha256(place.encode()).hexdigest()[:12],
            resume="allow",
            dir=str(folder),
            config=options,
        )

    def write(self, step: int, scalars: Scalars) -> None:
        self.run.log(dict(scalars), step=step)


def make_trackers(folder: Path, step: int, options: TrainingOptions) -> list[Tracker]:
    """The trackers that are asked for; ValueError if the package of one is missing."""
    found: list[Tracker] = [TensorBoard(folder, step)] if options.tensorboard else []
    return [*found, Wandb(options.wandb, folder, options.plain())] if options.wandb else found
