"""The processes of one run: their ranks, the share of each, and how they agree on values."""

import os
import re
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

from conventions.errors import FieldError, LostRankError

T = TypeVar("T")
MINUTES, PATIENT_HOURS = 20.0, 4.0
"""How long ranks wait for each other in a step, and for what the main rank does alone.

Compilers and caches differ from rank to rank by minutes; to pack a dataset or to write a large
checkpoint may take hours.
"""

LOST = re.compile(r"gloo|nccl|Connection (closed|reset) by peer|Timed out waiting", re.IGNORECASE)
"""In the messages of torch's errors that mean that another rank is gone or does not answer."""


def share_of(n: int, rank: int, world_size: int) -> slice:
    """The part of n things that a rank takes; sizes differ by one at most."""
    return slice(n * rank // world_size, n * (rank + 1) // world_size)


@dataclass(frozen=True)
class Ranks:
    """This process among all of them; without torchrun there is one.

    `patient` is the group whose members wait for what the main rank does alone.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    patient: "dist.ProcessGroup | None" = None  # which some builds of torch lack

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's part of n windows; the parts differ by one window at most."""
        return share_of(n, self.rank, self.world_size)

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` gives on the main rank, on every rank, however long it takes.

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
        cpu = torch.device("cpu")
        dist.broadcast_object_list(failed, src=0, group=self.patient, device=cpu)
        if failure is not None:
            raise failure
        if failed[0]:
            sys.exit(2)
        dist.broadcast_object_list(box, src=0, group=self.patient, device=cpu)
        return box[0]  # type: ignore[return-value]

    def only_on_main(self, make: Callable[[], T]) -> T | None:
        """Runs `make` on the main rank and returns its result there; errors as in `from_main`."""
        made: list[T] = []
        self.from_main(lambda: made.append(make()))
        return made[0] if made else None

    def wait_for_all(self) -> None:
        """Until all ranks are here, as long as for the main rank's work."""
        if self.world_size > 1:
            dist.barrier(self.patient)

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
        whole[..., self.share(n)] = mine.detach().cpu().double()  # MPS has no float64
        if self.world_size > 1:
            dist.all_reduce(whole)
        return whole


@contextmanager
def process_group(
    backend: str, minutes: float = MINUTES, hours: float = PATIENT_HOURS
) -> Iterator[Ranks]:
    """Joins torchrun's process group, if there is one, and leaves it at the end.

    A rank waits `minutes` for the others, and `hours` for what the main rank does alone. A
    LostRankError says that another rank is lost. Tensors on the CPU, by which the ranks agree on
    when to stop, go through gloo in any case.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    _require_backend(backend)
    # The rank counts over all nodes; the device is one of this node's.
    local_rank = int(os.environ["LOCAL_RANK"])
    if backend == "nccl":
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    if sys.platform == "win32":
        os.environ.setdefault("USE_LIBUV", "0")  # torch asks for it, but is built without it there
    lost = False
    try:
        yield _joined(backend, local_rank, timedelta(minutes=minutes), timedelta(hours=hours))
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or bool(LOST.search(str(error)))
        if not lost:
            raise
        raise LostRankError(
            f"another process of this run has ended, or did not answer for {minutes:g} minutes: "
            "its own message, if there is one, says why. The same command goes on from what was "
            f"saved ({' '.join(str(error).split())[:200]})"
        ) from error
    finally:
        # Who takes leave of a lost rank may wait for it.
        if dist.is_initialized() and not lost:
            dist.destroy_process_group()


def _joined(backend: str, local_rank: int, timeout: timedelta, patience: timedelta) -> Ranks:
    """Meets the other ranks."""
    backends = "cpu:gloo,cuda:nccl" if backend == "nccl" else backend
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    store = dist.PrefixStore(f"attempt {attempt_number()}", store)
    dist.init_process_group(
        backends, store=store, rank=rank, world_size=world_size, timeout=timeout
    )
    patient = dist.new_group(backend="gloo", timeout=patience)
    assert isinstance(patient, dist.ProcessGroup)  # as everywhere: all ranks are its members
    return Ranks(dist.get_rank(), local_rank, dist.get_world_size(), patient)


def _require_backend(backend: str) -> None:
    """ValueError where torch cannot let processes talk that way."""
    if backend != "nccl":
        return
    if not torch.cuda.is_available():
        raise FieldError("{dist} nccl needs CUDA, which is not available here: use {dist} gloo")
    if not dist.is_nccl_available():
        raise FieldError("{dist} nccl is not in this torch, as on Windows: use {dist} gloo")


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
