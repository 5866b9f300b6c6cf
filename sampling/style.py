"""Styles: from beatmap IDs, mappers or beatmap files to a class embedding.

A model has one embedding for each beatmap it was trained on. The style of another beatmap is learnt
as one more embedding, with the model frozen: textual inversion (Gal et al. 2022,
https://arxiv.org/abs/2208.01618) for a class.
"""

import csv
import difflib
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from beatmaps.inputs import read_beatmaps
from beatmaps.sequence import beatmap_to_sequence
from checkpoint import LoadedModel
from conventions.errors import FieldError
from conventions.whole_files import replacing
from datasets.class_tables import load_beatmap_idx
from sampling.progress import Progress, no_progress
from sampling.style_learning import Learning, embeddings_of, learn_embedding

CACHE_FORMAT = 1


@dataclass(frozen=True)
class Style:
    """Class embeddings (D,) of the wanted style and of the negative one.

    None means no style. Only guidance (`cfg_scale` above 1) leads away from the negative one.
    """

    embedding: Tensor | None = None
    negative: Tensor | None = None


@dataclass(frozen=True)
class StyleMix:
    """The styles that are mixed into one embedding.

    Texts may hold several, separated by commas (IDs also by spaces), each with a weight:
    "1180619:2, 303335". Files are learnt together, as one style of weight 1.
    """

    ids: tuple[str, ...] = ()
    mappers: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or self.mappers or self.files)

    def describe(self) -> str:
        """A few words for the name of a result."""
        ids = [part for text in self.ids for part in text.replace(",", " ").split()]
        mappers = [part.strip() for text in self.mappers for part in text.split(",")]
        return " ".join([*ids, *mappers, *(path.stem for path in self.files)])

    @classmethod
    def guess(cls, texts: list[str]) -> "StyleMix":
        """Sorts texts into IDs, mappers and files by how they look."""
        files = [text for text in texts if text.lower().endswith((".osu", ".osz"))]
        numbers = [t for t in texts if set(t) <= set("0123456789.:, ") and t not in files]
        names = [t for t in texts if t not in files and t not in numbers]
        return cls(tuple(numbers), tuple(names), tuple(map(Path, files)))


@dataclass(frozen=True)
class ClassEntry:
    """A row of a model's class table."""

    index: int
    beatmap_id: int
    creator: str
    song: str
    version: str


# --- the model's own classes ----------------------------------------------------------------------


def weighted_parts(field: str, text: str, separators: str) -> list[tuple[str, float]]:
    """("a", 1), ("b", 0.5) from "a, b:0.5"; ValueError for a weight that is not above 0."""
    for separator in separators[1:]:
        text = text.replace(separator, separators[0])
    parts = []
    for part in filter(None, map(str.strip, text.split(separators[0]))):
        name, colon, weight = part.rpartition(":")
        if not colon:
            parts.append((part, 1.0))
            continue
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise FieldError(
                f"{{{field}}} {{0!r}}: the weight after the colon must be above 0", part
            )
        parts.append((name.strip(), value))
    if not parts:
        raise FieldError(f"{{{field}}} {{0!r}} names no style", text)
    return parts


def read_index(loaded: LoadedModel, path: Path | None) -> dict[int, int]:
    """Beatmap ID -> class, from `path` or the model's own index, checked against the model."""
    path = path or loaded.class_index_path()
    index = load_beatmap_idx(path)
    classes = loaded.model.config.num_classes
    if index and max(index.values()) >= classes:
        raise FieldError(
            "{0} has class {1}, the checkpoint only {2} classes: "
            "give the model's own index with {beatmap_idx}",
            *(path, max(index.values()), classes),
        )
    return index


def class_of_id(text: str, index: dict[int, int], field: str = "style_id") -> int:
    """The class of a beatmap ID; an error names the `field` and the nearest IDs."""
    try:
        wanted = int(text)
    except ValueError:
        raise FieldError(
            f"{{{field}}} {{0!r}}: give beatmap IDs, which are numbers", text
        ) from None
    if wanted not in index:
        near = sorted(index, key=lambda known: abs(known - wanted))[:3]
        raise FieldError(
            f"{{{field}}} {{0}} is not among the model's {{1}} styles; the nearest IDs are {{2}}",
            *(wanted, len(index), ", ".join(map(str, near))),
        )
    return index[wanted]


