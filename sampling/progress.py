"""Reports the progress of work, and shows it as bars on the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NoReturn

from tqdm import tqdm

Progress = Callable[[int, int], None]
"""(steps done, steps in all); an exception from it ends the work."""


def no_progress(done: int, total: int) -> None:
    """For callers that do not need reports."""


@dataclass(frozen=True)
class Reports:
    """Progress of the two parts of a remap: learning a style, if one is new, and sampling.

    Each is called with 0 steps when its part begins.
    """

    learning: Progress = no_progress
    sampling: Progress = no_progress


@contextmanager
def bar(text: str, *, disable: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr, from the first report to that of the last step."""
    with ExitStack() as stack:
        bars: list[tqdm[NoReturn]] = []

        def progress(done: int, total: int) -> None:
            if not bars:
                new = tqdm(total=total, desc=text, unit="step", file=sys.stderr, disable=disable)
                bars.append(stack.enter_context(new))
            bars[0].update(done - bars[0].n)
            if done >= total:
                bars.pop().close()  # what is printed from now on begins a line

        yield progress
