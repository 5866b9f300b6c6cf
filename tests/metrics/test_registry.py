"""The registry: every metric says what its columns are, and measures those."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from beatmaps.osu_file import parse_beatmap
from beatmaps.sequence import apply_coordinates, beatmap_to_sequence
from constraints.bounds import Bounds
from metrics.metric import Pair
from metrics.registry import METRICS
from tests.conftest import beatmap_text, random_objects


def pair(seed: int, *, sampled: bool = True) -> Pair:
    """A made-up map and a copy of it that is moved a little."""
    text = beatmap_text(random_objects(seed, 40), set_id=seed)
    before = beatmap_to_sequence(parse_beatmap(text.encode(), f"{seed}.osu"))
    data = apply_coordinates(before, before.xy + np.array([3, -2]))
    after = beatmap_to_sequence(parse_beatmap(data, "after.osu"))
    raw, seconds = (before.xy + 0.25, 2.0) if sampled else (None, None)
    return Pair(before, after, before.distances(), Bounds(), raw, seconds)


def test_names_and_columns_belong_to_one_metric_each() -> None:
    names = Counter(metric.name for metric in METRICS)
    columns = Counter(column for metric in METRICS for column in metric.columns)
    assert set(names.values()) == set(columns.values()) == {1}
    assert all(unit for metric in METRICS for unit in metric.columns.values())


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("kind", METRICS, ids=lambda metric: metric.name)
def test_a_metric_measures_its_columns(kind: type, sampled: bool) -> None:
    metric, measured = kind(seed=0), pair(5, sampled=sampled)
    row = metric.measure(measured)
    assert row.keys() <= metric.columns.keys()
    optional = {name for name in metric.columns if name.startswith(("raw_", "star", "seconds"))}
    assert row.keys() >= metric.columns.keys() - optional
    table = pd.DataFrame([{"points": len(measured.before), **row}])
    for value in metric.summarise(table).values():
        assert np.isfinite(value)


def test_only_what_was_sampled_has_raw_numbers() -> None:
    for sampled in (True, False):
        found: dict[str, object] = {}
        for kind in METRICS:
            found |= kind().measure(pair(5, sampled=sampled))
        told = [name for name in found if name.startswith(("raw_", "seconds"))]
        assert bool(told) == sampled
