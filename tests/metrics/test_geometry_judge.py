"""The judge of geometry finds what is planted, and nothing where there is nothing to find."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from beatmaps.osu_file import parse_beatmap, read_beatmap
from beatmaps.sequence import apply_coordinates, beatmap_to_sequence
from metrics import geometry_judge
from metrics.classifier import area_under_roc, available, split_sets
from metrics.geometry_judge import (
    LEAD,
    RADIUS,
    Geometry,
    Network,
    describe_objects,
    describe_pairs,
    judge_geometry,
    read_geometry,
)
from tests.conftest import beatmap_text, needs_maps, random_objects, real_paths

SETS, MAPS_PER_SET, OBJECTS = 2, 6, 128
NAMES = [str(k // MAPS_PER_SET) for k in range(SETS * MAPS_PER_SET)]


def arcs(seed: int) -> Geometry:
    """A map of circles that run round circles of ever other centres and sizes, half a beat apart.

    Of the playfield's symmetries the map has all: it runs either way round, anywhere.
    """
    rng = np.random.default_rng(seed)
    heads, angle = np.empty((OBJECTS, 2)), 0.0
    for k in range(OBJECTS):
        if k % 16 == 0:
            centre, radius = rng.uniform((150, 150), (362, 234)), rng.uniform(70, 120)
            sense, angle = rng.choice((-1, 1)), rng.uniform(0, 6.28)
        angle += 0.7 * sense
        heads[k] = centre + radius * np.array([np.cos(angle), np.sin(angle)])
    rhythm = np.tile([0.25, 0, 1, 0, 0, 0, 36 / 128, 1.2], (OBJECTS, 1))
    return Geometry(np.rint(np.repeat(heads[:, None], 3, axis=1)), rhythm)


def moved(geometry: Geometry, by: np.ndarray) -> Geometry:
    """Objects moved as a whole by (M, 2) px."""
    return replace(geometry, points=np.rint(geometry.points + by[:, None]))


def overlapping(geometry: Geometry) -> Geometry:
    """Every eighth object goes to 20 px from the fourth before it: they overlap."""
    by = np.zeros((len(geometry.points), 2))
    for k in range(8, len(by), 8):
        by[k] = geometry.points[k - 4, 0] + (16, 12) - geometry.points[k, 0]
    return moved(geometry, by)


@pytest.fixture(scope="module")
def maps() -> list[Geometry]:
    return [arcs(seed) for seed in range(len(NAMES))]


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small made-up collections need more epochs than real ones, and small windows of time."""
    monkeypatch.setattr(geometry_judge, "EPOCHS", 25)
    torch.set_num_threads(1)


def test_identical_collections_cannot_be_told_apart(maps: list[Geometry]) -> None:
    verdict = judge_geometry(maps, maps, NAMES)
    assert verdict is not None
    assert verdict.auc == 0.5 and verdict.map_auc == 0.5  # scores are equal, ties are half
    assert verdict.windows == 2 * len(maps) * OBJECTS // 32


def test_collections_that_are_exchanged_at_random_cannot_be_told_apart(
    maps: list[Geometry],
) -> None:
    """Jittered maps would be found, but here as many of a fold are real as are other."""
    rng = np.random.default_rng(1)
    pairs = [(m, moved(m, rng.normal(0, 20, (OBJECTS, 2)))) for m in maps]
    real = [pair[k % 2] for k, pair in enumerate(pairs)]
    other = [pair[1 - k % 2] for k, pair in enumerate(pairs)]
    verdict = judge_geometry(real, other, NAMES)
    assert verdict is not None and verdict.auc == pytest.approx(0.5, abs=0.15)


def test_jitter_is_found(maps: list[Geometry]) -> None:
    rng = np.random.default_rng(2)
    others = [moved(m, rng.normal(0, 20, (OBJECTS, 2))) for m in maps]
    verdict = judge_geometry(maps, others, NAMES)
    assert verdict is not None and verdict.auc > 0.95 and verdict.map_auc == 1
    assert judge_geometry(maps, others, NAMES) == verdict  # the same seed, the same verdict


