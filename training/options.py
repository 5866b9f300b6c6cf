"""The options of a training run: what is trained on what, for how long, and how it is watched."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from conventions.errors import FieldError
from conventions.identity import INDIFFERENT, identity, plain
from conventions.ranks import MINUTES
from diffusion.parametrisation import EDM

POSITIVE = (
    *("epochs", "max_steps", "max_minutes", "global_batch_size", "accumulate", "seq_len"),
    *("depth", "max_noise_px", "noise_log_std", "half_window", "train_half_window"),
    *("num_classes", "heads", "peak_tflops", "dist_timeout"),
    *("log_every", "ckpt_every", "keep_last", "keep_every", "val_every", "sample_every", "profile"),
)


@dataclass(frozen=True)
class TrainingOptions:
    """The options of train.py; `training.flags` explains each, with its unit.

    A run may be continued with other values of the fields that are marked as indifferent: these do
    not change what is learnt. Impossible values and options without effect are a ValueError.
    """

    data_path: Path = field(metadata=INDIFFERENT)
    data_start: int | None = None
    data_end: int | None = None
    seq_len: int = 128
    stride: int = 16
    validation_fraction: float = 0.0
    fine_tune_ids: str | None = None
    num_workers: int | None = field(default=None, metadata=INDIFFERENT)
    model: str = "DiT-B"
    depth: int | None = None
    num_classes: int | None = None
    condition_groups: tuple[str, ...] = ()
    architecture: str = "local"
    parametrisation: str = "edm"
    noise_schedule: str | None = None
    l1_loss: bool | None = None
    half_window: int | None = None
    train_half_window: int | None = None
    class_dropout: float = 0.1
    distance_dropout: float = 0.0
    known_points: float = 0.5
    max_noise_px: float | None = None
    noise_log_mean: float = EDM().log_mean
    noise_log_std: float = EDM().log_std
    augment_double_time: float = 0.0
    augment_distances: float = 0.0
    augment_rotation: float = 0.0
    augment_scale: float = 0.0
    augment_repeats: float = 0.0
    epochs: int = 1400
    max_steps: int | None = None
    max_minutes: float | None = None
    global_batch_size: int = 256
    accumulate: int = 1
    global_seed: int = 0
    lr: float = 5e-4
    warmup_steps: int = 100
    lr_decay: bool = True
    clip: float = 1.0
    ema_decay: float = 0.9999
    resume: str = field(default="auto", metadata=INDIFFERENT)
    ckpt: Path | None = None
    max_noise_step: int | None = None
    heads: int | None = None
    relearn_embeds: bool = False
    embed_only_epochs: int = 0
    device: str = field(default="auto", metadata=INDIFFERENT)
    dist: str = field(default="nccl", metadata=INDIFFERENT)
    dist_timeout: float = field(default=MINUTES, metadata=INDIFFERENT)
    shard: bool = field(default=False, metadata=INDIFFERENT)
    use_amp: bool | None = None
    amp_dtype: str = "auto"
    dtype: str = "float32"
    compile: bool | None = field(default=None, metadata=INDIFFERENT)
    grad_checkpointing: bool = field(default=False, metadata=INDIFFERENT)
    peak_tflops: float | None = field(default=None, metadata=INDIFFERENT)
    results_dir: Path = field(default=Path("results"), metadata=INDIFFERENT)
    log_every: int = field(default=100, metadata=INDIFFERENT)
    ckpt_every: int = field(default=50_000, metadata=INDIFFERENT)
    keep_last: int = field(default=3, metadata=INDIFFERENT)
    keep_every: int | None = field(default=None, metadata=INDIFFERENT)
    val_every: int = field(default=1000, metadata=INDIFFERENT)
    sample_every: int | None = field(default=None, metadata=INDIFFERENT)
    tensorboard: bool = field(default=False, metadata=INDIFFERENT)
    wandb: str | None = field(default=None, metadata=INDIFFERENT)
    profile: int | None = field(default=None, metadata=INDIFFERENT)

    def __post_init__(self) -> None:
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise FieldError(f"{{{name}}} {{0}}: give a number above 0", value)
        for name in ("augment_double_time", "augment_distances", "augment_repeats"):
            if not 0 <= getattr(self, name) <= 1:
                raise FieldError(f"{{{name}}} {{0}}: give 0 to 1", getattr(self, name))
        for name in ("num_classes", "relearn_embeds", "embed_only_epochs"):
            if self.condition_groups and getattr(self, name):
                raise FieldError(
                    f"{{{name}}} is about a class table, which a model with {{condition_groups}} "
                    "has not: leave out one of them"
                )
        if self.relearn_embeds and self.ckpt is None:
            raise FieldError("{relearn_embeds} renews the class table of a {ckpt}: give one")
        if self.sample_every and not self.validation_fraction:
            raise FieldError("{sample_every} samples held-out maps: add {validation_fraction} 0.05")

    def plain(self) -> dict[str, Any]:
        """All options as plain values, by the names of the fields."""
        values: dict[str, Any] = plain(self)
        return values

    def identity(self) -> dict[str, Any]:
        """The options that make two commands the same run, as plain values."""
        return identity(self)


def in_terms_of_today(identity: dict[str, Any]) -> dict[str, Any]:
    """The identity of a run, as an earlier version wrote it, with the options of this version.

    Options that did not exist yet get their defaults; those that have become indifferent are left
    out.
    """
    counted = {f.name: f.metadata.get("identity", True) for f in fields(TrainingOptions)}
    defaults = {f.name: plain(f.default) for f in fields(TrainingOptions) if counted[f.name]}
    return {**defaults, **{name: v for name, v in identity.items() if counted.get(name, True)}}
