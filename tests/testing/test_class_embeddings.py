"""Nearest and most unique classes, and what embeddings know, on models with planted embeddings."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import embedding_svm
import find_similar_beatmaps
import find_unique_beatmaps
import numpy as np
import pandas as pd
import pytest
import tables
import torch
from class_embeddings import (
    Classes,
    class_table,
    cosine_distances,
    joined,
    names,
    nearest_neighbours,
)
from embedding_svm import Examiner, moved_between_songs, questions, songs_of

from checkpoint import export_weights, load_model, write_class_table
from datasets.class_tables import save_beatmap_idx
from diffusion.parametrisation import EDM
from models import DiT_models
from sampling import style
from tests.conftest import beatmap_text, call_main, random_objects, read_json, run_command

CLASSES, WIDTH = 12, 64
needs_sklearn = pytest.mark.skipif(not find_spec("sklearn"), reason="scikit-learn is not installed")


def row(k: int) -> dict[str, object]:
    """Class k: ID 100 + k, two of them a set, three a mapper's."""
    return {
        **{"class_index": k, "md5": f"{k:032x}", "beatmap_id": 100 + k, "set_id": 10 + k // 2},
        **{"artist": "Artist", "title": f"Song {k // 2}", "creator": f"Mapper {k // 3}"},
        **{"version": f"Hard {k}", "circle_size": 4.0, "star_rating": 1.0 + k / 4},
    }


def export(folder: Path, vectors: np.ndarray) -> Path:
    """An untrained model with these class embeddings (n, WIDTH), its class table and index."""
    torch.manual_seed(0)
    model = DiT_models["DiT-nano"](num_classes=len(vectors), half_window=8)
    state = model.state_dict()
    state["y_embedder.embedding_table.weight"][:-1] = torch.from_numpy(vectors)
    path = folder / "model.safetensors"
    export_weights(path, state, model.config, EDM(), {}, torch.float32)
    write_class_table(folder / "model.classes.csv", [row(k) for k in range(len(vectors))])
    return path


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes 0 to 3 are near each other, so are 4 to 10; 11 is opposite to the latter."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(2, WIDTH))
    vectors = base[[0] * 4 + [1] * 7] + 0.1 * rng.normal(size=(11, WIDTH))
    vectors *= rng.uniform(0.5, 2.0, (11, 1))  # a cosine does not see lengths
    vectors = np.concatenate([vectors, -base[1:]])
    return export(tmp_path_factory.mktemp("planted"), vectors)


def test_distances_against_the_formula() -> None:
    vectors = np.random.default_rng(1).normal(size=(1500, 5))  # more than one chunk
    vectors[7] = 0
    lengths = np.linalg.norm(vectors, axis=1)
    safe = np.where(lengths == 0, 1, lengths)
    expected = 1 - (vectors @ vectors.T) / np.outer(safe, safe)
    np.testing.assert_allclose(cosine_distances(vectors, vectors[3]), expected[3], atol=1e-12)
    np.fill_diagonal(expected, np.inf)
    distances, rows = nearest_neighbours(vectors, 3)
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :3], atol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(expected, rows, 1), distances, atol=1e-12)


