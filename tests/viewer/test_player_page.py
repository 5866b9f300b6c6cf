"""The player: its data, its file, and what a browser draws against what the map says."""

import html
import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from beatmaps.osu_file import Beatmap, HitObject, parse_beatmap, read_beatmap
from tests.browser import chromium, needs_browser
from tests.conftest import FOLDER, beatmap_text, random_objects, real_paths
from tests.maps_to_show import made_up, many_circles, one_of_each
from viewer.marks import Mark
from viewer.player_page import (
    MAX_AUDIO_BYTES,
    audio_type,
    find_audio,
    hit_sounds,
    kiai_ranges,
    player_data,
    player_frame,
    player_html,
    write_player,
)
from viewer.scene import frame, make_scene

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PROJECT = Path(__file__).parents[2]
EXAMPLE = next((PROJECT / "example").glob("*.osu"))
TIMES = 20  # random ones, of each map
TOLERANCE = 0.3  # px; positions are shipped to 0.01 px, sliders as lines within 0.1 px
HOSTILE = "</script><img src=x onerror='window.harm=1'><!-- {{script}} \u2028 & \" '"


def song(tag: str, seed: int) -> Beatmap:
    """A made-up map with that title."""
    text = beatmap_text(random_objects(seed, 60), title=tag, version=tag)
    return parse_beatmap(text.encode("utf-8"), "song.osu")


def maps() -> list[Beatmap]:
    """The maps that are checked: five of our own, and real ones where there are any."""
    own = [read_beatmap(EXAMPLE), one_of_each(), many_circles(100, 5), song("a", 1), song("b", 2)]
    real = [*real_paths("val")[:120:24], *real_paths("edge")[:40:13]] if FOLDER else []
    return own + [map_ for path in real if (map_ := readable(path))]


def readable(path: Path) -> Beatmap | None:
    """The map of a file, None where it is none of this game's."""
    try:
        return read_beatmap(path)
    except ValueError:
        return None


