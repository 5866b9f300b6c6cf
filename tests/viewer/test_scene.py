"""What is shown and when: combos, stacks, paths and moments against known answers."""

import random
from pathlib import Path

import numpy as np
import pytest

from beatmaps.game_rules import DEFAULT_COLOURS, circle_radius, combo_numbers, preempt
from beatmaps.osu_file import Beatmap, read_beatmap
from tests.conftest import needs_maps, real_paths
from tests.maps_to_show import made_up, many_circles, one_of_each
from viewer.scene import Item, frame, make_scene, simplified

# Combos


def test_numbers_and_colours_of_a_small_map() -> None:
    beatmap = made_up(
        "100,100,1000,1,0\n"  # the first object starts a combo without a flag
        "200,100,1200,1,0\n"
        "100,200,1400,5,0\n"
        "200,200,1600,1,0\n"
        "300,200,1800,37,0\n"  # new combo, two colours skipped
        "256,192,2000,12,0,3000\n"  # a spinner with a flag counts as no combo
        "100,100,3200,1,0\n"  # after the spinner, no flag
        "200,100,3400,1,0\n"
        "300,100,9000,1,0\n",  # after the break, no flag
        events="2,3600,8400",
    )
    assert combo_numbers(beatmap) == [
        (1, 1),  # the second colour
        (2, 1),
        (1, 2),
        (2, 2),
        (1, 2),  # 2 + 1 + 2 = 5, of three colours
        (0, 2),
        (1, 0),
        (2, 0),
        (1, 1),
    ]


def test_the_default_colours_are_counted_where_the_map_has_none() -> None:
    rows = "\n".join(f"100,100,{1000 + 100 * i},5,0" for i in range(5))
    beatmap = made_up(rows, colours="")
    assert len(DEFAULT_COLOURS) == 4
    assert [colour for _, colour in combo_numbers(beatmap)] == [1, 2, 3, 0, 1]


# Stacks


def steps(beatmap: Beatmap) -> list[float]:
    """How many steps up and left each object is shown from where the file has it."""
    scene = make_scene(beatmap)
    moved = [(t.hit_object.x - t.head[0]) / (scene.radius / 10) for t in scene.things]
    return [round(float(step), 6) for step in moved]


def test_circles_at_one_place_stack_up_and_left() -> None:
    text = "100,100,1000,1,0\n101,100,1100,1,0\n100,100,1200,1,0\n300,100,1300,1,0"
    assert steps(made_up(text)) == [2, 1, 0, 0]
    # At AR 9 and leniency 0.7 objects within 420 ms stack.
    assert steps(made_up("100,100,1000,1,0\n100,100,1420,1,0")) == [1, 0]
    assert steps(made_up("100,100,1000,1,0\n100,100,1421,1,0")) == [0, 0]


def test_circles_at_the_end_of_a_slider_stack_down_and_right() -> None:
    text = "100,100,1000,2,0,L|240:100,1,140\n240,100,1600,1,0\n240,100,1700,1,0"
    assert steps(made_up(text)) == [0, -1, -2]


def test_old_files_stack_forwards() -> None:
    # The circles are 500 ms apart from the slider's end but 100 ms from each other; before v6
    # the first of them must itself be near enough in time.
    near = "100,100,1000,2,0,L|240:100,1,140\n240,100,1600,1,0\n240,100,1700,1,0"
    assert steps(made_up(near, version=5)) == [0, -1, -2]
    # An object that is 3 px from its neighbour but 4 px from the first one joins no stack of
    # the first's; the newer rule follows the chain of neighbours.
    chain = "100,100,1000,1,0\n102,100,1100,1,0\n104,100,1200,1,0"
    assert steps(made_up(chain, version=5)) == [1, 1, 0]
    assert steps(made_up(chain)) == [2, 1, 0]


# Paths


def test_simplified_lines_stay_within_the_tolerance() -> None:
    angle = np.linspace(0, 3, 400)
    line = 100 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    few = simplified(line, 0.1)
    # An arc of radius r needs chords of 2 acos(1 - 0.1 / r) at most: 34 of them here.
    assert 34 <= len(few) - 1 < 2 * 34
    for point in line:
        offset, chord = point - few[:-1], np.diff(few, axis=0)
        along = np.clip((offset * chord).sum(1) / (chord**2).sum(1), 0, 1)
        assert np.hypot(*(offset - along[:, None] * chord).T).min() <= 0.1 + 1e-9
    corner = np.array([[0.0, 0], [50, 0], [100, 0], [100, 100]])
    assert simplified(corner, 0.1).tolist() == [[0, 0], [100, 0], [100, 100]]
    there_and_back = np.array([[0.0, 0], [100, 0], [0, 0]])
    assert simplified(there_and_back, 0.1).tolist() == there_and_back.tolist()


