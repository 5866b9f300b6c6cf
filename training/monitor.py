"""Watches over a run's losses: reports them, and ends the run when one is not finite.

Steps leave their losses on the device; they are fetched together at every line of the log and
before every checkpoint, so that no step waits and no checkpoint is made of weights gone wrong.
"""

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conventions.errors import FieldError
from conventions.ranks import Ranks
from data_loading import WindowLoader
from training.log import Metrics, measured_peak_flops, training_flops
from training.objective import Objective, loss_by_band
from training.options import TrainingOptions

log = logging.getLogger("train")


@dataclass(frozen=True)
class StepRecord:
    """What a step leaves to be looked at later."""

    step: int
    levels: Tensor  # (N,) noise levels of the global batch, on the CPU
    losses: Tensor  # (share of N,) on the device
    grad_norm: Tensor  # () on the device


@dataclass
class Unreported:
    """What has been fetched since the last line of the log."""

    losses: list[Tensor] = field(default_factory=list)  # of a step each, (N,) float64
    sigmas_px: list[Tensor] = field(default_factory=list)  # (N,)
    grad_norms: list[float] = field(default_factory=list)
    since: float = field(default_factory=time.perf_counter)


class Watch:
    """Losses of a run's steps; `metrics` is the main rank's."""

    def __init__(
        self,
        options: TrainingOptions,
        ranks: Ranks,
        loader: WindowLoader,
        objective: Objective,
        metrics: Metrics | None,
    ) -> None:
        self.options, self.ranks, self.loader = options, ranks, loader
        self.objective, self.metrics = objective, metrics
        self.peak_flops = self._peak_flops() if ranks.is_main else math.nan
        self.records: list[StepRecord] = []
        self.unreported = Unreported()

    def record(self, record: StepRecord) -> None:
        """Keeps what a step left, without looking at it."""
        self.records.append(record)

    def check(self) -> None:
        """Fetches the losses since the last time; ValueError, on all ranks, for one not finite."""
        if not self.records:
            return
        records, self.records = self.records, []
        mine = torch.stack([record.losses for record in records])
        losses = self.ranks.join(mine, self.options.global_batch_size)  # (steps, N)
        norms = torch.stack([record.grad_norm for record in records]).tolist()
        for record, loss, norm in zip(records, losses, norms, strict=True):
            if not (bool(loss.isfinite().all()) and math.isfinite(norm)):
                raise self._failure(record, loss, norm)
            self.unreported.sigmas_px.append(self.objective.sigmas_px(record.levels))
        self.unreported.losses += list(losses)
        self.unreported.grad_norms += norms

    def _failure(self, record: StepRecord, losses: Tensor, norm: float) -> FieldError:
        """Names the windows, of which maps at what noise, whose losses are not finite."""
        epoch, index = divmod(record.step, self.loader.batches_per_epoch)
        plan, n = self.loader.windows(epoch), self.options.global_batch_size
        sigmas = self.objective.sigmas_px(record.levels)
        bad = (~losses.isfinite()).nonzero().flatten().tolist()
        # With finite losses it was the gradient, most likely of the largest one.
        suspects, windows = bad or [int(losses.argmax())], []
        for i in suspects[:3]:
            row, start = plan.rows[index * n + i], plan.starts[index * n + i]
            entry = self.loader.dataset.beatmaps.iloc[row]
            windows.append(
                f"beatmap {entry['beatmap_id']} (MD5 {entry['md5']}) from point {start} at "
                f"sigma {sigmas[i]:.3g} px"
            )
        return FieldError(
            "the loss is {0} by step {1} (gradient norm {2}, epoch {3}, batch {4}) for {5} of {6} "
            "windows, first {7}: lower {lr} (now {8}) or leave out those maps. "
            "Nothing was saved since; the checkpoints before are good",
            *(losses[suspects[0]].item(), record.step + 1, norm, epoch, index, len(bad), n),
            *("; ".join(windows), self.options.lr),
        )

    def report(self, step: int, elapsed: float, lr: float) -> None:
        """One line of the log and of the metrics about the steps since the last one."""
        done, self.unreported = self.unreported, Unreported()
        losses = torch.stack(done.losses)
        rate = len(losses) / (self.unreported.since - done.since)
        points = rate * self.options.global_batch_size * self.options.seq_len
        mfu = self._mfu(rate)
        log.info(
            "(step=%07d) Train Loss: %.4f, Train Steps/Sec: %.2f, Data Points/Sec: %.0f, "
            "MFU: %.0f%%, LR: %.2e",
            *(step, losses.mean(), rate, points, 100 * mfu, lr),
        )
        if self.metrics is None:
            return
        values: dict[str, Any] = {
            "epoch": step / self.loader.batches_per_epoch,
            "loss": float(losses.mean()),
            "loss_by_sigma": loss_by_band(losses.flatten(), torch.cat(done.sigmas_px)),
            "grad_norm": float(np.mean(done.grad_norms)),
            "lr": lr,
            "steps_per_second": rate,
            "points_per_second": points,
            "mfu": mfu,
            "elapsed": elapsed,
        }
        self.metrics.write(step, values)

    def validated(self, step: int, values: dict[str, Any], seconds: float) -> None:
        """Writes results of a validation, whose seconds are no training."""
        self.unreported.since += seconds
        if self.metrics is not None:
            self.metrics.write(step, {"validation": values})

    def _peak_flops(self) -> float:
        """Operations/s that one device could do: as given, or as matrix products reach here."""
        if self.options.peak_tflops is not None:
            return self.options.peak_tflops * 1e12
        dtype = torch.bfloat16 if self.objective.amp else self.objective.dtype
        return measured_peak_flops(self.objective.device, dtype)

    def _mfu(self, steps_per_second: float) -> float:
        """Model FLOPs utilisation: the share of all devices' peak that trains the model."""
        objective = self.objective
        flops = training_flops(objective.config, self.options.seq_len, objective.half_window)
        batch = self.options.global_batch_size * steps_per_second
        return flops * batch / (self.peak_flops * self.ranks.world_size)