def class_table_path(loaded: LoadedModel) -> Path:
    """The class table that was written with this model: beside it, or with the run's export."""
    path = loaded.path.resolve()
    candidates = [path.with_name(f"{path.stem}.classes.csv")]
    if path.parent.name == "checkpoints":
        candidates.append(path.parent.parent / "model.classes.csv")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FieldError(
        "there is no class table {0} with {1}: mappers' names are "
        "in it; use {style_id} or {style_beatmap}",
        *(candidates[0].name, loaded.path),
    )


def read_class_table(loaded: LoadedModel) -> list[ClassEntry]:
    """The rows of the model's class table; ValueError where it does not fit the model."""
    path = class_table_path(loaded)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                ClassEntry(
                    int(row["class_index"]),
                    int(row["beatmap_id"]),
                    row["creator"],
                    f"{row['artist']} - {row['title']}",
                    row["version"],
                )
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not a class table: {error}") from error
    if any(not 0 <= row.index < loaded.model.config.num_classes for row in rows):
        raise ValueError(f"{path} has classes that {loaded.path} lacks: it is of another model")
    return rows


def classes_of_mapper(name: str, table: list[ClassEntry]) -> list[int]:
    """The classes of a mapper's maps, ignoring case; a ValueError names the nearest names."""
    wanted = name.casefold()
    found = [entry.index for entry in table if entry.creator.casefold() == wanted]
    if not found:
        names = {entry.creator.casefold(): entry.creator for entry in table}
        near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.0)
        raise FieldError(
            "{style_mapper} {0!r} is not among the model's {1} mappers; the nearest names are {2}",
            *(name, len(names), ", ".join(names[key] for key in near)),
        )
    return found


# --- from a request to an embedding ---------------------------------------------------------------


def resolve(
    loaded: LoadedModel,
    request: StyleMix,
    *,
    index_path: Path | None = None,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> Tensor | None:
    """The embedding (D,) of a request: the weighted mean of its styles; None for no style.

    Embeddings of files are learnt, and stored in the folder `cache` if one is given.
    """
    if not request:
        return None
    table = embeddings_of(loaded)
    parts: list[tuple[Tensor, float]] = []
    if request.ids:
        index = read_index(loaded, index_path)
        for text in request.ids:
            for name, weight in weighted_parts("style_id", text, ", "):
                parts.append((table[class_of_id(name, index)], weight))
    if request.mappers:
        entries = read_class_table(loaded)
        for text in request.mappers:
            for name, weight in weighted_parts("style_mapper", text, ","):
                parts.append((table[classes_of_mapper(name, entries)].mean(dim=0), weight))
    if request.files:
        parts.append((style_of_files(loaded, request.files, cache, progress), 1.0))
    total = sum(weight for _, weight in parts)
    return torch.stack([embedding * (weight / total) for embedding, weight in parts]).sum(dim=0)


def style_of_files(
    loaded: LoadedModel,
    paths: tuple[Path, ...],
    cache: Path | None,
    progress: Progress = no_progress,
) -> Tensor:
    """The embedding (D,) learnt from these beatmaps together, or found in the folder `cache`.

    It is stored by the hashes of the maps, of the checkpoint and of the way it was learnt.
    """
    beatmaps = sorted({b.md5: b for path in paths for b in read_beatmaps(path)}.items())
    learning = Learning()
    hashes = [loaded.sha256, *(md5 for md5, _ in beatmaps)]
    key = f"{CACHE_FORMAT} {learning} {' '.join(hashes)}"
    name = hashlib.sha256(key.encode("utf-8")).hexdigest()[:24]
    stored = None if cache is None else cache / f"style-{name}.safetensors"
    device = next(loaded.model.parameters()).device
    if stored is not None and stored.is_file():
        embedding = _read_cached(stored, loaded)
        if embedding is not None:
            return embedding.to(device)
    sequences = [beatmap_to_sequence(beatmap) for _, beatmap in beatmaps]
    embedding = learn_embedding(loaded, sequences, learning, progress)
    if stored is not None:
        stored.parent.mkdir(parents=True, exist_ok=True)
        with replacing(stored) as temporary:
            safetensors.torch.save_file({"embedding": embedding.cpu()}, temporary)
    return embedding


def _read_cached(path: Path, loaded: LoadedModel) -> Tensor | None:
    """The embedding in a cache file; None for a damaged file, which is learnt and written again."""
    try:
        embedding = safetensors.torch.load_file(path).get("embedding")
    except (safetensors.SafetensorError, OSError):
        return None
    width = loaded.model.config.width
    if embedding is None or embedding.shape != (width,) or not embedding.isfinite().all():
        return None
    return embedding.float()
