"""Measures what a model's class embeddings know: mapper, star rating, circle size, tags.

    python testing/create_beatmap_dataframe.py SONGS --output beatmaps.csv
    python testing/embedding_svm.py --dataframe beatmaps.csv --output knowledge.json

A support vector machine predicts each from the embedding, cross-validated with whole beatmapsets,
and all sets of a song, held out together. Beside its score (mean and deviation over folds) stand
that of a constant guess and chance: the same on labels moved between songs, mean and deviation
over the permutations. p is the share of permutations that score as high, the labels' own counted.

Scores: mean recall of the mappers, area under the ROC curve for a tag, R^2 for numbers.
"""

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from class_embeddings import Classes, add_flags, classes_from, mappers

from conventions import command_line
from conventions.arrays import FloatArray
from conventions.errors import naming
from conventions.whole_files import replacing
from data_loading import set_keys

NUMBERS = (
    *("star_rating", "circle_size", "approach_rate", "overall_difficulty", "bpm", "length_s"),
    *("spacing_median", "velocity_median", "beatmap_id"),
)
"""Columns; a beatmap's ID grows with time."""
METRICS = {
    "mapper": ("recall", "balanced_accuracy"),
    "tag": ("AUC", "roc_auc"),
    "number": ("R^2", "r2"),
}
"""What the scores are called, and scikit-learn's names."""
MIN_MAPS = 30  # with a known value, for a number to be asked for


@dataclass(frozen=True)
class Question:
    """What is asked of the embeddings: labels (n,) of some classes, `rows` (n,), of one kind."""

    name: str
    kind: str  # "mapper", "tag" or "number"
    rows: NDArray[np.intp]
    labels: NDArray[Any]


@dataclass(frozen=True)
class Answer:
    """How well a question was answered, and how well by chance."""

    question: str
    metric: str
    maps: int
    songs: int
    labels: int
    score: float
    deviation: float
    constant: float
    chance: float
    chance_deviation: float
    p: float


# --- questions ------------------------------------------------------------------------------------


def questions(classes: Classes, min_songs: int, num_tags: int) -> Iterator[Question]:
    """All that the table has labels for, in enough songs."""
    table, songs = classes.table, songs_of(classes.table)
    yield from _mappers(table, songs, min_songs)
    for name in NUMBERS:
        values = pd.to_numeric(table[name], errors="coerce") if name in table else pd.Series()
        if name == "beatmap_id":
            values = values.where(values > 0)  # others were never submitted
        rows = np.flatnonzero(np.isfinite(values.to_numpy(dtype=np.float64)))
        if len(rows) >= MIN_MAPS and values.iloc[rows].nunique() > 1:
            yield Question(name, "number", rows, values.to_numpy(dtype=np.float64)[rows])
    if "tags" in table:
        yield from _tags(table["tags"], songs, min_songs, num_tags)


def songs_of(table: pd.DataFrame) -> NDArray[np.intp]:
    """(n,) number of every row's song: maps of one beatmapset, or of equal artist and title."""
    named = table["title"] != ""
    names = table["artist"].str.casefold() + " - " + table["title"].str.casefold()
    nothing = "class " + table["class_index"].astype(str)
    sets = pd.Series(set_keys(table), index=table.index)
    keys = [names.where(named, nothing), sets.where(named | (table["set_id"] > 0), nothing)]
    songs = pd.Series(np.arange(len(table)), index=table.index)
    while True:
        merged = songs
        for key in keys:
            merged = merged.groupby(key).transform("min")
        if merged.equals(songs):
            return songs.to_numpy()
        songs = merged


def _mappers(table: pd.DataFrame, songs: NDArray[np.intp], min_songs: int) -> Iterator[Question]:
    """Who made a map, of mappers of enough songs; difficulties by several mappers are left out."""
    single = np.array(mappers(table))
    found = Counter(name for name, _ in set(zip(single.tolist(), songs.tolist(), strict=True)))
    enough = [name for name, count in found.items() if name and count >= min_songs]
    rows = np.flatnonzero(np.isin(single, enough))
    if len(enough) > 1:
        yield Question(f"mapper (of {len(enough)})", "mapper", rows, single[rows])


def _tags(
    tags: pd.Series, songs: NDArray[np.intp], min_songs: int, count: int
) -> Iterator[Question]:
    """Whether a map has a tag, for the tags of most songs but not of nearly all."""
    rows = np.flatnonzero(tags.notna())
    words = [set(str(text).casefold().split()) for text in tags.iloc[rows]]
    pairs = zip(songs[rows].tolist(), words, strict=True)
    uses = Counter(tag for tag, _ in {(tag, song) for song, found in pairs for tag in found})
    limit = len(np.unique(songs[rows])) - min_songs
    common = sorted(uses.items(), key=lambda item: (-item[1], item[0]))
    for tag, _ in [item for item in common if min_songs <= item[1] <= limit][:count]:
        yield Question(f"tag {tag}", "tag", rows, np.array([tag in found for found in words]))


# --- answers --------------------------------------------------------------------------------------


