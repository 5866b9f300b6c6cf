"""Which distances `--spacing` asks for, by hand."""

import numpy as np
import pytest

from beatmaps.osu_file import Beatmap, parse_beatmap
from beatmaps.sequence import Sequence, beatmap_to_sequence
from constraints.spacing import LONGEST_SNAP, Spacing, suggestion, wanted_distances
from tests.conftest import beatmap_text

# 500 ms a beat; the slider lasts 500 ms. Distances of object starts: 156, 60, 80, 0, 100.
OBJECTS = (
    "100,192,1000,1,0\n100,252,1250,1,0\n180,252,2000,2,0,L|320:252,1,140\n"
    "320,252,2500,1,0\n320,152,9000,1,0"
)
STARTS = [0, 1, 2, 5, 6]


def example(objects: str = OBJECTS) -> tuple[Beatmap, Sequence]:
    beatmap = parse_beatmap(beatmap_text(objects).replace("2000,-50", "2000,-100").encode(), "five")
    return beatmap, beatmap_to_sequence(beatmap)


def wanted(text: str) -> tuple[list[float], list[float]]:
    """Distances of object starts, and of inner points."""
    distances = wanted_distances(example()[1], Spacing.parse(text))
    return distances[STARTS].tolist(), np.delete(distances, STARTS).tolist()


def test_keep_and_model_ask_for_the_sources_distances() -> None:
    for text in ("keep", "model"):
        starts, inner = wanted(text)
        np.testing.assert_allclose(starts, [156, 60, 80, 0, 100], atol=1e-9)
        np.testing.assert_allclose(inner, [140, 0], atol=1e-9)


def test_scale_stretches_distances_between_objects_only() -> None:
    starts, inner = wanted("scale:1.5")
    np.testing.assert_allclose(starts, [234, 90, 120, 0, 150], atol=1e-9)
    np.testing.assert_allclose(inner, [140, 0], atol=1e-9)


def test_snap_follows_the_beats_since_the_last_object() -> None:
    starts, inner = wanted("snap:100")
    np.testing.assert_allclose(starts, [156, 50, 150, 0, LONGEST_SNAP], atol=1e-9)
    np.testing.assert_allclose(inner, [140, 0], atol=1e-9)


def test_free_asks_for_none() -> None:
    assert wanted_distances(example()[1], Spacing.parse("free")).tolist() == [-1.0] * 7


@pytest.mark.parametrize("text", ["scale:1.2", "scale 1.2", " scale: 1.2 "])
def test_a_factor_follows_a_colon_or_a_space(text: str) -> None:
    assert Spacing.parse(text) == Spacing("scale", 1.2)


@pytest.mark.parametrize(
    "text", ["", "keep:1", "scale", "scale:", "scale:x", "scale:nan", "scale:1:2", "snap:0", "wide"]
)
def test_other_texts_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="spacing") as caught:
        Spacing.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode, factor", [("scale", -1.0), ("scale", 11.0), ("snap", 1001.0)])
def test_factors_have_limits(mode: str, factor: float) -> None:
    with pytest.raises(ValueError, match=f"spacing {mode}:.*above 0 and at most"):
        Spacing(mode, factor)


def test_a_map_of_one_place_is_told_of_snap() -> None:
    _, stacked = example("\n".join(f"256,192,{500 * k},1,0" for k in range(4)))
    hint = suggestion(stacked, Spacing())
    assert hint is not None and "100%" in hint and "snap" in hint and "\n" not in hint
    assert suggestion(stacked, Spacing("snap", 100.0)) is None
    assert suggestion(example()[1], Spacing()) is None
    _, single = example("256,192,0,1,0")
    assert suggestion(single, Spacing()) is None
