"""Features on maps whose geometry is known, distances against brute force, comparisons."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from beatmaps.osu_file import parse_beatmap, read_beatmap
from beatmaps.sequence import Sequence, apply_coordinates, beatmap_to_sequence
from metrics.objects import FEATURES, crossing_objects
from metrics.realism import (
    Collection,
    binned_wasserstein,
    bins_of,
    collect,
    compare,
    density_distance,
    object_features,
    realism_ratio,
    wasserstein,
)
from tests.conftest import beatmap_text, needs_maps, random_objects, real_paths


def sequence_of(lines: str) -> Sequence:
    """A small map: circle size 4, a beat of 500 ms, approach rate 9."""
    text = beatmap_text(lines).replace("CircleSize:4", "CircleSize:4\nApproachRate:9")
    return beatmap_to_sequence(parse_beatmap(text.encode(), "a"))


def crossing(lines: str) -> list[bool]:
    found: list[bool] = crossing_objects(sequence_of(lines)).tolist()
    return found


def features_of(lines: str, mirrored: bool = False) -> pd.DataFrame:
    """Features of a small map, perhaps mirrored left to right."""
    sequence = sequence_of(lines)
    if mirrored:
        data = apply_coordinates(sequence, (512, 0) + sequence.xy * (-1, 1))
        beatmap = parse_beatmap(data, "b")
        sequence = beatmap_to_sequence(beatmap)
    return object_features(sequence)


def circles(*places: tuple[int, int], gap: int = 250) -> str:
    """Lines of circles at these places, half a beat apart."""
    return "\n".join(f"{x},{y},{1000 + gap * k},1,0" for k, (x, y) in enumerate(places))


def test_squares_turn_by_a_right_angle_the_same_way() -> None:
    found = features_of(circles((100, 100), (200, 100), (200, 200), (100, 200), (100, 100)))
    np.testing.assert_allclose(found["turning_angle"], [np.nan, *[np.pi / 2] * 3, np.nan])
    np.testing.assert_allclose(found["relative_turn"][2:4], np.pi / 2)
    np.testing.assert_allclose(found["return_distance"][2:], 100 * 2**0.5)
    np.testing.assert_allclose(found["third_distance"][3:], 100)
    # Opposite sides of a rectangle undo each other.
    np.testing.assert_allclose(found["jump_asymmetry"][3:], 0, atol=1e-12)
    assert found["repeated_position"].tolist()[2:] == [0, 0, 1]
    assert found["nearest_earlier"].tolist()[4] == 0
    np.testing.assert_allclose(found["spacing"][1:], 100)
    np.testing.assert_allclose(found["gap"][1:], 0.5)


def test_zigzags_turn_back_and_straight_lines_do_not_turn() -> None:
    zigzag = features_of(circles((100, 100), (150, 200), (200, 100), (250, 200), (300, 100)))
    np.testing.assert_allclose(zigzag["relative_turn"][2:4], -2 * np.arctan(2))
    line = features_of(circles((100, 100), (150, 100), (200, 100), (250, 100)))
    np.testing.assert_allclose(line["turning_angle"][1:3], 0)
    assert line["relative_turn"].isna().all()  # going straight on has no sense to keep
    np.testing.assert_allclose(line["jump_asymmetry"][3:], 1)


def test_sliders_are_entered_and_left_in_the_direction_the_ball_moves() -> None:
    lines = (
        "100,100,1000,1,0\n200,100,1250,2,0,L|300:100,{slides},100\n"
        "{x},{y},{time},1,0\n300,300,{later},1,0"
    )
    once = features_of(lines.format(slides=1, x=300, y=200, time=2000, later=2250))
    assert once["flow_into_slider"][1] == pytest.approx(0)
    assert once["flow_out_of_slider"][1] == pytest.approx(np.pi / 2)
    assert once["spacing"][2] == pytest.approx(100)
    # After two slides the ball is back at the head and moves left.
    twice = features_of(lines.format(slides=2, x=100, y=100, time=2500, later=2750))
    assert twice["flow_out_of_slider"][1] == pytest.approx(0)
    assert twice["spacing"][2] == pytest.approx(100)
    assert twice[["flow_into_slider", "flow_out_of_slider"]].drop(index=1).isna().all(axis=None)


def test_a_semicircle_has_its_known_shape() -> None:
    length = np.pi * 70
    found = features_of(f"100,100,1000,2,0,P|170:170|240:100,1,{length}\n50,50,4000,1,0").iloc[0]
    assert found["slider_turning"] == pytest.approx(np.pi * 22 / 23, rel=0.01)  # 24 samples
    assert found["slider_sharpest_turn"] == pytest.approx(np.pi / 23, rel=0.15)
    assert found["slider_curl"] == pytest.approx(1)
    assert found["chord_over_length"] == pytest.approx(2 / np.pi, rel=2e-3)
    assert found["path_over_length"] == pytest.approx(1, rel=1e-3)
    assert found["anchor_turning"] == pytest.approx(np.pi / 2)
    assert found["slider_wall_distance"] == pytest.approx(100, abs=0.5)  # a polyline
    assert found["wall_distance"] == 100


def test_an_s_has_no_curl_and_a_trimmed_path_is_longer_than_its_length() -> None:
    corners = "L|200:100|200:200|300:200"
    found = features_of(f"100,100,1000,2,0,{corners},1,300\n50,50,4000,1,0").iloc[0]
    assert found["slider_curl"] == pytest.approx(0, abs=1e-9)
    assert found["slider_turning"] == pytest.approx(np.pi)
    assert found["anchor_turning"] == pytest.approx(np.pi / 2)
    trimmed = features_of(f"100,100,1000,2,0,{corners},1,200\n50,50,4000,1,0").iloc[0]
    assert trimmed["path_over_length"] == pytest.approx(1.5)
    assert trimmed["slider_turning"] == pytest.approx(np.pi / 2)


def test_what_is_on_screen_together_overlaps_or_stacks() -> None:
    """Circle size 4 has a radius of 36.48 px; approach rate 9 shows objects 600 ms ahead."""
    places = ((100, 100), (300, 100), (120, 100), (300, 102), (500, 300))
    found = features_of(circles(*places))
    # The fourth circle is on screen with the stacked one alone.
    np.testing.assert_array_equal(found["overlapping"][2:], [1, np.nan, 0])
    assert found["visible_distance"][2] == pytest.approx(20 / 36.48)
    assert found["stacked"].tolist()[1:] == [0, 0, 1, 0]
    # A second apart nothing is seen together.
    apart = features_of(circles(*places, gap=1000))
    assert apart[["overlapping", "visible_distance", "stacked"]].isna().all(axis=None)


def test_a_slider_crosses_what_is_still_seen_and_not_under_its_head() -> None:
    """The circle is seen until 1000; the slider appears 600 ms before its time."""
    for time, x, length, expected in (
        (1500, 250, 140, True),
        (1500, 250, 60, False),  # it ends before
        (1500, 150, 140, False),  # its head overlaps the circle
        (1700, 250, 140, False),  # the circle is gone
    ):
        slider = f"{x},100,{time},2,0,L|{x - length}:100,1,{length}"
        assert crossing(f"100,100,1000,1,0\n400,300,1200,1,0\n{slider}") == [False, False, expected]


def test_a_slider_that_overlaps_one_object_may_cross_another() -> None:
    lines = "100,100,1000,1,0\n300,{},1100,1,0\n400,100,1200,1,0\n280,270,1300,2,0,L|120:110,1,226"
    for y in (300, 380):  # under its head, and not
        assert crossing(lines.format(y)) == [False, False, False, True]


def test_a_slider_comes_back_to_its_neighbours() -> None:
    """A diameter is 73 px; the object just before counts where it ends as far away."""
    for lines, expected in (
        ("100,100,1000,1,0\n250,100,1300,2,0,L|110:100,1,140", True),
        ("160,100,1000,1,0\n200,100,1300,2,0,L|60:100,1,140", False),  # only 40 px away
        ("250,100,1000,2,0,L|110:100,1,140\n200,130,1500,1,0", True),
        ("250,100,1000,2,0,L|110:100,1,140\n120,130,1500,1,0", False),  # beside its end
        ("250,100,1000,2,0,L|110:100,1,140\n200,200,1500,1,0", False),
        ("250,100,1000,2,0,L|110:100,2,140\n250,140,1900,1,0", False),  # it is played back there
    ):
        assert crossing(lines) == [False, expected]


def test_spinners_and_long_gaps_have_no_movement() -> None:
    lines = "100,100,1000,1,0\n256,192,1500,12,0,2000\n200,100,2500,1,0\n300,100,9000,1,0"
    found = features_of(lines + "\n400,100,9250,1,0")
    assert found[list(FEATURES)].iloc[1].isna().all()
    assert np.isnan(found["spacing"][2]) and found["spacing"][3] == pytest.approx(100)
    assert np.isnan(found["turning_angle"][2]) and np.isnan(found["turning_angle"][3])
    assert bins_of(found).tolist() == [-1, -1, -1, -1, 2 * 4 + 1]


def test_only_x_tells_a_map_from_its_mirror_image() -> None:
    lines = random_objects(3, 60)
    one, other = features_of(lines), features_of(lines, mirrored=True)
    np.testing.assert_allclose(512 - one["x"], other["x"])
    angles = [np.exp(1j * features["relative_turn"]) for features in (one, other)]
    np.testing.assert_allclose(angles[0], angles[1], atol=1e-6)  # pi is -pi
    for name in set(one.columns) - {"x", "relative_turn"}:
        np.testing.assert_allclose(one[name], other[name], atol=1e-6, err_msg=name)


def test_wasserstein_of_known_samples() -> None:
    assert wasserstein(np.array([0.0, 1, 3]), np.array([8.0, 5, 6])) == pytest.approx(5)
    assert wasserstein(np.array([0.0, 1]), np.array([0.5])) == pytest.approx(0.5)
    assert wasserstein(np.array([0.0, 0, 1, 1]), np.array([0.0, 1, 1, 1])) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="values of both"):
        wasserstein(np.empty(0), np.ones(3))


def test_wasserstein_is_the_cost_of_the_best_matching() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    assert wasserstein(a, b) == pytest.approx(np.abs(np.sort(a) - np.sort(b)).mean())
    # Equal to repeating the smaller sample.
    assert wasserstein(a, b[:25]) == pytest.approx(wasserstein(a, np.repeat(b[:25], 2)))


def test_circular_wasserstein_is_the_best_matching_round_the_circle() -> None:
    """For samples of one size the best matching is a cyclic shift of the sorted ones."""
    near = np.array([np.pi - 0.1]), np.array([-np.pi + 0.1])
    assert wasserstein(*near, circular=True) == pytest.approx(0.2)
    rng = np.random.default_rng(1)
    for spread in (0.3, 1.0, 3.0):
        a, b = (np.angle(np.exp(1j * (m + spread * rng.normal(size=31)))) for m in (3, -2))
        gaps = np.sort(a) - np.stack([np.roll(np.sort(b), k) for k in range(31)])
        best = np.abs(np.angle(np.exp(1j * gaps))).mean(axis=1).min()
        assert wasserstein(a, b, circular=True) == pytest.approx(best)
        turned = [np.angle(np.exp(1j * (v + 2))) for v in (a, b)]
        assert wasserstein(turned[0], turned[1], circular=True) == pytest.approx(best)


def test_binned_distances_ignore_how_full_the_bins_are() -> None:
    """Simpson's case: alike within the bins, but not as a whole."""
    rng = np.random.default_rng(2)
    low, high = rng.normal(0, 1, (2, 400)), rng.normal(10, 1, (2, 400))
    a, b = (
        np.concatenate([low[0][:300], high[0][:100]]),
        np.concatenate([low[1][:100], high[1][:300]]),
    )
    bins_a, bins_b = np.repeat([0, 1], [300, 100]), np.repeat([0, 1], [100, 300])
    assert wasserstein(a, b) == pytest.approx(5, abs=0.2)
    assert binned_wasserstein(a, b, bins_a, bins_b) < 0.4
    assert np.isnan(binned_wasserstein(a[:9], b[:9], bins_a[:9], bins_b[:9]))


