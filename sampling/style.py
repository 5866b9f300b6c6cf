"""Styles: from beatmap IDs, mappers or beatmap files to a class embedding.

A model knows one embedding for each beatmap it was trained on. Another beatmap's style is learnt
as one more embedding, with the model frozen: textual inversion (Gal et al. 2022,
https://arxiv.org/abs/2208.01618), here of a class.
"""

import csv
import difflib
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from beatmaps.inputs import read_beatmaps
from beatmaps.sequence import PLAYFIELD_CENTRE, Sequence, beatmap_to_sequence
from checkpoint import LoadedModel
from conventions.whole_files import replacing
from data_loading import MARGIN_PX
from datasets.class_tables import load_beatmap_idx
from models import make_context

CACHE_FORMAT = 1
Progress = Callable[[int, int], None]
"""(steps done, steps in all); what it raises ends the learning."""


@dataclass(frozen=True)
class Style:
    """Class embeddings (D,) of the style that is wanted and of the one to keep away from.

    None stands for no style. Away from the negative one only guidance leads (`cfg_scale` above 1).
    """

    embedding: Tensor | None = None
    negative: Tensor | None = None


@dataclass(frozen=True)
class Request:
    """The styles that one embedding is made of, as the command line names them.

    Texts may hold several, separated by commas (IDs also by spaces), each with a weight:
    "1180619:2, 303335". Files are learnt together as one style of weight 1.
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
    def guess(cls, texts: list[str]) -> "Request":
        """IDs, mappers and files told apart by how they look, for flags that take all of them."""
        files = [text for text in texts if text.lower().endswith((".osu", ".osz"))]
        numbers = [t for t in texts if set(t) <= set("0123456789.:, ") and t not in files]
        names = [t for t in texts if t not in files and t not in numbers]
        return cls(tuple(numbers), tuple(names), tuple(map(Path, files)))


@dataclass(frozen=True)
class Learning:
    """How an embedding is learnt: steps of AdamW on windows of the maps, from a seed."""

    steps: int = 60
    windows: int = 16
    lr: float = 0.03
    seed: int = 0
    candidates: int = 16
    nearest: int = 4


@dataclass(frozen=True)
class ClassEntry:
    """A row of a model's class table."""

    index: int
    beatmap_id: int
    creator: str
    song: str
    version: str


def _no_progress(done: int, total: int) -> None:
    """For callers that do not watch."""


# --- the model's own classes ----------------------------------------------------------------------


def embeddings_of(loaded: LoadedModel) -> Tensor:
    """The class table (classes + 1, D); the null class is the last row."""
    return loaded.model.y_embedder.embedding_table.weight.detach()


def weighted_parts(flag: str, text: str, separators: str) -> list[tuple[str, float]]:
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
            raise ValueError(f"{flag} {part!r}: the weight after the colon must be above 0")
        parts.append((name.strip(), value))
    if not parts:
        raise ValueError(f"{flag} {text!r} names no style")
    return parts


def read_index(loaded: LoadedModel, path: Path | None) -> dict[int, int]:
    """Beatmap ID -> class, from `path` or the model's own index, checked against the model."""
    path = path or loaded.class_index_path()
    index = load_beatmap_idx(path)
    classes = loaded.model.config.num_classes
    if index and max(index.values()) >= classes:
        raise ValueError(
            f"{path} has class {max(index.values())}, the checkpoint only {classes} classes: "
            "give the model's own index with --beatmap-idx"
        )
    return index


def class_of_id(text: str, index: dict[int, int], flag: str = "--style-id") -> int:
    """The class of a beatmap ID; a ValueError names `flag` and the nearest IDs."""
    try:
        wanted = int(text)
    except ValueError:
        raise ValueError(f"{flag} {text!r}: give beatmap IDs, which are numbers") from None
    if wanted not in index:
        near = sorted(index, key=lambda known: abs(known - wanted))[:3]
        raise ValueError(
            f"{flag} {wanted} is not among the model's {len(index)} styles; "
            f"the nearest IDs are {', '.join(map(str, near))}"
        )
    return index[wanted]


