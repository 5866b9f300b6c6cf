"""What is written beside the results of a job: a report that the run can be repeated by, pictures.

A finished run is recognised by its report: see `is_report_of`.
"""

import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from beatmaps.inputs import Job, read_beatmaps
from beatmaps.osu_file import Beatmap
from beatmaps.sequence import beatmap_to_sequence
from constraints.spacing import Spacing
from conventions.identity import identity
from sampling.flags import request_of_report
from sampling.loaded_models import Models
from sampling.remap import Remapped
from sampling.request import Pictures, RemapRequest
from sampling.results import Outputs, Result
from viewer.animation import DEFAULT_CLIP, animate_denoising, check_length
from viewer.pictures import time_slices
from viewer.previews import SUFFIXES, write_preview

FIRST_MARKS = 3  # that are printed


def describe(
    models: Models, job: Job, request: RemapRequest, arguments: dict[str, Any]
) -> dict[str, Any]:
    """All that is needed to repeat the run; `arguments` are the flags that made the request."""
    checkpoint = models.sampler.to_dict()
    companions = checkpoint.pop("companions")  # beside it, where reports of before had them
    return {
        "source": {
            "file": job.path.name,
            "md5": job.md5,
            "difficulties": [{"name": b.version, "md5": b.md5} for b in job.beatmaps],
        },
        "checkpoint": checkpoint,
        "companions": companions,
        "refiner": models.refiner and models.refiner.sha256,
        "expert": models.expert and models.expert.sha256,
        "expert_weak": models.expert and models.expert.weak and models.expert.weak.sha256,
        "style": request.style.describe() or None,
        "style_files": [
            beatmap.md5 for path in request.style_files for beatmap in read_beatmaps(path)
        ],
        "options": asdict(request.options),
        "arguments": json.loads(json.dumps(arguments | {"beatmap": job.path}, default=str)),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "platform": platform.system(),
        },
    }


def is_report_of(report: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    """Whether a report that was found is of a run with the same results as `report`."""
    return lambda found: run_key(found) == run_key(report)


def run_key(report: dict[str, Any]) -> dict[str, Any]:
    """The part of a report on which results depend; equal keys mean equal results.

    It has the request's identity, and files by their content.
    """
    return {
        "source": [report["source"]["md5"], [d["md5"] for d in report["source"]["difficulties"]]],
        "checkpoint": [
            report["checkpoint"]["sha256"],
            report.get("companions"),
            report["refiner"],
            report.get("expert"),
            report.get("expert_weak"),
        ],
        "style_files": report["style_files"],
        "request": identity(request_of_report(report["arguments"])),
    }


def outcome(written: dict[str, float], spacing: Spacing) -> str:
    """How well a written map keeps what it should; no distances if none were wanted."""
    off = f"objects off the playfield: {written['centres_off_playfield']:.1%}"
    if spacing.mode == "free":
        return off
    return (
        f"object spacing error: median {written['object_spacing_error_median']:.2f} px, "
        f"95 % below {written['object_spacing_error_p95']:.2f} px; {off}"
    )


def how_to_play(in_archive: bool) -> str:
    """What a mapper does with the new `.osz` or `.osu` file."""
    if in_archive:
        return "To play it: open the .osz file with osu!."
    return "To play it: copy the .osu file into the song's folder, press F5 in osu!'s song list."


def to_look_at(marks: list[dict[str, Any]]) -> str:
    """The first places that a mapper should look at, a line each; empty where there are none."""
    if not marks:
        return ""
    rest = f", all {len(marks)} in the .result.json" if len(marks) > FIRST_MARKS else ""
    lines = [f"to look at by hand, the worst first{rest}:"]
    for mark in marks[:FIRST_MARKS]:
        source = " (also in the source)" if mark["in_source"] else ""
        lines.append(f"  {mark['at']}{mark['kind']}: {mark['text']}{source}")
    return "\n".join(lines)


def describe_variants(
    job: Job, outputs: Outputs, remapped: list[list[Remapped]]
) -> list[dict[str, Any]]:
    """What was measured of every new difficulty, and its files."""
    return [
        {
            "difficulty": before.version,
            "beatmap": result.file,
            "previews": [path.name for path in result.previews.values()],
            "written": made.written,
            "before_rounding": made.before_rounding,
            "marks": [mark.to_dict() for mark in made.marks],
        }
        for before, results, row in zip(job.beatmaps, outputs.results, remapped, strict=True)
        for result, made in zip(results, row, strict=True)
    ]


# --- pictures -------------------------------------------------------------------------------------


def preview_suffixes(pictures: Pictures) -> dict[str, str]:
    """What is to be drawn, and the endings of the files."""
    kinds = {kind: SUFFIXES[kind] for kind in pictures.kinds}
    return kinds | ({"denoising": ".denoising.gif"} if pictures.denoising else {})


def check_previews(beatmap: Beatmap, pictures: Pictures) -> None:
    """Refuses a range with nothing to draw before sampling, not after it."""
    if not preview_suffixes(pictures):
        return
    time_slices(beatmap, *(pictures.range or (None, None)))
    if "gif" in pictures.kinds and pictures.start is not None:
        check_length(pictures.width)


def draw(job: Job, before: Beatmap, made: Remapped, result: Result, request: RemapRequest) -> None:
    """Draws the previews that are asked for; keeps an existing one unless it may be replaced."""
    pictures = request.pictures
    for kind, path in result.previews.items():
        if path.exists() and not request.overwrite:
            continue
        if kind == "denoising":
            sequence, (*steps, final) = beatmap_to_sequence(before), made.states
            animate_denoising(sequence, steps, final, path, times=pictures.range)
        else:
            remark = write_preview(
                kind,
                before,
                made.beatmap,
                path,
                start_ms=pictures.start,
                length_ms=DEFAULT_CLIP if pictures.start is None else pictures.width,
                audio=job.song(before) if kind == "html" else None,
                overwrite=request.overwrite,
                marks=made.marks,
            )
            if remark:
                tqdm.write(remark, file=sys.stderr)
        tqdm.write(f"wrote {path}")
