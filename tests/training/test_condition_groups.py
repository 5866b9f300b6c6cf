"""Models of ours that are told of maps in groups: the vocabulary, runs, and what they are asked."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from beatmaps.osu_file import Beatmap, parse_beatmap
from beatmaps.star_rating import star_rating
from checkpoint import load_model, load_training_checkpoint
from conditions.vocabulary import MapConditions, Vocabulary, from_dict, to_dict
from conventions.errors import naming
from data_loading import PackedDataset
from models import null_classes
from sampling.flags import NAMES, remap_parser, request_from
from sampling.loaded_models import Models
from sampling.map_inputs import MapInputs, map_inputs
from tests.conftest import beatmap_text, call_train, random_objects, remap, run_train
from tests.runs import assert_resumes, last
from training.conditioning import GROUPS, condition_table, facts_of, make_vocabulary

ALL = tuple(GROUPS)
FLAGS = ("--condition-groups", "stars", "mapper", "descriptors", "circle-size")


def dataset_of(packed: PackedDataset, **columns: object) -> PackedDataset:
    """A dataset, such as the made-up one of six maps in three sets, with other columns."""
    dataset = PackedDataset(packed.folder)
    dataset.beatmaps = packed.beatmaps.assign(**columns)
    return dataset


@pytest.fixture
def many(packed: PackedDataset) -> PackedDataset:
    """Three maps by Luna, one of them in Sol's set, and three by Sol."""
    return dataset_of(
        packed,
        creator=["Luna", "Luna", "Sol", "Sol", "Sol", "Sol"],
        version=["Easy", "Hard", "luna's Hard", "Hard", "Hard", "Sol's Extra"],
        tags=["a b", "a b", "A c", "a c", "a b", "a b"],
        star_rating=[1.0, 2.4, 2.5, 5.0, np.nan, 14.0],
        circle_size=[3.0, 4.2, 4.0, 4.0, 5.0, 10.0],
    )


def all_rows(dataset: PackedDataset) -> np.ndarray:
    return np.arange(len(dataset))


def vocabulary_of_all(dataset: PackedDataset, *groups: str) -> Vocabulary:
    return make_vocabulary(dataset, all_rows(dataset), groups or ALL)


def test_a_vocabulary_has_what_the_maps_have(many: PackedDataset) -> None:
    vocabulary = vocabulary_of_all(many)
    assert vocabulary.groups == (7, 26, 3, 2, 22)
    assert vocabulary.beatmaps == {101 + k: k for k in range(6)}
    # Luna's guest difficulty is hers.
    assert vocabulary.mapper_names == {-1: "Luna", -2: "Sol"}
    assert vocabulary.mapper_of == {101: -1, 102: -1, 103: -1, 104: -2, 105: -2, 106: -2}
    assert vocabulary.descriptors == {"a": 0}  # on three sets, the others on two
    assert vocabulary.from_tags
    assert vocabulary.descriptors_of == {101 + k: (0,) for k in range(6)}


def test_users_and_descriptors_of_a_dataset_come_first(many: PackedDataset) -> None:
    words = ["clean", "clean,grid snap", "clean", "", "Clean", ""]
    dataset = dataset_of(many, user_id=[7, 7, 7, 8, 8, 8], descriptors=words)
    vocabulary = vocabulary_of_all(dataset, "mapper", "descriptors")
    assert vocabulary.groups == (0, 0, 3, 2, 0)
    assert vocabulary.mappers == {7: 0, 8: 1}
    assert vocabulary.mapper_names == {7: "Luna", 8: "Sol"}
    assert vocabulary.descriptors == {"clean": 0} and not vocabulary.from_tags
    assert vocabulary.mapper_named("sol", {}) == vocabulary.mapper_named("8", {}) == 8


def test_only_maps_that_are_trained_on_count(many: PackedDataset) -> None:
    vocabulary = make_vocabulary(many, np.array([0, 1, 2]), ("beatmap", "mapper"))
    assert vocabulary.beatmaps == {101: 0, 102: 1, 103: 2}
    assert list(vocabulary.mapper_names.values()) == ["Luna"]


