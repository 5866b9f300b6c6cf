"""What a model is told of a map: vectors, names, what is unknown."""

import pytest

from conditions.vocabulary import MapConditions, Vocabulary, vocabulary_of
from tests.osu_diffusion_v2 import tokenizer

ENDS = [25, 28, 32, 54]
"""The places for "unknown" of the made-up tokenizer's four groups."""


@pytest.fixture
def vocabulary() -> Vocabulary:
    return vocabulary_of(tokenizer())


def places(vocabulary: Vocabulary, told: MapConditions) -> list[int]:
    (vector,) = vocabulary.vector(told)
    return [int(place) for place in vector.nonzero()]


def test_what_is_not_told_is_unknown(vocabulary: Vocabulary) -> None:
    assert places(vocabulary, MapConditions()) == ENDS
    assert places(vocabulary, MapConditions(star_rating=float("nan"))) == ENDS


@pytest.mark.parametrize(
    ("stars", "place"),
    [(0.0, 0), (0.49, 0), (0.5, 1), (4.99, 9), (5.0, 10), (11.99, 23), (12.0, 24), (50.0, 24)],
)
def test_star_ratings_are_rounded_down_to_a_half(
    vocabulary: Vocabulary, stars: float, place: int
) -> None:
    assert places(vocabulary, MapConditions(star_rating=stars)) == [place, *ENDS[1:]]


@pytest.mark.parametrize(
    ("size", "place"), [(-1.0, 33), (0.0, 33), (3.9, 40), (4.0, 41), (4.3, 41), (10.0, 53)]
)
def test_circle_sizes_are_rounded_down_to_a_half(
    vocabulary: Vocabulary, size: float, place: int
) -> None:
    assert places(vocabulary, MapConditions(circle_size=size)) == [*ENDS[:3], place]


def test_descriptors_go_by_the_end_of_their_names(vocabulary: Vocabulary) -> None:
    names = ("STYLE/clean", " Streams ")
    assert places(vocabulary, MapConditions(descriptors=names)) == [25, 28, 29, 31, 54]


@pytest.mark.parametrize("name", ["cleen", "style/cleen"])
def test_the_nearest_descriptors_are_named(vocabulary: Vocabulary, name: str) -> None:
    with pytest.raises(ValueError, match="not among the model's 3; the nearest are style/clean"):
        vocabulary.vector(MapConditions(descriptors=(name,)))


def test_an_end_that_two_descriptors_share_is_not_enough() -> None:
    table = {"style/slow": 0, "song/slow": 1, "style/clean": 2}
    vocabulary = vocabulary_of(tokenizer(descriptor_idx=table))
    with pytest.raises(ValueError, match="the nearest are"):
        vocabulary.vector(MapConditions(descriptors=("slow",)))
    assert places(vocabulary, MapConditions(descriptors=("song/slow",))) == [25, 28, 30, 54]


def test_mappers_go_by_id_or_by_a_beatmap_of_theirs(vocabulary: Vocabulary) -> None:
    names = {303335: "Luanny", 5: "Stranger"}
    assert vocabulary.mapper_named("7", names) == 7
    assert vocabulary.mapper_named("luanny", names) == 8
    assert places(vocabulary, MapConditions(mapper=8)) == [25, 27, 32, 54]
    with pytest.raises(ValueError, match=r"not among the model's 2 mappers .* Luanny"):
        vocabulary.mapper_named("Luany", names)
    with pytest.raises(ValueError, match="style mapper '99'"):
        vocabulary.mapper_named("99", names)


def test_a_beatmap_stands_for_what_was_said_of_it(vocabulary: Vocabulary) -> None:
    assert vocabulary.of_beatmap(101) == MapConditions(
        mapper=7, descriptors=("style/clean", "skillset/jumps")
    )
    with pytest.raises(ValueError, match="the nearest IDs are 102, 101"):
        vocabulary.of_beatmap(104)


def test_a_group_of_beatmaps_comes_first() -> None:
    vocabulary = vocabulary_of(tokenizer(num_classes=3, beatmap_idx={101: 0, 102: 1}))
    assert places(vocabulary, MapConditions()) == [2, *(end + 3 for end in ENDS)]
    assert places(vocabulary, vocabulary.of_beatmap(102)) == [1, 28, 30, 34, 57]
