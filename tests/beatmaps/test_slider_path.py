"""Slider paths against closed forms, exact recursions, invariances, and real maps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from beatmaps.slider_path import PathSet, Segment, SliderPath, flatten, slider_path, split_segments

SliderSpec = tuple[list[tuple[str, int | None, np.ndarray]], float | None]


def de_casteljau(points: np.ndarray, t: float) -> np.ndarray:
    """Point of a bezier at parameter t by the textbook recursion."""
    while len(points) > 1:
        points = (1 - t) * points[:-1] + t * points[1:]
    return points.reshape(2)


def kinds(
    kind: str, points: list[tuple[float, float]], *, version: int = 14, joined: bool = False
) -> list[tuple[str, int]]:
    """Kind and point count of the segments a curve is split into."""
    segments = split_segments(kind, np.array(points), version=version, joined=joined)
    return [(segment.kind, len(segment.points)) for segment in segments]


def arc_points(radius: float, angle: float, middle: float = 0.4) -> np.ndarray:
    """Start, a middle point and end of an arc of `angle` radians around (200, 150)."""
    theta = np.array([0.3, 0.3 + middle * angle, 0.3 + angle])
    return np.array([200.0, 150.0]) + radius * np.stack([np.cos(theta), np.sin(theta)], axis=-1)


def path_set(sliders: Sequence[tuple[list[Segment], float | None]]) -> tuple[PathSet, np.ndarray]:
    """The `PathSet` of given segments and the points array it indexes."""
    specs: list[SliderSpec] = []
    points: list[np.ndarray] = []
    for segments, pixel_length in sliders:
        parts: list[tuple[str, int | None, np.ndarray]] = []
        for segment in segments:
            fresh = segment.points[1:] if parts else segment.points
            first = len(points) - 1 if parts else len(points)
            points.extend(fresh)
            indices = np.arange(first, first + len(segment.points))
            parts.append((segment.kind, segment.degree, indices))
        specs.append((parts, pixel_length))
    return PathSet(specs), np.array(points)


# Splitting


def test_red_anchors_split_and_are_shared() -> None:
    points = np.array([[0, 0], [1, 5], [9, 9], [9, 9], [20, 0], [30, 3]], dtype=float)
    first, second = split_segments("B", points)
    np.testing.assert_array_equal(first.points, points[:3])
    np.testing.assert_array_equal(second.points, points[3:])


def test_doubled_points_that_are_no_red_anchor() -> None:
    a, b, c = (0, 0), (50, 0), (50, 70)
    assert kinds("B", [a, b, c, c]) == [("B", 4)]  # at the very end
    assert kinds("B", [a, a, b, c]) == [("B", 3)]  # the head: nothing lies before it
    assert kinds("B", [a, b, b, b, c]) == [("B", 2), ("B", 2)]  # tripled: like doubled
    assert kinds("B", [a, b, b, b]) == [("B", 2), ("B", 2)]
    assert kinds("B", [a, b, b, c], joined=True) == [("B", 4)]  # last of an explicit segment
    assert kinds("C", [a, b, b, c]) == [("C", 4)]
    assert kinds("C", [a, b, b, c], version=128) == [("C", 2), ("C", 2)]
    assert kinds("C", [a, a, b, c]) == [("C", 3)]


def test_perfect_curves_fall_back() -> None:
    assert kinds("P", [(0, 0), (50, 20), (100, 0)]) == [("P", 3)]
    assert kinds("P", [(0, 0), (50, 20)]) == [("B", 2)]
    assert kinds("P", [(0, 0), (50, 20), (100, 0), (150, 9)]) == [("B", 4)]
    assert kinds("P", [(0, 0), (90, 0), (50, 0)]) == [("L", 3)]
    assert kinds("P", [(0, 0), (90, 0), (50, 0)], version=128) == [("B", 3)]
    assert kinds("P", [(0, 0), (0, 0), (0, 0)]) == [("L", 2)]


def test_curve_types() -> None:
    points = np.array([[0, 0], [10, 0], [20, 9], [30, 0], [40, 4]], dtype=float)
    (spline,) = split_segments("B3", points, version=128)
    assert (spline.kind, spline.degree) == ("B", 3)
    assert split_segments("B", points)[0].degree is None
    assert split_segments("L", points)[0].kind == "L"
    assert split_segments("x", points)[0].kind == "C"  # as the game reads an unknown letter


def test_bad_input() -> None:
    good = np.zeros((2, 2))
    with pytest.raises(ValueError, match="curve type"):
        split_segments("", good)
    with pytest.raises(ValueError, match="shape"):
        split_segments("B", np.zeros((0, 2)))
    with pytest.raises(ValueError, match="NaN"):
        split_segments("B", np.array([[0, 0], [np.nan, 0]]))
    with pytest.raises(ValueError, match="segments"):
        flatten([])
    with pytest.raises(ValueError, match="'X'"):
        flatten([Segment("X", None, good)])
    with pytest.raises(ValueError, match="segments"):
        PathSet([([], 10.0)])
    with pytest.raises(ValueError, match="0 points"):
        PathSet([([("B", None, np.array([], dtype=int))], 10.0)])
    with pytest.raises(ValueError, match="NaN"):
        PathSet([([("L", None, np.array([0, 1]))], None)]).evaluate(np.full((2, 2), np.nan))


# Closed forms


def test_straight_line() -> None:
    path = slider_path("L", np.array([[10.0, 20], [40, 60]]), 25)
    assert path.natural_length == pytest.approx(50)
    assert path.length == 25
    np.testing.assert_allclose(path.end, [25, 40])
    np.testing.assert_allclose(path.polyline(), [[10, 20], [25, 40]])
    np.testing.assert_allclose(
        path.position_at(np.array([-5, 10, 99])), [[10, 20], [16, 28], [25, 40]]
    )


@pytest.mark.parametrize("radius", [30.0, 100.0, 400.0])
@pytest.mark.parametrize("angle", [0.5, 3.0, -2.0, 6.0])
def test_circular_arc(radius: float, angle: float) -> None:
    points = arc_points(radius, angle)
    path = slider_path("P", points, None)
    # The game's chords are at most 0.1 px from the circle, a few more where there are few chords.
    assert path.natural_length == pytest.approx(radius * abs(angle), rel=2e-3 * 30 / radius + 5e-4)
    assert np.abs(np.hypot(*(path.vertices - [200, 150]).T) - radius).max() < 1e-9
    half = path.position_at(path.natural_length / 2)
    theta = 0.3 + angle / 2
    expected = np.array([200, 150]) + radius * np.array([np.cos(theta), np.sin(theta)])
    assert np.hypot(*(half - expected)) < 0.4
    np.testing.assert_array_equal(path.end, points[2])


def test_huge_arc_is_a_bezier() -> None:
    """An arc of 1000 vertices and more: the long way round a huge circle."""
    points = np.array([[0, 0], [-2000, 1], [300, 0]], dtype=float)
    assert slider_path("P", points, None).natural_length == pytest.approx(
        slider_path("B", points, None).natural_length
    )


def test_quadratic_bezier_length() -> None:
    """Arc length of the parabola with control points (0, 0), (a, 2 b) and (2 a, 0)."""
    a, b = 80.0, 90.0
    path = slider_path("B", np.array([[0, 0], [a, 2 * b], [2 * a, 0]]), None)
    root = np.sqrt(a**2 + 4 * b**2)
    exact = root + a**2 / (2 * b) * np.log((2 * b + root) / a)
    assert path.natural_length == pytest.approx(exact, rel=5e-4)


@pytest.mark.parametrize("n", [3, 4, 7, 30])
def test_bezier_vertices_are_near_the_curve(n: int) -> None:
    points = np.random.default_rng(n).uniform(0, 400, (n, 2))
    path = slider_path("B", points, None)
    exact = np.array([de_casteljau(points, t) for t in np.linspace(0, 1, 301)])
    gaps = [np.hypot(*(path.position_at(path.project(p)) - p)) for p in exact]
    assert max(gaps) < 0.25
    np.testing.assert_array_equal(path.vertices[[0, -1]], points[[0, -1]])


@pytest.mark.parametrize("n", [100, 500, 1600])
def test_very_many_control_points(n: int) -> None:
    points = np.random.default_rng(n).uniform(0, 400, (n, 2))
    segments = split_segments("B", points)
    path = SliderPath(flatten(segments), None)
    middle = de_casteljau(points, 0.5)
    assert np.hypot(*(path.position_at(path.project(middle)) - middle)) < 0.5
    paths, flat = path_set([(segments, 200.0)])
    np.testing.assert_allclose(paths.evaluate(flat)[0][0], path.position_at(200.0), atol=1e-6)


def test_catmull_goes_through_its_knots() -> None:
    knots = np.array([[0, 0], [60, 90], [150, 20], [200, 100]], dtype=float)
    vertices = flatten([Segment("C", None, knots)])
    np.testing.assert_allclose(vertices[::50], knots)
    tangent = (vertices[51] - vertices[49]) / (2 / 50)
    np.testing.assert_allclose(tangent, (knots[2] - knots[0]) / 2, atol=0.5)


def test_bspline_of_degree_two() -> None:
    """A quadratic clamped uniform B-spline is the beziers between its control polygon's middles."""
    p = np.array([[0, 0], [50, 100], [120, 0], [180, 90]], dtype=float)
    middle = (p[1] + p[2]) / 2
    expected = flatten([Segment("B", None, np.array([p[0], p[1], middle]))])
    vertices = flatten([Segment("B", 2, p)])
    np.testing.assert_allclose(vertices[: len(expected)], expected, atol=1e-9)
    assert SliderPath(vertices, None).natural_length == pytest.approx(
        2 * SliderPath(expected, None).natural_length, rel=0.2
    )
    np.testing.assert_array_equal(flatten([Segment("B", 1, p)]), p)
    full = flatten([Segment("B", None, p)])
    np.testing.assert_array_equal(flatten([Segment("B", 3, p)]), full)


