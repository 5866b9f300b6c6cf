"""The trainer: model, EMA, optimiser and data of one run, its steps and its state."""

import logging
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from conditions.vocabulary import Vocabulary, to_dict
from conventions import command_line
from conventions.precision import amp_dtype
from conventions.ranks import Ranks
from data_loading import Batch, PackedDataset, WindowLoader
from diffusion.parametrisation import Parametrisation
from models import DiT, DiTConfig
from training.conditioning import condition_table
from training.ema import WeightAverage
from training.monitor import StepRecord
from training.objective import Noise, Objective
from training.options import TrainingOptions
from training.sharding import host_copy, whole
from training.state import TABLE, TrainingState
from training.validation import Validation

log = logging.getLogger("train")
FIRST_SCALE = 2.0**16
"""Of the loss in float16; halved when gradients overflow, doubled after 2,000 good steps."""


class Trainer:
    """Model, EMA, optimiser and data of one run, and its steps."""

    def __init__(
        self,
        options: TrainingOptions,
        ranks: Ranks,
        dataset: PackedDataset,
        rows: tuple[np.ndarray, np.ndarray],
        config: DiTConfig,
        parametrisation: Parametrisation,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        classes = None if vocabulary is None else condition_table(vocabulary, dataset)
        self.options, self.ranks, self.dataset = options, ranks, dataset
        self.device = command_line.pick_device(options.device, ranks.local_rank)
        self.dtype = getattr(torch, options.dtype)
        torch.manual_seed(options.global_seed)
        self.sharded = options.shard and ranks.world_size > 1
        # What is to be shared out may be too large for one device: it goes there in slices.
        home = torch.device("cpu") if self.sharded else self.device
        self.model = DiT(config).to(home, self.dtype)
        self.model.grad_checkpointing = options.grad_checkpointing
        self.ema = WeightAverage(self.model, options.ema_decay)
        self.optimizer = self.new_optimizer()
        self.loader = WindowLoader(
            dataset,
            rows[0],
            seq_len=options.seq_len,
            stride=options.stride,
            batch_size=options.global_batch_size,
            seed=options.global_seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
            turn=options.augment_rotation,
            stretch=options.augment_scale,
            classes=classes,
        )
        self.objective = self._objective(config, parametrisation)
        # Small gradients underflow in float16, so the loss is scaled up to compute them.
        scaled = self.objective.amp and self.objective.amp_dtype == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, FIRST_SCALE, enabled=scaled)
        self.validation: Validation | None = None
        if len(rows[1]):
            self.validation = Validation(
                dataset, rows[1], self.objective, options.seq_len, options.global_seed, classes
            )
        self.step, self.updates, self.elapsed = 0, 0, 0.0
        epochs_steps = options.epochs * self.loader.batches_per_epoch
        self.total_steps = min(epochs_steps, options.max_steps or epochs_steps)
        self.network: nn.Module = self.model
        self.compiled, self.parts = False, options.accumulate

    def new_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of the model's weights, without a step behind it."""
        return torch.optim.AdamW(
            self.model.parameters(),
            lr=self.options.lr,
            betas=(0.9, 0.99),
            weight_decay=0.0,
            fused=self.device.type != "mps",
        )

    def _objective(self, config: DiTConfig, parametrisation: Parametrisation) -> Objective:
        options = self.options
        dtype = amp_dtype(self.device, options.use_amp, options.amp_dtype)
        return Objective(
            parametrisation,
            config,
            self.device,
            self.dtype,
            options.train_half_window or options.seq_len,
            dtype is not None,
            dtype or torch.bfloat16,
        )

    def restore(self, state: TrainingState) -> None:
        """Takes over weights, EMA, optimiser, data position and random state."""
        self.model.load_state_dict(state.model)
        self.ema.module.load_state_dict(state.ema)
        self.optimizer.load_state_dict(
            state.optimizer_state(self.optimizer.state_dict(), self.model)
        )
        self.step, self.updates, self.elapsed = state.step, state.updates, state.elapsed
        if state.rng is not None:
            torch.set_rng_state(state.rng)
        if state.scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(state.scaler)
        expected = state.batches_per_epoch
        if expected is not None and expected != self.loader.batches_per_epoch:
            log.warning(
                "The data have %d batches in an epoch, at %s they had %d: another place in them",
                self.loader.batches_per_epoch,
                state.path,
                expected,
            )
        log.info("Restored from checkpoint at %s (step %d)", state.path, state.step)

    def rehearse(self) -> None:
        """Computes the gradients of the first step and drops them."""
        epoch, index = divmod(self.step, self.loader.batches_per_epoch)
        noise = self.noise(self.step).part(self.ranks.share(self.options.global_batch_size))
        self._backward(self.loader.batch(epoch, index), noise)
        self.optimizer.zero_grad(set_to_none=True)

    def noise(self, step: int) -> Noise:
        """The random numbers of a step for the global batch, of which each rank takes its share."""
        options = self.options
        return Noise.draw(
            self.objective.parametrisation,
            (options.global_batch_size, options.seq_len),
            (options.global_seed, step),
            class_dropout=options.class_dropout,
            distance_dropout=options.distance_dropout,
            known_points=options.known_points,
            groups=len(self.objective.config.class_groups),
            double_time=options.augment_double_time,
            distance_noise=options.augment_distances,
            repeats=options.augment_repeats,
        )

    def progress(self) -> float:
        """Share of the run that is done, 0 to 1, by steps or by minutes, whichever is further."""
        by_time = (
            self.elapsed / (60 * self.options.max_minutes) if self.options.max_minutes else 0.0
        )
        return max(self.step / self.total_steps, by_time)

    def set_learning_rate(self) -> None:
        """Linear warm-up, then linear decay to 5 % at the end of the run."""
        warm_up = min(1.0, (self.step + 1) / max(1, self.options.warmup_steps))
        decay = 1 - 0.95 * min(1.0, self.progress()) if self.options.lr_decay else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * warm_up * decay

    def train_step(self, batch: Batch, step: int) -> StepRecord:
        """One optimiser step on the global batch, of which `batch` is this rank's share."""
        everyones = self.noise(step)
        noise = everyones.part(self.ranks.share(self.options.global_batch_size))
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._backward(batch, noise)
        if step < self.options.embed_only_epochs * self.loader.batches_per_epoch:
            for name, parameter in self.model.named_parameters():
                if name != TABLE:
                    parameter.grad = None
        self.scaler.unscale_(self.optimizer)
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip))
        self.set_learning_rate()
        self.scaler.step(self.optimizer)  # skipped if a scaled gradient overflowed
        self.scaler.update()
        self.ema.update(self.model, self.updates)
        self.updates += 1
        return StepRecord(step, everyones.levels, losses, norm)

    def _backward(self, batch: Batch, noise: Noise) -> Tensor:
        """Adds the gradients of the global batch's mean loss; returns this rank's losses.

        DDP averages the ranks' gradients; as ranks and micro-batches may differ in size, each
        counts by its number of windows. Only the last micro-batch exchanges gradients, unless the
        model is sharded: then nobody has room for whole ones.
        """
        # Every window has the same weight: the mean over W ranks, over N windows in all.
        weight = self.ranks.world_size / self.options.global_batch_size
        parts = self._micro_batches(len(batch.xy))
        losses = []
        for part in parts:
            network, last = self.network, part is parts[-1]
            unshared = isinstance(network, DistributedDataParallel) and not last
            with network.no_sync() if unshared else nullcontext():  # type: ignore[operator]
                loss = self._part_losses(batch, noise, part)
                self.scaler.scale(loss.sum() * weight).backward()
            losses.append(loss.detach())
        return torch.cat(losses)

    def _part_losses(self, batch: Batch, noise: Noise, part: slice) -> Tensor:
        """Losses of some windows.

        The network is compiled for one number of windows: a part with one window less also takes a
        neighbour's window, whose loss is dropped.
        """
        taken = part
        if self.compiled:
            longest = max(p.stop - p.start for p in self._micro_batches(len(batch.xy)))
            first = max(0, part.stop - longest)
            taken = slice(first, first + longest)
        losses = self.objective.losses(self.network, batch.part(taken), noise.part(taken))
        return losses[part.start - taken.start : part.stop - taken.start]

    def _micro_batches(self, n: int) -> list[slice]:
        """n windows in so many parts as they are computed in, none of them empty.

        As many on every rank: those of a sharded model gather its weights for each together.
        """
        count = min(self.parts, self.options.global_batch_size // self.ranks.world_size)
        return [slice(n * i // count, n * (i + 1) // count) for i in range(count)]

    def state(self) -> dict[str, Any]:
        """All that is needed to continue, copied; loadable with weights_only=True.

        All ranks must ask for it together; only the main one is given tensors.
        """
        learnt = {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict(),
            "opt": self.optimizer.state_dict(),
        }
        epoch, index = divmod(self.step, self.loader.batches_per_epoch)
        return {
            **host_copy(learnt, self.ranks.is_main),
            "config": self.model.config.to_dict(),
            "parametrisation": self.objective.parametrisation.to_dict(),
            "step": self.step,
            "updates": self.updates,
            "elapsed": self.elapsed,
            "position": {
                "epoch": epoch,
                "batch": index,
                "batches_per_epoch": self.loader.batches_per_epoch,
            },
            "rng": torch.get_rng_state(),
            "scaler": self.scaler.state_dict(),
            "args": self.options.plain(),
            **self.saved_vocabulary(),
        }

    def saved_vocabulary(self) -> dict[str, Any]:
        """The vocabulary, to save with the model."""
        return {} if self.vocabulary is None else {"vocabulary": to_dict(self.vocabulary)}

    def checkpoint_bytes(self) -> int:
        """About the size of a checkpoint: the weights, their EMA and two moments."""
        return 4 * sum(p.numel() * p.element_size() for p in self.model.parameters())

    def whole_average(self) -> DiT:
        """The averaged model to compute with; all ranks must ask for it together."""
        if not self.sharded:
            return self.ema.module
        average = DiT(self.model.config).to(self.device, self.dtype)
        weights = self.ema.module.state_dict()
        average.load_state_dict({name: whole(weight) for name, weight in weights.items()})
        return average.requires_grad_(False).eval()
