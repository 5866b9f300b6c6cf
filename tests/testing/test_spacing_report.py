"""Spacing errors against numbers worked out by hand, and sources found through the reports."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import spacing_report
import tables
from matplotlib.image import imread
from remap_pairs import Library, make_pair, pairs_at
from spacing_report import measure_pair, pooled, summarise, tabulate, worst_objects

from beatmaps.osu_file import Beatmap, parse_beatmap
from tests.conftest import beatmap_text, call_main, random_objects, remap, run_command

# A circle, a slider of two points that goes to and fro, a circle, a spinner.
SOURCE = (
    "100,100,{0},5,0\n200,100,1000,2,0,L|270:100,2,70\n270,200,2000,1,0\n256,192,3000,12,0,4000"
)


def parse(objects: str) -> Beatmap:
    return parse_beatmap(beatmap_text(objects).encode(), "map.osu")


def small_pair() -> tuple[Beatmap, Beatmap]:
    """In the remap the slider goes down, and the circle after it is 3 px too near to its end."""
    source = parse(SOURCE.format(500))
    after = parse(
        "100,100,500,5,0\n200,100,1000,2,0,L|200:172,2,70\n200,267,2000,1,0\n256,192,3000,12,0,4000"
    )
    return source, after


def test_errors_are_those_worked_out_by_hand() -> None:
    """Slider: anchor 72 instead of 70 px away, its end on it; trimmed to 70 px, 2 px before it."""
    measured = measure_pair(make_pair(*small_pair()))
    starts = measured.by_kind["object start"]
    to_spinner = abs(np.hypot(56, 75) - np.hypot(14, 8))
    # The first circle and the slider's head are where they were; 267 - 170 = 97, not 100.
    np.testing.assert_allclose(starts, [0, 0, 3, to_spinner], atol=1e-6)
    np.testing.assert_allclose(measured.by_kind["anchor"], [2], atol=1e-6)
    np.testing.assert_allclose(measured.by_kind["slider end"], [2], atol=1e-6)
    # The player is back at the head: 167 px to the circle, and it was (70, 100).
    np.testing.assert_allclose(
        measured.by_kind["as played"], [0, 167 - np.hypot(70, 100)], atol=1e-6
    )


def test_the_worst_objects_have_the_editors_stamps() -> None:
    measured = measure_pair(make_pair(*small_pair()))
    worst = worst_objects([measured], 5)
    stamps = [(row["stamp"], row["point"]) for row in worst]
    assert stamps == [
        ("00:03:000 (4)", "object start"),
        ("00:02:000 (3)", "object start"),
        ("00:01:000 (2)", "anchor 1"),
    ]
    assert (worst[1]["wanted"], worst[1]["found"]) == pytest.approx((100, 97))
    assert len(worst_objects([measured], 1)) == 1


def test_the_table_has_quantiles_and_all_maps_together() -> None:
    values = np.array([0.0, 0.5, 1.0, 4.0, 2.0])
    found = summarise(values)
    assert found["points"] == 5 and found["mean"] == 1.5 and found["median"] == 1.0
    assert found["max"] == 4 and found["above_1_px"] == 0.4
    assert found["p95"] == pytest.approx(np.quantile(values, 0.95))
    measured = measure_pair(make_pair(*small_pair()))
    table = tabulate([measured, measured])
    both = table[(table["map"] == "all") & (table["kind"] == "object start")]
    assert both["points"].tolist() == [8] and len(table) == 12
    assert len(pooled([measured, measured])["anchor"]) == 2


def test_maps_that_do_not_belong_together() -> None:
    source, after = small_pair()
    for objects in (
        SOURCE.format(503),
        "100,100,500,5,0",
        SOURCE.format(500).replace("1000,2", "1000,6"),
    ):
        with pytest.raises(ValueError, match="their objects differ"):
            make_pair(source, parse(objects))
    assert make_pair(source, after).moved.sum() == len(make_pair(source, after).before) - 1


# --- sources through the reports ------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with two sources, and one with remaps of both by the tiny model."""
    sources, output = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("results")
    for k in (1, 2):
        text = beatmap_text(random_objects(k, 40), version=f"D{k}")
        (sources / f"map {k}.osu").write_text(text, encoding="utf-8")
    assert remap(trained, output, "--beatmap", sources) == 0
    return sources, output


