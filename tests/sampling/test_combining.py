"""Parts of several variants in one result: what is read, what comes from where, what joints do."""

from dataclasses import replace

import numpy as np
import pytest

from beatmaps.differences import compare
from beatmaps.osu_file import Beatmap, parse_beatmap
from beatmaps.sequence import apply_coordinates, beatmap_to_sequence
from constraints.spacing import Spacing
from metrics.spacing import spacing_errors
from sampling.combining import MET_PX, REACHES, TimePart, combine, owners, parse_parts
from sampling.options import SampleOptions
from sampling.request import RemapRequest
from tests.conftest import beatmap_text, random_objects

REQUEST = RemapRequest(options=SampleOptions(variants=3, seed=7))
PARTS = "00:05:000 - 00:12:000 -> 2\n00:12:000 - 00:20:000 -> 3"


def made_up() -> Beatmap:
    """A map of 27 seconds, of circles and a spinner at its end."""
    text = beatmap_text(random_objects(2, 100, sliders=False), version="Hard")
    return parse_beatmap(text.encode(), "made up.osu")


def variants_of(beatmap: Beatmap) -> list[Beatmap]:
    """The map itself, upside down and turned about: all distances between objects stay."""
    sequence = beatmap_to_sequence(beatmap)
    made = (sequence.xy, sequence.xy * [1, -1] + [0, 384], [512, 384] - sequence.xy)
    return [parse_beatmap(apply_coordinates(sequence, xy), "variant.osu") for xy in made]


def places(beatmap: Beatmap) -> np.ndarray:
    """(M, 2) where a map's objects start."""
    return np.array([(hit.x, hit.y) for hit in beatmap.objects])


def test_lines_become_parts() -> None:
    text = (
        "\n00:12:000 (1,2) - 00:20:000 → variant 3 \n 00:05:000 - 00:12:000->#2\n01:00:000 - -> 1"
    )
    assert parse_parts(text, 3) == (
        TimePart(5000, 12000, 1),
        TimePart(12000, 20000, 2),
        TimePart(60000, np.inf, 0),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n", "give a range and a variant"),
        ("00:01:000 - 00:02:000", "line 1 .* give a range and a variant"),
        ("\nsoon -> 1", "line 2: 'soon' is no range: give two times"),
        ("00:02:000 - 00:01:000 -> 1", "line 1: .* its end is before its start"),
        ("00:01:000 - 00:02:000 -> 4", "line 1: there are variants 1 to 3"),
        ("00:01:000 - 00:02:000 -> 0", "line 1: there are variants 1 to 3"),
        ("00:03:000 - -> 1\n00:04:000 - 00:05:000 -> 2", "from 00:04:000 begins before the one"),
        ("00:03:000 - 00:03:000 -> 1\n00:03:000 - 00:05:000 -> 2", "begins before"),
    ],
)
def test_lines_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_parts(text, 3)


def test_an_object_at_a_shared_end_belongs_to_the_later_part() -> None:
    beatmap = made_up()
    owner = owners(beatmap, parse_parts(PARTS, 3), 0)
    for hit, mine in zip(beatmap.objects, owner.tolist(), strict=True):
        inside = 5000 <= hit.time < 12000, 12000 <= hit.time <= 20000
        assert mine == (1 if inside[0] else 2 if inside[1] else 0)


def test_parts_keep_their_places_and_joints_get_their_distances() -> None:
    beatmap = made_up()
    variants = variants_of(beatmap)
    parts = parse_parts(PARTS, 3)
    made = combine(beatmap, variants, REQUEST, parts, 0)
    owner = owners(beatmap, parts, 0)
    borders = np.flatnonzero(np.diff(owner)) + 1
    assert [joint.time for joint in made.joints] == [beatmap.objects[i].time for i in borders]
    assert [joint.variants for joint in made.joints] == [(0, 1), (1, 2), (2, 0)]
    far = np.abs(np.arange(len(owner))[:, None] - borders).min(axis=1) > max(REACHES)
    joined = np.stack([places(variant) for variant in variants])[owner, np.arange(len(owner))]
    assert far.sum() > 20 and (places(made.beatmap) == joined)[far].all()
    # The figures are those of another way of measuring, and the joints were off and are no more.
    sequence = beatmap_to_sequence(beatmap)
    heads = np.concatenate([[[256, 192]], joined])
    was = np.abs(np.hypot(*np.diff(heads, axis=0).T) - sequence.distances()[sequence.object_starts])
    errors = spacing_errors(sequence, beatmap_to_sequence(made.beatmap).xy)
    for joint, border in zip(made.joints, borders.tolist(), strict=True):
        assert joint.before_px is not None and joint.after_px is not None
        assert joint.before_px == pytest.approx(was[border], abs=1e-6) and joint.before_px > 10
        assert joint.after_px <= MET_PX and joint.moved > 0
    assert errors[1:].max() <= MET_PX
    assert made.written["object_spacing_error_p95"] <= MET_PX


def test_a_combination_says_what_it_is_and_changes_places_alone() -> None:
    beatmap = made_up()
    variants = variants_of(beatmap)
    made = combine(beatmap, variants, REQUEST, parse_parts(PARTS, 3), 0)
    assert made.version.startswith("Hard (AI remap seed 7) #1+#2+#3+#1 ")
    assert made.beatmap.version == made.version and made.beatmap.beatmap_id == 0
    assert {"osu-diffusion", "ai-generated", "seed7"} <= set(made.beatmap.tags)
    assert not compare(beatmap, made.beatmap).others
    again = combine(beatmap, variants, REQUEST, parse_parts(PARTS, 3), 0)
    other = combine(beatmap, variants, REQUEST, parse_parts(PARTS.replace("20", "19"), 3), 0)
    assert again.data == made.data and other.version != made.version


def test_without_distances_nothing_is_moved_and_none_is_named() -> None:
    beatmap = made_up()
    variants, parts = variants_of(beatmap), parse_parts(PARTS, 3)
    joined = np.stack([places(variant) for variant in variants])
    joined = joined[owners(beatmap, parts, 0), np.arange(len(beatmap.objects))]
    for mode in ("model", "free"):
        request = replace(REQUEST, options=replace(REQUEST.options, spacing=Spacing(mode)))
        made = combine(beatmap, variants, request, parts, 0)
        assert (places(made.beatmap) == joined).all()
        for joint in made.joints:
            assert joint.moved == 0 and joint.before_px == joint.after_px
            assert (joint.after_px is None) == (mode == "free")


def test_what_does_not_go_together_is_refused() -> None:
    beatmap = made_up()
    variants = variants_of(beatmap)
    with pytest.raises(ValueError, match="all objects come from variant 2"):
        combine(beatmap, variants, REQUEST, parse_parts("00:00:000 - -> 2", 3), 1)
    fitted = replace(REQUEST, options=replace(REQUEST.options, slider_velocity="fit"))
    with pytest.raises(ValueError, match="green lines of its own"):
        combine(beatmap, variants, fitted, parse_parts(PARTS, 3), 0)