def test_density_distance_is_total_variation() -> None:
    left, right = np.full((10, 2), 10.0), np.array([[10.0, 10]] * 5 + [[500.0, 300]] * 5)
    assert density_distance(left, left) == 0
    assert density_distance(left, right) == pytest.approx(0.5)
    assert density_distance(left, np.array([[9000.0, 9000.0]])) == 1


def made_up(jitter: float) -> tuple[Collection, list[pd.DataFrame]]:
    """Eight beatmapsets of squares that drift, their corners off by `jitter` px."""
    rng = np.random.default_rng(5)
    maps: list[pd.DataFrame] = []
    sources: list[pd.DataFrame] = []
    for seed in range(8):
        centres = np.random.default_rng(seed).uniform((100, 100), (412, 284), (30, 2))
        corners = np.array([[-60, -60], [60, -60], [60, 60], [-60, 60]])
        exact = (centres[:, None] + corners).reshape(-1, 2)
        for shift, result in ((0.0, sources), (jitter, maps)):
            moved = np.rint(exact + shift * rng.normal(size=exact.shape)).astype(int)
            result.append(features_of(circles(*map(tuple, moved.tolist()))))
    return collect(maps, sources, [str(k) for k in range(8)]), maps


def test_real_maps_are_as_good_as_themselves_and_jittered_ones_are_not() -> None:
    real, _ = made_up(0)
    same = compare(real, real, repeats=4)
    known = same["overall"].notna()
    assert (same.loc[known, "overall"] == 0).all()
    pd.testing.assert_series_equal(same["overall_across"], same["overall_real"], check_names=False)
    assert realism_ratio(same) == pytest.approx(1)
    worse = compare(real, made_up(20)[0], repeats=4)
    assert realism_ratio(worse) > 1.5
    assert worse.loc["turning_angle", "conditional"] > 0.1
    # Jitter of 20 px moves the mean place of nothing far.
    assert worse.loc["x", "overall"] < 10 < worse.loc["jump_asymmetry", "overall"] * 100


def test_one_beatmapset_has_no_halves() -> None:
    real, _ = made_up(0)
    one = replace(real, sets=np.full(len(real.sets), "0"))
    table = compare(one, one)
    assert table["overall_real"].isna().all() and np.isnan(realism_ratio(table))


@needs_maps
def test_features_of_real_maps_are_within_their_ranges() -> None:
    for path in real_paths("train")[:12] + real_paths("edge")[:12]:
        try:
            beatmap = read_beatmap(path)
        except ValueError:
            continue
        found = object_features(beatmap_to_sequence(beatmap))
        assert len(found) == len(beatmap.objects)
        assert not np.isinf(found.to_numpy()).any(), path.name
        for name, feature in FEATURES.items():
            low = -np.pi if feature.circular else 0
            high = 1 if feature.unit in ("0..1", "share") else np.inf
            if feature.unit != "px":
                assert found[name].dropna().between(low - 1e-9, high + 1e-9).all(), (path, name)