def class_table_path(loaded: LoadedModel) -> Path:
    """The class table that was written with this model: beside it, or with its run's export."""
    path = loaded.path.resolve()
    candidates = [path.with_name(f"{path.stem}.classes.csv")]
    if path.parent.name == "checkpoints":
        candidates.append(path.parent.parent / "model.classes.csv")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ValueError(
        f"there is no class table {candidates[0].name} with {loaded.path}: mappers' names are "
        "in it; use --style-id or --style-beatmap"
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
    """The classes of a mapper's maps, whatever the case; a ValueError names the nearest names."""
    wanted = name.casefold()
    found = [entry.index for entry in table if entry.creator.casefold() == wanted]
    if not found:
        names = {entry.creator.casefold(): entry.creator for entry in table}
        near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.0)
        raise ValueError(
            f"--style-mapper {name!r} is not among the model's {len(names)} mappers; "
            f"the nearest names are {', '.join(names[key] for key in near)}"
        )
    return found


# --- from a request to an embedding ---------------------------------------------------------------


def resolve(
    loaded: LoadedModel,
    request: Request,
    *,
    index_path: Path | None = None,
    cache: Path | None = None,
    progress: Progress = _no_progress,
) -> Tensor | None:
    """The embedding (D,) of a request: the weighted mean of its styles; None for no style.

    Embeddings of files are learnt, and kept in the folder `cache` if one is given.
    """
    if not request:
        return None
    table = embeddings_of(loaded)
    parts: list[tuple[Tensor, float]] = []
    if request.ids:
        index = read_index(loaded, index_path)
        for text in request.ids:
            for name, weight in weighted_parts("--style-id", text, ", "):
                parts.append((table[class_of_id(name, index)], weight))
    if request.mappers:
        entries = read_class_table(loaded)
        for text in request.mappers:
            for name, weight in weighted_parts("--style-mapper", text, ","):
                parts.append((table[classes_of_mapper(name, entries)].mean(dim=0), weight))
    if request.files:
        parts.append((style_of_files(loaded, request.files, cache, progress), 1.0))
    total = sum(weight for _, weight in parts)
    return torch.stack([embedding * (weight / total) for embedding, weight in parts]).sum(dim=0)


