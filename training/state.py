"""What a training run starts from: a checkpoint of ours or of the reference, or an export."""

import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from checkpoint import (
    PLAYFIELD_SIZE,
    CheckpointError,
    folder_parts,
    load_model,
    load_training_checkpoint,
    sampling_parts,
    saved_vocabulary,
)
from conditions.vocabulary import Vocabulary
from conventions import hub
from conventions.errors import FieldError
from diffusion.parametrisation import EDM, Parametrisation
from models import DiTConfig

EMBEDDER = "y_embedder."
TABLE = f"{EMBEDDER}embedding_table.weight"
FIRST_LAYER = "xoc_embedder.mlp.0.weight"
BLOCKS = "blocks."
Weights = dict[str, Tensor]


def with_closed_gates(modulation: Tensor) -> Tensor:
    """Weights (6 D, D) or biases (6 D,) of a block's modulation, those of its two gates zero."""
    parts = list(modulation.chunk(6))
    for gate in (2, 5):  # as `DiTBlock` takes them apart
        parts[gate] = torch.zeros_like(parts[gate])
    return torch.cat(parts)


class OtherRunError(FieldError, CheckpointError):
    """A checkpoint of a model other than the one to be trained."""


@dataclass(frozen=True)
class TrainingState:
    """Weights, EMA and optimiser by the names of the parameters, and the progress of the run.

    `step` counts the steps of the run, `updates` those of the EMA, `elapsed` its seconds.
    """

    path: Path
    source: Literal["run", "reference", "export"]
    config: DiTConfig
    parametrisation: Parametrisation
    model: Weights
    ema: Weights
    moments: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    updates: int = 0
    elapsed: float = 0.0
    batches_per_epoch: int | None = None
    rng: Tensor | None = None
    scaler: dict[str, Any] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None

    def at_noise(self, px: float | None, log_mean: float, log_std: float) -> "TrainingState":
        """The same for training only at noise up to `px` from here on; as before where it is None.

        How noise levels are drawn, `log_mean` and `log_std`, is no property of the weights: any
        model may continue with any values.
        """
        parametrisation = self.parametrisation
        if isinstance(parametrisation, EDM):
            parametrisation = replace(parametrisation, log_mean=log_mean, log_std=log_std)
        return replace(
            self, parametrisation=parametrisation if px is None else parametrisation.limited(px)
        )

    def with_fresh_table(self, table: Tensor, num_classes: int) -> "TrainingState":
        """The same with another class table, for which the optimiser has no moments yet."""
        return replace(
            self,
            config=replace(self.config, num_classes=num_classes),
            model={**self.model, TABLE: table},
            ema={**self.ema, TABLE: table},
            moments={name: value for name, value in self.moments.items() if name != TABLE},
        )

    def with_groups(self, fresh: Weights, config: DiTConfig) -> "TrainingState":
        """The same with the groups of `config`: new layers, from a new model's weights `fresh`.

        They replace the class table. At first, whatever the groups say, the output is the one that
        the model had without a style.
        """
        if TABLE not in self.model:
            raise CheckpointError(f"{self.path} has no class table that groups could stand for")
        layers = {name: weight for name, weight in fresh.items() if name.startswith(EMBEDDER)}

        def without_style(weights: Weights) -> Weights:
            kept = {name: weight for name, weight in weights.items() if name != TABLE}
            last, bias = f"{EMBEDDER}class_embedding.2.weight", f"{EMBEDDER}class_embedding.2.bias"
            null = {last: torch.zeros_like(layers[last]), bias: weights[TABLE][-1].clone()}
            return {**kept, **{k: v.clone() for k, v in layers.items()}, **null}

        return replace(
            self,
            config=replace(self.config, num_classes=0, class_groups=config.class_groups),
            model=without_style(self.model),
            ema=without_style(self.ema),
            moments={name: value for name, value in self.moments.items() if name != TABLE},
        )

    def with_known_points(self) -> "TrainingState":
        """The same with `known_points`: the new inputs begin with weights of zero.

        So at first the network's output is as before. The optimiser drops the layer's moments.
        """
        config = replace(self.config, known_points=True)
        groups = 3 if config.neighbours else 1

        def widened(weights: Weights) -> Weights:
            rows = weights[FIRST_LAYER].unflatten(1, (groups, -1))  # (D, groups, features)
            return {**weights, FIRST_LAYER: nn.functional.pad(rows, (0, 1)).flatten(1)}

        return replace(
            self,
            config=config,
            model=widened(self.model),
            ema=widened(self.ema),
            moments={name: value for name, value in self.moments.items() if name != FIRST_LAYER},
        )

    def deepened(self, depth: int) -> "TrainingState":
        """The same with `depth` blocks; the new ones change nothing at first.

        They stand between the old ones at even distances. Each is a copy of the block before it
        whose gates are closed, so that its gradients tell at once what to open them for. The
        optimiser has no moments for them yet.
        """
        old = self.config.depth
        origins = [i * old // depth for i in range(depth)]  # of each block, the old one it is like

        def placed(values: dict[str, Any]) -> dict[str, Any]:
            """Values by name, those of block i once for each block that is like it."""
            found = {k: v for k, v in values.items() if not k.startswith(BLOCKS)}
            for new, origin in enumerate(origins):
                start = f"{BLOCKS}{origin}."
                found |= {
                    f"{BLOCKS}{new}.{k.removeprefix(start)}": v
                    for k, v in values.items()
                    if k.startswith(start)
                }
            return found

        added = [f"{BLOCKS}{i}." for i in range(1, depth) if origins[i] == origins[i - 1]]

        def grown(weights: Weights) -> Weights:
            found = placed(weights)
            for name in found:
                if name.startswith(tuple(added)) and ".adaLN_modulation." in name:
                    found[name] = with_closed_gates(found[name])
            return found

        moments = placed(self.moments)
        return replace(
            self,
            config=replace(self.config, depth=depth),
            model=grown(self.model),
            ema=grown(self.ema),
            moments={k: v for k, v in moments.items() if not k.startswith(tuple(added))},
        )

    def as_new_run(self) -> "TrainingState":
        """The same at step 0; the EMA starts again, to follow the new training."""
        return replace(
            self, step=0, updates=0, elapsed=0.0, batches_per_epoch=None, rng=None, scaler={}
        )

    def require(self, config: DiTConfig, parametrisation: Parametrisation) -> None:
        """OtherRunError if it was trained with another configuration or parametrisation."""
        if replace(self.config, num_classes=config.num_classes) != config:
            raise OtherRunError(
                "{0} holds a model of another size or architecture ({1}): give "
                "the {model}, {depth}, {architecture}, {half_window} and {known_points} that it "
                "was trained with",
                *(self.path, self.config),
            )
        if self.parametrisation != parametrisation:
            raise OtherRunError(
                "{0} was trained as {1}: give the {parametrisation}, {noise_schedule}, "
                "{l1_loss} and {max_noise_px} it was trained with",
                *(self.path, self.parametrisation.to_dict()),
            )
        if self.config.num_classes != config.num_classes:
            raise OtherRunError(
                "{0} has {1} classes, the dataset {2}: "
                "add {relearn_embeds} to learn new class embeddings",
                *(self.path, self.config.num_classes, config.num_classes),
            )

    def optimizer_state(self, fresh: dict[str, Any], model: nn.Module) -> dict[str, Any]:
        """For `load_state_dict` of an optimiser whose own state is `fresh`.

        Parameters are matched by name, as their order differs in the reference's files; betas and
        epsilon are those with which the moments were averaged.
        """
        names = [name for name, _ in model.named_parameters()]
        (group,) = fresh["param_groups"]
        kept = {k: v for k, v in self.hyperparameters.items() if k in ("betas", "eps")}
        return {
            "state": {
                i: self.moments[name] for i, name in enumerate(names) if name in self.moments
            },
            "param_groups": [{**group, **kept}],
        }


def read_training_state(
    path: Path, heads: int | None = None, known_steps: int | None = None
) -> TrainingState:
    """Reads anything that a run can begin with; CheckpointError says why it cannot.

    `heads` is needed for reference checkpoints of a size that it does not have by name,
    `known_steps` is how many timesteps an osu-diffusion v2, a folder, was trained at. A name of
    the Hugging Face Hub is an export, see `conventions.hub`.
    """
    path = hub.local_path(path)
    if path.is_dir():
        weights, config, parametrisation, vocabulary = folder_parts(path, heads, known_steps)
        weights = {name: weight.float() for name, weight in weights.items()}
        return TrainingState(
            path, "reference", config, parametrisation, weights, weights, vocabulary=vocabulary
        )
    if path.suffix == ".safetensors":
        loaded = load_model(path)
        weights = loaded.model.state_dict()
        return TrainingState(
            path,
            "export",
            loaded.model.config,
            loaded.parametrisation,
            weights,
            weights,
            vocabulary=loaded.vocabulary,
        )
    checkpoint = load_training_checkpoint(path)
    if not {"model", "ema", "opt"} <= checkpoint.keys():
        raise CheckpointError(f"{path} is no training checkpoint: it lacks model, ema or opt")
    try:
        return _from_checkpoint(checkpoint, path, heads)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path} is incomplete or of another version: {type(error).__name__}: {error}"
        ) from error


