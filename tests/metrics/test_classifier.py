"""The classifier cannot tell maps from like maps, and can tell them from spoilt ones."""

import numpy as np
import pandas as pd
import pytest

from beatmaps.osu_file import Beatmap, parse_beatmap, read_beatmap
from beatmaps.sequence import apply_coordinates, beatmap_to_sequence
from metrics.classifier import (
    COLUMNS,
    MIN_WINDOW,
    RULED,
    WINDOW,
    available,
    classify,
    describe_windows,
)
from metrics.objects import FEATURES
from metrics.realism import object_features
from tests.conftest import beatmap_text, needs_maps, real_paths

pytestmark = pytest.mark.skipif(not available(), reason="scikit-learn is not installed")

SETS, MAPS_PER_SET = 6, 2


def arcs(seed: int) -> Beatmap:
    """A map of 160 circles that run round circles of ever other centres and sizes."""
    rng = np.random.default_rng(seed)
    lines, angle = [], 0.0
    for k in range(160):
        if k % 16 == 0:
            centre, radius = rng.uniform((150, 150), (362, 234)), rng.uniform(60, 120)
        angle += 0.5
        x, y = np.rint(centre + radius * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        lines.append(f"{x},{y},{1000 + 250 * k},1,0")
    return parse_beatmap(beatmap_text("\n".join(lines)).encode(), f"arcs {seed}")


def spoilt(beatmap: Beatmap, jitter: float, rng: np.random.Generator) -> pd.DataFrame:
    """Features of a map whose points have been moved by a random step each."""
    sequence = beatmap_to_sequence(beatmap)
    moved = sequence.xy + jitter * rng.normal(size=sequence.xy.shape)
    after = parse_beatmap(apply_coordinates(sequence, moved), beatmap.name)
    return object_features(beatmap_to_sequence(after))


def features_of(beatmap: Beatmap) -> pd.DataFrame:
    return object_features(beatmap_to_sequence(beatmap))


@pytest.fixture(scope="module")
def maps() -> list[Beatmap]:
    return [arcs(seed) for seed in range(SETS * MAPS_PER_SET)]


@pytest.fixture(scope="module")
def sets() -> list[str]:
    return [str(k // MAPS_PER_SET) for k in range(SETS * MAPS_PER_SET)]


def test_what_rules_act_on_are_features() -> None:
    """A misspelt name would leave a feature in sight."""
    assert set(RULED) <= set(FEATURES) and len(set(RULED)) == len(RULED)


def test_like_maps_cannot_be_told_apart(maps: list[Beatmap], sets: list[str]) -> None:
    others = [features_of(arcs(100 + k)) for k in range(len(maps))]
    verdict = classify([features_of(m) for m in maps], others, sets)
    assert verdict is not None and verdict.windows == 2 * len(maps) * 160 // WINDOW
    assert verdict.auc == pytest.approx(0.5, abs=0.15)
    assert max(verdict.importance.values()) < 0.2


def test_jittered_maps_are_found_out_by_how_they_turn(maps: list[Beatmap], sets: list[str]) -> None:
    rng = np.random.default_rng(0)
    others = [spoilt(m, 15, rng) for m in maps]
    real = [features_of(m) for m in maps]
    verdict = classify(real, others, sets)
    assert verdict is not None
    assert verdict.auc > 0.95 and verdict.map_auc == 1
    assert verdict == classify(real, others, sets)  # the same seed, the same verdict


def test_the_feature_that_differs_is_the_most_telling(maps: list[Beatmap], sets: list[str]) -> None:
    """Only places differ: everything else of the other maps is that of like ones."""
    real = [features_of(m) for m in maps]
    others = [features_of(arcs(100 + k)) for k in range(len(maps))]
    for features in others:
        features["x"] += 200
    verdict = classify(real, others, sets)
    assert verdict is not None
    assert verdict.auc > 0.9
    assert next(iter(verdict.importance)) == "x" and verdict.importance["x"] > 0.3


def test_knowing_the_beatmapset_does_not_help(maps: list[Beatmap], sets: list[str]) -> None:
    """All maps of a set lie elsewhere than those of other sets; labels follow nothing else."""
    rng = np.random.default_rng(4)
    real, other = ([features_of(m).copy() for m in maps] for _ in range(2))
    for k, name in enumerate(sets):
        shift = 10 * int(name)
        for features in (real[k], other[k]):
            features["x"] = shift + rng.normal(size=len(features))
    verdict = classify(real, other, sets)
    assert verdict is not None and verdict.auc == pytest.approx(0.5, abs=0.15)


def test_one_beatmapset_cannot_be_cross_validated(maps: list[Beatmap]) -> None:
    features = [features_of(m) for m in maps[:2]]
    assert classify(features, features, ["1", "1"]) is None
    short = [features[0], features[1][: MIN_WINDOW - 1]]  # without a window
    assert classify(short, short, ["1", "2"]) is None


def test_windows_of_a_map_and_their_statistics() -> None:
    count = 2 * WINDOW + MIN_WINDOW
    table = pd.DataFrame({name: np.full(count, np.nan) for name in COLUMNS})
    table["x"] = np.arange(count, dtype=float)
    table.loc[:15, "y"] = 7.0
    rows = describe_windows(table).reshape(3, len(COLUMNS), 6)
    x, y = COLUMNS.index("x"), COLUMNS.index("y")
    first = np.arange(WINDOW)
    expected = [1, first.mean(), first.std(), *np.quantile(first, [0.1, 0.5, 0.9])]
    np.testing.assert_allclose(rows[0, x], expected)
    np.testing.assert_allclose(rows[2, x, 1], np.arange(2 * WINDOW, count).mean())
    np.testing.assert_allclose(rows[0, y], [0.5, 7, 0, 7, 7, 7])
    np.testing.assert_array_equal(rows[1, y], [0, *[np.nan] * 5])
    assert len(describe_windows(table[: MIN_WINDOW - 1])) == 0


@needs_maps
def test_real_maps_against_real_and_spoilt_ones() -> None:
    """Halves of maps labelled at random: chance, on average. Jittered, or in reverse: not."""
    maps = [read_beatmap(path) for path in real_paths("val")[::8]]
    sets = [str(m.set_id) for m in maps]
    real = [features_of(m)[:320] for m in maps]
    rng = np.random.default_rng(0)
    like = []
    for _ in range(3):
        parts = [[f[: len(f) // 2], f[len(f) // 2 :]] for f in real]
        pairs = [part[:: rng.choice((-1, 1))] for part in parts]
        like.append(auc([a for a, _ in pairs], [b for _, b in pairs], sets))
    assert np.mean(like) == pytest.approx(0.5, abs=0.1)
    assert auc(real, [spoilt(m, 20, rng)[:320] for m in maps], sets) > 0.9
    assert auc(real, [reversed_places(m)[:320] for m in maps], sets) > 0.8


def auc(real: list[pd.DataFrame], other: list[pd.DataFrame], sets: list[str]) -> float:
    """AUC over windows."""
    verdict = classify(real, other, sets)
    assert verdict is not None
    return verdict.auc


def reversed_places(beatmap: Beatmap) -> pd.DataFrame:
    """Features of the map whose objects go through their places from the last to the first."""
    sequence = beatmap_to_sequence(beatmap)
    heads = sequence.xy[np.flatnonzero(sequence.object_starts)]
    moved = sequence.xy + (heads[::-1] - heads)[sequence.objects]
    after = parse_beatmap(apply_coordinates(sequence, moved), beatmap.name)
    return object_features(beatmap_to_sequence(after))
