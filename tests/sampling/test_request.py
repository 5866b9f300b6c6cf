"""Requests to remap: the same by flags and in Python, and known again from reports."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beatmaps.inputs import Choice
from beatmaps.selection import Selection
from constraints.spacing import Spacing
from conventions.errors import FieldError, naming
from conventions.identity import identity
from sampling.descriptors import Wishes
from sampling.flags import NAMES, remap_parser, request_from, request_of_report
from sampling.options import SampleOptions
from sampling.report import run_key
from sampling.request import Pictures, RemapRequest
from sampling.style import StyleMix

WRITTEN_BEFORE = """
{"beatmap": "songs/a.osu", "difficulty": null, "all_difficulties": false,
"time_start": "00:05:000", "time_end": "9000", "align_combos": "grow", "only": null,
"keep_objects": null, "style_id": ["7:2"], "style_mapper": null, "style_beatmap": ["b.osu"],
"negative_style": null, "cfg_scale": 1.5, "strength": 1.0, "refine": false,
"refine_ckpt": null, "refine_iters": 10, "seed": 3, "num_variants": 1, "spacing": "snap:120",
"bounds": "playfield", "slider_velocity": "fit", "output": "results", "format": null,
"separate_set": false, "overwrite": false, "picture": true, "preview": ["png"],
"make_animation": false, "plot_time": null, "plot_width": 2000, "ckpt": "m.safetensors",
"num_sampling_steps": 5, "sampler": "auto", "device": "cpu", "use_amp": null, "seq_len": null,
"beatmap_idx": null, "model": null, "num_classes": null}
"""
"""The arguments in a report of a version without `RemapRequest`."""

FLAGS = (
    "--beatmap songs/a.osu --time-start 5000 --time-end 9000 --align-combos grow --style-id 7:2 "
    "--style-beatmap b.osu --cfg-scale 1.5 --seed 3 --spacing snap:120 --slider-velocity fit "
    "--num-sampling-steps 5"
)


def request(flags: str = "") -> RemapRequest:
    return request_from(remap_parser().parse_args(flags.split()))


def report(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": {"md5": "1", "difficulties": [{"md5": "2"}]},
        "checkpoint": {"sha256": "3"},
        "refiner": None,
        "style_files": ["4"],
        "arguments": arguments,
    }


def test_flags_and_python_make_the_same_request() -> None:
    assert identity(request()) == identity(RemapRequest())
    assert request(FLAGS) == RemapRequest(
        sources=(Path("songs/a.osu"),),
        options=SampleOptions(
            steps=5,
            cfg_scale=1.5,
            seed=3,
            spacing=Spacing("snap", 120),
            slider_velocity="fit",
        ),
        selection=Selection(5000, 9000, "grow"),
        style=StyleMix(("7:2",), files=(Path("b.osu"),)),
    )


def test_a_report_of_before_is_of_the_same_run() -> None:
    arguments = json.loads(WRITTEN_BEFORE)
    assert identity(request_of_report(arguments)) == identity(request(FLAGS))
    now = vars(remap_parser().parse_args(FLAGS.split())) | {"beatmap": "songs/a.osu"}
    assert run_key(report(arguments)) == run_key(report(now))
    assert run_key(report(arguments)) != run_key(report(arguments | {"seed": 4}))
    lacking = {name: value for name, value in arguments.items() if name != "slider_velocity"}
    assert run_key(report(lacking)) != run_key(report(arguments))  # the default was another


@pytest.mark.parametrize(
    "other",
    [
        {"output": Path("elsewhere"), "overwrite": True, "model": Path("copy.pt")},
        {"sources": (Path("x"),), "refiner": Path("y.pt"), "expert": Path("z.pt")},
        {"choice": Choice("Hard", format="osz")},
        {"pictures": Pictures(("gif",), denoising=True)},
    ],
)
def test_where_results_go_does_not_change_them(other: dict[str, Any]) -> None:
    assert identity(replace(RemapRequest(), **other)) == identity(RemapRequest())


@pytest.mark.parametrize(
    "other",
    [
        {"options": SampleOptions(seed=1)},
        {"options": SampleOptions(spacing=Spacing("scale", 1.1))},
        {"selection": Selection(only="sliders")},
        {"style": StyleMix(mappers=("a",))},
        {"choice": Choice(separate_set=True)},
        {"pictures": Pictures(start=5.0)},
        {"beatmap_idx": Path("i")},
        {"wishes": Wishes(star_rating=5)},
        {"wishes": Wishes(("clean",))},
        {"expert": Path("z.pt"), "expert_below": 30.0},
        {"expert_below": 30.0},
        {"expert_below": 0.0},
        {"max_noise_step": 1000},
    ],
)
def test_what_results_depend_on_is_told_apart(other: dict[str, Any]) -> None:
    assert identity(replace(RemapRequest(), **other)) != identity(RemapRequest())


@pytest.mark.parametrize(
    ("flags", "scale"),
    [
        ("", 1),
        ("--style-id 5", 2),
        ("--style-mapper Ann", 2),
        ("--style-beatmap a.osu", 2),
        ("--descriptors clean", 2),
        ("--style-id 5 --cfg-scale 1", 1),
        ("--style-id 5 --negative-style 6", 2),
    ],
)
def test_a_style_is_exaggerated_unless_told_otherwise(flags: str, scale: float) -> None:
    assert request(flags).options.cfg_scale == scale


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num-sampling-steps 0", "--num-sampling-steps 0: give a number from 1 to 1000"),
        ("--num-variants 65", "--num-variants 65: give a number from 1 to 64"),
        ("--seq-len 0", "--seq-len 0: must be at least 1"),
        ("--refine-ckpt a --refine-iters -1", "--refine-iters -1: give a number from 0 to 1000"),
        ("--cfg-scale 2", "--cfg-scale strengthens a style: give one with --style-id"),
        ("--negative-style 5", "--negative-style works through guidance: give a --cfg-scale above"),
        ("--refine --strength 0.5", "--refine cleans up the map's own positions and --strength"),
        ("--time-start 2 --time-end 1", "--time-start 00:00:002 is after --time-end 00:00:001"),
        ("--spacing odd", "--spacing odd: give keep"),
        ("--difficulty a --all-difficulties", "--difficulty and --all-difficulties: give one"),
    ],
)
def test_errors_name_the_flags(flags: str, message: str) -> None:
    with pytest.raises(ValueError, match=message), naming(NAMES):
        request(flags)


def test_in_python_errors_name_the_fields() -> None:
    with pytest.raises(FieldError, match="steps 0: give a number"):
        SampleOptions(steps=0)
