"""Saves and loads models: training checkpoints, EMA exports, models of the public osu-diffusion."""

import argparse
import csv
import hashlib
import io
import json
import math
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from conditions import osu_diffusion_v2
from conditions.osu_diffusion_v2 import TOKENIZER, WEIGHTS
from conditions.vocabulary import Vocabulary, from_dict, vocabulary_of
from conventions import hub
from conventions.errors import FieldError
from conventions.whole_files import replacing
from diffusion.parametrisation import Denoise, Parametrisation, parametrisation_from_dict
from models import REFERENCE_ARCHITECTURE, SIZES, Conditions, DiT, DiTConfig, bind

FORMAT = "osu-diffusion"
FORMAT_VERSION = 1
PLAYFIELD_SIZE = "xoc_embedder.playfield_size"
"""A constant that the reference keeps among its parameters."""


MOST_TOKENIZER_BYTES, MOST_WEIGHT_BYTES = 2**29, math.inf
"""Limits for an osu-diffusion v2; `_read_pickle` limits its weights by the size of their file."""


class CheckpointError(ValueError):
    """A file that is no checkpoint that can be used; the message says what, where, what to do."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to sample, with what its file says about it.

    Companions of its file, None where there are none: `weak` is a worse model of the same kind, for
    guidance; `expert` takes over at low noise.
    `vocabulary` says what the entries of `class_groups` mean; None for models without groups.
    """

    model: DiT
    parametrisation: Parametrisation
    path: Path
    sha256: str
    metadata: dict[str, Any] = field(default_factory=dict)
    weak: "LoadedModel | None" = None
    expert: "LoadedModel | None" = None
    vocabulary: Vocabulary | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def companions(self) -> list[str | None]:
        """SHA-256 of the weak model and of the expert, for what results depend on."""
        return [None if m is None else m.sha256 for m in (self.weak, self.expert)]

    def to_dict(self) -> dict[str, Any]:
        """What tells it apart from others in reports: the name of its file, SHA-256, companions."""
        return {"file": self.path.name, "sha256": self.sha256, "companions": self.companions}

    def denoiser(
        self, conditions: Conditions, half_window: int | None = None, *, use_amp: bool = False
    ) -> Denoise:
        """`denoise` of x (N, T, 2) for the data points that `conditions` describe."""
        network = bind(self.model, conditions, half_window, use_amp=use_amp)
        return self.parametrisation.denoiser(network)[0]

    def class_index_path(self) -> Path:
        """The beatmap index that was written with this model.

        It lies beside an export, one folder above a run's checkpoints, and for the bundled model
        in the project's folder. Another model's index would give a wrong style unnoticed, so no
        other place is searched: ValueError.
        """
        folder = self.path.resolve().parent
        candidates = [folder, folder.parent] if folder.name == "checkpoints" else [folder]
        for candidate in candidates:
            if (candidate / "beatmap_idx.pickle").is_file():
                return candidate / "beatmap_idx.pickle"
        raise FieldError(
            "there is no beatmap_idx.pickle with {0}: name its index with {beatmap_idx}", self.path
        )


