"""The web page, driven in a browser against a server of its own, and the command that serves it."""

import asyncio
import html
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

import app
from beatmaps.osu_file import Beatmap, parse_beatmap, read_beatmap
from checkpoint import load_model
from constraints.spacing import PLAIN, WITH_FACTOR
from conventions.bundled import DEFAULT_MODEL, EXAMPLE
from conventions.command_line import options_of
from sampling.loaded_models import Models, load_models
from tests.browser import chromium, needs_browser
from tests.conftest import beatmap_text, random_objects, run_command
from tests.osu_diffusion_v2 import write_folder
from web.maps import open_map
from web.requests import page_request
from web.sessions import Sessions

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

    from web.controls import Page

PROJECT = Path(__file__).parents[2]
STEPS = 3
UPLOAD_MB = 2
HARM = "<img src=x onerror=window.harm=1>"
HOSTILE = f"{HARM} ${{window.harm=1}} {{{{this}}}} `"

needs_gradio = pytest.mark.skipif(not find_spec("gradio"), reason="needs gradio")


# The command


def test_without_gradio_one_line_says_what_to_do(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['gradio'] = None; import app; "
        "from conventions import command_line; command_line.run(app.main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=120
    )
    wanted = "app.py needs gradio: python -m pip install -r requirements-app.txt"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {wanted}\n")


def test_the_other_commands_do_not_need_gradio() -> None:
    program = "import sys, sample, app, web.sessions; print('gradio' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "False\n"


