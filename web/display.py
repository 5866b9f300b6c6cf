"""What the web page shows: maps, results and errors, as HTML and as updates of its parts."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from beatmaps.game import format_time
from beatmaps.osu_file import Beatmap
from beatmaps.sequence import beatmap_to_sequence
from constraints.spacing import KEEP, suggestion
from conventions.errors import naming
from sampling.tally import EXPECTED
from viewer.player_page import player_frame
from web.maps import OpenedMap
from web.requests import label_of
from web.sessions import Run

SPACINGS = {
    "keep": "As in the map",
    "scale": "Scaled",
    "snap": "By the rhythm, in px a beat",
    "free": "What the network likes",
    "model": "As in the map, as near as the network gets",
}
LEFT_OUT = 3
"""Reasons that are told when difficulties of an archive cannot be used."""

WHOLE_MAP = {"start": None, "end": None}
"""What the timeline holds when no part is chosen."""

EMPTY = """
<div class="empty"><p>Drop a beatmap, and it plays here.<br>The new one plays beside it.</p></div>
"""


@contextmanager
def explained(*paths: str | Path | None) -> Iterator[None]:
    """Bad input becomes one message in the page, which calls the uploads by their names alone."""
    try:
        with naming(label_of):
            yield
    except EXPECTED as error:
        text = without_folders(str(error), *paths) or type(error).__name__
        # The page takes messages for HTML, and file names may hold any.
        raise gr.Error(html.escape(text), print_exception=False) from error


def without_folders(text: str, *paths: str | Path | None) -> str:
    """A text in one line that calls files by their names alone."""
    for path in paths:
        text = text.replace(str(path), Path(path).name) if path else text
    return " ".join(text.split())


def describe_map(opened: OpenedMap) -> str:
    """A difficulty in a few lines of HTML, and what there is to say about it."""
    beatmap = opened.beatmap
    times = [hit.time for hit in beatmap.objects]
    facts = [
        f"mapped by {beatmap.creator}",
        f"{len(times)} objects",
        f"{format_time(times[0])} to {format_time(times[-1])}",
    ]
    remarks = [] if opened.song else ["Its song is not in the file: it plays in silence."]
    if suggestion(beatmap_to_sequence(beatmap), KEEP):
        remarks.append(
            "Most objects lie on the one before, and stay there: for a map that has only its "
            f"rhythm choose “{SPACINGS['snap']}” as distances in the settings."
        )
    if opened.left_out:
        reasons = [
            without_folders(str(error), opened.path).removeprefix(f"{opened.path.name}: ")
            for error in opened.left_out[:LEFT_OUT]
        ]
        remarks.append(f"{len(opened.left_out)} left out ({'; '.join(reasons)}).")
    lines = [
        f"<b>{html.escape(song_title(beatmap))}</b>",
        f"<span>{html.escape(' · '.join(facts))}</span>",
        *(f'<span class="remark">{html.escape(text)}</span>' for text in remarks),
    ]
    return f'<div class="summary">{"".join(lines)}</div>'


def song_title(beatmap: Beatmap) -> str:
    """Artist, title and difficulty."""
    return f"{beatmap.artist} - {beatmap.title} [{beatmap.version}]"


def describe_result(run: Run, k: int) -> str:
    """A new difficulty in a few lines of HTML."""
    made = run.made[k]
    written = made.written
    facts = (
        f"Distances between objects differ by {written['object_spacing_error_median']:.2f} px in "
        f"the median, 95% of them by less than {written['object_spacing_error_p95']:.2f} px; "
        f"{written['centres_off_playfield']:.1%} of the objects are off the playfield."
    )
    name = html.escape(made.beatmap.version)
    return f'<div class="summary"><b>{name}</b><span>{facts}</span></div>'


def no_map() -> list[Any]:
    """The page without a map, for `Page.map_outputs`."""
    return [
        gr.update(choices=[], value=None, visible=False),
        gr.update(value="", visible=False),
        gr.update(value=WHOLE_MAP, times=[], visible=False),
        gr.update(interactive=False),
        EMPTY,
        gr.update(visible=False),
    ]


def map_updates(opened: OpenedMap) -> list[Any]:
    """The page with a map, for `Page.map_outputs`."""
    names = [(beatmap.version, k) for k, beatmap in enumerate(opened.beatmaps)]
    times = [hit.time for hit in opened.beatmap.objects]
    return [
        gr.update(choices=names, value=opened.chosen, visible=len(names) > 1),
        gr.update(value=describe_map(opened), visible=True),
        gr.update(value=WHOLE_MAP, times=times, visible=True),
        gr.update(interactive=True),
        player_frame(opened.beatmap, audio=opened.song),
        gr.update(visible=False),
    ]


def result_updates(run: Run, k: int) -> list[Any]:
    """The page with a result, for `Page.result_outputs`."""
    numbers = [(str(number + 1), number) for number in range(len(run.made))]
    return [
        run.player(k),
        gr.update(visible=True),
        gr.update(choices=numbers, value=k, visible=len(numbers) > 1),
        describe_result(run, k),
        run.files[k],
        gr.update(value=run.archive, visible=run.archive is not None),
        run.picture(k),
    ]


def swap(running: bool) -> list[Any]:
    """The buttons that start and end a run, while one is running or not."""
    return [
        gr.update(interactive=not running),
        gr.update(value="Cancel", interactive=True, visible=running),
    ]