def test_a_folder_of_results(results: tuple[Path, Path], tmp_path: Path) -> None:
    """What is reported is what sample.py has in its own report."""
    output, picture = tmp_path / "errors.csv", tmp_path / "a.png"
    flags = ("--output", output, "--picture", picture)
    assert call_main(spacing_report.main, results[1], *flags) == 0
    table = tables.read_table(output)
    assert table["map"].nunique() == 3
    for report in results[1].rglob("*.result.json"):
        (variant,) = json.loads(report.read_bytes())["variants"]
        rows = table[table["map"] == variant["beatmap"]].set_index("kind")
        for name in ("median", "p95"):
            expected = variant["written"][f"object_spacing_error_{name}"]
            assert rows.loc["object start", name] == pytest.approx(expected)
    image = imread(picture)
    assert image.shape[:2] == (500, 900) and len(np.unique(image.reshape(-1, 4), axis=0)) > 20
    assert run_command(spacing_report.main, results[1], *flags) == 2  # the files are there


def test_one_remap_and_its_source_by_hand(
    results: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources, output = results
    path = next(output.rglob("*D2*.osu"))
    picture = ("--picture", tmp_path / "a.png", "--overwrite")
    assert call_main(spacing_report.main, path, *picture) == 0
    found = capsys.readouterr().out
    assert path.name in found and "D1" not in found
    lone = shutil.copy(path, tmp_path / path.name)
    by_hand = (lone, "--source", sources / "map 2.osu", *picture)
    assert call_main(spacing_report.main, *by_hand) == 0
    assert capsys.readouterr().out == found
    assert run_command(spacing_report.main, lone, *picture) == 2
    assert "name its --source" in capsys.readouterr().err
    assert run_command(spacing_report.main, lone, path, *by_hand[1:]) == 2
    assert "give as many" in capsys.readouterr().err


def test_a_source_that_was_moved(results: tuple[Path, Path], tmp_path: Path) -> None:
    sources, output = results
    elsewhere = tmp_path / "elsewhere" / "deep"
    shutil.copytree(sources, elsewhere)
    report = next(output.rglob("*D1*.result.json"))
    moved = tmp_path / "moved"
    shutil.copytree(report.parent, moved)
    (here,) = moved.glob("*.result.json")
    text = here.read_text(encoding="utf-8").replace(str(sources), str(tmp_path / "nowhere"))
    here.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="--sources"):
        pairs_at(moved, Library())
    (pair,) = pairs_at(moved, Library((elsewhere.parent,)))
    assert pair.source.raw == (sources / "map 1.osu").read_bytes()


def test_a_part_of_a_map_and_an_archive(trained: Path, tmp_path: Path) -> None:
    """Only what was remapped counts; the archive has both the source and the remap in it."""
    source = tmp_path / "set.osz"
    with zipfile.ZipFile(source, "w") as archive:
        for k in (1, 2):
            archive.writestr(f"{k}.osu", beatmap_text(random_objects(k, 40), version=f"D{k}"))
    flags = ("--difficulty", "D2", "--spacing", "scale:0.5", "--time-start", 5000)
    output = tmp_path / "results"
    assert remap(trained, output, "--beatmap", source, *flags) == 0
    source.unlink()
    (pair,) = pairs_at(output, Library())
    assert pair.source.version == "D2" and pair.remap.version.startswith("D2 (AI remap")
    times = pair.before.times[pair.moved]
    assert times.min() >= 5000 and 10 < len(times) < len(pair.before)
    measured = measure_pair(pair)
    assert "as played" not in measured.by_kind
    starts = measured.by_kind["object start"]
    assert np.median(starts) < 0.5
    scaled = 0.5 * pair.before.distances()[pair.moved & pair.before.object_starts]
    wanted = pair.wanted[pair.moved & pair.before.object_starts]
    np.testing.assert_allclose(wanted[1:-1], scaled[1:-1])


NEARLY = '{"source": {}, "options": {}, "arguments": {}, "files": [], "variants": []}'
WRONG = '{"source": 5, "options": 5, "arguments": 5, "files": 5, "variants": 5}'


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, '{"source": 1}', NEARLY, WRONG],
)
def test_a_report_that_is_none(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.result.json"
    path.write_text(text, encoding="utf-8")
    assert run_command(spacing_report.main, path, "--picture", tmp_path / "a.png") == 2
    assert "is not a report of sample.py" in capsys.readouterr().err
    assert run_command(spacing_report.main, tmp_path / "none", "--picture", tmp_path / "a.png") == 2