def largest_ball_error(beatmap: Beatmap) -> float:
    """px between the ball shown and the path's position, at random times of all sliders."""
    rng, worst = random.Random(0), 0.0
    for thing in make_scene(beatmap).things:
        hit = thing.hit_object
        if hit.kind != "slider" or hit.span_duration <= 0 or hit.path().length > 2000:
            continue
        offset = thing.head - (hit.x, hit.y)
        for _ in range(4):
            slides = rng.uniform(0, hit.slides)
            span = int(slides)
            fraction = slides - span if span % 2 == 0 else 1 - (slides - span)
            path = hit.path()
            exact = path.position_at(fraction * path.length) + offset
            shown = thing.ball_at(hit.time + slides * hit.span_duration)
            worst = max(worst, float(np.hypot(*(shown - exact))))
    return worst


def test_the_ball_is_where_the_path_says() -> None:
    assert largest_ball_error(one_of_each()) < 0.3


@needs_maps
def test_the_ball_is_where_the_path_says_on_real_maps() -> None:
    assert max(largest_ball_error(read_beatmap(path)) for path in real_paths("val")[::12]) < 0.3


# Moments


def only(items: list[Item], kind: str, thing: int) -> Item:
    """The only item of that kind and object."""
    (found,) = [item for item in items if (item.kind, item.thing) == (kind, thing)]
    return found


def test_preempt_times_of_the_wiki() -> None:
    assert [preempt(rate) for rate in (0, 5, 10)] == [1800, 1200, 450]


def test_a_circle_fades_in_is_approached_and_vanishes() -> None:
    scene = make_scene(made_up("100,80,2000,1,0"))  # AR 9: 600 ms, 400 ms of them fading in
    radius = circle_radius(4)
    assert radius == pytest.approx(36.48)
    assert frame(scene, 1400) == [] and frame(scene, 2240) == []
    half = frame(scene, 1600)
    assert only(half, "circle", 0) == Item("circle", 0, 100, 80, radius, 0, 0.5)
    ring = only(half, "approach", 0)
    assert ring.radius == pytest.approx(3 * radius) and ring.alpha == pytest.approx(0.3)
    late = frame(scene, 1999.99)
    assert only(late, "approach", 0).radius == pytest.approx(radius, abs=0.01)
    assert only(late, "circle", 0).alpha == 1
    (gone,) = frame(scene, 2120)
    assert gone.radius == pytest.approx(1.2 * radius) and gone.alpha == pytest.approx(0.5)


def test_reverse_arrows_point_back_and_turn_up_in_time() -> None:
    scene = make_scene(made_up("100,100,1000,2,0,L|240:100,3,140"))  # spans of 500 ms

    def arrows(time: float) -> list[tuple[float, float]]:
        items = [item for item in frame(scene, time) if item.kind == "arrow"]
        return [(item.x, round(abs(item.angle), 6)) for item in items]

    back = round(np.pi, 6)
    assert arrows(900) == [(240, back)]
    assert arrows(1100) == [(240, back), (100, 0)]
    assert arrows(1600) == [(100, 0)]
    assert arrows(2100) == []
    assert only(frame(scene, 1250), "ball", 0).x == pytest.approx(170)
    assert only(frame(scene, 1750), "ball", 0).x == pytest.approx(170)
    assert only(frame(scene, 2500), "ball", 0).x == pytest.approx(240)


def test_follow_points_lead_to_the_next_object_of_the_combo() -> None:
    rows = "100,100,1000,1,0\n400,100,1600,1,0\n100,100,2200,5,0"
    scene = make_scene(made_up(rows))
    points = [item for item in frame(scene, 1000) if item.kind == "point"]
    assert [item.x for item in points] == pytest.approx([148 + 32 * k for k in range(7)])
    assert {item.thing for item in points} == {1}  # none to the new combo
    # The first one is due at 1000 + 48 / 300 * 600 ms and has vanished 400 ms later.
    assert min(item.x for item in frame(scene, 1497) if item.kind == "point") == 180


def test_earlier_objects_lie_on_later_ones_and_rings_on_all() -> None:
    layers = {"point": 0, "approach": 2}
    for beatmap, time in ((one_of_each(), 2590), (many_circles(12, 4), 2000)):
        items = frame(make_scene(beatmap), time)
        order = [(layers.get(item.kind, 1), -item.thing) for item in items]
        assert order == sorted(order) and len({layer for layer, _ in order}) == 3


def test_a_spinner_closes_in_the_middle() -> None:
    scene = make_scene(made_up("0,0,1000,12,0,2000"))
    (half,) = frame(scene, 1500)
    assert (half.kind, half.x, half.y, half.radius) == ("spinner", 256, 192, 96)
    assert frame(scene, 500) == []


def test_every_moment_of_the_example_can_be_listed() -> None:
    (path,) = (Path(__file__).parents[2] / "example").glob("*.osu")
    scene = make_scene(read_beatmap(path))
    for time in range(0, 63_000, 500):
        assert all(0 <= item.alpha <= 1 and item.radius > 0 for item in frame(scene, time))
