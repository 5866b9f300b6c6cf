"""Previews by their kinds: pictures, an animation, a player in a web page."""

from collections.abc import Sequence
from pathlib import Path

from beatmaps.osu_file import Beatmap
from conventions.command_line import claim_output
from viewer.animation import DEFAULT_CLIP, WIDTH, animate_play
from viewer.marks import Mark
from viewer.pictures import contact_sheet, passages_picture
from viewer.player_page import check_audio, find_audio, write_player

SUFFIXES = {"png": ".png", "sheet": ".sheet.png", "gif": ".gif", "html": ".html"}
"""Kinds of previews, and how their files' names end."""
HOW_TO_WATCH = "To watch it: open the .html file in a browser, by a double click."


def write_preview(
    kind: str,
    before: Beatmap,
    after: Beatmap | None,
    path: Path,
    *,
    start_ms: float | None = None,
    length_ms: float | None = None,
    width: int = WIDTH,
    audio: bytes | None = None,
    overwrite: bool = False,
    marks: Sequence[Mark] = (),
) -> str:
    """Writes one kind of `SUFFIXES` to `path`; returns what there is to say about it, or "".

    A range narrows "png" and "gif". `audio` is the song for "html", by default the one beside the
    map's file; "sheet" and "html" show `marks` of the map `after`. Raises ValueError where there is
    nothing to show in the range, and where the file exists and `overwrite` is false.
    """
    claim_output(path, overwrite)
    maps = [("before", before), ("after", after)] if after else [("", before)]
    if kind == "png":
        end = None if start_ms is None else start_ms + (length_ms or DEFAULT_CLIP)
        passages_picture(maps, path, start_ms=start_ms, end_ms=end)
    elif kind == "sheet":
        contact_sheet(maps, path, marks=marks)
    elif kind == "gif":
        length = length_ms or DEFAULT_CLIP
        animate_play(maps, path, start_ms=start_ms, length_ms=length, width=width)
    elif kind == "html":
        if audio is None:
            song, why_silent = find_audio(before)
        else:
            song, why_silent = check_audio(audio, before.audio_filename)
        write_player(path, before, after, song, overwrite=overwrite, marks=marks)
        return why_silent
    else:
        raise ValueError(f"preview {kind!r}: give one of {', '.join(SUFFIXES)}")
    return ""
