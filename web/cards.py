"""Cards to choose from: a small picture with a few lines, as the page's own control shows them."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from beatmaps.osu_file import Beatmap
from viewer.pictures import Playfield, passage, save_picture
from viewer.scene import make_scene

WIDTH = 360  # pixels


def draw_card(beatmap: Beatmap, span: tuple[float, float], path: Path) -> None:
    """Writes a small picture of the passage `span` (start, end) ms."""
    save_picture(passage(Playfield(make_scene(beatmap), WIDTH), *span), path)


def card(title: str, lines: Iterable[str], picture: Path) -> dict[str, Any]:
    """A card for the page; the picture travels in it, for it is shown nowhere else."""
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    return {"title": title, "lines": list(lines), "picture": f"data:image/png;base64,{data}"}
