"""The map of the embeddings: clusters stay together, colours are what they say, text is text."""

import json
import re
from collections.abc import Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plot_embeddings
import pytest
from class_embeddings import Classes
from matplotlib.image import imread
from plot_embeddings import UNKNOWN, by_mapper, by_number, by_year, page, project

from tests.browser import chromium, needs_browser
from tests.conftest import call_main, run_command
from tests.testing.test_class_embeddings import export, row

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.skipif(not find_spec("sklearn"), reason="scikit-learn is not installed")
EVIL = "</script><script>document.title='caught'</script><img src=x onerror=\"document.title='x'\">"


def clusters() -> np.ndarray:
    """Three bundles (30, 64), each in a direction of its own, their lengths anything."""
    rng = np.random.default_rng(0)
    vectors = 3 * np.eye(3, 64)[np.repeat(np.arange(3), 10)] + 0.1 * rng.normal(size=(30, 64))
    return vectors * rng.uniform(0.2, 5, (30, 1))


def table(count: int = 30) -> pd.DataFrame:
    return pd.DataFrame([row(k) for k in range(count)])


def test_near_embeddings_are_near_on_the_map() -> None:
    places = project(clusters(), "tsne", 5, 0)
    away = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(away, np.inf)
    assert (away.argmin(axis=1) // 10 == np.arange(30) // 10).all()
    np.testing.assert_array_equal(places, project(clusters(), "tsne", 5, 0))
    with pytest.raises(ValueError, match="too few"):
        project(clusters()[:3], "tsne", 5, 0)


def test_mappers_have_colours_and_the_rest_is_grey() -> None:
    frame = table(33)
    frame.loc[:2, "version"] = "Mapper_4's Hard"  # a guest, spelt as the game does not tell apart
    frame.loc[3, "version"] = "A's & B's Hard"
    shown = by_mapper(frame)
    assert shown.legend[0] == ("Mapper 4 (6)", shown.colours[12])
    assert shown.colours[:3] == [shown.colours[12]] * 3 and shown.colours[3] == UNKNOWN
    assert len(shown.legend) == 11 and shown.legend[-1][1] == UNKNOWN
    assert sum(int(re.findall(r"\((\d+)\)", label)[0]) for label, _ in shown.legend) == 33


def test_numbers_are_on_a_scale_and_what_is_not_known_is_said() -> None:
    values = np.array([1.0, np.nan, 2.0, 3.0])
    shown = by_number("bpm", values)
    assert shown.colours[1] == UNKNOWN and shown.legend == [("not known (1)", UNKNOWN)]
    assert len(set(shown.colours)) == 4 and shown.order[0] == 1
    assert shown.low is not None and 1 <= shown.low < 1.1
    with pytest.raises(ValueError, match="known of no class"):
        by_number("bpm", np.full(3, np.nan))


def test_years_are_those_of_the_table_or_ids_stand_in() -> None:
    frame = table(6)
    shown = by_year(
        frame, {("set_id", 10): date(2010, 1, 1), ("beatmap_id", 105): date(2012, 1, 1)}
    )
    assert shown.name == "year" and [c != UNKNOWN for c in shown.colours] == [1, 1, 0, 0, 0, 1]
    assert shown.low is not None and shown.high is not None
    assert 2010 <= shown.low < shown.high <= 2012
    of_frame = by_year(frame.assign(date=["2010-01-01", *[""] * 4, "2012-01-01"]), {})
    assert [c != UNKNOWN for c in of_frame.colours] == [1, 0, 0, 0, 0, 1]
    instead = by_year(frame.assign(beatmap_id=[-1, 5, 6, 7, 8, 9]), {})
    assert instead.name == "beatmap ID, in place of the date"
    assert instead.colours[0] == UNKNOWN and instead.low is not None and instead.low >= 5


def test_the_command_draws_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = export(tmp_path, clusters())
    outputs = [tmp_path / "a.png", tmp_path / "a.html"]
    flags = ("--ckpt", checkpoint, "--neighbours", 5, "--output", *outputs)
    assert call_main(plot_embeddings.main, *flags) == 0
    image = imread(outputs[0])
    assert image.shape[1] == 2160 and len(np.unique(image.reshape(-1, 4), axis=0)) > 50
    text = outputs[1].read_text(encoding="utf-8")
    data = page_data(text)
    assert [c["name"] for c in data["colourings"]][::2] == ["mapper", "star rating"]
    assert data["names"][3] == "Artist - Song 1 [Hard 3] (Mapper 1)"
    assert data["details"][3] == "beatmap 103, 1.75 stars, class 3"
    assert not re.search(r"(src|href)=|https?:", text)
    assert run_command(plot_embeddings.main, *flags) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert call_main(plot_embeddings.main, *flags, "--overwrite") == 0
    assert outputs[1].read_text(encoding="utf-8") == text


def test_what_cannot_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = export(tmp_path, clusters())
    wrong = {
        ("--output", tmp_path / "a.jpg"): "end in .png or .html",
        ("--colour", "bpm"): "give mapper, year, stars or class_index, beatmap_id",
        ("--neighbours", 1): "from 2 on",
        ("--dates", tmp_path / "none.csv"): "no table of dates",
    }
    if not find_spec("umap"):
        wrong["--method", "umap"] = "pip install umap-learn"
    for flags, message in wrong.items():
        fixed = () if "--output" in flags else ("--output", tmp_path / "b.png")
        assert run_command(plot_embeddings.main, "--ckpt", checkpoint, *flags, *fixed) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()


# --- the page -------------------------------------------------------------------------------------


def page_data(text: str) -> Any:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def evil_page() -> str:
    """A page whose metadata are markup."""
    frame = table().assign(title=EVIL, creator=EVIL)
    places = np.stack([np.arange(30.0), np.arange(30.0) % 7], axis=1)
    stars = by_number("star rating", frame["star_rating"].to_numpy())
    return page(places, Classes(frame, clusters()), [by_mapper(frame), stars], EVIL)


def test_metadata_cannot_become_markup() -> None:
    text = evil_page()
    assert EVIL in page_data(text)["names"][0]
    assert "<img" not in text and text.count("<script") == 2


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Chrome]":
    folder = tmp_path_factory.mktemp("browser")
    path = folder / "page.html"
    path.write_text(evil_page(), encoding="utf-8")
    with chromium(folder / "profile") as started:
        started.get(path.as_uri())
        yield started


