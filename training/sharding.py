"""Models that are shared out over the ranks (FSDP2), and states put together again.

Each rank keeps a slice of every weight, of its average and of its moments; the blocks' weights are
gathered one block at a time when they are computed with. Checkpoints hold whole tensors: any
number of ranks, sharing out or not, goes on with them.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from models import DiT

# Some builds of torch, as of ROCm for Windows, lack torch.distributed: what needs it imports it.


def shard(model: DiT, device: torch.device, world_size: int) -> None:
    """Leaves each rank its slices of the weights, on `device`; whole ones may lie elsewhere."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # About in-place changes of a model's output, which nothing here makes.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (world_size,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def sharded_moments(state: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """An optimiser's state of whole tensors, shared out as the model's weights are."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    weights = list(model.parameters())

    def slices(value: Tensor, weight: Tensor) -> Tensor:
        if value.ndim == 0:
            return value  # a count of steps
        assert isinstance(weight, DTensor)
        value = value.to(weight.device)
        # Every rank has all of it: none needs to be sent anything.
        return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)

    moments = {
        i: {name: slices(value, weights[i]) for name, value in moment.items()}
        for i, moment in state["state"].items()
    }
    return {**state, "state": moments}


def whole(value: Tensor) -> Tensor:
    """All of a tensor, on its device; of one that is shared out, every rank must ask at once."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def own_part(value: Tensor) -> Tensor:
    """What this rank has of a tensor."""
    return value.to_local() if hasattr(value, "to_local") else value


def host_copy(tree: Any, wanted: bool) -> Any:
    """The same dicts and lists with copies of all tensors, whole and on the CPU.

    All ranks must call it where tensors are shared out; those that do not want it get None for
    tensors.
    """
    if isinstance(tree, Tensor):
        complete = whole(tree.detach())
        return complete.to("cpu", copy=True) if wanted else None
    if isinstance(tree, dict):
        return {key: host_copy(value, wanted) for key, value in tree.items()}
    if isinstance(tree, list):
        return [host_copy(value, wanted) for value in tree]
    return tree