def test_shuffled_directions_are_found(maps: list[Geometry]) -> None:
    """Every other step goes the other way; all distances to the object before stay."""
    others = []
    for m in maps:
        steps = np.diff(m.points[:, 0], axis=0)
        steps *= np.random.default_rng(3).choice((-1, 1), len(steps))[:, None]
        places = m.points[0, 0] + np.concatenate([np.zeros((1, 2)), steps.cumsum(0)])
        others.append(moved(m, places - m.points[:, 0]))
    verdict = judge_geometry(maps, others, NAMES)
    assert verdict is not None and verdict.auc > 0.95


def apart(rng: np.random.Generator) -> Geometry:
    """A map of places at random, each at least 90 px from the five before it."""
    heads: list[np.ndarray] = []
    while len(heads) < OBJECTS:
        place = rng.uniform((0, 0), (512, 384))
        if all(np.hypot(*(place - earlier)) >= 90 for earlier in heads[-5:]):
            heads.append(np.rint(place))
    return Geometry(np.repeat(np.array(heads)[:, None], 3, axis=1), arcs(0).rhythm)


def test_planted_overlap_is_found() -> None:
    """Nothing else differs: both are places at random."""
    rng = np.random.default_rng(5)
    maps = [apart(rng) for _ in NAMES]
    verdict = judge_geometry(maps, [overlapping(m) for m in maps], NAMES)
    assert verdict is not None and verdict.auc > 0.9


def test_the_rhythm_must_be_the_same(maps: list[Geometry]) -> None:
    """So that nothing but places can tell."""
    slower = replace(maps[0], rhythm=maps[0].rhythm * [2, 1, 1, 1, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="the same rhythm"):
        judge_geometry(maps, [slower, *maps[1:]], NAMES)


def test_one_beatmapset_cannot_be_cross_validated(maps: list[Geometry]) -> None:
    assert judge_geometry(maps, maps, ["1"] * len(maps)) is None
    short = Geometry(maps[0].points[:15], maps[0].rhythm[:15])  # without a window
    assert judge_geometry([maps[0], short], [maps[0], short], ["1", "2"]) is None


def test_whole_pixels_and_beats_are_all_that_is_seen() -> None:
    """A circle, a slider of two slides, a spinner: 500 ms a beat, CS 4, AR 7 like the OD."""
    lines = (
        "100,100,1000,5,0,0:0:0:0:\n"
        "200,100,1500,2,0,L|300:100,2,100,0|0|0,0:0|0:0|0:0,0:0:0:0:\n"
        "0,0,4000,12,0,5000,0:0:0:0:"
    )
    beatmap = parse_beatmap(beatmap_text(lines).encode(), "a")
    sequence = beatmap_to_sequence(beatmap)
    seen = read_geometry(sequence)
    slider = [[200, 100], [250, 100], [300, 100]]
    np.testing.assert_array_equal(seen.points, [[[100, 100]] * 3, slider, [[256, 192]] * 3])
    duration = beatmap.objects[1].end_time - 1500
    assert duration > 0
    np.testing.assert_allclose(seen.rhythm[:, 0] * 2, [0, 1, (2500 - duration) / 500])
    np.testing.assert_allclose(seen.rhythm[:, 1] * 2, [0, duration / 500, 2])
    np.testing.assert_array_equal(seen.rhythm[:, 2:6], [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]])
    np.testing.assert_allclose(seen.rhythm[:, RADIUS] * 128, 54.4 - 4.48 * 4)
    np.testing.assert_allclose(seen.rhythm[:, LEAD] * 2 * 500, 1200 - 150 * 2)
    sequence.xy[:] += 0.3  # as files from version 128 on may have them
    np.testing.assert_array_equal(read_geometry(sequence).points, seen.points)


