"""What the web page shows: maps, results and errors, as HTML and as updates of its parts."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from beatmaps.game_rules import format_time
from beatmaps.osu_file import Beatmap
from beatmaps.sequence import beatmap_to_sequence
from constraints.spacing import KEEP, suggestion
from conventions.errors import naming
from sampling.combining import Joint
from sampling.many_maps import EXPECTED
from viewer.player_page import player_frame
from web.cards import card
from web.figures import difficulty_settings
from web.maps import OpenedMap
from web.requests import label_of
from web.sessions import Run, Visitor

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
<div class="empty"><p>Drop a beatmap, and it plays here.<br>
Press Generate, and the new one plays beside it.</p></div>
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
        f"<span>mapped by {html.escape(beatmap.creator)}</span>",
        settings_table(beatmap),
        *(f'<span class="remark">{html.escape(text)}</span>' for text in remarks),
    ]
    return f'<div class="summary">{"".join(lines)}</div>'


def settings_table(beatmap: Beatmap) -> str:
    """The difficulty settings as HTML."""
    rows = [
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in difficulty_settings(beatmap).items()
    ]
    return f'<dl class="settings">{"".join(rows)}</dl>'


def song_title(beatmap: Beatmap) -> str:
    """Artist, title and difficulty."""
    return f"{beatmap.artist} - {beatmap.title} [{beatmap.version}]"


def describe_result(run: Run) -> str:
    """The chosen new difficulty in a few lines of HTML."""
    made = run.variants[run.shown]
    written = made.written
    lines = [
        f"Distances between objects differ by {written['object_spacing_error_median']:.2f} px in "
        f"the median, 95% of them by less than {written['object_spacing_error_p95']:.2f} px; "
        f"{written['centres_off_playfield']:.1%} of the objects are off the playfield."
    ]
    if placed := placement_lines(made.placement, run.placement):
        lines.append(f"How the objects are placed: {'; '.join(placed)}.")
    spans = "".join(f"<span>{html.escape(text)}</span>" for text in lines)
    joints = "".join(f"<li>{html.escape(describe_joint(joint))}</li>" for joint in made.joints)
    listed = f"<ul>{joints}</ul>" if joints else ""
    return f'<div class="summary"><b>{html.escape(made.version)}</b>{spans}{listed}</div>'


def placement_lines(placement: dict[str, float], original: dict[str, float]) -> list[str]:
    """Figures of placement in words, each beside the original's."""
    forms = {
        "turn": ("mean turn", "{0:.0f}°"),
        "overlapping": ("overlapping", "{0:.0%}"),
        "repeated": ("on earlier places", "{0:.0%}"),
    }
    return [
        f"{text} {form.format(placement[name])} (map {form.format(original[name])})"
        for name, (text, form) in forms.items()
        if name in placement and name in original
    ]


def describe_joint(joint: Joint) -> str:
    """What happened where two variants meet."""
    first, second = (k + 1 for k in joint.variants)
    start = f"{format_time(joint.time)}: variant {first} ends, {second} begins"
    if joint.before_px is None or joint.after_px is None:
        return f"{start}; no distances were asked for."
    if not joint.moved:
        return f"{start}; distances are off by {joint.after_px:.1f} px at most."
    return (
        f"{start}; distances were off by up to {joint.before_px:.0f} px, so {joint.moved} objects "
        f"were moved: now by {joint.after_px:.1f} px at most."
    )


def variant_cards(run: Run) -> list[dict[str, Any]]:
    """A card for each variant of a run, and for each combination of them."""
    cards, shown = [], " - ".join(map(format_time, run.span))
    for k, variant in enumerate(run.variants):
        mixed = k >= run.sampled
        title = f"Combination {k - run.sampled + 1}" if mixed else f"Variant {k + 1}"
        error = variant.written["object_spacing_error_p95"]
        lines = [shown, f"distances off by {error:.2f} px (95%)"]
        lines += placement_lines(variant.placement, run.placement)
        cards.append(card(title, lines, variant.card))
    return cards


def run_cards(visitor: Visitor) -> list[dict[str, Any]]:
    """A card for each result that a page can go back to, oldest first."""
    cards = []
    for run in visitor.runs:
        options = run.request.options
        count = f"{options.variants} variants" if options.variants > 1 else ""
        how = [text for text in (count, run.request.label()) if text]
        name = run.variants[run.shown].version.partition(" (AI remap")[0]
        lines = [name, ", ".join(how) or "default settings"]
        cards.append(card(f"Seed {options.seed}", lines, run.variants[run.shown].card))
    return cards


def no_map() -> list[Any]:
    """The page without a map, for `Page.map_outputs`."""
    return [
        gr.update(choices=[], value=None, visible=False),
        gr.update(value="", visible=False),
        gr.update(value=WHOLE_MAP, times=[], visible=False),
        gr.update(value="", visible=False),
        gr.update(interactive=False),
        EMPTY,
        gr.update(visible=False),
    ]


def map_updates(opened: OpenedMap) -> list[Any]:
    """The page with a map, for `Page.map_outputs`."""
    player = player_frame(opened.beatmap, audio=opened.song)
    return [*map_choices(opened), player, gr.update(visible=False)]


def map_choices(opened: OpenedMap, part: Any = None, objects: str = "") -> list[Any]:
    """What says of a map which part is meant; all of it unless a part or objects are given."""
    names = [(beatmap.version, k) for k, beatmap in enumerate(opened.beatmaps)]
    times = [hit.time for hit in opened.beatmap.objects]
    return [
        gr.update(choices=names, value=opened.chosen, visible=len(names) > 1),
        gr.update(value=describe_map(opened), visible=True),
        gr.update(value=part or WHOLE_MAP, times=times, visible=True),
        gr.update(value=objects, visible=True),
        gr.update(interactive=True),
    ]


def result_updates(visitor: Visitor) -> list[Any]:
    """The page with the result that is shown, for `Page.result_outputs`."""
    run = visitor.run
    assert run is not None
    look = run.look(run.shown)
    several = len(run.variants) > 1
    rest: dict[str, Any] = {"value": run.shown} if run.shown < run.sampled else {}
    return [
        look.player,
        gr.update(visible=True),
        gr.update(value=run.shown, cards=variant_cards(run) if several else [], visible=several),
        describe_result(run),
        run.variants[run.shown].file,
        gr.update(value=look.archive, visible=look.archive is not None),
        look.picture,
        gr.update(visible=run.sampled > 1),
        gr.update(choices=[(f"variant {k + 1}", k) for k in range(run.sampled)], **rest),
        gr.update(visible=len(visitor.runs) > 1),
        gr.update(value=visitor.at, cards=run_cards(visitor)),
        gr.update(interactive=visitor.at > 0),
        gr.update(interactive=visitor.at + 1 < len(visitor.runs)),
    ]


def swap(running: bool) -> list[Any]:
    """The buttons that start and end a run, while one is running or not."""
    return [
        gr.update(interactive=not running),
        gr.update(value="Cancel", interactive=True, visible=running),
    ]
