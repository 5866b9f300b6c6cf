"""Sliders without a shape get one where a remap decides by rhythm alone."""

import numpy as np
import pytest

from beatmaps.osu_file import parse_beatmap
from beatmaps.rhythm_only import BENT, is_shapeless, with_shapes
from beatmaps.sequence import apply_coordinates, beatmap_to_sequence
from tests.conftest import beatmap_text

LINES = (
    "256,192,1000,1,0\n"
    "256,192,1500,2,0,L|256:192,1,40,0|0,0:0|0:0,0:0:0:0: // short\n"
    "256,192,2500,6,0,P|256:192|256:192,2,140\n"
    "100,100,5000,2,0,L|200:100,1,100\n"
    "256,192,7000,2,0,L|256:192,1\n"
)


def everything(count: int) -> np.ndarray:
    return np.ones(count, dtype=bool)


def test_only_curves_of_shapeless_sliders_change() -> None:
    beatmap = parse_beatmap(beatmap_text(LINES).encode(), "a")
    assert [is_shapeless(hit) for hit in beatmap.objects] == [False, True, True, False, False]
    shaped = with_shapes(beatmap, everything(5))
    expected = beatmap.raw.replace(b"L|256:192,1,40", b"L|296:192,1,40")
    expected = expected.replace(b"P|256:192|256:192", b"B|322:232|389:192")
    assert shaped.raw == expected
    assert with_shapes(shaped, everything(5)) is shaped


def test_what_is_not_chosen_stays() -> None:
    beatmap = parse_beatmap(beatmap_text(LINES).encode(), "a")
    chosen = np.array([True, False, False, True, True])
    assert with_shapes(beatmap, chosen) is beatmap


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_encoding_and_line_ending(encoding: str) -> None:
    text = beatmap_text(LINES).replace("\n", "\r\n")
    shaped = with_shapes(parse_beatmap(text.encode(encoding), "a"), everything(5))
    assert shaped.raw.decode(encoding).count("\r\n") == text.count("\r\n")
    assert not any(is_shapeless(hit) for hit in shaped.objects)


def test_they_last_as_long_as_they_say_and_can_be_placed() -> None:
    """A beat of 500 ms is 140 px, from 2000 ms on twice as many; the second one is played twice."""
    beatmap = parse_beatmap(beatmap_text(LINES).encode(), "a")
    shaped = with_shapes(beatmap, everything(5))
    durations = [hit.end_time - hit.time for hit in shaped.objects[1:3]]
    assert durations == pytest.approx([500 * 40 / 140, 2 * 500 * 140 / 280])
    sequence = beatmap_to_sequence(shaped)
    assert len(sequence) == len(beatmap_to_sequence(beatmap)) + 3
    moved = sequence.xy + np.arange(len(sequence))[:, None]
    again = parse_beatmap(apply_coordinates(sequence, moved), "b")
    assert [hit.kind for hit in again.objects] == [hit.kind for hit in beatmap.objects]


@pytest.mark.parametrize("length", [60, 61.5, 100, 233.3, 777])
def test_a_curve_is_as_long_as_its_slider_and_bent_as_sliders_are(length: float) -> None:
    """So much longer as whole pixels make it; the chord is 0.946 of it."""
    text = beatmap_text(f"10,20,1000,2,0,L|10:20,1,{length}\n256,192,9000,1,0")
    sequence = beatmap_to_sequence(with_shapes(parse_beatmap(text.encode(), "a"), everything(2)))
    natural = float(sequence.paths.evaluate(sequence.xy)[1][0])
    assert length <= natural < length + 3
    chord = float(np.hypot(*(sequence.xy[2] - sequence.xy[0])))
    assert chord / natural == pytest.approx(1 / BENT, abs=0.01)
