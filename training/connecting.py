"""Makes a trainer ready for its first step: compiled, shared out over the ranks, within memory."""

import logging

import torch
from torch.nn.parallel import DistributedDataParallel

from conventions.errors import FieldError
from training.memory import parts_that_fit
from training.sharding import own_part, shard, sharded_moments
from training.trainer import Trainer

log = logging.getLogger("train")


def connect(trainer: Trainer) -> None:
    """Compiles the model if that is wanted, and joins it with those of the other ranks."""
    if trainer.sharded:
        _shard(trainer)
    wanted = trainer.options.compile
    if trainer.device.type == "cuda" if wanted is None else wanted:
        trainer.network = torch.compile(trainer.model)  # type: ignore[assignment]
        trainer.compiled = True
        try:
            trainer.rehearse()
        except torch.OutOfMemoryError:
            _require_unsharded(trainer)
            torch.compiler.reset()  # it does work: the parts of a step will be smaller
        except (RuntimeError, OSError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            log.warning("torch.compile does not work here, going on without it: %s", reason)
            trainer.network, trainer.compiled = trainer.model, False
    _fit_memory(trainer)
    trainer.ranks.wait_for_all()  # compilers and caches differ from rank to rank
    if trainer.ranks.world_size > 1 and not trainer.sharded:
        ids = [trainer.device.index] if trainer.device.type == "cuda" else None
        trainer.network = DistributedDataParallel(
            trainer.network, device_ids=ids, gradient_as_bucket_view=True
        )
        # DDP changes the order of its sums after the first step. The rehearsal is that step, so
        # that a continued run computes the same sums as one that was never stopped.
        trainer.rehearse()


def _shard(trainer: Trainer) -> None:
    """Shares model, average and moments out over the ranks, as they have been restored."""
    shard(trainer.model, trainer.device, trainer.ranks.world_size)
    shard(trainer.ema.module, trainer.device, trainer.ranks.world_size)
    moments = trainer.optimizer.state_dict()
    trainer.optimizer = trainer.new_optimizer()
    trainer.optimizer.load_state_dict(sharded_moments(moments, trainer.model))


def _require_unsharded(trainer: Trainer) -> None:
    """ValueError for what no rank of a sharded model can try again on its own."""
    if trainer.sharded:
        raise FieldError(
            "a step does not fit into the device's memory: give {accumulate} {0}, or add "
            "{grad_checkpointing}",
            2 * trainer.parts,
        )


def _fit_memory(trainer: Trainer) -> None:
    """On CUDA: splits a step into as many parts as its memory needs."""
    if trainer.device.type != "cuda":
        return
    share = trainer.ranks.share(trainer.options.global_batch_size)

    def rehearse(parts: int) -> None:
        trainer.parts = parts
        trainer.optimizer.zero_grad(set_to_none=True)
        # The optimiser's moments, which do not exist before the first step.
        parts_here = map(own_part, trainer.model.parameters())
        weights = sum(p.numel() * p.element_size() for p in parts_here)
        moments = torch.empty(2 * weights, dtype=torch.uint8, device=trainer.device)
        trainer.rehearse()
        del moments

    if trainer.sharded:
        try:
            rehearse(trainer.parts)
        except torch.OutOfMemoryError:
            _require_unsharded(trainer)
        return
    remedy = "add {grad_checkpointing}, or take a smaller {model} or {seq_len}"
    windows = share.stop - share.start
    trainer.parts = parts_that_fit(rehearse, trainer.parts, windows, trainer.ranks, remedy)
