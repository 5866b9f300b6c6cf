"""GIFs of beatmaps: being played, and taking shape while the sampler removes the noise."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from beatmaps.game_rules import combo_numbers, format_time
from beatmaps.osu_file import Beatmap, parse_beatmap
from beatmaps.sequence import Sequence as PointSequence
from beatmaps.sequence import apply_coordinates
from conventions.arrays import FloatArray
from conventions.whole_files import replacing
from viewer.pictures import (
    BACKGROUND,
    BORDER,
    FIELD,
    GRID,
    Playfield,
    in_grid,
    labelled,
    passage,
    time_slices,
)
from viewer.scene import frame, make_scene

DEFAULT_CLIP, LONGEST_CLIP = 10_000.0, 20_000.0  # ms
WIDTH, WIDTHS = 512, (128, 1280)  # pixels
FRAME_MS = 50  # what a frame of play lasts; GIFs count hundredths of a second
SMOOTH = 2

MAX_STATES = 120  # frames of denoising; of more steps some are left out, evenly
STATE_MS, RESULT_MS = 250, 2500  # what a frame of denoising and the last one last
SHORTEST_STATE_MS = 40

COLOURS = 160
COLOUR_STEP = 8  # colours less apart than this are one when a palette is made
PALETTE_FRAMES = 12  # from which all frames' colours are chosen

T = TypeVar("T")


def busiest_clip(beatmap: Beatmap, length_ms: float = DEFAULT_CLIP) -> float:
    """Start, in ms, of the stretch of that length with the most objects; it begins at a combo."""
    times = np.array([hit_object.time for hit_object in beatmap.objects])
    starts = times[[number <= 1 for number, _ in combo_numbers(beatmap)]]
    counts = np.searchsorted(times, starts + length_ms) - np.searchsorted(times, starts)
    return float(starts[np.argmax(counts)])


def animate_play(
    maps: Sequence[tuple[str, Beatmap]],
    path: str | os.PathLike[str],
    *,
    start_ms: float | None = None,
    length_ms: float = DEFAULT_CLIP,
    width: int = WIDTH,
    progress: bool = True,
) -> None:
    """Write a GIF of the maps being played beside each other, without mistakes.

    `maps` are (name, beatmap), all of one rhythm; `width` is that of the whole picture in pixels.
    Without a start it is the `busiest_clip`. The file appears complete or not at all. Raises
    ValueError for a length or a width that makes no sense.
    """
    check_length(length_ms)
    start = busiest_clip(maps[0][1], length_ms) if start_ms is None else start_ms
    fields = [
        (name, Playfield(make_scene(beatmap), _checked_width(width) // len(maps), SMOOTH))
        for name, beatmap in maps
    ]

    def draw(number: int) -> Image.Image:
        time = start + number * FRAME_MS
        cells = [
            labelled(field.image(frame(field.scene, time)), name, format_time(time))
            for name, field in fields
        ]
        return in_grid(cells, len(cells))

    numbers = range(int(length_ms // FRAME_MS))
    _write_gif(draw, numbers, [FRAME_MS] * len(numbers), path, "animation", progress)


def animate_denoising(
    sequence: PointSequence,
    predictions: Sequence[FloatArray],
    result: FloatArray,
    path: str | os.PathLike[str],
    *,
    times: tuple[float, float] | None = None,
    width: int = WIDTH,
    progress: bool = True,
) -> None:
    """Write a GIF of a time range as every sampling step predicts it, and of the result.

    `predictions` and `result` are coordinates (T, 2) px of the data points in `sequence`, `times`
    are (start, end) ms, by default of a passage from the middle of the map. The file appears
    complete or not at all. Raises ValueError for a width that makes no sense.
    """
    beatmap = sequence.beatmap
    if times is None:
        passages = time_slices(beatmap)
        times = passages[len(passages) // 2]
    start_ms, end_ms = times
    count = len(predictions)
    width = _checked_width(width)
    every = -(-count // MAX_STATES)
    chosen = [*range(0, count, every), count]

    def draw(step: int) -> Image.Image:
        xy = result if step == count else predictions[step]
        state = parse_beatmap(apply_coordinates(sequence, xy), beatmap.name)
        field = Playfield(make_scene(state), width, SMOOTH)
        name = "result" if step == count else f"step {step + 1} of {count}"
        return labelled(passage(field, start_ms, end_ms), name, format_time(start_ms))

    each = max(SHORTEST_STATE_MS, STATE_MS * 12 // max(len(chosen), 12))
    durations = [each] * (len(chosen) - 1) + [RESULT_MS]
    _write_gif(draw, chosen, durations, path, "denoising", progress)


def check_length(length_ms: float) -> None:
    """ValueError for a clip of play that is too short or too long."""
    if not FRAME_MS <= length_ms <= LONGEST_CLIP:
        raise ValueError(
            f"a clip of {length_ms:.0f} ms: it may last from {FRAME_MS} to {LONGEST_CLIP:.0f} ms"
        )


def _checked_width(width: int) -> int:
    """The width; ValueError if it makes no sense."""
    low, high = WIDTHS
    if not low <= width <= high:
        raise ValueError(f"an animation {width} pixels wide: give a width from {low} to {high}")
    return width


def _write_gif(
    draw: Callable[[T], Image.Image],
    frames: Sequence[T],
    durations: list[int],
    path: str | os.PathLike[str],
    name: str,
    progress: bool,
) -> None:
    """Draw all frames and write them as a GIF that repeats, with one palette for all of them."""
    sample = frames[:: -(-len(frames) // PALETTE_FRAMES)]
    palette = _palette([draw(number) for number in sample])

    def quantized(numbers: Iterable[T]) -> Iterator[Image.Image]:
        for number in tqdm(
            numbers, total=len(frames), desc=name, unit="frame", disable=not progress
        ):
            # Undithered: dots that change from frame to frame make files several times larger.
            yield draw(number).quantize(palette=palette, dither=Image.Dither.NONE)

    images = quantized(frames)
    with replacing(Path(path)) as temporary:
        next(images).save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=images,
            duration=durations,
            loop=0,
            optimize=False,
        )


def _palette(images: Sequence[Image.Image]) -> Image.Image:
    """An image with a palette for all of them, in which rare colours have their share too."""
    pixels = np.concatenate([np.asarray(image).reshape(-1, 3) for image in images])
    _, first, counts = np.unique(
        pixels // COLOUR_STEP, axis=0, return_index=True, return_counts=True
    )
    weighted = np.repeat(pixels[first], np.ceil(counts**0.35).astype(int), axis=0)
    chosen = Image.fromarray(weighted[None]).quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
    palette = Image.new("P", (1, 1))
    fixed = [channel for colour in (BACKGROUND, FIELD, GRID, BORDER) for channel in colour]
    palette.putpalette((chosen.getpalette() or []) + fixed)
    return palette
