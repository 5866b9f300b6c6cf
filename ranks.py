"""The processes of one run: torchrun's process group, or this process alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist


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


@contextmanager
def process_group(backend: str, hours: float = 4) -> Iterator[Ranks]:
    """Joins torchrun's process group, if there is one, and leaves it at the end.

    `hours` is how long a rank waits for another one.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    if backend == "nccl" and not torch.cuda.is_available():
        raise ValueError("--dist nccl needs CUDA, which is not available here: use --dist gloo")
    local_rank = int(os.environ["LOCAL_RANK"])
    if backend == "nccl":
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    # The other ranks wait while the main one packs a dataset, which may take long.
    dist.init_process_group(backend, timeout=timedelta(hours=hours))
    try:
        yield Ranks(dist.get_rank(), local_rank, dist.get_world_size())
    finally:
        dist.destroy_process_group()