# Lengths


@pytest.mark.parametrize("length", [None, float("nan"), float("inf"), 0.0, -5.0])
def test_natural_length(length: float | None) -> None:
    points = np.array([[0, 0], [30, 40], [60, 0]], dtype=float)
    assert slider_path("L", points, length).length == pytest.approx(100)
    paths, flat = path_set([(split_segments("L", points), length)])
    np.testing.assert_allclose(paths.evaluate(flat)[0], points[-1:])


def test_extended_along_the_last_chord() -> None:
    path = slider_path("L", np.array([[0.0, 0], [10, 0], [10, 30]]), 50)
    np.testing.assert_allclose(path.end, [10, 40])
    assert path.project(np.array([12.0, 38.0])) == pytest.approx(48)


def test_projection_tells_branches_apart() -> None:
    """Out and back on a line: each place has two arc lengths."""
    path = slider_path("L", np.array([[0.0, 0], [100, 0], [0, 0]]), None)
    point = np.array([40.0, 7])
    assert path.project(point, near=60) == pytest.approx(40)
    assert path.project(point, near=110) == pytest.approx(160)
    assert path.project(np.array([-5.0, 0]), near=900) == pytest.approx(200)


def test_not_extended_when_the_last_vertices_coincide() -> None:
    for kind, points in (
        ("L", [[0, 0], [100, 0], [100, 0]]),
        ("B", [[0, 0], [100, 0], [100, 0], [100, 0]]),
        ("P", [[0, 0], [100, 0], [100, 0]]),
    ):
        segments = split_segments(kind, np.array(points, dtype=float))
        path = SliderPath(flatten(segments), 300)
        assert path.length == 100
        np.testing.assert_allclose(path.end, [100, 0])
        paths, flat = path_set([(segments, 300.0)])
        np.testing.assert_allclose(paths.evaluate(flat)[0], [[100, 0]])
    bezier = slider_path("B", np.array([[0.0, 0], [100, 0], [100, 0]]), 300)
    np.testing.assert_allclose(bezier.end, [300, 0])  # its vertices do not coincide


