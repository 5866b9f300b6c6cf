"""Trains a model: `python train.py ...` on one device, `torchrun ... train.py ...` on many.

The noise of a step depends on (seed, step) alone and is drawn for the global batch, of which each
rank takes its slice: any number of processes computes the same training run.
"""

import argparse
import json
import logging
import math
import re
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import cli
from checkpoint import (
    CheckpointError,
    export_weights,
    load_model,
    load_training_checkpoint,
    save_training_checkpoint,
    write_class_table,
)
from create_dataset import open_or_pack
from data_loading import Batch, PackedDataset, WindowLoader, save_beatmap_idx
from diffusion.gaussian import EDM, LearnedVariance, parametrisation_to_dict
from diffusion.schedule import SCHEDULES
from models import REFERENCE_ARCHITECTURE, SIZES, DiT, DiTConfig, make_context
from ranks import Ranks, process_group

TABLE = "y_embedder.embedding_table.weight"
log = logging.getLogger("train")


@dataclass(frozen=True)
class Noise:
    """The random numbers of one step for this rank's windows."""

    levels: Tensor  # (N,)
    eps: Tensor  # (N, T, 2)
    drop_class: Tensor  # (N,) bool
    drop_distances: Tensor  # (N,) bool
    time_shift: Tensor  # (N, 1) float64 ms

    @classmethod
    def draw(
        cls,
        parametrisation: EDM | LearnedVariance,
        args: argparse.Namespace,
        step: int,
        ranks: Ranks,
    ) -> "Noise":
        """Draws for the global batch from (seed, step) and keeps this rank's slice."""
        seed = np.random.SeedSequence([args.global_seed, step]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed >> 1))
        n = args.global_batch_size
        share = n // ranks.world_size
        mine = slice(ranks.rank * share, (ranks.rank + 1) * share)
        return cls(
            parametrisation.draw_levels(n, generator)[mine],
            torch.randn(n, args.seq_len, 2, generator=generator)[mine],
            (torch.rand(n, generator=generator) < args.class_dropout)[mine],
            (torch.rand(n, generator=generator) < args.distance_dropout)[mine],
            (torch.rand(n, 1, generator=generator, dtype=torch.float64) * 100_000)[mine],
        )


