"""A beatmap player in one HTML file: the map as the game plays it, two maps beside each other.

The file needs no network and asks for none: its content security policy forbids it. All paths are
computed here; the scripts in `player/` only place and draw what they are given.
"""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beatmaps.file_names import find_file, is_absolute, leads_out
from beatmaps.osu_file import EARLY_VERSION_OFFSET, Beatmap, write_new_file
from viewer import scene
from viewer.html_page import fill_page
from viewer.marks import Mark
from viewer.scene import Scene, Shown, make_scene

FOLDER = Path(__file__).parent / "player"
SCRIPTS = ("scene.js", "draw.js", "sounds.js", "clock.js", "marks.js", "player.js")
MAX_AUDIO_BYTES = 32 * 2**20
TOO_LARGE = f"The song is larger than {MAX_AUDIO_BYTES >> 20} MB."
AUDIO_TYPES = [  # (offset, the bytes that stand there, media type)
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (8, b"WAVE", "audio/wav"),
    (4, b"ftyp", "audio/mp4"),
]
"""How audio files begin; an MP3 without tags begins with a frame, see `audio_type`."""

MAX_SOUNDS = 100_000  # hitsounds of a map; sliders that repeat thousands of times have more


def write_player(
    path: str | os.PathLike[str],
    before: Beatmap,
    after: Beatmap | None = None,
    audio: bytes | None = None,
    *,
    overwrite: bool = False,
    marks: Sequence[Mark] = (),
) -> None:
    """Write `player_html` as a file, whole or not at all.

    Raises ValueError as that does, and where the file exists and `overwrite` is false.
    """
    page = player_html(before, after, audio, marks=marks)
    write_new_file(path, page.encode("utf-8"), overwrite=overwrite)


def player_html(
    before: Beatmap,
    after: Beatmap | None = None,
    audio: bytes | None = None,
    *,
    marks: Sequence[Mark] = (),
) -> str:
    """The player's page for one map, or for two of the same rhythm; it plays `audio` if given.

    `marks` are places of the last map that the player lists and shows. Without audio a silent clock
    runs. Raises ValueError for audio that is too large or in a format
    that browsers do not play.
    """
    return fill_page(
        FOLDER / "player.html",
        FOLDER / "player.css",
        [FOLDER / name for name in SCRIPTS],
        title=f"{before.artist} - {before.title}",
        data=player_data(before, after, audio, marks),
        policy="media-src blob:",
    )


def player_frame(
    before: Beatmap,
    after: Beatmap | None = None,
    audio: bytes | None = None,
    *,
    marks: Sequence[Mark] = (),
    height: int = 620,
) -> str:
    """The player as an `<iframe>` for another page or a notebook, locked in by its sandbox."""
    page = html.escape(player_html(before, after, audio, marks=marks), quote=True)
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{page}" title="Beatmap player" '
        f'allow="autoplay; fullscreen" style="width: 100%; height: {height}px; border: 0"></iframe>'
    )


def find_audio(beatmap: Beatmap) -> tuple[bytes | None, str]:
    """The song beside a `.osu` file that was read from disk, or None and why there is none."""
    name = beatmap.audio_filename
    if not beatmap.has_song or is_absolute(name) or leads_out(name):
        return None, "The map names no song in its folder."
    path = find_file(Path(beatmap.name).parent, name)
    if path is None:
        return None, f"The song {name} is not in the map's folder."
    if path.stat().st_size > MAX_AUDIO_BYTES:
        return None, TOO_LARGE
    return check_audio(path.read_bytes(), name)


def check_audio(data: bytes, name: str) -> tuple[bytes | None, str]:
    """The content of the song `name`, or None and why the player cannot play it."""
    if len(data) > MAX_AUDIO_BYTES:
        return None, TOO_LARGE
    if audio_type(data) is None:
        return None, f"The song {name} is in no format that browsers play."
    return data, ""


def audio_type(data: bytes) -> str | None:
    """Media type of an audio file by its first bytes; None if browsers do not play it."""
    for offset, magic, kind in AUDIO_TYPES:
        if data[offset : offset + len(magic)] == magic:
            return kind
    # An MPEG audio frame: 11 bits set, and layer III.
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2:
        return "audio/mpeg"
    return None


# The data of the page


def player_data(
    before: Beatmap,
    after: Beatmap | None = None,
    audio: bytes | None = None,
    marks: Sequence[Mark] = (),
) -> dict[str, Any]:
    """What the scripts get: the maps in their places, what to mark, sounds, the song."""
    named = [("before" if after else "", before), *([("after", after)] if after else [])]
    return {
        "look": _look(),
        "maps": [_map_data(name, beatmap, make_scene(beatmap)) for name, beatmap in named],
        "breaks": before.breaks,
        "kiai": kiai_ranges(before),
        "marks": [mark.to_dict() for mark in marks],
        "sounds": hit_sounds(before),
        "audio": _audio_data(audio),
        "note": "" if audio else "Without the song: the clock runs in silence.",
    }