def moments(beatmap: Beatmap) -> list[float]:
    """Random times while there is something to see, half of them within sliders."""
    rng = random.Random(beatmap.md5)
    lead = make_scene(beatmap).preempt
    sliders = [hit for hit in beatmap.objects if hit.kind == "slider" and hit.end_time > hit.time]
    played = rng.choices(sliders, k=TIMES // 2) if sliders else []
    shown = rng.choices(beatmap.objects, k=TIMES - len(played))
    return [
        *(rng.uniform(hit.time, hit.end_time) for hit in played),
        *(rng.uniform(hit.time - lead, hit.end_time + 200) for hit in shown),
    ]


# The data


def test_hitsounds_of_circles_edges_and_spinners() -> None:
    beatmap = made_up(
        "100,100,1000,1,2\n"
        "100,100,2000,2,4,L|240:100,2,140,2|0|8,0:0|0:0|0:0\n"
        "100,100,4000,2,12,L|240:100,1,140\n"
        "256,192,5000,12,8,6000\n"
    )
    # A slide takes 500 ms; edges without sounds of their own have the slider's.
    assert hit_sounds(beatmap) == [
        (1000, 2), (2000, 2), (2500, 0), (3000, 8), (4000, 12), (4500, 12), (6000, 8)
    ]  # fmt: skip


def test_kiai_times_of_the_example() -> None:
    assert kiai_ranges(read_beatmap(EXAMPLE)) == [(26200, 36440), (46680, 56920)]


def test_an_unfinished_kiai_time_ends_with_the_map() -> None:
    text = beatmap_text("100,100,1000,1,0\n100,100,9000,1,0").replace("80,0,0\n", "80,0,1\n")
    assert kiai_ranges(parse_beatmap(text.encode(), "kiai.osu")) == [(2000, 9000)]


def test_songs_are_known_by_their_first_bytes() -> None:
    assert audio_type((PROJECT / "example" / "first steps.ogg").read_bytes()) == "audio/ogg"
    assert audio_type(b"ID3\x04") == audio_type(b"\xff\xfb\x90") == "audio/mpeg"
    assert audio_type(b"RIFF\0\0\0\0WAVE") == "audio/wav"
    assert audio_type(b"\xff\xd8\xff") is None  # a JPEG
    assert audio_type(b"") is None


def test_the_song_is_looked_for_in_the_map_s_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "map"
    folder.mkdir()
    (tmp_path / "secret.ogg").write_bytes(b"OggS secret")
    text = beatmap_text("100,100,1000,1,0")
    for name, content, reason in (
        ("../secret.ogg", None, "no song in its folder"),
        ("..\\\\secret.ogg", None, "no song in its folder"),
        (str(tmp_path / "secret.ogg"), None, "no song in its folder"),
        ("", None, "no song in its folder"),
        ("none.ogg", None, "is not in the map's folder"),
        ("a.mp3", b"\xff\xd8 a picture", "no format that browsers play"),
        ("a.mp3", b"ID3 a song", ""),
    ):
        path = folder / "map.osu"
        path.write_text(text.replace("a.mp3", name.replace("\\\\", "\\")), encoding="utf-8")
        if content is not None:
            (folder / name).write_bytes(content)
        data, why = find_audio(read_beatmap(path))
        assert reason in why and (data is None) == bool(reason)


def test_a_song_that_cannot_be_played_is_an_error() -> None:
    with pytest.raises(ValueError, match="no Ogg, MP3"):
        player_html(many_circles(3, 3), audio=b"text")
    with pytest.raises(ValueError, match="more than"):
        player_html(many_circles(3, 3), audio=b"OggS" + bytes(MAX_AUDIO_BYTES))


# The file


def test_the_example_is_small_and_complete(tmp_path: Path) -> None:
    example = read_beatmap(EXAMPLE)
    write_player(tmp_path / "page.html", example, example)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(page) < 300_000
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    assert not re.search(r"\{\{\w+\}\}", page)
    with pytest.raises(ValueError, match="exists already"):
        write_player(tmp_path / "page.html", example)


def test_a_hostile_title_is_only_text() -> None:
    page = player_html(song(HOSTILE, 1))
    assert page.count("<script") == page.count("</script") == 2 and "<img" not in page
    data = page.partition('type="application/json">')[2].partition("</script>")[0]
    assert HOSTILE.replace("\u2028", " ") in json.loads(data)["maps"][0]["title"]
    (title,) = re.findall("<title>(.*)</title>", page)
    assert html.unescape(title) == f"Somebody - {HOSTILE}".replace("\u2028", " ")


# The scripts without a page


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_the_script_lists_the_same_items_as_the_scene(tmp_path: Path) -> None:
    beatmaps = maps()
    work = [
        {"data": player_data(beatmap), "times": moments(beatmap), "expected": None}
        for beatmap in beatmaps
    ]
    (tmp_path / "work.json").write_text(json.dumps(work), encoding="utf-8")
    program = (PROJECT / "viewer" / "player" / "scene.js").read_text(encoding="utf-8") + (
        "for (const { data, times } of JSON.parse(require('fs').readFileSync(process.argv[2]))) {"
        "  const scene = new Scene(data.maps[0], data.look);"
        "  console.log(JSON.stringify(times.map((time) => scene.frame(time))));"
        "}"
    )
    (tmp_path / "program.js").write_text(program, encoding="utf-8")
    command = ["node", str(tmp_path / "program.js"), str(tmp_path / "work.json")]
    output = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout
    for beatmap, line in zip(beatmaps, output.splitlines(), strict=True):
        scene = make_scene(beatmap)
        for moment, theirs in zip(moments(beatmap), json.loads(line), strict=True):
            ours = frame(scene, moment)
            assert [(i["kind"], i["thing"]) for i in theirs] == [(i.kind, i.thing) for i in ours]
            for item, other in zip(ours, theirs, strict=True):
                found = [other[key] for key in ("x", "y", "radius", "alpha")]
                wanted = [item.x, item.y, item.radius, item.alpha]
                np.testing.assert_allclose(found, wanted, atol=0.05)


# In a browser

RECORDER = """
// Keeps what is drawn on any canvas: each filled or stroked path with its points, in the
// coordinates of the drawing, and the scale and shift that take them to pixels.
window.recorded = [];
const proto = CanvasRenderingContext2D.prototype, call = {};
for (const name of ["beginPath", "arc", "moveTo", "lineTo", "fill", "stroke", "fillText"]) {
  call[name] = proto[name];
  proto[name] = function (...args) {
    if (name === "beginPath") this.path = { arcs: [], points: [] };
    else if (name === "arc") this.path.arcs.push(args.slice(0, 3));
    else if (name === "moveTo" || name === "lineTo") this.path.points.push(args);
    else {
      const { a, b, c, d, e, f } = this.getTransform();
      window.recorded.push({ name, ...(name === "fillText" ? { args } : this.path),
        width: this.lineWidth, style: name === "stroke" ? this.strokeStyle : this.fillStyle,
        alpha: this.globalAlpha, matrix: [a, b, c, d, e, f] });
    }
    return call[name].apply(this, args);
  };
}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Chrome]":
    """A browser that records what pages draw."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        command = "Page.addScriptToEvaluateOnNewDocument"
        driver.execute_cdp_cmd(command, {"source": RECORDER})
        yield driver


def load(browser: "Chrome", path: Path, *arguments: Any, **options: Any) -> None:
    """Writes a player to the path and opens it."""
    write_player(path, *arguments, **options)
    browser.get(path.as_uri())
    assert browser.execute_script("return window.player !== undefined"), browser.get_log("browser")


def stacked_start(beatmap: Beatmap) -> dict[int, np.ndarray]:
    """(2,) shift of every object by its stack."""
    return {
        thing.index: thing.head - (thing.hit_object.x, thing.hit_object.y)
        for thing in make_scene(beatmap).things
    }


class Expected:
    """What must be drawn at a time, from the map's own numbers: centres (2,) and outer radii."""

    def __init__(self, beatmap: Beatmap, moment: float, shifts: dict[int, np.ndarray]) -> None:
        rate = beatmap.approach_rate
        lead = 1800 - 120 * rate if rate < 5 else 1950 - 150 * rate
        radius = 54.4 - 4.48 * beatmap.circle_size
        self.discs: list[tuple[np.ndarray, float]] = []
        self.rings: list[tuple[np.ndarray, float]] = []
        self.balls: list[tuple[np.ndarray, float]] = []
        self.bodies: list[np.ndarray] = []
        self.spinners = 0
        for index, hit in enumerate(beatmap.objects):
            if not hit.time - lead < moment < hit.end_time + 240:
                continue
            if hit.kind == "spinner":
                self.spinners += moment > hit.time - 400
                continue
            head = np.array([hit.x, hit.y]) + shifts[index]
            if moment < hit.time:
                self.discs.append((head, radius))
                self.rings.append((head, radius * (1 + 3 * (hit.time - moment) / lead)))
            elif moment < hit.time + 240:
                self.discs.append((head, radius * (1 + 0.4 * (moment - hit.time) / 240)))
            if hit.kind == "slider":
                self.bodies.append(hit.path().position_at(grid(hit)) + shifts[index])
                if hit.time <= moment <= hit.end_time:
                    self.balls.append((ball(hit, moment) + shifts[index], radius))

    def centres(self) -> list[np.ndarray]:
        """Where arcs may be drawn."""
        found = [centre for centre, _ in (*self.discs, *self.rings, *self.balls)]
        return [*found, np.array([256, 192])] if self.spinners else found


def grid(hit: HitObject) -> np.ndarray:
    """Arc lengths along a slider."""
    return np.linspace(0, hit.path().length, 200)


def ball(hit: HitObject, moment: float) -> np.ndarray:
    """Where the slider's ball is, by the slide that the time is in."""
    slides = (moment - hit.time) / (hit.end_time - hit.time) * hit.slides
    away = slides % 2
    path = hit.path()
    return path.position_at(path.length * (away if away <= 1 else 2 - away))


def circles(calls: list[dict[str, Any]]) -> np.ndarray:
    """(n, 3) centre and outer radius of all stroked rings."""
    found = [
        (x, y, radius + call["width"] / 2)
        for call in calls
        if call["name"] == "stroke"
        for x, y, radius in call["arcs"]
    ]
    return np.array(found, dtype=float).reshape(-1, 3)


def nearest(found: np.ndarray, centre: np.ndarray, radius: float) -> float:
    """Largest difference in x, y or radius to the ring that is nearest to the wanted one."""
    if len(found) == 0:
        return float("inf")
    return float(np.abs(found - (*centre, radius)).max(axis=1).min())


def off_line(points: np.ndarray, line: np.ndarray) -> float:
    """Largest distance of the points (n, 2) from the line (m, 2)."""
    offset, chord = points[:, None] - line[:-1], np.diff(line, axis=0)
    squared = np.maximum((chord**2).sum(1), 1e-12)
    along = np.clip((offset * chord).sum(2) / squared, 0, 1)
    away = offset - along[..., None] * chord
    return float(np.hypot(away[..., 0], away[..., 1]).min(axis=1).max())


def deviation(expected: Expected, calls: list[dict[str, Any]]) -> float:
    """px by which the draw calls differ from what the map says; also that nothing else is drawn."""
    found = circles(calls)
    wanted = [*expected.discs, *expected.rings, *expected.balls]
    worst = max((nearest(found, *ring) for ring in wanted), default=0.0)
    for x, y, _ in found:
        centres = expected.centres()
        assert centres, "something is drawn where the map has nothing"
        worst = max(worst, min(float(np.hypot(*(c - (x, y)))) for c in centres))
    rounds = [c for c in calls if c["name"] == "stroke" and c["points"] and not c["arcs"]]
    outer = [call for call in rounds if call["width"] == max(c["width"] for c in rounds)]
    assert len(outer) == len(expected.bodies)
    for body in expected.bodies:
        lines = [np.array(call["points"], dtype=float) for call in outer]
        worst = max(worst, min(off_line(body, line) for line in lines))
    return worst


@needs_browser
def test_what_is_drawn_is_where_the_map_says(browser: "Chrome", tmp_path: Path) -> None:
    deviations, drawn_balls, drawn_rings = [], 0, 0
    for number, beatmap in enumerate(maps()):
        load(browser, tmp_path / f"{number}.html", beatmap)
        browser.execute_script("player.tick = () => {}")  # draws only when it is told to
        shifts = stacked_start(beatmap)
        for moment in moments(beatmap):
            script = "recorded.length = 0; player.draw(arguments[0]); return recorded"
            calls = browser.execute_script(script, moment)
            scales = {tuple(call["matrix"][:4]) for call in calls}
            assert len(scales) == 1
            ((a, b, c, d),) = scales
            assert a == d > 0.5 and b == c == 0
            expected = Expected(beatmap, moment, shifts)
            deviations.append(deviation(expected, calls))
            drawn_balls += len(expected.balls)
            drawn_rings += len(expected.rings)
    print(f"{len(deviations)} moments, {drawn_rings} approach circles, {drawn_balls} balls, "
          f"largest deviation {max(deviations):.3f} px")  # fmt: skip
    assert drawn_balls > 40 and drawn_rings > 100
    assert max(deviations) < TOLERANCE


@needs_browser
def test_numbers_and_colours_are_those_of_the_combos(browser: "Chrome", tmp_path: Path) -> None:
    beatmap = many_circles(4, 2)
    load(browser, tmp_path / "page.html", beatmap)
    browser.execute_script("player.tick = () => {}")
    calls = browser.execute_script("recorded.length = 0; player.draw(990); return recorded")
    texts = [call["args"][0] for call in calls if call["name"] == "fillText" and call["args"][0]]
    assert texts == ["1", "2", "1"]  # the third, second and first circle; the fourth comes later
    discs = [call for call in calls if call["name"] == "fill" and call["arcs"]]
    outer = [call for call in discs if call["arcs"][0][2] > 0.8 * 36.48]
    assert [call["style"] for call in outer] == ["#0000f2", "#00f200", "#00f200"]
    assert [call["alpha"] for call in outer] == pytest.approx([0.475, 0.975, 1])


@needs_browser
def test_a_hostile_title_does_no_harm(browser: "Chrome", tmp_path: Path) -> None:
    load(browser, tmp_path / "page.html", song(HOSTILE, 1), song(HOSTILE, 2))
    time.sleep(0.3)
    assert browser.execute_script("return window.harm") is None
    assert browser.execute_script("return document.images.length") == 0
    heading = browser.execute_script("return document.getElementById('title').textContent")
    assert HOSTILE.replace("\u2028", " ") in heading


@needs_browser
def test_controls(browser: "Chrome", tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    load(browser, tmp_path / "page.html", song("a", 1), song("b", 2))
    body = browser.find_element(By.TAG_NAME, "body")

    def state(expression: str) -> Any:
        return browser.execute_script(f"return player.{expression}")

    browser.find_element(By.ID, "play").click()
    assert state("clock.playing")
    start = state("clock.now()")
    time.sleep(0.5)
    assert 300 < state("clock.now()") - start < 3000
    browser.find_element(By.ID, "stage").click()
    assert not state("clock.playing")
    before = state("clock.now()")
    body.send_keys(Keys.ARROW_RIGHT)
    assert state("clock.now()") == pytest.approx(before + 1000)
    body.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert state("clock.now()") == pytest.approx(before - 1000)
    body.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert state("clock.rate") == 0.5
    for key, rate in (("+", 0.75), ("=", 1), ("-", 0.75), ("0", 1)):
        body.send_keys(key)
        assert state("clock.rate") == state("find('speed').value * 1") == rate
    for volume in (0, 0.6):
        body.send_keys("m")
        assert state("volume") == state("find('volume').value * 1") == volume
    for view in ("over", "before", "after", "side"):
        body.send_keys("v")
        assert state("view") == view
    browser.find_element(By.CSS_SELECTOR, "[data-view=over]").click()
    names = [s["name"] for s in state("stateAt(1000)")]
    assert state("view") == "over" and names == ["before", "after"]
    body.send_keys(Keys.END)
    assert state("clock.now()") == state("clock.end")
    body.send_keys(Keys.HOME)
    assert state("clock.now()") == state("clock.start")
    body.send_keys(" ")
    assert state("clock.playing")
    keys = browser.find_element(By.ID, "keys")
    assert keys.is_displayed() and keys.text.startswith("Space play, pause")
    nameless = (
        "return [...document.querySelectorAll('button, input, select')].filter((e) =>"
        " !(e.getAttribute('aria-label') || e.closest('label') || e.textContent.trim()))"
    )
    assert browser.execute_script(nameless) == []
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


@needs_browser
def test_every_hitsound_is_due_once(browser: "Chrome", tmp_path: Path) -> None:
    beatmap = song("a", 1)
    load(browser, tmp_path / "page.html", beatmap)
    browser.execute_script(
        "window.heard = []; player.sounds.play = (bits) => heard.push(bits);"
        "player.clock.setRate(1.5); player.seek(900); player.play()"
    )
    time.sleep(1.5)
    now, heard = browser.execute_script("player.pause(); return [player.clock.now(), heard]")
    sounds = [(due, bits) for due, bits in hit_sounds(beatmap) if due >= 900]
    assert len(heard) >= 3 and heard == [bits for _, bits in sounds[: len(heard)]]
    # Those that are due, and no more than the look-ahead of 120 ms beyond.
    assert sum(due < now for due, _ in sounds) <= len(heard)
    assert len(heard) <= sum(due <= now + 1.5 * 120 for due, _ in sounds)


@needs_browser
def test_kinds_of_hitsounds_can_be_told_apart(browser: "Chrome", tmp_path: Path) -> None:
    load(browser, tmp_path / "page.html", many_circles(3, 3))
    script = """
        const [bits, done] = arguments, sounds = player.sounds;
        sounds.context = new OfflineAudioContext(1, 44100, 44100);
        sounds.buffer = null;
        sounds.play(bits, 0, 1);
        sounds.context.startRendering().then((sound) => done([...sound.getChannelData(0)]));
    """

    def loud(bits: int, start: float, stop: float) -> float:
        samples = np.array(browser.execute_async_script(script, bits))
        assert np.abs(samples).max() <= 1
        return float(np.sqrt((samples[int(44100 * start) : int(44100 * stop)] ** 2).mean()))

    plain = loud(0, 0, 0.03)
    assert plain > 0.01 and loud(0, 0.06, 1) < 1e-6
    assert loud(8, 0.055, 0.08) > 1e-4 and loud(8, 0.1, 1) < 1e-6  # a clap is longer
    assert loud(2, 0.1, 0.15) > 1e-4 and loud(2, 0.2, 1) < 1e-6  # a whistle longer still
    assert loud(4, 0.3, 0.6) > 1e-5  # and a finish rings


@needs_browser
def test_the_song_plays_with_the_map_also_in_a_frame(browser: "Chrome", tmp_path: Path) -> None:
    example = read_beatmap(EXAMPLE)
    audio, _ = find_audio(example)
    page = tmp_path / "frame.html"
    framed = f"<!DOCTYPE html><meta charset=utf-8>{player_frame(example, audio=audio)}"
    page.write_text(framed, encoding="utf-8")
    load(browser, tmp_path / "page.html", example, audio=audio)
    check_song(browser)
    browser.get(page.as_uri())
    browser.switch_to.frame(0)
    check_song(browser)
    browser.switch_to.default_content()


def check_song(browser: "Chrome") -> None:
    """Plays from 20 s at one and a half times the speed, and compares song and clock."""
    browser.execute_script("player.clock.setRate(1.5); player.seek(20000); player.play()")
    both = []
    for _ in range(40):
        time.sleep(0.1)
        script = "const c = player.clock; return [c.now(), c.audio.currentTime * 1000]"
        both.append(browser.execute_script(script))
        if len(both) > 8 and both[-1][1] > 21_000:
            break
    clock, heard = np.array(both)[-1]
    assert heard > 21_000 and abs(clock - heard) < 150
    assert all(a[0] < b[0] for a, b in pairwise(both))
    browser.execute_script("player.pause()")
    assert browser.execute_script("return player.clock.audio.paused")


@needs_browser
def test_a_phone_has_room_for_everything(tmp_path: Path) -> None:
    with chromium(tmp_path / "profile", 390, 844, phone=True) as phone:
        load(phone, tmp_path / "page.html", song("a", 1), song("b", 2))
        assert phone.execute_script("return innerWidth") == 390
        assert phone.execute_script("return document.documentElement.scrollWidth") <= 390
        script = (
            "return [...document.querySelectorAll('button, select, input')]"
            ".map((e) => e.getBoundingClientRect()).every((r) => r.right <= 390 && r.bottom <= 844)"
        )
        assert phone.execute_script(script)
        panes = phone.execute_script("return player.panes().map(([area]) => area)")
        assert panes == [[0, 0, 1, 0.5], [0, 0.5, 1, 0.5]]


@needs_browser
def test_marks_are_listed_shown_and_jumped_to(browser: "Chrome", tmp_path: Path) -> None:
    beatmap = many_circles(12, 4)
    marks = [
        Mark("00:02:000 (2) - ", 5, "turn", "turns by 170 degrees", 0.001, False),
        Mark("00:01:200 (2) - ", 1, "overlap", "<b>4 px</b>", 0.002, True),
    ]
    load(browser, tmp_path / "page.html", beatmap, beatmap, marks=marks)
    script = "return [...document.querySelectorAll('#marks li')].map((row) => row.textContent)"
    assert browser.execute_script(script) == [
        "Show 00:02:000 (2) - turn: turns by 170 degrees",
        "Show 00:01:200 (2) - overlap: <b>4 px</b> (also in the source)",
    ]
    browser.execute_script("document.querySelectorAll('#marks button')[0].click()")
    assert browser.execute_script("return player.clock.now()") == 2000 - 600
    assert browser.get_log("browser") == []
    # The ring is in the mark's colour, around the object, on the second map alone.
    script = """
        const [name] = arguments, context = player.context, canvas = context.canvas;
        player.showView(name);
        player.draw(2000);
        const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
        let count = 0;
        const near = (value, wanted) => Math.abs(value - wanted) < 12;
        for (let i = 0; i < data.length; i += 4) {
            if (near(data[i], 255) && near(data[i + 1], 84) && near(data[i + 2], 112)) count += 1;
        }
        return count;
    """
    assert browser.execute_script(script, "after") > 200
    assert browser.execute_script(script, "before") == 0


@needs_browser
def test_without_marks_there_is_no_list(browser: "Chrome", tmp_path: Path) -> None:
    load(browser, tmp_path / "page.html", many_circles(12, 4))
    assert browser.execute_script("return document.getElementById('marks').hidden")
