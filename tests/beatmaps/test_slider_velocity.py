"""Green lines for sliders of other lengths: known answers, and properties of any timing."""

from collections.abc import Sequence as Rows
from math import inf
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beatmaps.osu_file import Beatmap, TimingLine, parse_beatmap
from beatmaps.sequence import apply_coordinates, beatmap_to_sequence
from beatmaps.slider_velocity import TOLERANCE, plan_velocities

RED = "0,500,4,2,1,60,1,0"


def osu_text(objects: str, timing: str = RED, version: int = 14) -> str:
    """A small beatmap: 100 px last 500 ms at velocity 1."""
    return (
        f"osu file format v{version}\n\n[General]\nSampleSet: Drum\n\n"
        f"[Difficulty]\nSliderMultiplier:1\n\n[TimingPoints]\n{timing}\n\n[HitObjects]\n{objects}\n"
    )


def parse(objects: str, timing: str = RED, version: int = 14) -> Beatmap:
    return parse_beatmap(osu_text(objects, timing, version).encode(), "test.osu")


def slider(time: float, length: float = 100, y: int = 0) -> str:
    """A straight slider of 100 px whose end is the end of its path."""
    return f"0,{y},{time},2,0,L|100:{y},1,{length}"


def fitted(beatmap: Beatmap, scale: dict[int, float]) -> Beatmap:
    """The beatmap with the points and ends of some objects at multiples of their place."""
    sequence = beatmap_to_sequence(beatmap)
    factors = np.array([scale.get(index, 1.0) for index in sequence.objects.tolist()])
    data = apply_coordinates(sequence, sequence.xy * factors[:, None], "fit")
    result = parse_beatmap(data, "fitted.osu")
    check_durations(beatmap, result)
    return result


def check_durations(before: Beatmap, after: Beatmap) -> None:
    for old, new in zip(before.objects, after.objects, strict=True):
        assert new.time == old.time
        assert new.end_time == pytest.approx(old.end_time, abs=TOLERANCE * (1 + 1e-6))


def timing_text(beatmap: Beatmap) -> str:
    """[TimingPoints] of a beatmap made by `parse`."""
    text = beatmap.raw.decode().replace("\r\n", "\n")
    return text.partition("[TimingPoints]\n")[2].partition("\n\n")[0]


def lengths(beatmap: Beatmap) -> list[float | None]:
    return [hit.length for hit in beatmap.objects if hit.kind == "slider"]


def test_a_longer_slider_gets_a_green_line() -> None:
    result = fitted(parse(slider(1000)), {0: 1.5})
    assert timing_text(result) == f"{RED}\n1000,{-100 / 1.5!r},4,2,1,60,0,0"
    assert lengths(result) == [150]


def test_the_next_slider_gets_its_velocity_back() -> None:
    result = fitted(parse("\n".join(map(slider, (1000, 2000, 3000)))), {0: 2.0})
    assert timing_text(result) == f"{RED}\n1000,-50.0,4,2,1,60,0,0\n2000,-100.0,4,2,1,60,0,0"
    assert lengths(result) == [200, 100, 100]


def test_sliders_of_the_same_ratio_share_a_line() -> None:
    result = fitted(parse("\n".join(map(slider, (1000, 2000, 3000)))), dict.fromkeys(range(3), 2.0))
    assert timing_text(result) == f"{RED}\n1000,-50.0,4,2,1,60,0,0"


@pytest.mark.parametrize(
    ("shift", "length"),
    [
        (-0.9, 1000),  # an end less than a pixel off
        (-1.9, 1000),  # at 1000 px in 500 ms, 0.95 ms
        (-2.1, 997.9),
    ],
)
def test_a_velocity_that_fits_within_a_millisecond_is_kept(shift: float, length: float) -> None:
    beatmap = parse("0,0,1000,2,0,L|1000:0,1,1000", f"{RED}\n0,-10,4,2,1,60,0,0", version=128)
    sequence = beatmap_to_sequence(beatmap)
    xy = sequence.xy.copy()
    xy[2, 0] += shift
    result = parse_beatmap(apply_coordinates(sequence, xy, "fit"), "x")
    assert lengths(result) == [pytest.approx(length)]
    assert (timing_text(result) == timing_text(beatmap)) == (length == 1000)
    check_durations(beatmap, result)


@pytest.mark.parametrize("time", [1000, 900])
def test_a_green_line_of_one_slider_is_changed(time: int) -> None:
    """Whether it stands at the slider or before it; its samples and kiai stay."""
    green = f"{time},-50,3,1,7,33,0,1"
    result = fitted(parse(slider(1000), f"{RED}\n{green} // note"), {0: 0.5})
    assert timing_text(result) == f"{RED}\n{green.replace('-50', '-100.0')} // note"


def test_a_green_line_that_another_slider_uses_stays() -> None:
    timing = f"{RED}\n900,-50,4,2,1,60,0,0"
    result = fitted(parse(f"{slider(900)}\n{slider(1000)}", timing), {1: 0.5})
    assert timing_text(result) == f"{timing}\n1000,-100.0,4,2,1,60,0,0"


