"""Models of the Hugging Face Hub, by name: `hf:owner/name`, or `hf:owner/name@revision`.

The package `huggingface_hub` fetches them into its own cache, from where they are taken without a
network too. Nothing but `FILES` is fetched or opened, so no pickle is.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

PREFIX = "hf:"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
COMPANIONS = ("weak", "expert")
"""Models that belong to an export and lie beside it, by what stands in their names."""
WEAK, EXPERT = (f"model.{kind}.safetensors" for kind in COMPANIONS)
MODELS = (WEIGHTS, WEAK, EXPERT)
FILES = (*MODELS, CONFIG)
MOST_BYTES = {**dict.fromkeys(MODELS, 2**32), CONFIG: 2**20}
"""The largest model of ours has 0.7 billion weights."""
NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)


class HubError(ValueError):
    """A model that the Hub, or its cache on this computer, does not give: what, and what to do."""


def local_path(path: Path) -> Path:
    """Where a model is on this computer: `path` itself, or the weights of a name of the Hub."""
    name = path.as_posix()
    return _fetch(name) if name.startswith(PREFIX) else path


def _fetch(name: str) -> Path:
    """The weights of `name` in the Hub's cache, with its companions and the config beside them."""
    match = NAME.fullmatch(name)
    if match is None:
        raise HubError(f"{name} names no model: give hf:owner/name or hf:owner/name@revision")
    library, (repository, revision) = _library(name), match.groups()
    wanted = {"repo_id": repository, "revision": revision, "allow_patterns": list(FILES)}
    errors = library.errors
    try:
        try:
            plan = library.snapshot_download(**wanted, dry_run=True)
        except errors.DryRunError:  # no network, or one that does not let us: what is there already
            folder = library.snapshot_download(**wanted, local_files_only=True)
        else:
            for file in plan:
                _require_size(name, file.filename, file.file_size)
            folder = library.snapshot_download(**wanted)
    except (OSError, errors.HfHubHTTPError, errors.HFValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HubError(
            f"{name} cannot be had: check the name, and whether this computer is online ({reason})"
        ) from error
    return _checked(name, Path(folder))


def _library(name: str) -> ModuleType:
    try:
        import huggingface_hub.errors
    except ImportError:
        raise HubError(
            f"{name} is fetched by the package huggingface_hub, which is not installed: run "
            'python -m pip install "huggingface_hub>=1.0"'
        ) from None
    return huggingface_hub


def _require_size(name: str, file: str, size: int) -> None:
    if size > MOST_BYTES.get(file, 0):
        raise HubError(f"{name} has a {file} of {size} bytes, more than {MOST_BYTES.get(file, 0)}")


def _checked(name: str, folder: Path) -> Path:
    """The weights in the folder of a snapshot, if all is of the kind and size that it should be."""
    if not (folder / WEIGHTS).is_file():
        raise HubError(f"{name} has no {WEIGHTS}: testing/export_model.py makes folders with one")
    for file in FILES:
        if (folder / file).is_file():
            _require_size(name, file, (folder / file).stat().st_size)
    for file in MODELS:
        if (folder / file).is_file():
            with (folder / file).open("rb") as stream:
                # After its own length a safetensors file begins with JSON, a pickle never does.
                if stream.read(9)[8:] != b"{":
                    raise HubError(f"{name}: its {file} is no safetensors file")
    return folder / WEIGHTS
