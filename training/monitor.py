"""Watches over a run's losses: reports them, and ends the run when one is not finite.

Steps leave their losses on the device. They are fetched together for every line of the log and
before every checkpoint: steps do not wait, and no checkpoint is saved after a loss that is not
finite.
"""

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from conventions.errors import FieldError
from conventions.ranks import Ranks
from data_loading import WindowLoader
from training.log import Metrics, measured_peak_flops, training_flops
from training.memory import peak_memory_gib
from training.objective import Objective, loss_by_band
from training.options import TrainingOptions

log = logging.getLogger("train")
MOST_SKIPPED = 32
"""Steps in a row that may overflow in float16: from a scale of 65,536 down to 1 / 65,536."""


@dataclass(frozen=True)
class StepRecord:
    """What a step records, to be read later."""

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
    skipped: int = 0
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
        self.skipped_in_a_row = 0

    def record(self, record: StepRecord) -> None:
        """Keeps the record of a step without reading it, so that nothing waits."""
        self.records.append(record)

    def check(self) -> None:
        """Fetches the losses since the last call; ValueError, on all ranks, for one not finite."""
        if not self.records:
            return
        records, self.records = self.records, []
        mine = torch.stack([record.losses for record in records])
        losses = self.ranks.join(mine, self.options.global_batch_size)  # (steps, N)
        norms = torch.stack([record.grad_norm for record in records]).tolist()
        for record, loss, norm in zip(records, losses, norms, strict=True):
            finite = bool(loss.isfinite().all()) and math.isfinite(norm)
            if not finite and not self._only_skipped(norm):
                raise self._failure(record, loss, norm)
            self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
            self.unreported.skipped += not finite
            self.unreported.sigmas_px.append(self.objective.sigmas_px(record.levels))
        self.unreported.losses += list(losses)
        self.unreported.grad_norms += [norm for norm in norms if math.isfinite(norm)]

    def _only_skipped(self, norm: float) -> bool:
        """Whether the float16 scaler skipped this step, and tries the next with half the scale.

        If so many halvings do not help, the losses themselves are wrong.
        """
        scaled = self.objective.amp and self.objective.amp_dtype == torch.float16
        return scaled and not math.isfinite(norm) and self.skipped_in_a_row < MOST_SKIPPED

    def _failure(self, record: StepRecord, losses: Tensor, norm: float) -> FieldError:
        """An error with the windows, their maps and noise, whose losses are not finite."""
        epoch, index = divmod(record.step, self.loader.batches_per_epoch)
        plan, n = self.loader.windows(epoch), self.options.global_batch_size
        sigmas = self.objective.sigmas_px(record.levels)
        bad = (~losses.isfinite()).nonzero().flatten().tolist()
        # If all losses are finite, the gradient is not, most likely that of the largest loss.
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

    def report(self, step: int, elapsed: float, lr: float, progress: float) -> None:
        """Writes one line of the log and of the metrics about the steps since the last line."""
        done, self.unreported = self.unreported, Unreported()
        losses = torch.stack(done.losses)
        rate = len(losses) / (self.unreported.since - done.since)
        points = rate * self.options.global_batch_size * self.options.seq_len
        mfu, memory = self._mfu(rate), peak_memory_gib(self.objective.device)
        left = elapsed * max(0.0, 1 - progress) / progress if progress else math.nan
        log.info(
            "(step=%07d) Train Loss: %.4f, Train Steps/Sec: %.2f, Data Points/Sec: %.0f, "
            "MFU: %.0f%%, Left: %.1f min, %sLR: %.2e",
            *(step, losses.mean(), rate, points, 100 * mfu, left / 60),
            *("" if memory is None else f"Memory: {memory:.1f} GiB, ", lr),
        )
        if self.metrics is None:
            return
        values: dict[str, Any] = {
            "epoch": step / self.loader.batches_per_epoch,
            "loss": float(losses.mean()),
            "loss_by_sigma": loss_by_band(losses.flatten(), torch.cat(done.sigmas_px)),
            "grad_norm": float(np.mean(done.grad_norms)) if done.grad_norms else None,
            "skipped_steps": done.skipped,
            "lr": lr,
            "steps_per_second": rate,
            "windows_per_second": rate * self.options.global_batch_size,
            "points_per_second": points,
            "points": step * self.options.global_batch_size * self.options.seq_len,
            "mfu": mfu,
            "peak_memory_gib": memory,
            "graphs": counters["stats"]["unique_graphs"],
            "elapsed": elapsed,
            "seconds_left": left,
        }
        self.metrics.write(step, values)

    def validated(self, step: int, values: dict[str, Any], seconds: float) -> None:
        """Writes the results of a validation; its seconds do not count as training."""
        self.unreported.since += seconds
        if self.metrics is not None:
            self.metrics.write(step, {"validation": values})

    def _peak_flops(self) -> float:
        """Operations/s of one device: as given, or as measured with matrix products here."""
        if self.options.peak_tflops is not None:
            return self.options.peak_tflops * 1e12
        dtype = self.objective.amp_dtype if self.objective.amp else self.objective.dtype
        return measured_peak_flops(self.objective.device, dtype)

    def _mfu(self, steps_per_second: float) -> float:
        """Model FLOPs utilisation: the model's operations/s over the peak of all devices."""
        objective = self.objective
        flops = training_flops(objective.config, self.options.seq_len, objective.half_window)
        batch = self.options.global_batch_size * steps_per_second
        return flops * batch / (self.peak_flops * self.ranks.world_size)
