"""Checkpoints are written in a thread while training goes on; a failure is told afterwards."""

import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from training.options import TrainingOptions
from training.run_folder import RunFolder

log = logging.getLogger("train")


class Saver:
    """Writes the checkpoints of a run one at a time; `folder` is the main rank's.

    What it is given to write must not change any more.
    """

    def __init__(self, folder: RunFolder | None, options: TrainingOptions) -> None:
        self.folder, self.options = folder, options
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: tuple[int, Future[None]] | None = None

    def begin(self, step: int, state: dict[str, Any]) -> None:
        """Begins to write; nothing else may be being written."""
        if self.folder is not None:
            self._writing = step, self._thread.submit(self._write, self.folder, step, state)

    def _write(self, folder: RunFolder, step: int, state: dict[str, Any]) -> None:
        path = folder.save(step, state, self.options.keep_last, self.options.keep_every)
        log.info("Saved checkpoint to %s", path)

    def failed(self, *, wait: bool = False) -> OSError | None:
        """Why the last checkpoint could not be written, logged and told once; None if it was.

        Also None while it is still being written, unless that is waited for.
        """
        if self._writing is None or self.folder is None:
            return None
        step, future = self._writing
        if not wait and not future.done():
            return None
        self._writing = None
        try:
            future.result()
        except OSError as error:
            newest = next(iter(self.folder.checkpoints()), None)
            log.error(
                "No checkpoint at step %d: %s. The last one is %s. Make room: while training goes "
                "on it is tried again every %d steps",
                *(step, error.strerror or error, newest, self.options.log_every),
            )
            return error
        return None

    def finish(self) -> None:
        """Waits for what is being written; the OSError if it could not be."""
        error = self.failed(wait=True)
        if error is not None:
            raise error

    @contextmanager
    def closing(self) -> Iterator[None]:
        """What is being written at the end of the block is finished first, whatever ends it."""
        with self._thread:
            yield