def test_points_without_extent() -> None:
    for kind, count in (("L", 1), ("B", 2), ("B", 3), ("B", 9), ("P", 3), ("C", 4), ("B2", 5)):
        points = np.full((count, 2), 77.0)
        path = slider_path(kind, points, 50)
        assert path.length == 0
        np.testing.assert_allclose(path.end, [77, 77])
        np.testing.assert_allclose(path.polyline(), [[77, 77]])
        assert path.project(np.zeros(2)) == 0
        indices = np.arange(count)
        letter, degree = kind[0], 2 if kind == "B2" else None
        paths = PathSet([([(letter, degree, indices)], 50.0)])
        ends, natural = paths.evaluate(points)
        np.testing.assert_allclose(ends, [[77, 77]])
        np.testing.assert_allclose(natural, 0, atol=1e-9)


# Properties

relaxed = settings(deadline=None)  # a busy machine is no failure
coordinates = st.floats(-200, 700, width=32)


@st.composite
def curves(draw: st.DrawFn) -> tuple[str, np.ndarray, float | None]:
    """Curve type, control points as a file may have them, and pixel length."""
    kind = draw(st.sampled_from("BPCL"))
    count = 3 if kind == "P" else draw(st.integers(2, 8))
    if draw(st.booleans()):
        points = draw(hnp.arrays(np.float64, (count, 2), elements=st.integers(-50, 500)))
    else:
        points = draw(hnp.arrays(np.float64, (count, 2), elements=coordinates))
    if kind != "P" and draw(st.booleans()):
        at = draw(st.integers(1, count))
        points = np.insert(points, at, points[at - 1], axis=0)
    return kind, points, draw(st.none() | st.floats(1, 1500))


