"""Many inputs in one run: what was done, what failed and why, over all ranks."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from tqdm import tqdm

from beatmaps.osu_file import LeftOutError
from conventions import command_line
from conventions.ranks import Ranks

EXPECTED = (ValueError, OSError, MemoryError, torch.OutOfMemoryError)


@dataclass
class Tally:
    """Counts of beatmaps; with `strict`, for a single input, errors are raised."""

    strict: bool
    done: int = 0
    finished: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Records an error in the block, so that the next input can go on."""
        try:
            yield
        except Exception as error:
            if self.strict:
                raise
            if not isinstance(error, EXPECTED):
                traceback.print_exc()
            self.leave_out(error, name)

    def leave_out(self, error: Exception, name: str) -> None:
        """Other game modes and the like count as skipped, all other errors as failed."""
        reason = command_line.in_words(error) or type(error).__name__
        line = reason if name in reason else f"{name}: {reason}"
        if isinstance(error, LeftOutError):
            self.skipped += 1
            tqdm.write(f"skipped {line}", file=sys.stderr)
        else:
            self.failures.append(line)

    def close(self, ranks: Ranks) -> int:
        """Lists failures and counts over all ranks; returns the exit code.

        0 if nothing failed, 1 if something did, 2 if nothing could be done.
        """
        for line in self.failures:
            print(f"failed: {line}", file=sys.stderr, flush=True)
        counts = torch.tensor([self.done, self.finished, len(self.failures), self.skipped])
        if ranks.world_size > 1:
            # torchrun ends all ranks when one exits with an error: none may exit before the last.
            dist.all_reduce(counts)
        done, finished, failed, skipped = counts.tolist()
        if ranks.is_main:
            print(
                f"{done} remapped, {finished} done before, {failed} failed, {skipped} skipped",
                file=sys.stderr,
                flush=True,
            )
        if ranks.world_size > 1:
            dist.barrier()
        if not done + finished:
            return 2
        return 1 if failed else 0