def style_of_files(
    loaded: LoadedModel,
    paths: tuple[Path, ...],
    cache: Path | None,
    progress: Progress = _no_progress,
) -> Tensor:
    """The embedding (D,) learnt from these beatmaps together, or found in the folder `cache`.

    It is kept by the hashes of the maps, of the checkpoint and of how it was learnt.
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
    """The embedding of a cache file; None for a damaged one, which is learnt and written anew."""
    try:
        embedding = safetensors.torch.load_file(path).get("embedding")
    except (safetensors.SafetensorError, OSError):
        return None
    width = loaded.model.config.width
    if embedding is None or embedding.shape != (width,) or not embedding.isfinite().all():
        return None
    return embedding.float()


# --- learning -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Windows:
    """A batch of windows of data points: what `Learner.loss` needs of them.

    times (N, T) float64 ms, xy (N, T, 2) px, distances (N, T) px, types (N, T), valid (N, T).
    """

    times: Tensor
    xy: Tensor
    distances: Tensor
    types: Tensor
    valid: Tensor


def draw_windows(
    sequences: list[Sequence], n: int, length: int, rng: np.random.Generator
) -> Windows:
    """n windows of `length` data points, mirrored as in training, every point equally often.

    A map that is shorter is padded. Points absurdly far off the playfield are not learnt from.
    """
    counts = np.array([len(sequence) for sequence in sequences])
    rows = rng.choice(len(sequences), n, p=counts / counts.sum())
    times, types = np.zeros((n, length)), np.zeros((n, length), np.uint8)
    distances, xy = np.zeros((n, length)), np.zeros((n, length, 2))
    valid = np.zeros((n, length), dtype=bool)
    for i, row in enumerate(rows):
        sequence = sequences[row]
        start = int(rng.integers(0, max(len(sequence) - length, 0) + 1))
        part = slice(start, start + length)
        count = len(sequence.times[part])
        times[i, :count] = sequence.times[part] - sequence.times[start]
        times[i, count:] = times[i, count - 1]
        types[i, :count] = sequence.types[part]
        distances[i, :count] = sequence.distances()[part]
        sign = 1.0 - 2.0 * rng.integers(0, 2, 2)
        xy[i, :count] = (sequence.xy[part] - PLAYFIELD_CENTRE) * sign + PLAYFIELD_CENTRE
        valid[i, :count] = True
    low, high = -MARGIN_PX, np.array([512.0, 384.0]) + MARGIN_PX
    valid &= ((xy >= low) & (xy <= high)).all(axis=-1)
    return Windows(
        torch.from_numpy(times),
        torch.from_numpy(np.clip(xy, low, high)).float(),
        torch.from_numpy(distances).float(),
        torch.from_numpy(types),
        torch.from_numpy(valid),
    )


class Learner:
    """The loss of embeddings on windows of maps, with the windows and their noise drawn first."""

    def __init__(self, loaded: LoadedModel, sequences: list[Sequence], learning: Learning) -> None:
        self.loaded, self.sequences, self.learning = loaded, sequences, learning
        self.rng = np.random.default_rng(learning.seed)
        self.generator = torch.Generator().manual_seed(learning.seed)
        # Twice the half window of sampling is what the models here were trained with.
        self.length = 2 * loaded.model.config.half_window

    def draw(self, n: int) -> tuple[Windows, Tensor, Tensor]:
        """n windows, their noise levels (n,) and unit noise (n, T, 2)."""
        windows = draw_windows(self.sequences, n, self.length, self.rng)
        levels = self.loaded.parametrisation.draw_levels(n, self.generator)
        return windows, levels, torch.randn(n, self.length, 2, generator=self.generator)

    def loss(self, embedding: Tensor, drawn: tuple[Windows, Tensor, Tensor]) -> Tensor:
        """The training loss of windows in the style `embedding` (D,)."""
        windows, levels, eps = drawn
        model, parametrisation = self.loaded.model, self.loaded.parametrisation
        device = embedding.device
        valid = windows.valid.to(device)
        context = make_context(
            model.config,
            windows.times,
            windows.distances.to(device),
            windows.types.to(device),
            embedding.expand(len(levels), -1),
            valid,
        )
        return parametrisation.loss(
            lambda x, labels: model(x, labels, context, self.length).float(),
            parametrisation.from_pixels(windows.xy.to(device)),
            levels,
            eps.to(device),
            valid,
        ).mean()


def learn_embedding(
    loaded: LoadedModel,
    sequences: list[Sequence],
    learning: Learning,
    progress: Progress = _no_progress,
) -> Tensor:
    """One class embedding (D,) with which the frozen model fits the maps `sequences` best.

    Starts at the mean of the classes that fit them best, takes `learning.steps` of AdamW with a
    cosine decay and returns the average of the second half of them.
    """
    progress(0, learning.steps)
    learner = Learner(loaded, sequences, learning)
    embedding = nearest_classes_mean(learner).clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([embedding], lr=learning.lr, betas=(0.9, 0.99), weight_decay=0.0)
    average, averaged = torch.zeros_like(embedding), 0
    for step in range(learning.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning.lr * (1 + math.cos(math.pi * step / learning.steps)) / 2
        optimizer.zero_grad()
        learner.loss(embedding, learner.draw(learning.windows)).backward()
        optimizer.step()
        if step >= learning.steps // 2:
            average, averaged = average + embedding.detach(), averaged + 1
        progress(step + 1, learning.steps)
    return average / averaged if averaged else embedding.detach()


def nearest_classes_mean(learner: Learner) -> Tensor:
    """The mean of the classes with the least loss on the maps, the null class included.

    The loss of every class would take minutes; its slope at the null class says which few to try.
    """
    table, learning = embeddings_of(learner.loaded), learner.learning
    null = table[-1].clone().requires_grad_(True)
    drawn = learner.draw(2 * learning.windows)
    (slope,) = torch.autograd.grad(learner.loss(null, drawn), null)
    promising = ((table - table[-1]) @ slope).argsort()[: learning.candidates]
    drawn = learner.draw(learning.windows)
    with torch.no_grad():
        losses = torch.stack([learner.loss(table[i], drawn) for i in promising])
    best = promising[losses.argsort()[: learning.nearest]]
    return table[best].mean(dim=0)