class Trainer:
    """Model, EMA, optimiser and data of one run, and its steps."""

    def __init__(
        self, args: argparse.Namespace, ranks: Ranks, dataset: PackedDataset, rows: np.ndarray
    ) -> None:
        self.args, self.ranks, self.dataset = args, ranks, dataset
        self.device = cli.pick_device(args.device, ranks.local_rank)
        self.parametrisation = make_parametrisation(args)
        torch.manual_seed(args.global_seed)
        self.model = DiT(make_config(args, dataset.num_classes)).to(self.device)
        self.ema = ModelEmaV3(self.model, decay=args.ema_decay, use_warmup=True)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=args.lr,
            betas=(0.9, 0.99),
            weight_decay=0.0,
            fused=self.device.type != "mps",
        )
        self.step, self.elapsed = 0, 0.0
        if args.ckpt is not None:
            self.restore(args.ckpt)
        self.loader = WindowLoader(
            dataset,
            rows,
            seq_len=args.seq_len,
            stride=args.stride,
            batch_size=args.global_batch_size,
            seed=args.global_seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
        self.network: nn.Module = self.model
        if args.compile:
            self.network = torch.compile(self.network)  # type: ignore[assignment]
        if ranks.world_size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.network = DistributedDataParallel(self.network, device_ids=ids)
        epochs_steps = args.epochs * self.loader.batches_per_epoch
        self.total_steps = min(epochs_steps, args.max_steps or epochs_steps)

    def restore(self, path: Path) -> None:
        """Continues from a training checkpoint: weights, EMA, optimiser and data position."""
        if path.suffix == ".safetensors":
            self.start_from(path)
            return
        state = load_training_checkpoint(path)
        if "config" not in state:
            raise CheckpointError(
                f"{path} is no training checkpoint of this program (continuing from checkpoints "
                "of the public osu-diffusion is not possible yet; sample.py reads them)"
            )
        saved = DiTConfig.from_dict(state["config"])
        self.require_same_kind(path, saved, state["parametrisation"])
        if self.args.relearn_embeds:
            self._forget_embeddings(state)
        self.model.load_state_dict(state["model"])
        self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["opt"])
        if not self.args.relearn_embeds:
            self.step, self.elapsed = state["step"], state["elapsed"]
        log.info("Restored from checkpoint at %s (step %d)", path, state["step"])

    def start_from(self, path: Path) -> None:
        """Starts a new run from the weights of an export: optimiser and data begin afresh."""
        loaded = load_model(path)
        parametrisation = parametrisation_to_dict(loaded.parametrisation)
        self.require_same_kind(path, loaded.model.config, parametrisation)
        weights = loaded.model.state_dict()
        if self.args.relearn_embeds:
            weights[TABLE] = self.model.state_dict()[TABLE]
        self.model.load_state_dict(weights)
        self.ema.module.load_state_dict(weights)
        log.info("Started from the weights of %s", path)

    def require_same_kind(
        self, path: Path, saved: DiTConfig, parametrisation: dict[str, Any]
    ) -> None:
        """Refuses a checkpoint of another model or parametrisation than the flags ask for."""
        mine = self.model.config
        if replace(saved, num_classes=mine.num_classes) != mine:
            raise CheckpointError(
                f"{path} holds a model of another size or architecture ({saved}): give the "
                "--model, --architecture and --half-window it was trained with"
            )
        if parametrisation != parametrisation_to_dict(self.parametrisation):
            raise CheckpointError(
                f"{path} was trained as {parametrisation}: give the --parametrisation, "
                "--noise-schedule and --l1-loss it was trained with"
            )
        if saved.num_classes != mine.num_classes and not self.args.relearn_embeds:
            raise CheckpointError(
                f"{path} has {saved.num_classes} classes, the dataset {mine.num_classes}: "
                "add --relearn-embeds to learn new class embeddings"
            )

    def _forget_embeddings(self, state: dict[str, Any]) -> None:
        """Puts the fresh class table, and no optimiser state for it, in the place of the saved."""
        names = [name for name, _ in self.model.named_parameters()]
        state["model"][TABLE] = self.model.state_dict()[TABLE]
        state["ema"][TABLE] = self.model.state_dict()[TABLE]
        state["opt"]["state"].pop(names.index(TABLE), None)

    def progress(self) -> float:
        """Share of the run that is done, 0 to 1, by steps or by minutes, whichever is further."""
        by_time = self.elapsed / (60 * self.args.max_minutes) if self.args.max_minutes else 0.0
        return max(self.step / self.total_steps, by_time)

    def set_learning_rate(self) -> None:
        """Linear warm-up, then linear decay to 5 % at the end of the run."""
        warm_up = min(1.0, (self.step + 1) / max(1, self.args.warmup_steps))
        decay = 1 - 0.95 * min(1.0, self.progress()) if self.args.lr_decay else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.args.lr * warm_up * decay

    def train_step(self, batch: Batch, step: int) -> Tensor:
        """One optimiser step; returns this rank's loss, still on the device."""
        noise = Noise.draw(self.parametrisation, self.args, step, self.ranks)
        loss = self.loss(batch, noise)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if step < self.args.embed_only_epochs * self.loader.batches_per_epoch:
            for name, parameter in self.model.named_parameters():
                if name != TABLE:
                    parameter.grad = None
        nn.utils.clip_grad_norm_(self.model.parameters(), self.args.clip)
        self.set_learning_rate()
        self.optimizer.step()
        self.ema.update(self.model, step=step)
        return loss.detach()

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """The training loss of a batch with given noise."""
        config, device = self.model.config, self.device
        classes = torch.where(noise.drop_class, config.num_classes, batch.classes)
        distances = torch.where(noise.drop_distances[:, None], -1.0, batch.distances)
        times = batch.times - batch.times[:, :1]
        if config.time_dim:
            # An absolute time embedding must see all the times that sampling may give it.
            times = times + noise.time_shift
        valid = None if bool(batch.valid.all()) else batch.valid.to(device, non_blocking=True)
        context = make_context(
            config,
            times,
            distances.to(device, non_blocking=True),
            batch.types.to(device, non_blocking=True),
            classes.to(device, non_blocking=True),
            valid,
        )
        half_window = self.args.train_half_window or self.args.seq_len
        x0 = self.parametrisation.from_pixels(batch.xy.to(device, non_blocking=True))
        amp = torch.autocast(device.type, torch.bfloat16) if self.amp else nullcontext()
        with amp:
            return self.parametrisation.loss(
                lambda x, labels: self.network(x, labels, context, half_window).float(),
                x0,
                noise.levels,
                noise.eps.to(device),
                valid,
            )

    @property
    def amp(self) -> bool:
        """bf16 autocast, by default where the hardware has bf16 units (CUDA)."""
        wanted = self.args.use_amp
        return self.device.type == "cuda" if wanted is None else wanted

    def state(self) -> dict[str, Any]:
        """All that is needed to continue; loadable with weights_only=True."""
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.args).items()}
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict(),
            "opt": self.optimizer.state_dict(),
            "config": self.model.config.to_dict(),
            "parametrisation": parametrisation_to_dict(self.parametrisation),
            "step": self.step,
            "elapsed": self.elapsed,
            "args": plain,
        }

    def run(self, folder: Path) -> None:
        """Trains to the end of the run, logging and saving on the way."""
        args, main = self.args, self.ranks.is_main
        running = torch.zeros((), device=self.device)
        logged, since = self.step, time.perf_counter()
        last = since
        for step, batch in self.loader.batches(self.step):
            if self.finished():
                break
            running += self.train_step(batch, step)
            self.step = step + 1
            now = time.perf_counter()
            self.elapsed, last = self.elapsed + now - last, now
            if self.step % args.log_every == 0:
                self.log_line(running / (self.step - logged), (self.step - logged) / (now - since))
                running.zero_()
                logged, since = self.step, now
            if self.step % args.ckpt_every == 0 and main:
                self.require_finite(running)
                self.save(folder)
        if main:
            self.require_finite(running)
            self.save(folder)
            self.export(folder)
            log.info("Done!")

    def finished(self) -> bool:
        """Whether the run is over. All ranks take the main rank's clock, also for the decay."""
        if self.ranks.world_size > 1 and self.args.max_minutes:
            elapsed = torch.tensor([self.elapsed], dtype=torch.float32, device=self.device)
            dist.broadcast(elapsed, src=0)
            self.elapsed = float(elapsed)
        return self.progress() >= 1

    def log_line(self, loss: Tensor, steps_per_second: float) -> None:
        """Mean loss over ranks and speed, one line; a loss that is not finite ends the run."""
        if self.ranks.world_size > 1:
            dist.all_reduce(loss)
            loss = loss / self.ranks.world_size
        value = loss.item()
        points = steps_per_second * self.args.global_batch_size * self.args.seq_len
        log.info(
            "(step=%07d) Train Loss: %.4f, Train Steps/Sec: %.2f, Data Points/Sec: %.0f, LR: %.2e",
            self.step,
            value,
            steps_per_second,
            points,
            self.optimizer.param_groups[0]["lr"],
        )
        self.require_finite(loss)

    def require_finite(self, loss: Tensor) -> None:
        """Ends the run at a loss, or a sum of losses, that is not finite."""
        value = loss.item()
        if not math.isfinite(value):
            raise ValueError(
                f"the loss is {value} by step {self.step}: lower --lr (now {self.args.lr})"
            )

    def save(self, folder: Path) -> None:
        """Writes checkpoints/<step>.pt."""
        path = folder / "checkpoints" / f"{self.step:07d}.pt"
        save_training_checkpoint(path, self.state())
        log.info("Saved checkpoint to %s", path)

    def export(self, folder: Path) -> None:
        """Writes the EMA weights and the tables of classes, ready for sample.py."""
        metadata = {
            "model": self.args.model,
            "steps": self.step,
            "minutes": round(self.elapsed / 60, 1),
            "maps": len(self.dataset),
            "data_points": len(self.dataset.points),
            "distance_dropout": self.args.distance_dropout,
        }
        ema = self.ema.module.state_dict()
        export_weights(
            folder / "model.safetensors", ema, self.model.config, self.parametrisation, metadata
        )
        save_beatmap_idx(folder / "beatmap_idx.pickle", self.dataset.beatmap_idx())
        columns = ["class_index", "md5", "beatmap_id", "set_id", "artist", "title"]
        columns += ["creator", "version", "circle_size", "star_rating"]
        rows = self.dataset.beatmaps[columns].to_dict("records")
        write_class_table(folder / "model.classes.csv", rows)
        log.info("Exported the EMA weights to %s", folder / "model.safetensors")


