"""The bundled model, its index and class table fit together and remap the bundled example."""

import csv
import json
from pathlib import Path

import pytest

from beatmaps.osu_file import parse_beatmap, read_beatmap
from beatmaps.sequence import beatmap_to_sequence
from checkpoint import LoadedModel, load_model
from constraints.spacing import Spacing
from conventions.bundled import DEFAULT_MODEL, EXAMPLE
from datasets.class_tables import load_beatmap_idx
from metrics.fidelity import count_changes
from metrics.spacing import measure
from sampling.generate import SampleOptions, generate
from sampling.remap import remapped_file

CLASSES = DEFAULT_MODEL.with_name(DEFAULT_MODEL.stem + ".classes.csv")


@pytest.fixture(scope="module")
def shipped() -> LoadedModel:
    return load_model(DEFAULT_MODEL)


def test_weights_are_at_most_40_megabytes() -> None:
    files = list(DEFAULT_MODEL.parent.glob("*.safetensors"))
    assert len(files) == 3 and sum(file.stat().st_size for file in files) <= 40_000_000


def test_a_weak_model_guides_it(shipped: LoadedModel) -> None:
    weak = shipped.weak
    assert weak is not None and weak.path.stat().st_size <= 5_000_000
    assert weak.model.config.known_points and shipped.model.config.known_points
    card = DEFAULT_MODEL.with_name("README.md").read_text(encoding="utf-8")
    assert weak.path.name in card and weak.sha256 in card


def test_an_expert_finishes_its_maps(shipped: LoadedModel) -> None:
    expert = shipped.expert
    assert expert is not None and expert.parametrisation.limit < 1
    card = DEFAULT_MODEL.with_name("README.md").read_text(encoding="utf-8")
    assert expert.path.name in card and expert.sha256 in card


def test_index_and_class_table_name_the_same_classes(shipped: LoadedModel) -> None:
    index = load_beatmap_idx(shipped.class_index_path())
    with CLASSES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == shipped.model.config.num_classes
    assert [int(row["class_index"]) for row in rows] == list(range(len(rows)))
    # Of two versions with one ID the first has it, as in PackedDataset.beatmap_idx.
    with_id = {int(row["beatmap_id"]): int(row["class_index"]) for row in reversed(rows)}
    with_id = {key: value for key, value in with_id.items() if key > 0}
    assert index == with_id


def test_model_card_names_the_weights(shipped: LoadedModel) -> None:
    card = DEFAULT_MODEL.with_name("README.md").read_text(encoding="utf-8")
    assert DEFAULT_MODEL.name in card
    assert shipped.sha256 in card


def test_example_is_remapped_with_its_spacing(shipped: LoadedModel) -> None:
    before = read_beatmap(EXAMPLE)
    sequence = beatmap_to_sequence(before)
    _, placed = generate(shipped, sequence, SampleOptions())
    data = remapped_file(sequence, placed[0], "test", 0)
    after = parse_beatmap(data, "result.osu")
    errors = measure(sequence, beatmap_to_sequence(after).xy)
    assert errors["object_spacing_error_median"] <= 0.7
    assert errors["centres_off_playfield"] == 0
    assert not any(count_changes(before, after).values())


def test_network_alone_keeps_the_spacing_roughly(shipped: LoadedModel) -> None:
    """An untrained network is off by about 100 px, in the median, on the example."""
    before = read_beatmap(EXAMPLE)
    sequence = beatmap_to_sequence(before)
    raw, _ = generate(shipped, sequence, SampleOptions(spacing=Spacing("model"), bounds="off"))
    assert measure(sequence, raw[0])["all_spacing_error_median"] <= 12


def test_evaluation_in_the_card_is_of_these_weights(shipped: LoadedModel) -> None:
    for name in ("evaluation-default.json", "evaluation-raw.json"):
        report = json.loads(Path(DEFAULT_MODEL.with_name(name)).read_text(encoding="utf-8"))
        assert report["checkpoint"]["sha256"] == shipped.sha256
        assert report["checkpoint"]["companions"] == shipped.companions
        assert report["failed"] == []