def test_planted_clusters_are_found_as_nearest(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "similar.csv"
    flags = ("--ckpt", planted, "--top", 3)
    wanted = ("--beatmap-id", 101, "--output", output)
    assert call_main(find_similar_beatmaps.main, *wanted, *flags) == 0
    table = tables.read_table(output)
    assert set(table["beatmap_id"]) == {100, 102, 103}
    assert (table["distance"] < 0.1).all() and table["distance"].is_monotonic_increasing
    text = capsys.readouterr().out
    assert "nearest to Artist - Song 0 [Hard 1] (Mapper 0) of 11 maps" in text
    assert call_main(find_similar_beatmaps.main, "--beatmap-id", 101, "--other-sets", *flags) == 0
    text = capsys.readouterr().out
    assert "of 10 maps" in text and "Song 0 [Hard 0]" not in text
    assert run_command(find_similar_beatmaps.main, "--beatmap-id", 1, *flags) == 2
    assert "error: --beatmap-id 1 is not among" in capsys.readouterr().err
    assert run_command(find_similar_beatmaps.main, *wanted, *flags) == 2
    assert "add --overwrite" in capsys.readouterr().err


def test_a_files_style_is_learnt_once(
    planted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As by sample.py, with its cache: what lies there is what the neighbours are those of."""
    quick = style.Learning(steps=2, windows=2, candidates=2, nearest=1)
    monkeypatch.setattr(style, "Learning", lambda: quick)
    torch.set_num_threads(1)
    path, cache = tmp_path / "map.osu", tmp_path / "cache"
    path.write_text(beatmap_text(random_objects(1, 30)), encoding="utf-8")
    flags = ("--beatmap", path, "--ckpt", planted, "--cache", cache, "--top", 2)
    assert call_main(find_similar_beatmaps.main, *flags) == 0
    first = capsys.readouterr().out
    assert "nearest to map.osu of 12 maps" in first
    assert len(list(cache.glob("style-*.safetensors"))) == 1

    def not_again(*arguments: object) -> None:
        raise AssertionError("learnt again")

    monkeypatch.setattr(style, "learn_embedding", not_again)
    assert call_main(find_similar_beatmaps.main, *flags) == 0
    assert capsys.readouterr().out == first
    assert run_command(find_similar_beatmaps.main, *flags, "--other-sets") == 2


def test_the_odd_one_is_the_most_unique(planted: Path, tmp_path: Path) -> None:
    output = tmp_path / "unique.csv"
    flags = ("--ckpt", planted, "--neighbours", 3, "--top", 1, "--output", output)
    assert call_main(find_unique_beatmaps.main, *flags) == 0
    table = tables.read_table(output)
    assert table["beatmap_id"][0] == 111 and len(table) == CLASSES
    assert table["distance"][0] > 0.5 and table["distance"][1] < 0.1
    assert table["nearest"][0].startswith("Artist - Song 0") or table["nearest_distance"][0] > 0.5
    assert run_command(find_unique_beatmaps.main, "--ckpt", planted, "--neighbours", 12) == 2
    assert run_command(find_unique_beatmaps.main, "--ckpt", planted, "--top", -3) == 2


def test_a_model_with_an_index_alone(planted: Path, tmp_path: Path) -> None:
    """Then only IDs are known, and a data frame adds the rest, by ID."""
    path = shutil.copy(planted, tmp_path / "other.safetensors")
    loaded = load_model(path)
    with pytest.raises(ValueError, match="beatmap idx"):
        class_table(loaded)
    save_beatmap_idx(tmp_path / "beatmap_idx.pickle", {105: 5, 104: 4})
    table = class_table(loaded)
    assert table["class_index"].tolist() == [4, 5] and names(table)[0] == "beatmap 104"
    more = pd.DataFrame([row(5) | {"md5": "other", "class_index": 99, "bpm": 180.0}])
    table = joined(table, more, Path("more.csv"))
    assert names(table) == ["beatmap 104", "Artist - Song 2 [Hard 5] (Mapper 1)"]
    assert table["class_index"].tolist() == [4, 5]
    np.testing.assert_array_equal(table["bpm"], [np.nan, 180.0])
    with pytest.raises(ValueError, match="none of the model's 2 beatmaps"):
        joined(table, more.assign(beatmap_id=7, md5="x"), Path("more.csv"))
    with pytest.raises(ValueError, match="no column md5"):
        joined(table, more.drop(columns="md5"), Path("more.csv"))


# --- what embeddings know -------------------------------------------------------------------------


def known_classes(seed: int) -> Classes:
    """120 maps of 40 songs by 4 mappers, whose embeddings say the mapper and the stars."""
    rng = np.random.default_rng(seed)
    song = np.repeat(np.arange(40), 3)
    mapper, stars = song % 4, rng.uniform(1, 8, 120)
    vectors = rng.normal(size=(120, 8))
    vectors[:, :4] += 3 * np.eye(4)[mapper]
    vectors[:, 4] = stars + 0.1 * rng.normal(size=120)
    table = pd.DataFrame(
        {
            "class_index": np.arange(120),
            "set_id": 1 + song,
            "artist": "Artist",
            "title": [f"Song {k}" for k in song],
            "creator": [f"Mapper {k}" for k in mapper],
            "version": "Hard",
            "star_rating": stars,
            "bpm": rng.uniform(100, 200, 120),
            "tags": [f"all {'even' if k % 2 == 0 else 'odd'}" for k in song],
        }
    )
    return Classes(table, vectors)


@needs_sklearn
def test_planted_knowledge_is_found_and_the_rest_is_not() -> None:
    classes = known_classes(0)
    examiner = Examiner(classes, 4, 0)
    found = {q.name: examiner.answer(q, 5) for q in questions(classes, 5, 10)}
    assert list(found) == ["mapper (of 4)", "star_rating", "bpm", "tag even", "tag odd"]
    mapper, stars, bpm = found["mapper (of 4)"], found["star_rating"], found["bpm"]
    assert mapper.score > 0.9 and mapper.constant == 0.25 and abs(mapper.chance - 0.25) < 0.15
    assert (mapper.maps, mapper.songs, mapper.labels, mapper.p) == (120, 40, 4, 1 / 6)
    assert stars.score > 0.8 and stars.chance < 0.1 and stars.constant <= 0
    assert bpm.score < 0.1 and bpm.p > 1 / 6
    assert found["tag even"].score > 0.95 and abs(found["tag even"].chance - 0.5) < 0.15


@needs_sklearn
def test_embeddings_that_know_only_the_song_know_no_mapper() -> None:
    """No song leaks: its maps are all on one side, though they are almost the same."""
    rng = np.random.default_rng(2)
    classes = known_classes(2)
    songs = np.repeat(rng.normal(size=(40, 8)), 3, axis=0)
    examiner = Examiner(Classes(classes.table, songs), 4, 0)
    mapper = examiner.answer(next(questions(classes, 5, 0)), 5)
    assert mapper.score < 0.45 and mapper.p > 1 / 6


def test_ids_are_asked_for_where_there_is_one() -> None:
    classes = known_classes(0)
    classes.table["beatmap_id"] = np.where(np.arange(120) < 40, -1, np.arange(120))
    (asked,) = [q for q in questions(classes, 5, 0) if q.name == "beatmap_id"]
    assert asked.rows.tolist() == list(range(40, 120)) == asked.labels.tolist()


def test_songs_are_joined_by_set_and_by_title() -> None:
    table = pd.DataFrame(
        {
            "class_index": range(6),
            "set_id": [1, 1, 2, -1, -1, -1],
            "artist": ["a", "a", "A", "a", "", ""],
            "title": ["x", "y", "X", "z", "", ""],
            "creator": ["m", "m", "n", "m", "", ""],
        }
    )
    # x and y are one set, and X is x; of the last two nothing is known.
    assert songs_of(table).tolist() == [0, 0, 0, 3, 4, 5]


def test_moved_labels_stay_together() -> None:
    songs = np.array([2, 0, 0, 1, 2, 1, 3, 3])
    moved = moved_between_songs(songs, songs, np.random.default_rng(0))
    assert sorted(moved) == sorted(songs) and (moved != songs).any()
    assert all(len(set(moved[songs == song])) == 1 for song in range(4))


@needs_sklearn
def test_the_report_of_the_examination(planted: Path, tmp_path: Path) -> None:
    """Through the command line, where the class table and a data frame know little."""
    output = tmp_path / "a.json"
    frame = tmp_path / "frame.csv"
    rows = [row(k) | {"tags": "x" if k % 4 < 2 else "y"} for k in range(CLASSES)]
    pd.DataFrame(rows).to_csv(frame, index=False)
    flags = ("--ckpt", planted, "--min-songs", 2, "--folds", 2, "--permutations", 1)
    assert call_main(embedding_svm.main, *flags, "--dataframe", frame, "--output", output) == 0
    answers = read_json(output)["answers"]
    assert [a["question"] for a in answers] == ["mapper (of 4)", "tag x", "tag y"]
    assert run_command(embedding_svm.main, *flags, "--output", output) == 2
    assert run_command(embedding_svm.main, "--ckpt", planted) == 2  # too few songs
    assert run_command(embedding_svm.main, *flags, "--folds", 3) == 2