def save_training_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` with torch.save to a temporary name and renames it: all of it or nothing.

    An OSError says that it could not be written, to a full disk for instance.
    """
    with replacing(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            # torch's own writer does not say why.
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                f"{path} could not be written ({free / 2**20:.0f} MiB are free on its disk): "
                f"{str(error).splitlines()[0]}"
            ) from error


def load_training_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a .pt checkpoint without running any code from it; CheckpointError if it cannot."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file {path}")
    try:
        # The reference stores its options as a Namespace, which holds plain values only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises loading it without the check: do not repeat that.
        raise CheckpointError(
            f"{path} is not a checkpoint that can be read: it is damaged, or it holds more than "
            "tensors and plain values, and loading that could run code"
        ) from error
    except Exception as error:  # damaged bytes cause all kinds of errors in torch's unpickler
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint that can be read: {reason}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is not a checkpoint: it holds a {type(state).__name__}")
    return state


def export_weights(
    path: Path,
    state: dict[str, Tensor],
    config: DiTConfig,
    parametrisation: Parametrisation,
    metadata: dict[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Writes weights with all that sampling needs into one safetensors file, atomically."""
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(config.to_dict()),
        "parametrisation": json.dumps(parametrisation.to_dict()),
        "metadata": json.dumps(metadata, ensure_ascii=False),
    }
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in state.items()}
    with replacing(path) as temporary:
        # `save_file` would make a file that nobody else may read.
        temporary.write_bytes(safetensors.torch.save(tensors, metadata=header))


def load_model(
    path: Path | str,
    device: torch.device | str = "cpu",
    heads: int | None = None,
    known_steps: int | None = None,
) -> LoadedModel:
    """Loads an export, a training checkpoint (its EMA), or a model of the public osu-diffusion.

    `path` may be a name of the Hugging Face Hub, see `conventions.hub`; such a model is an export.
    `heads` is needed only for reference checkpoints of a size that it does not have by name.
    `known_steps` is how many timesteps an osu-diffusion v2, a folder, was trained at.
    """
    path = hub.local_path(Path(path))
    if path.is_dir():
        return _load_folder(path, device, heads, known_steps)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file {path}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        magic = file.read(9)
    if magic[8:9] == b"{":
        read = _read_export
    elif magic[:2] == b"PK":
        read = partial(_read_training, heads=heads)
    else:
        raise CheckpointError(
            f"{path} is not a model: expected a .safetensors export or a .pt checkpoint"
        )
    try:
        state, config, parametrisation, metadata = read(path)
        _require_fit(state, config, path)
        vocabulary = saved_vocabulary(config, metadata)
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(f"{path} is incomplete or of another version: {reason}") from error
    model = _ready(state, config, device)
    weak, expert = (_companion(path, kind, device) for kind in hub.COMPANIONS)
    if weak is not None and weak.parametrisation.scale != parametrisation.scale:
        raise CheckpointError(f"{weak.path} has other units than {path}: it cannot guide it")
    if expert is not None and math.isinf(expert.parametrisation.limit):
        raise CheckpointError(
            f"{expert.path} was trained at all levels of noise: an expert is trained with "
            "--max-noise-px"
        )
    return LoadedModel(model, parametrisation, path, digest, metadata, weak, expert, vocabulary)


def saved_vocabulary(config: DiTConfig, metadata: dict[str, Any]) -> Vocabulary | None:
    """The vocabulary saved with one of our models; None for a model without groups."""
    if not config.class_groups:
        return None
    vocabulary = from_dict(metadata["vocabulary"])
    if vocabulary.groups != config.class_groups:
        raise ValueError("its vocabulary is of another model")
    return vocabulary


class _Unfilled(TorchFunctionMode):
    """Makes modules without random weights, for those whose weights are loaded next.

    Only what dispatches as a whole is left out, most of all `normal_`: without memory, on torch's
    meta device, it would import torch's compiler, which takes longer than all else together.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"]
        return func(*args, **kwargs)


def _ready(state: dict[str, Tensor], config: DiTConfig, device: torch.device | str) -> DiT:
    with _Unfilled():
        model = DiT(config)
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return model.requires_grad_(False).eval().to(device)


def _load_folder(
    folder: Path, device: torch.device | str, heads: int | None, known_steps: int | None
) -> LoadedModel:
    """Loads the folder of an osu-diffusion v2."""
    state, config, parametrisation, vocabulary = folder_parts(folder, heads, known_steps)
    hashes = [_sha256(folder / name) for name in (WEIGHTS, TOKENIZER)]
    digest = hashlib.sha256("".join(hashes).encode("ascii")).hexdigest()
    return LoadedModel(
        _ready(state, config, device),
        parametrisation,
        folder,
        digest,
        {"source": "osu-diffusion v2"},
        vocabulary=vocabulary,
    )


def folder_parts(
    folder: Path, heads: int | None = None, known_steps: int | None = None
) -> tuple[dict[str, Tensor], DiTConfig, Parametrisation, Vocabulary]:
    """Weights, configuration, parametrisation and vocabulary of an osu-diffusion v2."""
    export = folder / "model.safetensors"
    if export.is_file() and not (folder / WEIGHTS).exists():
        raise CheckpointError(f"{folder} is a folder: give the model in it, {export}")
    for name in (WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} lacks {name}: the folder of an osu-diffusion v2 holds {WEIGHTS} and "
                f"{TOKENIZER}"
            )
    known = osu_diffusion_v2.parametrisation_of(known_steps)
    parametrisation = parametrisation_from_dict(known)
    path = folder / TOKENIZER
    try:
        vocabulary = vocabulary_of(_read_pickle(path, MOST_TOKENIZER_BYTES))
        path = folder / WEIGHTS
        weights = osu_diffusion_v2.weights_of(_read_pickle(path, MOST_WEIGHT_BYTES))
        config = osu_diffusion_v2.config_of(weights, vocabulary, heads)
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} is not of an osu-diffusion v2: {reason}") from error
    _require_fit(weights, config, path)
    return weights, config, parametrisation, vocabulary


def _read_pickle(path: Path, most_bytes: float) -> dict[str, Any]:
    """Reads a torch.save file that is no larger unpacked than on disk, without running its code."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise CheckpointError(f"{path} is not a file that torch.save wrote: {error}") from error
    if size > min(most_bytes, path.stat().st_size):
        raise CheckpointError(f"{path} would unpack to {size} bytes: no such file is that large")
    return load_training_checkpoint(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _companion(path: Path, kind: str, device: torch.device | str) -> LoadedModel | None:
    """The companion of an export, NAME.weak.safetensors for instance; None where there is none."""
    endings = tuple(f".{name}" for name in hub.COMPANIONS)
    if path.suffix != ".safetensors" or path.stem.endswith(endings):
        return None
    beside = path.with_name(f"{path.stem}.{kind}.safetensors")
    return load_model(beside, device) if beside.is_file() else None


def _require_fit(state: dict[str, Tensor], config: DiTConfig, path: Path) -> None:
    """CheckpointError unless the weights are those of `config`, before memory is taken for them."""
    with torch.device("meta"), _Unfilled():
        expected = {name: value.shape for name, value in DiT(config).state_dict().items()}
    found = {name: value.shape for name, value in state.items() if value.is_floating_point()}
    differing = sorted(
        ascii(name) for name in expected.keys() | state if expected.get(name) != found.get(name)
    )
    if differing:
        raise CheckpointError(
            f"{path}: the weights do not fit the configuration: {', '.join(differing)[:200]}"
        )


_Parts = tuple[dict[str, Tensor], DiTConfig, Parametrisation, dict[str, Any]]


def _read_export(path: Path) -> _Parts:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file of another program, not of {FORMAT}")
    if header.get("format_version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path} has export format {header.get('format_version')!r}, this version reads "
            f"{FORMAT_VERSION}: update osu-diffusion or export the model again"
        )
    return (
        state,
        DiTConfig.from_dict(json.loads(header["config"])),
        parametrisation_from_dict(json.loads(header["parametrisation"])),
        json.loads(header["metadata"]),
    )


def _read_training(path: Path, heads: int | None) -> _Parts:
    return sampling_parts(load_training_checkpoint(path), path, heads)


def sampling_parts(checkpoint: dict[str, Any], path: Path, heads: int | None) -> _Parts:
    """EMA weights, configuration, parametrisation and metadata; also of the reference's files."""
    if "config" in checkpoint and "ema" in checkpoint:
        said = {key: checkpoint[key] for key in ("vocabulary",) if key in checkpoint}
        return (
            checkpoint["ema"],
            DiTConfig.from_dict(checkpoint["config"]),
            parametrisation_from_dict(checkpoint["parametrisation"]),
            {"step": checkpoint["step"], "args": checkpoint["args"], **said},
        )
    # Files made for sharing hold the bare weights of the EMA.
    state = checkpoint.get("ema", checkpoint)
    if PLAYFIELD_SIZE not in state:
        raise CheckpointError(f"{path} is a checkpoint of another program, not of {FORMAT}")
    config = reference_config(state, path, heads)
    state = {k: v for k, v in state.items() if k != PLAYFIELD_SIZE}
    args = checkpoint.get("args")
    parametrisation = parametrisation_from_dict(
        {
            "name": "learned-variance",
            "noise_schedule": getattr(args, "noise_schedule", "squaredcos_cap_v2"),
            "l1": getattr(args, "l1_loss", True),
        }
    )
    return state, config, parametrisation, {"source": "public osu-diffusion"}


def reference_config(state: dict[str, Tensor], path: Path, heads: int | None) -> DiTConfig:
    """The configuration of a reference checkpoint, from the shapes of its tensors."""
    table = state["y_embedder.embedding_table.weight"]
    width = table.shape[1]
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    if heads is None:
        known = [s["heads"] for s in SIZES.values() if s["width"] == width and s["depth"] == depth]
        if not known:
            raise CheckpointError(
                f"{path} has width {width} and depth {depth}, no size of the reference: "
                "its number of attention heads must be given"
            )
        heads = known[0]
    return DiTConfig(
        **{
            **REFERENCE_ARCHITECTURE,
            "width": width,
            "depth": depth,
            "heads": heads,
            "num_classes": table.shape[0] - 1,
        }
    )


def write_class_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes *.classes.csv: which beatmap each style class was learnt from."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