@needs_gradio
def test_wrong_flags_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app.os, "environ", dict(os.environ))
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    for flags, message in (
        (["--max-upload-mb", "0"], "give at least 1"),
        (["--port", "99999"], "give a number from 1 to 65535"),
        (["--host", "192.0.2.1"], "this computer cannot listen there"),
        (["--ckpt", "none.safetensors"], "there is no checkpoint file"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
    ):
        assert run_command(app.main, *flags) == 2
        assert message in capsys.readouterr().err


# What a visitor could make the server do


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/gradio_api/file=http://192.0.2.1/a", 403),
        ("/gradio_api/file=HTTPS://192.0.2.1/a", 403),
        ("/gradio_api/proxy=http://192.0.2.1/a", 403),
        ("/gradio_api/file=/tmp/http/a.osu", 200),
        ("/config", 200),
    ],
)
def test_the_server_fetches_no_address_for_others(path: str, status: int) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    asyncio.run(app.Guard(answer)({"type": "http", "path": path}, None, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == status
    assert (b"content-security-policy", app.POLICY.encode()) in sent[0]["headers"]


@needs_gradio
@pytest.mark.parametrize("control", ["file", "style_files", "timeline"])
def test_an_address_is_no_upload(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control: str
) -> None:
    import gradio as gr

    from web.controls import Page

    async def download(url: str, **_: object) -> str:
        asked.append(url)
        raise ValueError("there is no network")

    asked: list[str] = []
    monkeypatch.setattr(gr.processing_utils, "async_ssrf_protected_download", download)
    page = Page(Sessions(Models(load_model(trained / "model.safetensors")), tmp_path), EXAMPLE)
    (event,) = [fn for fn in page.blocks.fns.values() if fn.name == "remap"]
    address = {"path": "http://192.0.2.1/a.osu", "meta": {"_type": "gradio.FileData"}}
    values: dict[Any, Any] = {page.styles: []}
    values[getattr(page, control)] = [address] if control == "style_files" else address
    inputs = [values.get(part) for part in event.inputs]
    with pytest.raises(ValueError, match="no network"):  # what Gradio itself would do
        asyncio.run(gr.Blocks.preprocess_data(page.blocks, event, inputs, None))
    assert asked == [address["path"]]
    with pytest.raises(gr.Error, match="Upload the file itself"):
        asyncio.run(page.blocks.preprocess_data(event, inputs, None))
    assert asked == [address["path"]]


# Texts of the page


@needs_gradio
def test_the_page_offers_the_spacings_of_the_command_line(trained: Path, tmp_path: Path) -> None:
    from web.controls import FACTORS, Page
    from web.display import SPACINGS

    assert set(SPACINGS) == {*PLAIN, *WITH_FACTOR} and set(FACTORS) == set(WITH_FACTOR)
    alone = shutil.copy(trained / "model.safetensors", tmp_path / "alone.safetensors")
    for model, styles in ((trained / "model.safetensors", 7), (alone, 0)):
        page = Page(Sessions(Models(load_model(model)), tmp_path), EXAMPLE)
        assert "free" not in [mode for _, mode in page.spacing.choices]
        assert len(page.styles.choices) == styles
        assert page.search.visible == page.styles.visible == bool(styles)
        assert not any(control.visible for control in told_to_v2(page))


def told_to_v2(page: "Page") -> list[Any]:
    """What only models with groups of conditions can be told."""
    tags = [page.descriptors, page.negative_descriptors]
    return [page.mappers, *tags, page.star_rating, page.circle_size]


@needs_gradio
def test_a_model_of_osu_diffusion_v2_has_its_own_controls(trained: Path, tmp_path: Path) -> None:
    from web.controls import Page

    first = load_model(trained / "model.safetensors")
    second = load_model(write_folder(tmp_path / "v2"))
    alone = Page(Sessions(Models(second), tmp_path), EXAMPLE)
    assert all(control.visible for control in told_to_v2(alone))
    assert [tag for tag, _ in alone.descriptors.choices] == [
        *("skillset/jumps", "skillset/streams", "style/clean")
    ]
    beside = Page(Sessions(Models(first, expert=second), tmp_path), EXAMPLE)
    assert [c.visible for c in told_to_v2(beside)] == [False, *[True] * 4]


def test_the_page_loads_the_models_that_flags_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "v2")
    flags = ["--ckpt", str(DEFAULT_MODEL), "--expert-ckpt", str(folder), "--expert-below", "20"]
    service = options_of(app.Service, app.make_parser().parse_args(flags))
    base = app.base_request(service)
    models = load_models(base, torch.device("cpu"))
    assert models.expert is not None and models.expert.vocabulary is not None
    assert page_request(base).label() == "finished by v2"
    with pytest.raises(ValueError, match="say from which one it is to take over"):
        load_models(replace(base, expert=DEFAULT_MODEL, expert_below=None), torch.device("cpu"))


@needs_gradio
def test_errors_name_files_without_folders_and_are_no_html() -> None:
    import gradio as gr

    from web.display import explained

    path = f"/tmp/served/{HARM}.osz"
    with pytest.raises(gr.Error) as error, explained(path, None):
        raise ValueError(f"{path} is cut off:\nget it again")
    assert error.value.message == f"{html.escape(HARM)}.osz is cut off: get it again"
    with pytest.raises(gr.Error, match="MemoryError"), explained():
        raise MemoryError
    with pytest.raises(KeyError), explained():  # a mistake of ours is not the user's
        raise KeyError


@needs_gradio
def test_what_is_said_of_a_map(tmp_path: Path) -> None:
    from web.display import describe_map

    path = tmp_path / "map.osu"
    objects = "\n".join(f"100,100,{1000 + 300 * k},1,0" for k in range(9))
    path.write_text(beatmap_text(objects, title=HOSTILE, version="</b>"), encoding="utf-8")
    text = describe_map(open_map(path))
    assert "<img" not in text and "[&lt;/b&gt;]" in text
    for name, value in (("CS", "4"), ("BPM", "120"), ("Objects", "9 (9 circles)")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    assert "has only its rhythm" in text and "plays in silence" in text


# The page


@dataclass(frozen=True)
class Server:
    """A running app.py: its address, its process, and the folder for temporary files.

    Whatever it asks of other machines goes to `proxy`, a socket where nobody answers.
    """

    url: str
    process: "subprocess.Popen[str]"
    folder: Path
    proxy: socket.socket


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`app.py` on the bundled model, with a small limit of uploads."""
    folder = tmp_path_factory.mktemp("served")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    proxy = socket.create_server(("127.0.0.1", 0))
    proxies = {
        f"{kind}_proxy": f"http://127.0.0.1:{proxy.getsockname()[1]}" for kind in ("http", "https")
    }
    command = [sys.executable, str(PROJECT / "app.py"), "--port", str(port), "--device", "cpu"]
    command += ["--max-upload-mb", str(UPLOAD_MB)]
    process = subprocess.Popen(
        command,
        env=os.environ | proxies | {"no_proxy": "127.0.0.1,localhost", "TMPDIR": str(folder)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "osu-diffusion is starting ...\n"
        line = process.stdout.readline()
        assert line == f"osu-diffusion is at http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        yield Server(f"http://127.0.0.1:{port}/", process, folder, proxy)
    finally:
        proxy.close()
        process.kill()
        process.wait()


class Tab:
    """The page in a browser, with what a visitor does there."""

    def __init__(self, driver: "Chrome", url: str, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads
        downloads.mkdir(exist_ok=True)
        allow = {"behavior": "allow", "downloadPath": str(downloads)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", allow)
        driver.get(url)
        self.wait(lambda: self.one("#use-example"))

    def script(self, text: str, *arguments: object) -> Any:
        """What a script in the page returns."""
        return self.driver.execute_script(text, *arguments)

    def one(self, selector: str) -> "WebElement | None":
        """The first element of that kind."""
        found = self.driver.find_elements("css selector", selector)
        return found[0] if found else None

    def the(self, selector: str) -> "WebElement":
        """The element of that kind, which must be there."""
        found = self.one(selector)
        assert found is not None, selector
        return found

    def wait(self, condition: Callable[[], Any], seconds: float = 40) -> Any:
        """Waits until the condition holds; elements may be replaced meanwhile."""
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if result := condition():
                    return result
            except StaleElementReferenceException:
                pass
            time.sleep(0.05)
        raise AssertionError(f"timed out; the page says {self.the('body').text!r}")

    def click(self, selector: str) -> None:
        """A click, also on what has to be scrolled to."""
        self.script("arguments[0].click()", self.the(selector))

    def text(self, selector: str) -> str:
        """What can be read there."""
        found = self.one(selector)
        return found.text if found else ""

    def fill(self, selector: str, value: object) -> None:
        """Types a value in the place of what is there, and leaves the field."""
        self.the(selector).send_keys("\ue009a\ue000", f"{value}\t")  # control and a

    def upload(self, path: Path, selector: str = "#map") -> None:
        """Gives a file to a field for files."""
        self.wait(lambda: self.one(f"{selector} input[type=file]"))
        self.the(f"{selector} input[type=file]").send_keys(str(path))

    def open(self, path: Path, title: str) -> None:
        """Takes away the map that is there and uploads another one."""
        if self.one("#map button[aria-label='Clear']"):
            self.click("#map button[aria-label='Clear']")
        self.upload(path)
        self.wait(lambda: title in self.text("#summary") and self.the("#generate").is_enabled())

    def settings(self, **values: int) -> None:
        """Sets sliders and numbers, such as steps and variants."""
        if not self.one("#settings .label-wrap.open"):
            self.click("#settings .label-wrap")
        for name, value in values.items():
            field = self.wait(partial(self.one, f"#{name} input[type=number]"))
            self.wait(field.is_displayed)
            self.fill(f"#{name} input[type=number]", value)

    def generate(self) -> None:
        """Starts a run and waits for its results."""
        self.click("#generate")
        self.wait(lambda: self.one("#cancel"))
        self.wait(self.has_result)

    def has_result(self) -> bool:
        """Whether the page is at rest with results."""
        at_rest = self.the("#generate").is_enabled() and not self.one("#cancel")
        return bool(at_rest and self.one("#results") and "AI remap" in self.text("#facts"))

    def download(self, selector: str) -> Path:
        """Downloads a file."""
        for path in self.downloads.iterdir():
            path.unlink()
        self.click(selector)
        self.wait(lambda: [p for p in self.downloads.iterdir() if p.suffix in (".osu", ".osz")])
        (path,) = self.downloads.iterdir()
        return path

    def message(self) -> str:
        """Waits for an error message, closes it and says what it says."""
        self.wait(lambda: self.text(".toast-body"))
        text = self.text(".toast-body")
        self.click(".toast-close")
        self.wait(lambda: not self.one(".toast-body"))
        return text


@pytest.fixture(scope="module")
def tab(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """The page in a browser that keeps a log of what is sent."""
    folder = tmp_path_factory.mktemp("browser")
    with chromium(folder / "profile", 1280, 900, log="performance") as driver:
        yield Tab(driver, server.url, folder / "downloads")


@pytest.fixture(scope="module")
def song_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as an archive, with a second difficulty and one of another mode."""
    path = tmp_path_factory.mktemp("maps") / "First Steps.osz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.osu", beatmap_text(random_objects(3, 40), version="Other"))
        for source in EXAMPLE.parent.glob("*.o*"):
            file.write(source, source.name)
        file.writestr("k.osu", beatmap_text("100,100,1000,1,0", version="Keys", mode=3))
    return path


def places(beatmap: Beatmap) -> np.ndarray:
    """(M, 2) where a map's objects start."""
    return np.array([(hit.x, hit.y) for hit in beatmap.objects])


@needs_gradio
@needs_browser
def test_a_part_of_a_map_is_remapped_played_downloaded_and_remapped_again(
    tab: Tab, song_set: Path, tmp_path: Path
) -> None:
    tab.open(song_set, "Song [Other]")
    left_out = "1 left out (k.osu is an osu!mania beatmap: only osu!standard is supported)."
    assert left_out in tab.text("#summary")
    choose_difficulty(tab, "Original")
    choose_part(tab)
    tab.click("#style .label-wrap")
    tab.fill("#search textarea, #search input", "first mapper nobody knows")
    tab.wait(lambda: not tab.one("#styles label"))
    tab.fill("#search textarea, #search input", "love letters")
    tab.wait(lambda: "[Kyshiro's Normal] by [Luanny]" in tab.text("#styles"))
    tab.click("#styles input")
    tab.settings(steps=STEPS, variants=2, seed=7)
    tab.generate()
    assert len(tab.driver.find_elements("css selector", "#variant .cards button img")) == 2
    tab.click("#variant .cards button:nth-of-type(2)")
    tab.wait(lambda: "seed 7) #2" in tab.text("#facts"))
    check_player(tab, ["Original", "Original (AI remap"])
    osu = tab.download("#osu").read_bytes()
    part = {"start": 20000, "end": 40000}
    request = page_request(styles=("map:303335",), timeline=part, steps=STEPS, variants=2, seed=7)
    sessions = Sessions(Models(load_model(DEFAULT_MODEL)), tmp_path)
    run = sessions.remap("", song_set, request, lambda *_: None, 1)
    assert osu == run.variants[1].file.read_bytes()
    before, after = read_beatmap(EXAMPLE), parse_beatmap(osu, "after.osu")
    inside = [20000 <= hit.time <= 40000 and hit.kind != "spinner" for hit in before.objects]
    moved = (places(before) != places(after)).any(axis=1)
    assert not moved[~np.array(inside)].any() and moved[inside].mean() > 0.9
    assert {"osu-diffusion", "ai-generated"} <= set(after.tags)
    archive = tmp_path / "again.osz"
    shutil.copy(tab.download("#osz"), archive)
    assert [b.version for b in open_map(archive).beatmaps[2:]] == [run.variants[1].version]
    tab.open(archive, "Song [Other]")
    choose_difficulty(tab, "#2")
    tab.generate()
    assert "AI remap" in tab.text("#facts")


def choose_difficulty(tab: Tab, name: str) -> None:
    """Chooses a difficulty by a part of its name."""
    tab.wait(lambda: tab.one("#difficulty input"))
    tab.the("#difficulty input").click()

    def options() -> list[Any]:
        found = tab.driver.find_elements("css selector", "[role=option]")
        return [option for option in found if name in option.text]

    (option,) = tab.wait(options)
    option.click()
    tab.wait(lambda: re.search(rf"\[.*{re.escape(name)}.*\]", tab.text("#summary")))


def choose_part(tab: Tab) -> None:
    """Chooses 00:20:000 to 00:40:000, once in the fields and once by the handles."""
    from selenium.webdriver import ActionChains

    tab.fill("#timeline .time.from", "00:20:000 (1,2) - ")
    tab.fill("#timeline .time.to", "nonsense")
    assert tab.the("#timeline .time.to").get_attribute("value") == "00:59:800"
    tab.fill("#timeline .time.to", "40000")
    tab.click("#timeline button")
    assert tab.text("#timeline output") == "199 of 199 objects"
    track = tab.the("#timeline .track")
    half = track.size["width"] // 2
    drag = ActionChains(tab.driver).move_to_element_with_offset(track, 2 - half, 0)
    drag.click_and_hold().move_by_offset(half // 2, 0).release().perform()
    dragged = tab.the("#timeline .time.from").get_attribute("value")
    assert dragged and "00:13:000" < dragged < "00:18:000"
    assert tab.text("#timeline output") != "199 of 199 objects"
    tab.fill("#timeline .time.from", 20000)
    tab.fill("#timeline .time.to", "00:40:000")
    assert tab.the("#timeline .end.to").get_attribute("value") == "40000"
    inside = sum(20000 <= hit.time <= 40000 for hit in read_beatmap(EXAMPLE).objects)
    assert tab.text("#timeline output") == f"{inside} of 199 objects"


def check_player(tab: Tab, names: list[str]) -> None:
    """Plays what the page shows: two maps are drawn, and the song goes on."""
    tab.driver.switch_to.frame(tab.the("#player iframe"))
    try:
        versions = tab.script("return player.data.maps.map((map) => map.version)")
        assert all(text.startswith(name) for text, name in zip(versions, names, strict=True))
        hash_of = (
            "const canvas = document.getElementById('field');"
            "const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
            "return [player.clock.now(), data.data.reduce((sum, v) => (31 * sum + v) % 65521, 0),"
            "  player.clock.audio.currentTime]"
        )
        tab.the("#play").click()
        first = tab.script(hash_of)
        tab.wait(lambda: tab.script("return player.clock.now()") > first[0] + 500, 10)
        second = tab.script(hash_of)
        assert second[1] != first[1] and second[2] > first[2]
        tab.the("#play").click()
    finally:
        tab.driver.switch_to.default_content()


@needs_gradio
@needs_browser
def test_variants_are_combined_and_earlier_results_come_back(tab: Tab, song_set: Path) -> None:
    tab.open(song_set, "Song [Other]")
    choose_difficulty(tab, "Original")
    tab.fill("#objects input, #objects textarea", "00:04:123 (9) - ")
    tab.settings(steps=STEPS, variants=2, seed=3)
    tab.click("#generate")
    assert "Objects '00:04:123 (9)': no object 9 is there" in tab.message()
    tab.the("#objects input, #objects textarea").send_keys("\ue009a\ue000\ue017\t")  # all deleted
    tab.wait(lambda: tab.the("#generate").is_enabled() and not tab.one("#cancel"))
    tab.generate()
    first = tab.download("#osu").read_bytes()
    tab.click("#combining .label-wrap")
    tab.wait(lambda: tab.the("#parts textarea").is_displayed())
    tab.fill("#parts textarea", "00:20:000 - 00:30:000 -> 2")
    tab.click("#combine")
    tab.wait(lambda: "#1+#2+#1" in tab.text("#facts"))
    assert tab.text("#facts").count("at most") == 2
    combined = parse_beatmap(tab.download("#osu").read_bytes(), "combined.osu")
    before, variant = read_beatmap(EXAMPLE), parse_beatmap(first, "first.osu")
    early = [hit.time < 15000 for hit in before.objects]
    assert (places(combined) == places(variant))[early].all()
    tab.open(song_set, "Song [Other]")
    tab.settings(steps=1, variants=1, seed=4)
    tab.generate()
    # In a style, where the test before has left one chosen.
    other = re.compile(r"Other \(AI remap (style \d+ guidance 2 )?seed 4\)")
    assert other.match(tab.text("#facts"))
    tab.click("#undo")
    tab.wait(lambda: "#1+#2+#1" in tab.text("#facts"))
    assert "[Original]" in tab.text("#summary")
    assert tab.the("#seed input").get_attribute("value") == "3"
    tab.wait(lambda: not tab.the("#undo").is_enabled() or len(history(tab)) > 2)
    tab.click("#redo")
    tab.wait(lambda: other.match(tab.text("#facts")))
    assert "[Other]" in tab.text("#summary")
    assert tab.the("#seed input").get_attribute("value") == "4"
    assert "Seed 4" in history(tab)[-1] and "Seed 3" in history(tab)[-2]


def history(tab: Tab) -> list[str]:
    """What the cards of earlier results say."""
    return [card.text for card in tab.driver.find_elements("css selector", "#earlier button")]


@needs_gradio
@needs_browser
def test_a_long_run_is_cancelled_and_the_next_one_works(tab: Tab) -> None:
    tab.driver.refresh()
    tab.wait(lambda: tab.one("#use-example"))
    tab.click("#use-example")
    tab.wait(lambda: "First Steps" in tab.text("#summary"))
    tab.settings(steps=100, variants=8)
    for _ in range(3):
        tab.click("#generate")
        tab.wait(lambda: re.search(r"Sampling: step [1-9]\d* of 100", tab.text("#status")))
        assert not tab.the("#generate").is_enabled()
        tab.click("#cancel")
        tab.wait(lambda: tab.text("#status") == "Cancelled." and not tab.one("#cancel"))
    assert not tab.one("#results")
    tab.settings(steps=STEPS, variants=1)
    tab.the("#seed input").send_keys("\ue009a\ue000\ue017\t")  # all of it deleted
    tab.click("#generate")
    assert "Give numbers" in tab.message()
    tab.wait(lambda: tab.the("#generate").is_enabled() and not tab.one("#cancel"))
    tab.settings(seed=1)
    tab.generate()
    assert tab.text("#status") == ""
    check_player(tab, ["Original", "Original (AI remap"])


@needs_gradio
@needs_browser
def test_two_visitors_queue_up_and_get_their_own_results(
    server: Server, tab: Tab, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{name}.osu" for name in ("one", "two")]
    for k, path in enumerate(paths):
        text = beatmap_text(random_objects(k, 40), title=f"Song {path.stem}")
        path.write_text(text, encoding="utf-8")
    with chromium(tmp_path / "profile") as driver:
        other = Tab(driver, server.url, tmp_path / "downloads")
        tab.open(paths[0], "Song one")
        other.open(paths[1], "Song two")
        tab.settings(steps=100, variants=8)
        other.settings(steps=STEPS)
        tab.click("#generate")
        tab.wait(lambda: "Sampling" in tab.text("#status"))
        other.click("#generate")
        other.wait(lambda: "Waiting for 1 other run" in other.text("#status"))
        tab.click("#cancel")
        other.wait(other.has_result)
        tab.settings(steps=STEPS, variants=1)
        for each in (tab, other):
            each.click("#generate")
            each.wait(partial(each.one, "#cancel"))
        for each, path in ((tab, paths[0]), (other, paths[1])):
            each.wait(each.has_result)
            before, data = read_beatmap(path), each.download("#osu").read_bytes()
            after = parse_beatmap(data, "after.osu")
            assert after.title == before.title
            assert [hit.time for hit in after.objects] == [hit.time for hit in before.objects]
    folders = [path for path in visitor_folders(server) if any(path.rglob("*.osu"))]
    tab.wait(lambda: len([path for path in folders if path.exists()]) == 1, 10)
    tab.wait(lambda: not list(server.folder.rglob("two.osu")), 10)
    assert list(server.folder.rglob("one.osu"))


def visitor_folders(server: Server) -> list[Path]:
    """The folders of open pages that have results."""
    return [path for path in server.folder.glob("osu-diffusion-*/*") if len(path.name) == 32]


@needs_gradio
@needs_browser
def test_bad_uploads_get_a_clear_message(tab: Tab, song_set: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.osz"
    large.write_bytes(bytes(UPLOAD_MB * 10**6 + 10**6))
    cut = tmp_path / f"{HARM}.osz"
    cut.write_bytes(song_set.read_bytes()[:5000])
    mania = tmp_path / "mania.osu"
    mania.write_text(beatmap_text("100,100,1000,1,0", mode=3), encoding="utf-8")
    for path, wanted in (
        (large, "exceed the maximum allowed size of 2.0 Mb"),
        (cut, "is cut off: get it again"),
        (mania, "mania.osu is an osu!mania beatmap"),
    ):
        if tab.one("#map button[aria-label='Clear']"):
            tab.click("#map button[aria-label='Clear']")
        tab.upload(path)
        message = tab.message()
        assert wanted in message and str(path.parent) not in message and "/" not in message
        tab.wait(lambda: not tab.the("#generate").is_enabled() and not tab.one("#summary"))
    assert not tab.script("return window.harm")


@needs_gradio
@needs_browser
def test_the_limit_of_uploads_holds_without_our_page(server: Server) -> None:
    def upload(size: int) -> int:
        head = 'Content-Disposition: form-data; name="files"; filename="a.osz"'
        body = f"--x\r\n{head}\r\n\r\n".encode() + bytes(size) + b"\r\n--x--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{server.url}gradio_api/upload", body, kind)
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert upload(1000) == 200
    assert upload(UPLOAD_MB * 10**6 + 10**6) == 413


@needs_gradio
@needs_browser
def test_hostile_texts_of_a_map_are_only_texts(tab: Tab, tmp_path: Path) -> None:
    path = tmp_path / "hostile.osz"
    with zipfile.ZipFile(path, "w") as file:
        for version in (HOSTILE, f"{HOSTILE} 2"):
            text = beatmap_text(random_objects(1, 30), title=HOSTILE, version=version)
            file.writestr(f"{len(version)}.osu", text)
        file.writestr(f"{HARM}.osu", "no beatmap")
    tab.open(path, HOSTILE)
    assert f"{HARM}.osu" in tab.text("#summary .remark:last-child")
    choose_difficulty(tab, f"{HOSTILE} 2")
    tab.settings(steps=STEPS, variants=2)
    tab.generate()
    assert HOSTILE in tab.text("#facts")
    time.sleep(0.3)  # for a picture that must not be looked for to fail
    assert not tab.script("return window.harm")
    tab.driver.switch_to.frame(tab.the("#player iframe"))
    assert tab.text("#title") == f"Somebody - {HOSTILE} (Mapper)"
    assert not tab.script("return window.harm")
    tab.driver.switch_to.default_content()


@needs_gradio
@needs_browser
def test_a_phone_has_room_for_everything(server: Server, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile", 390, 844, phone=True) as driver:
        phone = Tab(driver, server.url, tmp_path / "downloads")
        phone.click("#use-example")
        phone.wait(lambda: "First Steps" in phone.text("#summary"))
        phone.click("#style .label-wrap")
        phone.settings(steps=1, variants=2)
        phone.generate()
        phone.wait(lambda: phone.one("#picture img"))
        phone.click("#combining .label-wrap")
        assert phone.script("return document.documentElement.scrollWidth") <= 390
        script = (
            "return [...document.querySelectorAll('button, iframe, input:not([type=file])')]"
            ".filter((e) => e.offsetParent && !e.closest('#picture'))"
            ".map((e) => [e.getBoundingClientRect(), e.outerHTML.slice(0, 99)])"
            ".filter(([r]) => r.left < 0 || r.right > 390).map(([, text]) => text)"
        )
        assert phone.script(script) == []
        assert phone.the("#player iframe").size["height"] < 844


@needs_gradio
@needs_browser
def test_nothing_is_asked_of_other_machines(server: Server, tab: Tab) -> None:
    """After the tests above: all that the page has asked for, and what it complained of."""
    sent = [json.loads(entry["message"])["message"] for entry in tab.driver.get_log("performance")]
    requests = [
        message["params"]["request"]["url"]
        for message in sent
        if message["method"] == "Network.requestWillBeSent"
    ]
    hosts = [urlsplit(url).netloc for url in requests if url.startswith(("http", "ws"))]
    assert len(hosts) > 50 and set(hosts) == {urlsplit(server.url).netloc}
    entries = tab.script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert all(url.startswith(server.url) for url in entries)
    assert [e for e in tab.driver.get_log("browser") if "Content Security" in e["message"]] == []
    with urllib.request.urlopen(server.url) as answer:
        assert answer.headers["Content-Security-Policy"] == app.POLICY
        page = answer.read().decode("utf-8")
    config = json.loads(page.partition("window.gradio_config = ")[2].partition(";</script>")[0])
    assert config["analytics_enabled"] is False
    server.proxy.settimeout(0)
    with pytest.raises(BlockingIOError):
        server.proxy.accept()


@needs_gradio
@needs_browser
def test_the_server_ends_without_leaving_files(server: Server, tab: Tab) -> None:
    """The last test of this file: it ends the server."""
    assert list(server.folder.glob("osu-diffusion-*"))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 143
    assert list(server.folder.iterdir()) == []
    assert server.process.stdout is not None
    assert "Traceback" not in server.process.stdout.read()