@needs_browser
def test_the_name_under_the_pointer(browser: "Chrome") -> None:
    """It is that of the point there, as text."""
    script = (
        "const [x, y] = place(arguments[0]), box = canvas.getBoundingClientRect();"
        "canvas.dispatchEvent(new PointerEvent('pointermove',"
        " {clientX: box.left + x, clientY: box.top + y}));"
        "return [tip.hidden, tip.textContent, tip.children.length]"
    )
    for index in (0, 13, 29):
        hidden, text, children = browser.execute_script(script, index)
        assert not hidden and children == 0
        assert text.startswith("Artist - " + EVIL) and f"class {index}" in text
    assert browser.title == EVIL
    assert not browser.find_elements("css selector", "img")
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


@needs_browser
def test_colours_search_and_zoom(browser: "Chrome") -> None:
    pixel = (
        "const [x, y] = place(arguments[0]), r = devicePixelRatio;"
        "return [...context.getImageData(Math.round(x * r), Math.round(y * r), 1, 1).data]"
    )
    choose = (
        "const s = element('colouring'); s.selectedIndex = arguments[0];"
        "s.dispatchEvent(new Event('change')); return colouring.colours"
    )
    for number in (0, 1):
        colours = browser.execute_script(choose, number)
        for index in (3, 20):
            red, green, blue, alpha = browser.execute_script(pixel, index)
            shown = [int(colours[index][k : k + 2], 16) for k in (1, 3, 5)]
            assert alpha == round(0.9 * 255) and np.allclose([red, green, blue], shown, atol=2)
    assert len(browser.find_elements("css selector", "#legend .bar")) == 1
    search = (
        "const s = element('search'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input')); return element('found').textContent"
    )
    assert browser.execute_script(search, "[HARD 13]") == "1 of 30"
    assert browser.execute_script(search, "class 29") == "1 of 30"
    assert browser.execute_script(search, "") == ""
    zoomed = (
        "const before = view.scale; canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: -400}));"
        "const after = view.scale; element('reset').click(); return [before, after, view.scale]"
    )
    before, after, whole = browser.execute_script(zoomed)
    assert after == pytest.approx(before * np.e) and whole == before
