"""Whether a step fits into a device's memory, in how many parts, and how much it takes."""

import logging
from collections.abc import Callable

import torch

from conventions.errors import FieldError
from conventions.ranks import Ranks

log = logging.getLogger("train")


def parts_that_fit(
    rehearse: Callable[[int], None], parts: int, windows: int, ranks: Ranks, remedy: str
) -> int:
    """The least number of parts, `parts` times a power of two, in which every rank's step fits.

    `rehearse` computes a step in that many parts, without other ranks. `remedy` ends the error for
    the case that not even single windows fit; it may name fields, as errors do.
    """
    wanted = parts
    while not _fits(rehearse, parts):
        if parts >= windows:
            raise FieldError(
                "not even one of this rank's {0} windows fits into the device's memory: " + remedy,
                windows,
            )
        parts = min(2 * parts, windows)
    parts = int(ranks.largest(parts)[0])
    if parts > wanted:
        log.warning(
            "A step's %d windows do not fit into the device's memory: they are computed in %d "
            "parts, as --accumulate %d says at once; --grad-checkpointing needs fewer",
            *(windows, parts, parts),
        )
    return parts


def _fits(rehearse: Callable[[int], None], parts: int) -> bool:
    try:
        rehearse(parts)
    except torch.OutOfMemoryError:
        # The error's traceback holds tensors, which are freed when this block has ended.
        pass
    else:
        return True
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    torch.compiler.reset()  # else the network would be compiled again, for any number of windows
    return False


def peak_memory_gib(device: torch.device) -> float | None:
    """The peak of memory in tensors on a CUDA device since the last call; None elsewhere."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    torch.cuda.reset_peak_memory_stats(device)
    return peak
