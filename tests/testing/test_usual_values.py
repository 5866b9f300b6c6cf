"""Counting what is usual in a collection: the file against the maps' own values."""

import json
from pathlib import Path

import numpy as np
import pytest
import usual_values

from beatmaps.osu_file import parse_beatmap
from beatmaps.sequence import beatmap_to_sequence
from metrics import usual
from tests.conftest import beatmap_text, call_main, random_objects, run_command


def test_all_maps_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(usual, "FEWEST", 1)
    songs, found = tmp_path / "Songs", []
    songs.mkdir()
    for seed in range(3):
        text = beatmap_text(random_objects(seed, 60))
        (songs / f"{seed}.osu").write_text(text, encoding="utf-8", newline="")
        found.append(usual.judged(beatmap_to_sequence(parse_beatmap(text.encode(), "a")))[0])
    (songs / "broken.osu").write_text("nothing", encoding="utf-8")
    output = tmp_path / "usual.json"
    assert call_main(usual_values.main, songs, "--output", output) == 0
    assert "skipped" in capsys.readouterr().err
    written = json.loads(output.read_text(encoding="utf-8"))
    assert "180 objects of 3 maps" in written["source"]
    values = np.concatenate([maps["off_playfield"].values for maps in found])
    expected = np.histogram(values, usual.KINDS["off_playfield"].edges)[0]
    assert written["counts"]["off_playfield"] == {"0": expected.tolist()}


def test_too_few_maps_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.osu").write_text(beatmap_text(random_objects(1, 40)), encoding="utf-8")
    assert run_command(usual_values.main, tmp_path, "--output", tmp_path / "u.json") == 2
    assert "some hundred are needed" in capsys.readouterr().err
    assert not (tmp_path / "u.json").exists()