@relaxed
@given(curves(), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_speed_is_at_most_one(
    curve: tuple[str, np.ndarray, float | None], fractions: list[float]
) -> None:
    path = slider_path(*curve)
    a, b = sorted(fraction * path.length for fraction in fractions)
    start, stop = path.position_at(a), path.position_at(b)
    assert np.hypot(*(stop - start)) <= b - a + 1e-6
    np.testing.assert_allclose(path.position_at(np.array([a, b])), [start, stop])
    np.testing.assert_allclose(path.position_at(0.0), curve[1][0])
    assert np.isfinite(path.polyline()).all()


@relaxed
@given(curves())
def test_polyline_has_the_effective_length(curve: tuple[str, np.ndarray, float | None]) -> None:
    path = slider_path(*curve)
    line = path.polyline()
    assert np.hypot(*np.diff(line, axis=0).T).sum() == pytest.approx(path.length, abs=1e-6)
    np.testing.assert_array_equal(line[-1], path.end)
    gap = path.position_at(path.project(line[len(line) // 2])) - line[len(line) // 2]
    assert np.hypot(*gap) < 1e-6


@relaxed
@given(curves(), st.sampled_from([0, 1, 2, 3]), st.booleans(), st.tuples(coordinates, coordinates))
def test_moves_with_its_points(
    curve: tuple[str, np.ndarray, float | None],
    turns: int,
    mirror: bool,
    shift: tuple[float, float],
) -> None:
    """Moving, turning by right angles and mirroring the points does the same to the path."""
    kind, points, length = curve
    linear = np.linalg.matrix_power(np.array([[0.0, 1], [-1, 0]]), turns)
    linear = linear @ np.diag([-1.0, 1.0]) if mirror else linear
    offset = np.round(shift)
    path = slider_path(kind, points, length)
    moved = slider_path(kind, points @ linear + offset, length)
    # Whether three points count as collinear, or vertices as one, may hang on the last digit.
    assume(moved.vertices.shape == path.vertices.shape)
    np.testing.assert_allclose(moved.vertices, path.vertices @ linear + offset, atol=1e-5)
    assert moved.natural_length == pytest.approx(path.natural_length, abs=1e-5)


@relaxed
@given(curves())
def test_end_turns_with_its_points(curve: tuple[str, np.ndarray, float | None]) -> None:
    """By any angle: the vertices may differ, the end only by what the tolerances allow."""
    kind, points, _ = curve
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    segments = [Segment(s.kind, s.degree, s.points @ turn) for s in split_segments(kind, points)]
    natural = slider_path(kind, points, None).natural_length
    turned = SliderPath(flatten(segments), None)
    assert turned.natural_length == pytest.approx(natural, abs=0.5, rel=2e-3)
    np.testing.assert_allclose(turned.end, points[-1] @ turn, atol=1e-6)


@relaxed
@given(st.lists(curves(), min_size=1, max_size=8), st.integers(2, 9))
def test_path_set_equals_single_paths(
    drawn: list[tuple[str, np.ndarray, float | None]], samples: int
) -> None:
    sliders = [(split_segments(kind, points), length) for kind, points, length in drawn]
    paths, flat = path_set(sliders)
    exact = [SliderPath(flatten(segments), length) for segments, length in sliders]
    ends, natural = paths.evaluate(flat)
    np.testing.assert_allclose(natural, [path.natural_length for path in exact], atol=1e-6)
    np.testing.assert_allclose(ends, [path.end for path in exact], atol=1e-5)
    expected = [path.position_at(path.length * np.linspace(0, 1, samples)) for path in exact]
    np.testing.assert_allclose(paths.bodies(flat, samples), expected, atol=1e-5)


def drawn_sliders(seed: int, count: int) -> list[tuple[list[Segment], float | None]]:
    """Sliders of all kinds, some with a red anchor, some longer than their path."""
    rng = np.random.default_rng(seed)
    kinds = [("L", 3), ("P", 3), ("B", 3), ("B", 5), ("C", 4)]
    sliders: list[tuple[list[Segment], float | None]] = []
    for index in range(count):
        kind, size = kinds[rng.integers(len(kinds))]
        points = rng.uniform(0, 400, (size, 2))
        if index % 3 == 0:
            points = np.concatenate([points, points[-1:], rng.uniform(0, 400, (2, 2))])
        sliders.append((split_segments(kind, points), float(rng.uniform(50, 900))))
    return sliders


def test_copies_of_a_path_set_are_its_sliders_with_points_of_their_own() -> None:
    sliders = drawn_sliders(0, 12)
    paths, flat = path_set(sliders)
    which = np.array([3, 3, 0, 11, 7, 3])
    far = np.random.default_rng(1).uniform(0, 400, (len(which), *flat.shape))
    copies = paths.copies(which, len(flat) * np.arange(len(which)))
    assert len(copies) == len(which)
    ends, natural = copies.evaluate(far.reshape(-1, 2))
    for slider, points, end, length in zip(which, far, ends, natural, strict=True):
        all_ends, all_lengths = paths.evaluate(points)
        np.testing.assert_allclose(end, all_ends[slider])
        np.testing.assert_allclose(length, all_lengths[slider])


def test_no_copies_of_a_path_set_are_an_empty_one() -> None:
    paths, _ = path_set(drawn_sliders(0, 3))
    nothing = np.zeros(0, dtype=np.intp)
    assert len(paths.copies(nothing, nothing)) == 0


@pytest.mark.parametrize("seed", range(4))
def test_extents_hold_the_body_and_touch_it(seed: int) -> None:
    sliders = drawn_sliders(seed, 20)
    paths, flat = path_set(sliders)
    low, high = paths.extents(flat)
    for index, (segments, length) in enumerate(sliders):
        line = SliderPath(flatten(segments), length).polyline()
        np.testing.assert_allclose(low[index], line.min(axis=0), atol=1e-6)
        np.testing.assert_allclose(high[index], line.max(axis=0), atol=1e-6)
    assert PathSet([]).extents(np.zeros((0, 2)))[0].shape == (0, 2)


def test_path_set_takes_new_coordinates() -> None:
    """An arc becomes a line, and the reverse, as its points move."""
    paths = PathSet([([("P", None, np.arange(3))], 60.0), ([("L", None, np.array([3, 4]))], 9.0)])
    tail = np.array([[300, 300], [310, 300]])
    for middle in ([50, 30], [50, 0], [50, -20], [-4000, 1], [500, 0]):
        bent = np.array([[0, 0], middle, [100, 0]], dtype=float)
        ends, _ = paths.evaluate(np.concatenate([bent, tail]))
        np.testing.assert_allclose(ends[0], slider_path("P", bent, 60.0).end, atol=1e-6)
        np.testing.assert_allclose(ends[1], [309, 300])


@pytest.mark.parametrize(("kind", "n"), [("B", 3), ("B", 6), ("B", 90), ("P", 3), ("C", 5)])
def test_paths_of_too_many_vertices_are_drawn_coarsely(
    kind: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Huge curves in great number: fewer vertices than asked for, through the same ends."""
    points = np.random.default_rng(n).uniform(-1e5, 1e5, (20 * n, 2))
    sliders: list[SliderSpec] = [([(kind, None, np.arange(n) + i * n)], None) for i in range(20)]
    fine = PathSet(sliders).evaluate(points)
    monkeypatch.setattr("beatmaps.slider_path.MAX_VERTICES", 4000)
    coarse = PathSet(sliders)
    np.testing.assert_allclose(coarse.evaluate(points)[0], fine[0])
    ratio = coarse.lengths(points) / fine[1]
    assert ((ratio > 0.5) & (ratio < 2)).all()
    assert len(coarse._walk(points)._vertices) <= 2 * 4000


def test_path_set_of_nothing() -> None:
    ends, natural = PathSet([]).evaluate(np.zeros((0, 2)))
    assert ends.shape == (0, 2)
    assert natural.shape == (0,)
    assert PathSet([]).bodies(np.zeros((0, 2)), 5).shape == (0, 5, 2)


def test_path_set_is_fast() -> None:
    """300 sliders in far less time than 300 single paths take."""
    rng = np.random.default_rng(0)
    drawn = [("L", 2), ("P", 3), ("B", 3), ("B", 4), ("B", 6)] * 60
    sliders = [(split_segments(k, rng.uniform(0, 400, (n, 2))), 100.0) for k, n in drawn]
    paths, flat = path_set(sliders)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        paths.evaluate(flat)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.05  # some milliseconds; the margin is for busy machines


# Real maps


def read_sliders(text: str) -> Iterator[tuple[int, str, np.ndarray, float | None]]:
    """Time, curve type, points and pixel length of a version <= 14 map's one-segment sliders."""
    for line in text.partition("[HitObjects]")[2].splitlines():
        fields = line.split(",")
        if len(fields) < 8 or not int(fields[3]) & 2:
            continue
        kind, *anchors = fields[5].split("|")
        pairs = [fields[:2], *(anchor.split(":") for anchor in anchors)]
        yield int(fields[2]), kind, np.array(pairs, dtype=float), float(fields[7])


@pytest.fixture(scope="module")
def real_maps() -> list[Path]:
    folder = os.environ.get("OSU_DIFFUSION_BEATMAPS")
    if not folder:
        pytest.skip("OSU_DIFFUSION_BEATMAPS does not name a folder of beatmaps")
    maps = sorted(Path(folder, "val").glob("*.osu"))[:8]
    assert maps, f"no beatmaps in {folder}/val"
    return maps


def test_path_set_on_real_maps(real_maps: list[Path]) -> None:
    for file in real_maps:
        drawn = list(read_sliders(file.read_text(encoding="utf-8-sig")))
        sliders = [(split_segments(kind, points), length) for _, kind, points, length in drawn]
        paths, flat = path_set(sliders)
        ends, _ = paths.evaluate(flat)
        assert len(ends) == len(drawn)
        for end, (segments, length) in zip(ends, sliders, strict=True):
            np.testing.assert_allclose(end, SliderPath(flatten(segments), length).end, atol=1e-5)


def test_tails_against_fosu(real_maps: list[Path]) -> None:
    """Another implementation of osu!lazer's paths agrees to the rounding of single precision."""
    fosu = pytest.importorskip("fosu")
    for file in real_maps:
        parsed = fosu.parse(file.read_bytes(), calculate_slider_paths=True, client="lazer")
        tails = [h.path.points[-1] for h in parsed.hit_objects if h.is_slider]
        drawn = list(read_sliders(file.read_text(encoding="utf-8-sig")))
        assert len(tails) == len(drawn)
        for tail, (moment, kind, points, length) in zip(tails, drawn, strict=True):
            offset = slider_path(kind, points, length).end - points[0] - [tail.x, tail.y]
            assert np.hypot(*offset) < 0.1, f"{file.name} at {moment} ms"
