"""Models of the Hugging Face Hub, from a cache as its own package keeps it, without a network."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from checkpoint import export_weights, load_model
from conventions import hub
from conventions.hub import CONFIG, EXPERT, FILES, MODELS, WEAK, WEIGHTS, HubError, local_path
from diffusion.parametrisation import EDM
from models import DiT, DiTConfig
from training.state import read_training_state

TINY = DiTConfig(width=16, depth=2, heads=2, num_classes=3, coordinate_dim=8, distance_dim=8)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def needs_the_hub() -> Any:
    return pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")


def cached(folder: Path, name: str = "me/mine", revision: str = "main") -> Path:
    """The snapshot of a repository with a model and its companions, in the layout of the cache."""
    repository = folder / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / revision).write_text(COMMIT, encoding="utf-8")
    for file in MODELS:
        units = EDM().limited(80) if file == EXPERT else EDM()
        export_weights(snapshot / file, DiT(TINY).state_dict(), TINY, units, {"file": file})
    (snapshot / CONFIG).write_text("{}", encoding="utf-8")
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, offline."""
    needs_the_hub()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_other_paths_stay_as_they_are() -> None:
    assert local_path(Path("a/b.safetensors")) == Path("a/b.safetensors")


def test_a_cached_model_is_loaded_offline_with_its_companions(cache: Path) -> None:
    snapshot = cached(cache)
    loaded = load_model("hf:me/mine")
    assert loaded.path == snapshot / WEIGHTS and loaded.metadata == {"file": WEIGHTS}
    assert loaded.weak is not None and loaded.weak.metadata == {"file": WEAK}
    assert loaded.expert is not None and loaded.expert.metadata == {"file": EXPERT}
    assert read_training_state(Path("hf:me/mine")).source == "export"


def test_a_revision_is_a_branch_a_tag_or_a_commit(cache: Path) -> None:
    snapshot = cached(cache, revision="v2")
    assert local_path(Path("hf:me/mine@v2")) == snapshot / WEIGHTS
    assert local_path(Path(f"hf:me/mine@{COMMIT}")) == snapshot / WEIGHTS
    with pytest.raises(HubError, match="hf:me/mine cannot be had: check the name"):
        local_path(Path("hf:me/mine"))


@pytest.mark.parametrize("name", ["hf:", "hf:mine", "hf:a/b/c", "hf:a/b@", "hf:a b/c"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(HubError, match="names no model: give hf:owner/name"):
        local_path(Path(name))


def test_a_model_that_is_not_there_is_one_line(cache: Path) -> None:
    with pytest.raises(HubError, match="hf:me/none cannot be had") as caught:
        local_path(Path("hf:me/none"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", MODELS)
def test_a_pickle_under_the_name_of_weights_is_not_opened(cache: Path, file: str) -> None:
    torch.save({"a": torch.ones(1)}, cached(cache) / file)
    with pytest.raises(HubError, match=f"its {file} is no safetensors file"):
        load_model("hf:me/mine")


def test_a_repository_without_weights_is_refused(cache: Path) -> None:
    (cached(cache) / WEIGHTS).unlink()
    with pytest.raises(HubError, match=r"has no model\.safetensors"):
        local_path(Path("hf:me/mine"))


def test_files_that_are_too_large_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(cache)
    monkeypatch.setitem(hub.MOST_BYTES, WEAK, 1000)
    with pytest.raises(HubError, match=r"model\.weak\.safetensors of \d+ bytes, more than 1000"):
        local_path(Path("hf:me/mine"))


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError, match=r"run python -m pip install \"huggingface_hub>=1\.0\""):
        local_path(Path("hf:me/mine"))


def test_online_sizes_are_known_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, snapshot, calls = needs_the_hub(), cached(tmp_path), []
    sizes = {WEIGHTS: 10, CONFIG: 10}

    def download(**options: Any) -> Any:
        calls.append(options)
        if not options.get("dry_run"):
            return str(snapshot)
        return [SimpleNamespace(filename=name, file_size=size) for name, size in sizes.items()]

    monkeypatch.setattr(library, "snapshot_download", download)
    assert local_path(Path("hf:me/mine@a/b")) == snapshot / WEIGHTS
    assert [call.get("dry_run", False) for call in calls] == [True, False]
    wanted = {"repo_id": "me/mine", "revision": "a/b", "allow_patterns": list(FILES)}
    assert all(call.items() >= wanted.items() for call in calls)
    sizes[WEIGHTS] = 2**33
    with pytest.raises(HubError, match=rf"model\.safetensors of {2**33} bytes"):
        local_path(Path("hf:me/mine"))
    assert len(calls) == 3  # nothing was fetched this time
