"""The processes of one run: their ranks, the share of each, and how they agree on values."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from conventions.errors import FieldError

T = TypeVar("T")


def share_of(n: int, rank: int, world_size: int) -> slice:
    """The part of n things that a rank takes; sizes differ by one at most."""
    return slice(n * rank // world_size, n * (rank + 1) // world_size)


@dataclass(frozen=True)
class Ranks:
    """This process among all of them; without torchrun there is one."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's part of n windows; the parts differ by one window at most."""
        return share_of(n, self.rank, self.world_size)

    def from_main(self, make: Callable[[], T]) -> T:
        """Runs `make` on the main rank and returns its result on every rank.

        A ValueError or OSError there, from bad input, is reported by the main rank alone; the other
        ranks end quietly instead of waiting for it.
        """
        if self.world_size == 1:
            return make()
        box: list[T | None] = [None]
        failure: ValueError | OSError | None = None
        if self.is_main:
            try:
                box = [make()]
            except (ValueError, OSError) as error:
                failure = error
        failed = [failure is not None]
        dist.broadcast_object_list(failed, src=0, device=torch.device("cpu"))
        if failure is not None:
            raise failure
        if failed[0]:
            sys.exit(2)
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]  # type: ignore[return-value]

    def only_on_main(self, make: Callable[[], T]) -> T | None:
        """Runs `make` on the main rank and returns its result there; errors as in `from_main`."""
        made: list[T] = []
        self.from_main(lambda: made.append(make()))
        return made[0] if made else None

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over all ranks, reduced on the CPU: no device waits for it."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.tolist()

    def join(self, mine: Tensor, n: int) -> Tensor:
        """(..., n) on the CPU on every rank, from each rank's `share(n)` in (..., share)."""
        whole = torch.zeros(*mine.shape[:-1], n, dtype=torch.float64)
        whole[..., self.share(n)] = mine.detach().to("cpu", torch.float64)
        if self.world_size > 1:
            dist.all_reduce(whole)
        return whole


@contextmanager
def process_group(backend: str, hours: float = 4) -> Iterator[Ranks]:
    """Joins torchrun's process group, if there is one, and leaves it at the end.

    `hours` is how long a rank waits for the others. CPU tensors, with which the ranks agree on when
    to stop, always go through gloo.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    if backend == "nccl" and not torch.cuda.is_available():
        raise FieldError("{dist} nccl needs CUDA, which is not available here: use {dist} gloo")
    # The rank counts over all machines; the device is one of this machine's.
    local_rank = int(os.environ["LOCAL_RANK"])
    if backend == "nccl":
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    backends = "cpu:gloo,cuda:nccl" if backend == "nccl" else backend
    # The other ranks wait while the main one packs a dataset, which may take long.
    timeout = timedelta(hours=hours)
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    store = dist.PrefixStore(f"attempt {attempt_number()}", store)
    dist.init_process_group(
        backends, store=store, rank=rank, world_size=world_size, timeout=timeout
    )
    try:
        yield Ranks(dist.get_rank(), local_rank, dist.get_world_size())
    finally:
        dist.destroy_process_group()


def attempt_number() -> int:
    """Number of torchrun's restarts; ValueError where the machines cannot agree on it.

    By default torchrun keeps one store for all attempts, so restarted processes may find addresses
    of dead ones in it and wait for them; the attempt's number keeps them apart. Each machine counts
    only its own failures, so several machines need a new store for each attempt.
    """
    environment = os.environ
    shared = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    several = int(environment.get("GROUP_WORLD_SIZE", "1")) > 1
    if not several:
        return int(environment.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if shared and int(environment.get("TORCHELASTIC_MAX_RESTARTS", "0")):
        raise ValueError(
            "--max-restarts on several machines needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in "
            "torchrun's environment: without it restarted processes may wait for dead ones"
        )
    return 0


class StopSignals:
    """SIGTERM and SIGINT as a request to stop; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._interrupts = 0

    @contextmanager
    def listening(self) -> Iterator["StopSignals"]:
        """Within the block the signals only set `received`."""
        kinds = (signal.SIGTERM, signal.SIGINT)
        before = {kind: signal.signal(kind, self._receive) for kind in kinds}
        try:
            yield self
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        # All processes of a terminal get a Ctrl-C; torchrun then also sends them a SIGTERM.
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