@pytest.mark.parametrize(
    ("group", "column", "value", "message"),
    [
        ("mapper", "creator", list("abcdef"), "mapper: no mapper has 3 maps"),
        ("descriptors", "tags", [""] * 6, "descriptors: no word is on 3 beatmapsets"),
        ("stars", "star_rating", [np.nan] * 6, "stars: no star rating is known"),
        ("beatmap", "beatmap_id", [0] * 6, "beatmap: none of the maps has a beatmap ID"),
    ],
)
def test_a_group_of_which_nothing_is_known_is_refused(
    packed: PackedDataset, group: str, column: str, value: list[object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        vocabulary_of_all(dataset_of(packed, **{column: value}), group)


def test_every_map_is_told_what_is_known_of_it(many: PackedDataset) -> None:
    vocabulary = vocabulary_of_all(many)
    found = condition_table(vocabulary, many)[all_rows(many)]
    expected = [
        MapConditions(101, 1.0, -1, ("a",), 3.0),
        MapConditions(102, 2.4, -1, ("a",), 4.2),
        MapConditions(103, 2.5, -1, ("a",), 4.0),
        MapConditions(104, 5.0, -2, ("a",), 4.0),
        MapConditions(105, None, -2, ("a",), 5.0),
        MapConditions(106, 14.0, -2, ("a",), 10.0),
    ]
    for row, told in zip(found, expected, strict=True):
        assert np.array_equal(row, vocabulary.vector(told)[0].numpy())


def test_other_maps_are_told_by_names_and_words(many: PackedDataset) -> None:
    """Maps without IDs, or of another dataset, whose mapper the vocabulary knows by name."""
    vocabulary = vocabulary_of_all(many)
    creators = ["SOL", "Nobody", *["Luna"] * 4]
    columns = {"beatmap_id": 0, "creator": creators, "version": "Hard", "tags": "a z"}
    other = dataset_of(many, **columns)
    table = condition_table(vocabulary, other)
    assert len(table) == len(other)
    for row, mapper in zip(table[np.array([0, 1, 2])], (-2, None, -1), strict=True):
        assert row[33:36].tolist() == [mapper == -1, mapper == -2, mapper is None]
        assert row[36:38].tolist() == [True, False]


def test_a_vocabulary_is_written_and_read_back(many: PackedDataset) -> None:
    vocabulary = vocabulary_of_all(many)
    assert from_dict(to_dict(vocabulary)) == vocabulary
    values = to_dict(vocabulary)
    del values["mapper_names"], values["descriptors_from_tags"]
    assert from_dict(values).mapper_names == {}  # as the public format is
    with pytest.raises(ValueError, match="mapper_names has the value '5'"):
        from_dict({**values, "mapper_names": {"7": 5}})


def test_facts_are_those_of_the_table(many: PackedDataset) -> None:
    facts = list(facts_of(dataset_of(many, version=["Luna & Sol's Extra", *["luna's Hard"] * 5])))
    assert [fact.name for fact in facts] == ["", *["Luna"] * 5]  # what two have made is nobody's
    assert facts[2].tags == ("a", "c")
    assert pd.isna(facts[4].star_rating)


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(packed: PackedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the made-up maps, all by one mapper with the tags "one two"."""
    return run_train(packed.folder, tmp_path_factory.mktemp("groups"), *FLAGS)


def test_a_run_is_told_of_groups_and_says_of_which(packed: PackedDataset, run: Path) -> None:
    vocabulary = vocabulary_of_all(packed, "stars", "mapper", "descriptors", "circle-size")
    assert vocabulary.groups == (0, 26, 2, 3, 22)
    for path in (run / "model.safetensors", last(run)):
        loaded = load_model(path)
        assert loaded.vocabulary == vocabulary
        config = loaded.model.config
        assert config.class_groups == vocabulary.groups and config.num_classes == 0
        assert config.neighbours and config.known_points
    layer = "y_embedder.class_embedding.2.weight"
    assert load_training_checkpoint(last(run))["model"][layer].abs().max() > 0


def test_a_run_with_groups_resumes(packed: PackedDataset, run: Path, tmp_path: Path) -> None:
    flags = (*FLAGS, "--ckpt-every", 5, "--class-dropout", 0.5)
    assert_resumes(packed, tmp_path, *flags)


def test_a_model_with_classes_goes_on_with_groups(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    """At a learning rate of 0 it is what it was without a style, whatever it is told."""
    flags = (*FLAGS, "--ckpt", trained / "model.safetensors", "--max-steps", 2, "--lr", 0)
    folder = run_train(packed.folder, tmp_path, *flags)
    before, after = load_model(trained / "model.safetensors"), load_model(last(folder))
    assert after.vocabulary is not None
    told = after.vocabulary.vector(MapConditions(star_rating=5.0, descriptors=("one",)))
    for classes in (told, null_classes(after.model.config)):
        assert torch.equal(after.model.y_embedder(classes)[0], before.model.class_table()[-1])
    for name, weight in before.model.state_dict().items():
        if not name.startswith("y_embedder"):
            assert torch.equal(weight, after.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-classes", 9), "--num-classes is about a class table"),
        (("--embed-only-epochs", 1), "--embed-only-epochs is about a class table"),
        (("--ckpt", "model"), "has groups of its own"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    packed: PackedDataset, run: Path, tmp_path: Path, flags: tuple[object, ...], message: str
) -> None:
    given = tuple(run / "model.safetensors" if flag == "model" else flag for flag in flags)
    with pytest.raises(ValueError, match=message):
        call_train(packed.folder, tmp_path, *FLAGS, *given)


# --- what it is asked for -------------------------------------------------------------------------


def inputs(run: Path, beatmap: Beatmap, *given: object) -> MapInputs:
    args = remap_parser().parse_args([str(flag) for flag in given])
    with naming(NAMES):
        return map_inputs(
            Models(load_model(run / "model.safetensors")), beatmap, request_from(args)
        )


@pytest.fixture(scope="module")
def beatmap() -> Beatmap:
    return parse_beatmap(beatmap_text(random_objects(3, 60)).encode(), "made up")


def test_a_mapper_is_asked_for_by_name(run: Path, beatmap: Beatmap) -> None:
    loaded = load_model(run / "model.safetensors")
    assert loaded.vocabulary is not None
    own = MapConditions(star_rating=star_rating(beatmap.raw), circle_size=4.0)
    wanted = MapConditions(None, own.star_rating, -1, ("two",), 4.0)
    given = ("--style-mapper", "mapper", "--descriptors", "two", "--cfg-scale", 2)
    style = inputs(run, beatmap, *given).style
    for found, told in ((style.embedding, wanted), (style.negative, own)):
        assert found is not None
        assert torch.equal(found, loaded.model.y_embedder(loaded.vocabulary.vector(told))[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--style-mapper", "Maper"), "not among the model's 1 mappers; the nearest are Mapper"),
        (("--descriptors", "on"), "not among the model's 2; the nearest are one"),
        (("--style-id", 999), "nearest IDs are 106, 105, 104"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(
    run: Path, beatmap: Beatmap, given: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        inputs(run, beatmap, *given)


def test_what_it_has_no_group_for_is_refused(
    packed: PackedDataset, beatmap: Beatmap, tmp_path: Path
) -> None:
    flags = ("--condition-groups", "mapper", "--max-steps", 1)
    folder = run_train(packed.folder, tmp_path, *flags)
    for given in (("--star-rating", 5), ("--circle-size", 3), ("--descriptors", "one")):
        with pytest.raises(ValueError, match=f"{given[0]}: model.safetensors was trained without"):
            inputs(folder, beatmap, *given)


def test_the_command_remaps_with_it(run: Path, tmp_path: Path, no_pictures: None) -> None:
    path = tmp_path / "small.osu"
    path.write_text(beatmap_text(random_objects(50, 30), beatmap_id=77), encoding="utf-8")
    given = ("--style-mapper", "mapper", "--star-rating", 3, "--cfg-scale", 2)
    assert remap(run, tmp_path / "out", "--beatmap", path, *given) == 0
    (report,) = (tmp_path / "out").rglob("*.result.json")
    assert "style mapper 3 stars guidance 2" in report.name