def test_the_network_sees_no_padding_and_nothing_of_other_windows() -> None:
    generator = torch.Generator().manual_seed(0)
    points = 400 * torch.rand(2, 32, 3, 2, generator=generator)
    rhythm = torch.rand(2, 32, 8, generator=generator)
    network = Network().eval()
    known = torch.arange(32)[None].expand(2, -1) < torch.tensor([[20], [32]])
    whole = network(points, rhythm, known)
    torch.testing.assert_close(network(points[1:], rhythm[1:], known[1:]), whole[1:])
    torch.testing.assert_close(network(points[:1, :20], rhythm[:1, :20], known[:1, :20]), whole[:1])


def test_what_is_told_of_a_pair() -> None:
    """Three circles, to the right and then down: the first is behind and to one side."""
    points = torch.tensor([[100.0, 100], [228, 100], [228, 164]])[None, :, None].expand(1, 3, 3, 2)
    rhythm = torch.tensor([0.25, 0, 1, 0, 0, 0, 32 / 128, 1.0]).expand(1, 3, 8)
    pair = describe_pairs(points, rhythm)[0, 2, 1]
    torch.testing.assert_close(pair[:2], torch.tensor([-1.0, -0.5]))  # in x and y
    torch.testing.assert_close(pair[-4:-2], torch.tensor([-0.5, 1.0]))  # along and across
    distance = float(np.hypot(128, 64))
    torch.testing.assert_close(pair[2:5], torch.full((3,), distance / 128))
    nearness = float(np.exp(-distance / 32 / 3))
    torch.testing.assert_close(pair[11:14], torch.full((3,), nearness))
    assert pair[16] == 0.5 and pair[17] == 0.5  # a beat ago, half the time that objects are visible
    flipped = describe_objects(points * torch.tensor([-1, 1]) + torch.tensor([512.0, 0]), rhythm)
    told = describe_objects(points, rhythm)
    torch.testing.assert_close(flipped[..., 0], -told[..., 0])


def test_folds_and_areas_are_those_of_scikit_learn() -> None:
    if not available():
        pytest.skip("scikit-learn is not installed")
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    rng = np.random.default_rng(0)
    groups = rng.integers(0, 17, 60).astype(str)
    splits = GroupKFold(5, shuffle=True, random_state=3).split(groups, groups=groups)
    ours = split_sets(groups.tolist(), 3)
    for (_, test), held_out in zip(splits, ours, strict=True):
        np.testing.assert_array_equal(test, np.flatnonzero(np.isin(groups, held_out)))
    real, other = rng.integers(0, 9, 30) / 4, rng.integers(2, 11, 40) / 4  # with many ties
    labels = np.repeat([0, 1], [30, 40])
    expected = roc_auc_score(labels, np.concatenate([real, other]))
    assert area_under_roc(real, other) == pytest.approx(expected)
    assert split_sets(["1", "1"], 0) == []


@needs_maps
def test_jittered_real_maps_are_found() -> None:
    """With sliders and all, from files: jitter of 20 px. Eleven maps teach less than a hundred."""
    rng = np.random.default_rng(0)
    real, other, sets = [], [], []
    for path in real_paths("val")[::12]:
        beatmap = read_beatmap(path)
        sequence = beatmap_to_sequence(beatmap)
        by = rng.normal(0, 20, (len(beatmap.objects), 2))[sequence.objects]
        after = parse_beatmap(apply_coordinates(sequence, sequence.xy + by), "jittered")
        real.append(read_geometry(sequence))
        other.append(read_geometry(beatmap_to_sequence(after)))
        sets.append(str(beatmap.set_id))
    verdict = judge_geometry(real, other, sets)
    assert verdict is not None and verdict.auc > 0.8 and verdict.map_auc > 0.9


def test_a_made_up_map_and_its_file_read_back_are_the_same() -> None:
    beatmap = parse_beatmap(beatmap_text(random_objects(3, 40)).encode(), "a")
    sequence = beatmap_to_sequence(beatmap)
    again = parse_beatmap(apply_coordinates(sequence, sequence.xy), "b")
    a, b = read_geometry(sequence), read_geometry(beatmap_to_sequence(again))
    np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_array_equal(a.rhythm, b.rhythm)