def moved_between_songs(
    labels: NDArray[Any], songs: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[Any]:
    """Labels (n,) of other maps, those of a song still together.

    Maps of one song often have equal labels. Shuffled one by one they would make a chance that is
    too narrow.
    """
    keys = np.unique(songs)
    blocks = [labels[songs == key] for key in rng.permutation(keys)]
    order = np.argsort(songs, kind="stable")
    moved = np.empty_like(labels)
    moved[order] = np.concatenate(blocks)
    return moved


class Examiner:
    """Cross-validates support vector machines on the embeddings of classes."""

    def __init__(self, classes: Classes, folds: int, seed: int) -> None:
        self.vectors, self.folds, self.seed = classes.vectors, folds, seed
        self.songs = songs_of(classes.table)

    def scores(
        self, question: Question, labels: NDArray[Any], constant: bool = False
    ) -> FloatArray:
        """Scores of the folds (folds,), by a machine or by a `constant` guess."""
        from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, cross_val_score

        splitter = GroupKFold if question.kind == "number" else StratifiedGroupKFold
        with warnings.catch_warnings():
            # A mapper may be in a fold with all their songs: those are not asked for there.
            warnings.simplefilter("ignore", UserWarning)
            result: FloatArray = cross_val_score(
                _machine(question.kind, constant),
                self.vectors[question.rows],
                labels,
                groups=self.songs[question.rows],
                cv=splitter(self.folds, shuffle=True, random_state=self.seed),
                scoring=METRICS[question.kind][1],
            )
        return result[np.isfinite(result)]

    def answer(self, question: Question, permutations: int) -> Answer:
        """The score of a question against chance."""
        songs = self.songs[question.rows]
        found = self.scores(question, question.labels)
        rng = np.random.default_rng(self.seed)
        moved = (moved_between_songs(question.labels, songs, rng) for _ in range(permutations))
        chance = np.array([self.scores(question, labels).mean() for labels in moved])
        return Answer(
            question.name,
            METRICS[question.kind][0],
            len(question.rows),
            len(np.unique(songs)),
            len(np.unique(question.labels)),
            float(found.mean()),
            float(found.std()),
            float(self.scores(question, question.labels, constant=True).mean()),
            float(chance.mean()),
            float(chance.std()),
            float((1 + (chance >= found.mean()).sum()) / (1 + permutations)),
        )


def _machine(kind: str, constant: bool) -> Any:
    """What is fitted on standardised embeddings, and on standardised labels where they are numbers.

    (The machine's margin of 0.1 is in their units.)
    """
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, SVR

    if kind == "number":
        regressor = DummyRegressor() if constant else SVR()
        machine = TransformedTargetRegressor(regressor, transformer=StandardScaler())
    else:
        machine = DummyClassifier() if constant else SVC(class_weight="balanced")
    return make_pipeline(StandardScaler(), machine)


# --- the command line -----------------------------------------------------------------------------


def print_answers(answers: list[Answer]) -> None:
    """The table, a line a question."""
    rows = [
        {
            "question": answer.question,
            "metric": answer.metric,
            "maps": answer.maps,
            "songs": answer.songs,
            "score": f"{answer.score:.3f} +- {answer.deviation:.3f}",
            "constant": f"{answer.constant:.3f}",
            "chance": f"{answer.chance:.3f} +- {answer.chance_deviation:.3f}",
            "p": f"{answer.p:.3f}",
        }
        for answer in answers
    ]
    print(pd.DataFrame(rows).to_string(index=False))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=command_line.HelpFormatter
    )
    add = parser.add_argument
    add("--min-songs", type=int, default=5, help="songs that a mapper or a tag is in")
    add("--tags", type=int, default=15, help="tags, those of most songs")
    add("--folds", type=int, default=5)
    add("--permutations", type=int, default=20, help="of labels, for chance")
    add("--seed", type=int, default=0)
    add("--output", type=Path, help="JSON file for the table")
    add("--overwrite", action=command_line.BooleanFlag, default=False, help="replace --output")
    add_flags(parser)
    return parser.parse_args()


@naming(command_line.flag_names())
def main() -> int:
    args = parse_args()
    if find_spec("sklearn") is None:
        raise ValueError("scikit-learn is not installed: pip install scikit-learn")
    if not 2 <= args.folds <= args.min_songs:
        raise ValueError(f"--folds {args.folds}: give 2 to --min-songs {args.min_songs}")
    if args.permutations < 1:
        raise ValueError(f"--permutations {args.permutations}: give a number above 0")
    if args.output is not None:
        command_line.claim_output(args.output, args.overwrite)
    loaded, classes = classes_from(args)
    examiner = Examiner(classes, args.folds, args.seed)
    asked = list(questions(classes, args.min_songs, args.tags))
    if not asked:
        raise ValueError(
            f"nothing is known of the {len(classes)} classes in {args.min_songs} songs: "
            "give a --dataframe, or a smaller --min-songs"
        )
    bar = tqdm(asked, desc="examining", unit="question", file=sys.stderr)
    answers = [examiner.answer(question, args.permutations) for question in bar]
    print_answers(answers)
    if args.output is not None:
        report = {"checkpoint": loaded.sha256, "answers": [asdict(a) for a in answers]}
        with replacing(args.output) as temporary:
            temporary.write_text(json.dumps(report, indent=1), encoding="utf-8")
        print(f"wrote {args.output}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
