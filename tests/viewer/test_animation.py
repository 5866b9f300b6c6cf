"""Animations and previews: the frames of the files that were written, against the scene."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import preview
from beatmaps.game_rules import circle_radius, preempt
from beatmaps.sequence import beatmap_to_sequence
from tests.conftest import beatmap_text, call_main, random_objects, run_command
from tests.maps_to_show import made_up, many_circles
from viewer.animation import MAX_STATES, RESULT_MS, animate_denoising, animate_play, busiest_clip
from viewer.pictures import SURROUND
from viewer.previews import SUFFIXES
from viewer.scene import PLAYFIELD

WIDTH = 600  # one pixel an osu! pixel: the playfield and its surround
assert PLAYFIELD[0] + 2 * SURROUND == WIDTH


def frames(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Pixels (height, width, 3) of each frame of a GIF and the ms that it lasts."""
    with Image.open(path) as gif:
        for number in range(getattr(gif, "n_frames", 1)):
            gif.seek(number)
            yield np.array(gif.convert("RGB")).astype(int), gif.info["duration"]


def lit(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y, in osu! pixels, of all that is not dark within the playfield."""
    top = pixels.shape[0] - (PLAYFIELD[1] + SURROUND)  # there is a label above
    field = pixels[top : top + PLAYFIELD[1], SURROUND : SURROUND + PLAYFIELD[0]]
    rows, columns = np.nonzero(field[5:-5, 5:-5].max(axis=2) > 70)
    return columns + 5.5, rows + 5.5


def middle(pixels: np.ndarray) -> np.ndarray:
    """(2,) middle of what is lit."""
    return np.array([(side.min() + side.max()) / 2 for side in lit(pixels)])


def test_the_busiest_clip_begins_at_a_combo() -> None:
    rows = [f"100,100,{t},{5 if t in (0, 20_000, 40_000) else 1},0" for t in (0, 5000, 20_000)]
    rows += [f"100,100,{20_000 + 500 * k},1,0" for k in range(1, 9)] + ["100,100,40000,5,0"]
    assert busiest_clip(made_up("\n".join(rows)), 6000) == 20_000


def test_approach_circles_close_in(tmp_path: Path) -> None:
    beatmap = made_up("256,192,1000,1,0")
    animate_play(
        [("", beatmap)],
        tmp_path / "a.gif",
        start_ms=700,
        length_ms=300,
        width=WIDTH,
        progress=False,
    )
    read = list(frames(tmp_path / "a.gif"))
    assert len(read) == 6 and all(duration == 50 for _, duration in read)
    for number, (pixels, _) in enumerate(read):
        left = 300 - 50 * number
        ring = circle_radius(4) * (1 + 3 * left / preempt(9)) * 2
        x, _ = lit(pixels)
        assert abs(x.max() - x.min() - ring) < 6
        assert np.abs(middle(pixels) - (256, 192)).max() < 2


def test_two_maps_play_beside_each_other(tmp_path: Path) -> None:
    left, right = made_up("100,100,1000,1,0"), made_up("400,300,1000,1,0")
    maps = [("before", left), ("after", right)]
    animate_play(
        maps, tmp_path / "a.gif", start_ms=950, length_ms=50, width=2 * WIDTH, progress=False
    )
    ((pixels, _),) = frames(tmp_path / "a.gif")
    assert pixels.shape[1] == 2 * WIDTH
    assert np.abs(middle(pixels[:, :WIDTH]) - (100, 100)).max() < 2
    assert np.abs(middle(pixels[:, WIDTH:]) - (400, 300)).max() < 2


def test_denoising_shows_every_step_and_the_result(tmp_path: Path) -> None:
    beatmap = made_up("200,200,1000,1,0")
    sequence = beatmap_to_sequence(beatmap)
    places = [(100.0, 100.0), (150, 250), (300, 120), (400, 300)]
    *steps, result = [np.array([place]) for place in places]
    animate_denoising(
        sequence,
        steps,
        result,
        tmp_path / "d.gif",
        width=WIDTH,
        progress=False,
    )
    read = list(frames(tmp_path / "d.gif"))
    assert len(read) == 4 and read[-1][1] == RESULT_MS
    for place, (pixels, _) in zip(places, read, strict=True):
        assert np.abs(middle(pixels) - place).max() < 2


def test_many_steps_are_thinned_out(tmp_path: Path) -> None:
    beatmap = made_up("200,200,1000,1,0")
    steps = [np.array([[50.0 + k, 100]]) for k in range(2 * MAX_STATES + 1)]
    animate_denoising(
        beatmap_to_sequence(beatmap),
        steps,
        np.array([[400.0, 300]]),
        tmp_path / "d.gif",
        width=128,
        progress=False,
    )
    with Image.open(tmp_path / "d.gif") as gif:
        assert getattr(gif, "n_frames", 0) == -(-(2 * MAX_STATES + 1) // 3) + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length_ms": 60_000}, "a clip of 60000 ms"),
        ({"length_ms": 0}, "a clip of 0 ms"),
        ({"width": 10_000}, "an animation 10000 pixels wide"),
    ],
)
def test_sizes_that_make_no_sense_are_errors(
    tmp_path: Path, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        animate_play([("", many_circles(5, 5))], tmp_path / "a.gif", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# The command


def written(folder: Path, name: str, seed: int) -> Path:
    """The path of a made-up map's file."""
    path = folder / f"{name}.osu"
    path.write_text(beatmap_text(random_objects(seed, 30), title=name), encoding="utf-8")
    return path


def test_the_command_makes_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = written(tmp_path, "a", 1), written(tmp_path, "b", 2)
    flags = ["--output", tmp_path / "out", "--kinds", *SUFFIXES, "--length", 500]
    assert call_main(preview.main, before, after, *flags, "--width", 256) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["b.gif", "b.html", "b.png", "b.sheet.png"]
    assert "is not in the map's folder" in capsys.readouterr().out  # the song
    assert run_command(preview.main, before, after, *flags) == 2
    assert "exists: add --overwrite" in capsys.readouterr().err
    assert call_main(preview.main, before, *flags, "--kinds", "png") == 0


def test_one_map_alone(tmp_path: Path) -> None:
    before = written(tmp_path, "a", 1)
    flags = ["--output", tmp_path / "out", "--kinds", "png", "sheet", "html"]
    assert call_main(preview.main, before, *flags, "--start", 500, "--length", 1500) == 0
    with Image.open(tmp_path / "out" / "a.png") as picture:
        assert picture.width == 1600


def test_an_empty_range_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = written(tmp_path, "a", 1)
    flags = ["--output", tmp_path / "out", "--kinds", "png", "--start", 9_000_000]
    assert run_command(preview.main, before, *flags) == 2
    assert "choose a range that holds some" in capsys.readouterr().err