def make_parametrisation(args: argparse.Namespace) -> EDM | LearnedVariance:
    """The parametrisation that the flags ask for."""
    if args.parametrisation == "edm":
        return EDM()
    schedule = SCHEDULES[args.noise_schedule or "squaredcos_cap_v2"]()
    return LearnedVariance(schedule, args.l1_loss is not False)


def make_config(args: argparse.Namespace, dataset_classes: int) -> DiTConfig:
    """The model that the flags ask for."""
    num_classes = args.num_classes or dataset_classes
    if num_classes < dataset_classes:
        raise ValueError(
            f"--num-classes {num_classes} is too small: the dataset has {dataset_classes} classes"
        )
    architecture: dict[str, Any] = {}
    if args.architecture == "reference":
        architecture = dict(REFERENCE_ARCHITECTURE)
    learn_sigma = args.parametrisation == "learned-variance"
    return DiTConfig(
        **{
            **SIZES[args.model],
            **architecture,
            "num_classes": num_classes,
            "learn_sigma": learn_sigma,
            # In sampling a point sees as many neighbours as, on average, in training.
            "half_window": args.half_window or max(1, args.seq_len // 2),
        }
    )


def choose_rows(args: argparse.Namespace, dataset: PackedDataset) -> np.ndarray:
    """The beatmaps to train on: all but the held-out sets, or those of --fine-tune-ids."""
    rows, _ = dataset.split_by_set(args.validation_fraction, args.global_seed)
    if args.fine_tune_ids is None:
        return rows
    text = args.fine_tune_ids
    # A long list of IDs is no file name that a system accepts.
    if not set(text) <= set("0123456789, ") and Path(text).is_file():
        text = Path(text).read_text(encoding="utf-8")
    try:
        wanted = {int(part) for part in text.replace(",", " ").split()}
    except ValueError as error:
        raise ValueError(
            f"--fine-tune-ids {args.fine_tune_ids!r}: give beatmap IDs separated by commas, "
            "or a text file of them"
        ) from error
    ids = dataset.beatmaps["beatmap_id"].to_numpy()
    missing = sorted(wanted - set(ids.tolist()))
    if missing:
        raise ValueError(f"--fine-tune-ids: the dataset has no beatmap {missing[:5]}")
    return np.flatnonzero(np.isin(ids, list(wanted)))


def experiment_folder(results: Path, model: str) -> Path:
    """A new folder results/NNN-MODEL with a checkpoints folder inside."""
    results.mkdir(parents=True, exist_ok=True)
    # Remapped beatmaps, in the same folder, begin with a number too.
    runs = (re.fullmatch(r"(\d{3,})-DiT-\w+", p.name) for p in results.iterdir())
    taken = [int(run[1]) for run in runs if run]
    folder = results / f"{max(taken, default=-1) + 1:03d}-{model}"
    (folder / "checkpoints").mkdir(parents=True)
    return folder


def start_logging(ranks: Ranks, folder: Path | None) -> None:
    """Main rank: to the console and log.txt; the others stay silent."""
    log.setLevel(logging.INFO if ranks.is_main else logging.ERROR)
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if folder is not None:
        handlers.append(logging.FileHandler(folder / "log.txt", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add, boolean = parser.add_argument, cli.BooleanFlag
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data-path",
        type=Path,
        required=True,
        help="packed dataset, or any source that create_dataset.py takes",
    )
    data.add_argument("--data-start", type=int, help="first track of a Mapperator dataset")
    data.add_argument("--data-end", type=int, help="track after the last one")
    data.add_argument("--seq-len", type=int, default=128, help="data points in a window")
    data.add_argument("--stride", type=int, default=16, help="data points between windows")
    data.add_argument(
        "--validation-fraction", type=float, default=0.0, help="share of beatmapsets held out"
    )
    data.add_argument("--fine-tune-ids", help="train on these beatmap IDs only (1,2,3 or a file)")
    data.add_argument("--num-workers", type=int, help="processes for packing a source")
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=list(SIZES), default="DiT-B", help="size")
    model.add_argument("--num-classes", type=int, help="style classes; default: the dataset's")
    model.add_argument("--architecture", choices=["rotary", "reference"], default="rotary")
    model.add_argument(
        "--parametrisation",
        choices=["edm", "learned-variance"],
        default="edm",
        help="what the network predicts",
    )
    model.add_argument(
        "--noise-schedule",
        choices=list(SCHEDULES),
        help="of learned-variance; default there: squaredcos_cap_v2",
    )
    model.add_argument(
        "--l1-loss", action=boolean, help="of learned-variance: L1, the default there, or L2"
    )
    model.add_argument(
        "--half-window", type=int, help="W of the attention band in sampling; default: seq-len / 2"
    )
    model.add_argument(
        "--train-half-window", type=int, help="W in training; default: whole windows, seq-len"
    )
    model.add_argument("--class-dropout", type=float, default=0.1, help="share without a style")
    model.add_argument(
        "--distance-dropout",
        type=float,
        default=0.0,
        help="share without distances, for maps without",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--epochs", type=int, default=1400)
    run.add_argument("--max-steps", type=int, help="end after so many steps")
    run.add_argument(
        "--max-minutes", type=float, help="end after so long; the decay follows the clock"
    )
    run.add_argument("--global-batch-size", type=int, default=256, help="windows over all ranks")
    run.add_argument("--global-seed", type=int, default=0)
    run.add_argument("--lr", type=float, default=5e-4, help="peak learning rate")
    run.add_argument("--warmup-steps", type=int, default=100)
    run.add_argument("--lr-decay", action=boolean, default=True, help="linear, to 5 percent")
    run.add_argument("--clip", type=float, default=1.0, help="largest gradient norm")
    run.add_argument("--ema-decay", type=float, default=0.9999, help="reached after a warm-up")
    run.add_argument("--use-amp", action=boolean, default=None, help="bf16; default: on CUDA")
    run.add_argument("--compile", action=boolean, default=False, help="use torch.compile")
    run.add_argument("--device", default="auto", help="cuda, mps, cpu or auto")
    run.add_argument("--dist", choices=["nccl", "gloo"], default="nccl", help="with torchrun")
    run.add_argument(
        "--ckpt",
        type=Path,
        help="training checkpoint to continue from, or weights (.safetensors) to start from",
    )
    run.add_argument(
        "--relearn-embeds", action=boolean, default=False, help="new class table after --ckpt"
    )
    run.add_argument(
        "--embed-only-epochs", type=int, default=0, help="epochs that train the class table alone"
    )
    add("--results-dir", type=Path, default=Path("results"))
    add("--log-every", type=int, default=100, help="steps between log lines")
    add("--ckpt-every", type=int, default=50_000, help="steps between checkpoints")
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    """Refuses numbers that make no sense and flags that would be ignored: ValueError."""
    for name in ("epochs", "max_steps", "max_minutes", "global_batch_size", "log_every"):
        _require_positive(args, name)
    for name in ("ckpt_every", "half_window", "train_half_window", "num_classes", "seq_len"):
        _require_positive(args, name)
    if args.relearn_embeds and args.ckpt is None:
        raise ValueError("--relearn-embeds renews the class table of a --ckpt: give one")


def _require_positive(args: argparse.Namespace, name: str) -> None:
    value = getattr(args, name)
    if value is not None and value <= 0:
        raise ValueError(f"--{name.replace('_', '-')} {value}: give a number above 0")


def main() -> None:
    args = parse_args()
    check_args(args)
    with process_group(args.dist) as ranks:
        # The main rank packs a folder of beatmaps; the others find the result.
        if not ranks.is_main:
            dist.barrier()
        span = (args.data_start, args.data_end)
        dataset = open_or_pack(args.data_path, args.results_dir, *span, args.num_workers)
        if ranks.is_main and ranks.world_size > 1:
            dist.barrier()
        folder = experiment_folder(args.results_dir, args.model) if ranks.is_main else Path()
        start_logging(ranks, folder if ranks.is_main else None)
        if args.parametrisation == "edm" and (args.noise_schedule or args.l1_loss is not None):
            log.warning(
                "--noise-schedule and --l1-loss have no effect on edm; they belong to "
                "--parametrisation learned-variance"
            )
        rows = choose_rows(args, dataset)
        trainer = Trainer(args, ranks, dataset, rows)
        parameters = sum(p.numel() for p in trainer.model.parameters())
        log.info("Experiment directory created at %s", folder)
        log.info("%s Parameters: %s on %s", args.model, f"{parameters:,}", trainer.device)
        log.info("Dataset: %d maps, %d data points", len(rows), trainer.loader.num_points)
        log.info("Options: %s", json.dumps(trainer.state()["args"]))
        log.info(
            "Training for %d steps of %d in an epoch",
            trainer.total_steps,
            trainer.loader.batches_per_epoch,
        )
        trainer.run(folder)


if __name__ == "__main__":
    cli.run(main)