def test_the_line_comes_after_a_red_one_and_copies_it_without_omitted_barline() -> None:
    reds = f"{RED}\n1000,500,3,1,7,33,1,9"
    result = fitted(parse(slider(1000), f"{reds}\n1001,500,4,2,1,60,1,0"), {0: 2.0})
    assert timing_text(result) == f"{reds}\n1000,-50.0,3,1,7,33,0,1\n1001,500,4,2,1,60,1,0"


def test_fields_that_a_line_leaves_out_are_written_as_the_game_takes_them() -> None:
    """The sample set is that of [General]."""
    result = fitted(parse(slider(1000), "0,500"), {0: 2.0})
    assert timing_text(result) == "0,500\n1000,-50.0,4,3,0,100,0,0"


def test_two_sliders_at_one_time_share_a_velocity() -> None:
    """The mean on a scale of ratios; the lengths make up for it."""
    result = fitted(parse(f"{slider(1000)}\n{slider(1000, y=90)}"), {0: 2.0, 1: 0.5})
    assert timing_text(result) == RED
    assert lengths(result) == [100, 100]
    result = fitted(parse(f"{slider(1000)}\n{slider(1000, y=90)}"), {0: 3.0, 1: 3.0})
    assert len(result.timing_lines) == 2
    result = fitted(parse(f"{slider(1000)}\n{slider(1000, y=90)}"), {0: 2.0})
    assert timing_text(result) == RED  # the other one does not change


@pytest.mark.parametrize(("factor", "velocity"), [(40.0, 10.0), (0.02, 0.1)])
def test_velocities_end_at_a_tenth_and_ten(factor: float, velocity: float) -> None:
    """Beyond, the length is what the velocity allows."""
    result = fitted(parse(slider(1000)), {0: factor})
    assert result.slider_velocity_at(1000) == velocity
    assert lengths(result) == [pytest.approx(100 * velocity)]


@pytest.mark.parametrize(
    ("timing", "version"),
    [
        (RED, 7),  # the number of ticks would change
        ("", 14),  # nothing to copy
        ("1500,500,4,2,1,60,1,0", 14),  # osu!stable would take a first green line for the tempo
    ],
)
def test_sliders_that_keep_their_lengths(timing: str, version: int) -> None:
    result = fitted(parse(slider(1000), timing, version), {0: 2.0})
    assert timing_text(result) == timing
    assert lengths(result) == [100]
    assert result.objects[0].points.tolist() == [[0, 0], [200, 0]]


def test_in_a_file_out_of_order_the_lines_come_last() -> None:
    timing = f"2000,-50,4,2,1,60,0,0\n{RED}\n1500,-200,4,1,1,60,0,0"
    result = fitted(parse("\n".join(map(slider, (1000, 1700, 2000))), timing), {0: 2, 1: 3, 2: 1})
    assert timing_text(result).startswith(f"{timing}\n1000,")
    assert [hit.length for hit in result.objects] == [200, 300, 100]


@pytest.mark.parametrize(("encoding", "newline"), [("utf-8", "\r\n"), ("utf-16", "\n")])
def test_line_endings_and_encodings(encoding: str, newline: str) -> None:
    """The timing points may end the file, without a line ending."""
    text = f"osu file format v14\n\n[HitObjects]\n{slider(1000)}\n[TimingPoints]\n{RED}"
    beatmap = parse_beatmap(text.replace("\n", newline).encode(encoding), "x")
    result = fitted(beatmap, {0: 2.0})
    assert result.raw.decode(encoding).splitlines() == [
        *text.replace("100:0,1,100", "200:0,1,200.0").splitlines(),
        "1000,-50.0,4,2,1,60,0,0",
    ]


@pytest.mark.parametrize("curve", ["B|50:0|80:40|P|90:90|60:99|L|0:99", "B3|9:9|50:0|80:40|99:99"])
def test_letters_of_new_curves_survive(curve: str) -> None:
    beatmap = parse(f"0,0,1000,2,0,{curve},1,90", version=128)
    result = fitted(beatmap, {0: 1.3})
    assert result.objects[0].letters == beatmap.objects[0].letters
    assert result.objects[0].length == pytest.approx(90 * 1.3, abs=0.5)
    assert len(result.timing_lines) == 2


def test_a_path_that_retraces_itself_keeps_its_branch() -> None:
    """Out to 100 px and back: at 150 px the end lies on the way out too."""
    result = fitted(parse("0,0,1000,2,0,L|100:0|0:0,1,150"), {0: 2.0})
    assert lengths(result) == [300]


@pytest.mark.parametrize("rest", ["1", "1,0", "2,-1"])
def test_a_slider_without_length_gets_one(rest: str) -> None:
    result = fitted(parse(f"0,0,1000,2,0,L|100:0,{rest}"), {0: 2.0})
    assert result.objects[0].path().length == pytest.approx(200)
    assert result.slider_velocity_at(1000) == pytest.approx(2.0)


def test_a_doubled_last_point() -> None:
    result = fitted(parse("0,0,1000,2,0,L|70:0|70:0,1,140"), {0: 2.0})
    assert result.slider_velocity_at(1000) == pytest.approx(2.0)