def _look() -> dict[str, Any]:
    """The numbers that scene.py and scene.js share."""
    return {
        "playfield": scene.PLAYFIELD,
        "middle": scene.MIDDLE,
        "hitFade": scene.HIT_FADE,
        "hitGrowth": scene.HIT_GROWTH,
        "shortestPreempt": scene.SHORTEST_PREEMPT,
        "approachScale": scene.APPROACH_SCALE,
        "approachAlpha": scene.APPROACH_ALPHA,
        "followRadius": scene.FOLLOW_RADIUS,
        "followFade": scene.FOLLOW_FADE,
        "pointSpacing": scene.POINT_SPACING,
        "firstPoint": scene.FIRST_POINT,
        "lastPoint": scene.LAST_POINT,
        "pointRadius": scene.POINT_RADIUS,
        "pointLead": scene.POINT_LEAD,
        "maxPoints": scene.MAX_POINTS,
        "spinnerRadii": scene.SPINNER_RADII,
        "spinnerSpeed": scene.SPINNER_SPEED,
    }


def _map_data(name: str, beatmap: Beatmap, shown: Scene) -> dict[str, Any]:
    """One map for the scripts; `name` is what the picture calls it."""
    return {
        "name": name,
        "title": f"{beatmap.artist} - {beatmap.title} ({beatmap.creator})",
        "version": beatmap.version,
        "radius": shown.radius,
        "preempt": shown.preempt,
        "fadeIn": shown.fade_in,
        "colours": shown.colours,
        "objects": [_object_data(thing) for thing in shown.things],
    }


def _object_data(thing: Shown) -> dict[str, Any]:
    """One object: times in ms, stacked positions in px; a slider has its path as x, y, x, y, ..."""
    hit = thing.hit_object
    data: dict[str, Any] = {
        "kind": hit.kind,
        "time": _short(hit.time),
        "number": thing.number,
        "colour": thing.colour,
    }
    if hit.new_combo:
        data["newCombo"] = True
    if hit.kind != "circle":
        data["end"] = _short(hit.end_time)
    if hit.kind == "slider":
        data["slides"] = hit.slides
        data["line"] = [_short(value) for value in thing.line.ravel().tolist()]
    elif hit.kind == "circle":
        data["x"], data["y"] = (_short(value) for value in thing.head.tolist())
    return data


def _short(value: float) -> float | int:
    """A number of ms or px to two decimals, as few characters as that takes."""
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded


def _audio_data(audio: bytes | None) -> dict[str, str] | None:
    """The song as text; ValueError if it cannot be played."""
    if audio is None:
        return None
    if len(audio) > MAX_AUDIO_BYTES:
        raise ValueError(
            f"the song has {len(audio)} bytes, more than {MAX_AUDIO_BYTES}: play without it"
        )
    kind = audio_type(audio)
    if kind is None:
        raise ValueError("the song is no Ogg, MP3, FLAC, WAV or MP4 file: play without it")
    return {"type": kind, "base64": base64.b64encode(audio).decode("ascii")}


def kiai_ranges(beatmap: Beatmap) -> list[tuple[float, float]]:
    """(start, end) ms of the kiai times, by the effects field of the timing points."""
    offset = EARLY_VERSION_OFFSET if beatmap.format_version < 5 else 0.0
    last = max(hit_object.end_time for hit_object in beatmap.objects)
    ranges: list[tuple[float, float]] = []
    start: float | None = None
    for line in beatmap.section("TimingPoints"):
        fields = line.split(",")
        try:
            time, kiai = float(fields[0]) + offset, len(fields) > 7 and int(fields[7]) & 1
        except ValueError:
            continue  # the game drops the line as well
        if kiai and start is None:
            start = time
        elif not kiai and start is not None:
            ranges.append((start, time))
            start = None
    return ranges if start is None else [*ranges, (start, max(start, last))]


def hit_sounds(beatmap: Beatmap) -> list[tuple[float, int]]:
    """(ms, bits) of all that sounds, by time: 2 whistle, 4 finish, 8 clap, 0 none of them."""
    sounds = []
    for hit in beatmap.objects:
        fields = beatmap.lines[hit.line].decode(beatmap.encoding, "replace").split(",")
        bits = _bits(fields[4])
        if hit.kind == "slider":
            edges = fields[8].split("|") if len(fields) > 8 else []
            for k in range(hit.slides + 1):
                edge = _bits(edges[k]) if k < len(edges) else bits
                sounds.append((_short(hit.time + k * hit.span_duration), edge))
        else:
            sounds.append((_short(hit.end_time), bits))
    return sorted(sounds)[:MAX_SOUNDS]


def _bits(text: str) -> int:
    """The whistle, finish and clap bits of a hitsound field."""
    text = text.strip()
    return int(text) & 14 if text.isascii() and text.isdigit() else 0