def _from_checkpoint(checkpoint: dict[str, Any], path: Path, heads: int | None) -> TrainingState:
    ema, config, parametrisation, metadata = sampling_parts(checkpoint, path, heads)
    # Neither project saves buffers, so these are the parameters in their order.
    names = list(checkpoint["model"])
    moments = {names[i]: moment for i, moment in checkpoint["opt"]["state"].items()}
    (hyperparameters,) = checkpoint["opt"]["param_groups"]
    model = {k: v for k, v in checkpoint["model"].items() if k != PLAYFIELD_SIZE}
    common = (config, parametrisation, model, ema, moments, hyperparameters)
    if "config" not in checkpoint:
        # The reference counts steps from 0 at every start; only its optimiser has the total.
        # Its scaler finds a new scale within a few skipped steps.
        updates = max((int(m["step"]) for m in moments.values()), default=0)
        return TrainingState(path, "reference", *common, updates=updates)
    return TrainingState(
        path,
        "run",
        *common,
        step=checkpoint["step"],
        updates=checkpoint.get("updates", checkpoint["step"]),
        elapsed=checkpoint["elapsed"],
        batches_per_epoch=checkpoint.get("position", {}).get("batches_per_epoch"),
        rng=checkpoint.get("rng"),
        scaler=checkpoint.get("scaler", {}),
        vocabulary=saved_vocabulary(config, metadata),
    )


def is_intact(path: Path) -> bool:
    """Whether every byte of a checkpoint is as written: torch itself does not check the sums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
