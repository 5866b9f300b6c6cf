"""How a model does on held-out maps while it trains: losses by noise level, sampled maps.

It has only packed data points, no `.osu` files, so circles and sliders are drawn simply.
`evaluate.py` measures whole beatmaps.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conventions.playfield import PLAYFIELD, off_playfield
from conventions.point_types import PointType
from conventions.ranks import Ranks
from conventions.whole_files import replacing
from data_loading import (
    ByRow,
    PackedDataset,
    PackedPoints,
    WindowLoader,
    conditions_of,
    distances,
)
from diffusion.parametrisation import Parametrisation
from diffusion.samplers import sample_dpmpp_2m
from models import DiT, bind
from training.objective import Noise, Objective, loss_by_band

WINDOWS, AT_ONCE = 256, 16
"""Held-out windows in a validation, and how many are computed together."""

MAPS, POINTS = 3, 400
"""Held-out maps in a picture, and data points of each."""

SLIDER_HEADS = (PointType.SLIDER_HEAD, PointType.SLIDER_HEAD_NC)


@dataclass(frozen=True)
class HeldOutMap:
    """The first data points of a held-out map."""

    title: str
    points: PackedPoints


class Validation:
    """Held-out windows with fixed noise of their own; no class, no flips."""

    def __init__(
        self,
        dataset: PackedDataset,
        rows: np.ndarray,
        objective: Objective,
        seq_len: int,
        seed: int,
        classes: ByRow | None = None,
    ) -> None:
        self.dataset, self.rows, self.objective, self.seed = dataset, rows, objective, seed
        self.loader = WindowLoader(
            dataset,
            rows,
            seq_len=seq_len,
            stride=seq_len,
            batch_size=1,
            seed=seed,
            flip=False,
            classes=classes,
        )
        self.count = min(WINDOWS, self.loader.batches_per_epoch)
        self.noise = Noise.draw(
            objective.parametrisation,
            (self.count, seq_len),
            (seed, 2**32),  # a step that training never reaches
            class_dropout=1.0,
            distance_dropout=0.0,
            groups=len(objective.config.class_groups),
        )

    @torch.no_grad()
    def losses(self, model: DiT, ranks: Ranks) -> dict[str, Any]:
        """Mean loss and loss by band of noise over the windows, which all ranks share."""
        plan, share = self.loader.windows(0), ranks.share(self.count)
        parts = [torch.zeros(0, device=self.objective.device)]
        for first in range(share.start, share.stop, AT_ONCE):
            chosen = slice(first, min(first + AT_ONCE, share.stop))
            batch = self.loader.gather(plan[chosen])
            parts.append(self.objective.losses(model, batch, self.noise.part(chosen)))
        values = ranks.join(torch.cat(parts), self.count)
        return {
            "loss": float(values.mean()),
            "loss_by_sigma": loss_by_band(values, self.objective.sigmas_px(self.noise.levels)),
        }

    def sample(self, model: DiT, picture: Path) -> dict[str, Any]:
        """Samples a few held-out maps, draws them beside the real ones, measures their spacing."""
        chosen = self.rows[
            np.linspace(0, len(self.rows) - 1, min(MAPS, len(self.rows))).astype(int)
        ]
        maps = [held_out_map(self.dataset, int(row)) for row in chosen]
        sampled = [sample_map(model, self.objective.parametrisation, m, self.seed) for m in maps]
        draw(maps, sampled, picture)
        errors = np.concatenate(
            [
                np.abs(distances(xy) - m.points.distances())
                for m, xy in zip(maps, sampled, strict=True)
            ]
        )
        xy = np.concatenate(sampled)
        return {
            "spacing_error_median_px": float(np.median(errors)),
            "spacing_error_p95_px": float(np.quantile(errors, 0.95)),
            "points_off_playfield": float(off_playfield(xy).mean()),
        }


def held_out_map(dataset: PackedDataset, row: int) -> HeldOutMap:
    """The first data points of a map of the dataset."""
    entry = dataset.beatmaps.iloc[row]
    points = dataset.points[entry["offset"] : entry["offset"] + min(entry["count"], POINTS)]
    title = f"{entry['artist']} - {entry['title']} [{entry['version']}]"
    return HeldOutMap(title, PackedPoints(points))


@torch.inference_mode()
def sample_map(
    model: DiT, parametrisation: Parametrisation, held_out: HeldOutMap, seed: int
) -> np.ndarray:
    """Coordinates (T, 2) px that a model samples for a map's times, types and distances."""
    weight = next(model.parameters())
    points = held_out.points
    conditions = conditions_of(points, model.null_classes())
    denoise, _ = parametrisation.denoiser(bind(model, conditions))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, len(points.xy), 2, generator=generator).to(weight)
    sigmas = parametrisation.sigmas(12)
    x = noise * float(sigmas[0])
    if math.isfinite(parametrisation.limit):
        # A model for low noise can only begin with the map's own positions.
        sigmas = parametrisation.sigmas(12, parametrisation.limit)
        xy = torch.from_numpy(points.xy).to(weight)[None]
        x = parametrisation.from_pixels(xy) + noise * float(sigmas[0])
    x = sample_dpmpp_2m(denoise, x, sigmas)
    return parametrisation.to_pixels(x)[0].cpu().double().numpy()


def draw(maps: list[HeldOutMap], sampled: list[np.ndarray], path: Path) -> None:
    """Real maps above, sampled ones below: objects coloured by time, sliders as lines."""
    from matplotlib.figure import Figure  # takes a second to import, and most runs do not need it

    figure = Figure(figsize=(5 * len(maps), 8), layout="constrained")
    axes = figure.subplots(2, len(maps), squeeze=False)
    for column, (held_out, xy) in enumerate(zip(maps, sampled, strict=True)):
        for row, (name, points) in enumerate((("real", held_out.points.xy), ("sampled", xy))):
            _draw_map(axes[row, column], points, held_out.points.types)
            axes[row, column].set_title(f"{name}: {held_out.title}"[:60], fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=80)


def _draw_map(axes: Any, xy: np.ndarray, types: np.ndarray) -> None:
    starts = np.flatnonzero(types <= max(SLIDER_HEADS))
    for head in np.flatnonzero(np.isin(types, SLIDER_HEADS)):
        ends = np.flatnonzero(types[head:] >= PointType.SLIDER_END_1)
        body = xy[head : head + ends[0] + 1] if len(ends) else xy[head:]
        axes.plot(body[:, 0], body[:, 1], color="0.75", linewidth=2, zorder=1)
    axes.scatter(xy[starts, 0], xy[starts, 1], c=starts, cmap="viridis", s=16, zorder=2)
    width, height = PLAYFIELD
    axes.plot([0, width, width, 0, 0], [0, 0, height, height, 0], color="0.4", linewidth=0.8)
    axes.set(xlim=(-64, 576), ylim=(448, -64), aspect="equal", xticks=[], yticks=[])
