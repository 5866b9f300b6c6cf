"""A run from its first step to its export: steps, log, checkpoints, held-out maps, signals."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from conventions.errors import FieldError
from conventions.ranks import StopSignals
from models import DiT
from training.exporting import export
from training.monitor import Watch
from training.profiling import profiled
from training.run_folder import RunFolder
from training.saving import Saver
from training.sharding import host_copy, own_part
from training.trainer import Trainer
from training.validation import Validation

log = logging.getLogger("train")


class Run:
    """A trainer's way from the step that it is at to the end. `folder` is the main rank's."""

    def __init__(self, trainer: Trainer, folder: RunFolder | None, watch: Watch) -> None:
        self.trainer, self.folder, self.watch = trainer, folder, watch
        self.saver = Saver(folder, trainer.options)
        self.saved_step: int | None = None

    def to_the_end(self) -> int:
        """Trains to the end of the run, logs, saves and exports; returns the exit code.

        A signal ends the run early, with a checkpoint.
        """
        trainer = self.trainer
        place = None if self.folder is None else self.folder.path
        with self.saver.closing(), StopSignals().listening() as signals:
            with profiled(place, trainer.options.profile) as step_done:
                stopped_by = self._loop(signals, step_done)
            self.watch.check()
            self.save_last()
            if not stopped_by:
                self.export()
        if stopped_by:
            log.info("Stopped at step %d: the same command goes on from there", trainer.step)
            return 128 + stopped_by
        log.info("Done!")
        return 0

    def _loop(self, signals: StopSignals, step_done: Callable[[], None]) -> int:
        """Steps until the run is over (0) or stopped by a signal (its number)."""
        trainer, watch = self.trainer, self.watch
        options, unsaved, last = trainer.options, False, time.perf_counter()
        for step, batch in trainer.loader.batches(trainer.step):
            now = time.perf_counter()
            elapsed, stop, failed = trainer.ranks.largest(
                *(trainer.elapsed + now - last, float(signals.received or 0)),
                float(self.saver.failed() is not None),
            )
            trainer.elapsed, last = elapsed, now
            if failed:
                self.saved_step, unsaved = None, True
            if stop or trainer.progress() >= 1:
                return int(stop)
            watch.record(trainer.train_step(batch, step))
            step_done()
            trainer.step = step + 1
            log_now, save_now = (
                trainer.step % options.log_every == 0,
                trainer.step % options.ckpt_every == 0,
            )
            if log_now or save_now:
                watch.check()
            if log_now:
                lr = trainer.optimizer.param_groups[0]["lr"]
                watch.report(trainer.step, trainer.elapsed, lr, trainer.progress())
            self.validate()
            if save_now or (unsaved and log_now):
                self.save()
                unsaved = False
        return 0

    def validate(self) -> None:
        """Losses and pictures of held-out maps, if they are due; not timed as training."""
        trainer, before = self.trainer, time.perf_counter()
        step, options, validation = trainer.step, trainer.options, trainer.validation
        validate_now = step % options.val_every == 0
        sample_now = bool(options.sample_every) and step % (options.sample_every or 1) == 0
        if validation is None or not (validate_now or sample_now):
            return
        average, values = trainer.whole_average(), {}
        if validate_now:
            values = validation.losses(average, trainer.ranks)
            log.info("(step=%07d) Validation Loss: %.4f", step, values["loss"])
        if sample_now:
            sample = partial(self._sample, validation, average)
            values |= trainer.ranks.only_on_main(sample) or {}
        self.watch.validated(step, values, time.perf_counter() - before)

    def _sample(self, validation: Validation, average: DiT) -> dict[str, Any]:
        """Pictures of held-out maps."""
        assert self.folder is not None
        (self.folder.path / "samples").mkdir(exist_ok=True)
        picture = self.folder.path / "samples" / f"{self.trainer.step:07d}.png"
        values = validation.sample(average, picture)
        log.info(
            "Sampled held-out maps into %s, spacing error %.1f px (p95 %.1f px)",
            *(picture, values["spacing_error_median_px"], values["spacing_error_p95_px"]),
        )
        return values

    def save(self) -> None:
        """Has a checkpoint written, unless this step has one; all ranks call it together."""
        trainer = self.trainer
        if self.saved_step == trainer.step:
            return
        parts = map(own_part, trainer.model.parameters())
        wrong = not all(bool(weight.isfinite().all()) for weight in parts)
        if any(trainer.ranks.largest(float(wrong))):
            raise FieldError(
                "a weight is not finite by step {0}: lower {lr} (now {1})",
                *(trainer.step, trainer.options.lr),
            )
        # There is room in memory for one copy of the state.
        trainer.ranks.only_on_main(lambda: self.saver.failed(wait=True))
        self.saver.begin(trainer.step, trainer.state())
        self.saved_step = trainer.step

    def save_last(self) -> None:
        """The same, and waits until it is written: an OSError on the main rank if it cannot be."""
        ranks = self.trainer.ranks
        if ranks.from_main(lambda: self.saver.failed(wait=True) is not None):
            self.saved_step = None
        self.save()
        ranks.only_on_main(self.saver.finish)

    def export(self) -> None:
        """Writes the EMA weights and the tables of classes; the run is finished then.

        All ranks call it together.
        """
        trainer = self.trainer
        weights = host_copy(trainer.ema.module.state_dict(), trainer.ranks.is_main)
        if self.folder is not None:
            export(trainer, self.folder.path, weights)
            self.folder.finish()