class Lines(NamedTuple):
    """A map of sliders under some timing, and scales of the sliders."""

    timing: list[str]
    sliders: list[str]
    scales: list[float]

    def beatmap(self) -> Beatmap:
        return parse("\n".join(self.sliders), "\n".join(self.timing))

    def fitted(self) -> Beatmap:
        return fitted(self.beatmap(), dict(enumerate(self.scales)))


TIME = st.integers(0, 12).map(lambda step: 250 * step)
SCALE = st.sampled_from([1.0, 1.0, 1.002, 1.2, 0.5, 3.0, 0.01, 60.0])


@st.composite
def maps(draw: st.DrawFn, *, ordered: bool) -> Lines:
    """Up to eight sliders and six more timing lines, many at the same times."""
    lines = []
    for time in draw(st.lists(TIME, max_size=6)):
        beat = draw(st.sampled_from(["-50", "-100", "-80.5", "-3000", "70", "NaN", "400", "300"]))
        red = beat in ("400", "300")
        lines.append((time, f"{time},{beat},4,{draw(st.integers(1, 3))},0,70,{int(red)},8"))
    if ordered:
        lines.sort(key=lambda line: line[0])
    times = sorted(draw(st.lists(TIME, min_size=1, max_size=8)))
    return Lines(
        [RED, *(text for _, text in lines)],
        [slider(time, length=draw(st.sampled_from([100, 100, 30, 260]))) for time in times],
        [draw(SCALE) for _ in times],
    )


def volume_and_flags(beatmap: Beatmap, time: float) -> list[str]:
    """Meter, samples and kiai in force at a time of a file in order, without omitted barlines.

    Of the lines at one time the last green one is, or else the first red one.
    """
    latest = max(line.time for line in beatmap.timing_lines if line.time <= time)
    together = [line for line in beatmap.timing_lines if line.time == latest]
    line = ([line for line in together if not line.red] or together[:1])[-1]
    fields = beatmap.line_text(line.line).split(",")
    return [*fields[2:6], str(int(fields[7]) & 1)]


@settings(deadline=None, max_examples=40)
@given(maps(ordered=True))
def test_durations_stay_and_every_added_line_is_needed(drawn: Lines) -> None:
    before, after = drawn.beatmap(), drawn.fitted()
    times = [line.time for line in after.timing_lines]
    assert times == sorted(times)
    added = [line for line in after.timing_lines[1:] if after.line_text(line.line).endswith(",0")]
    assert len(added) == len(after.timing_lines) - len(before.timing_lines)
    durations = [hit.end_time - hit.time for hit in after.objects]
    for line in added:
        lines = [text for index, text in enumerate(after.lines) if index != line.line]
        without = parse_beatmap(b"".join(lines), "x").objects
        change = [
            abs(hit.end_time - hit.time - duration)
            for hit, duration in zip(without, durations, strict=True)
        ]
        assert max(change) > 1e-6
    for hit in before.objects:
        assert volume_and_flags(after, hit.time) == volume_and_flags(before, hit.time)


@settings(deadline=None)
@given(maps(ordered=False))
def test_durations_stay_in_any_order(drawn: Lines) -> None:
    before, after = drawn.beatmap(), drawn.fitted()
    if [line.time for line in before.timing_lines] != sorted(
        line.time for line in before.timing_lines
    ):
        assert timing_text(after).startswith(timing_text(before))


def fewest_lines(needs: Rows[float], duration: float, velocity: float) -> int:
    """Changes of velocity needed for sliders of one duration, by trying all divisions into runs."""
    if not needs:
        return 0
    spans = [(v * duration / (duration + 1), v * duration / (duration - 1)) for v in needs]
    best = inf
    for count in range(1, len(needs) + 1):
        low, high = max(a for a, _ in spans[:count]), min(b for _, b in spans[:count])
        if low <= velocity <= high:
            best = min(best, fewest_lines(needs[count:], duration, velocity))
        if low <= high:
            ends = (fewest_lines(needs[count:], duration, v) for v in (low, high))
            best = min(best, 1 + min(ends))
    return int(best)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([1.0, 1.0015, 1.003, 1.0045, 1.2, 1.2018]), max_size=5))
def test_no_fewer_lines_would_do(ratios: list[float]) -> None:
    """Against an exhaustive search; sliders of 500 ms, so that 0.2 % is within the tolerance."""
    beatmap = parse("\n".join(slider(1000 + 600 * i) for i in range(max(len(ratios), 1))))
    plan = plan_velocities(beatmap, dict(enumerate(ratios)))
    added = sum(len(block) for block in plan.edits.added.values())
    assert added == fewest_lines(ratios, 500, 1.0)
    assert not plan.edits.beat_lengths


def test_lines_of_one_time() -> None:
    """What a timing line says."""
    assert TimingLine(0, 0.0, -50.0, red=False).velocity == 2
    assert TimingLine(0, 0.0, 50.0, red=False).velocity == 1
    assert TimingLine(0, 0.0, float("nan"), red=False).velocity == 1
