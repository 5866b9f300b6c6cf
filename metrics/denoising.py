"""How well a model predicts coordinates from noisy ones: one forward pass, no sampling."""

from collections.abc import Sequence as Levels

import numpy as np
import torch

from beatmaps.sequence import Sequence
from checkpoint import LoadedModel
from conventions.arrays import FloatArray
from data_loading import conditions_of, near_playfield
from models import Conditions

SIGMAS_PX = (30.0, 100.0, 300.0)


def unstyled_conditions(
    loaded: LoadedModel, sequence: Sequence, distances: FloatArray | None = None
) -> Conditions:
    """A map's conditions without a style: (N, T), with distances (N, T) px, or its own, for N = 1.

    A distance of -1 is withheld from the model.
    """
    null = loaded.model.null_classes()
    conditions = conditions_of(sequence, null)
    if distances is None:
        return conditions
    told = torch.from_numpy(distances).float().to(loaded.device)
    return conditions.repeat(len(distances))._replace(distances=told)


def denoising_errors(
    loaded: LoadedModel,
    sequence: Sequence,
    generator: torch.Generator,
    sigmas_px: Levels[float] = SIGMAS_PX,
    half_window: int | None = None,
) -> dict[float, FloatArray]:
    """Squared errors in px^2 of both coordinates of the data points, (n,) for each noise level.

    The same noise, scaled to each level, is added to the map, which is denoised as samplers do it.
    Where the parametrisation's noise in px differs by axis, a level is the geometric mean over the
    axes. Points too far off the playfield to be trained on are left out.
    """
    parametrisation = loaded.parametrisation
    device = loaded.device
    denoise = loaded.denoiser(unstyled_conditions(loaded, sequence), half_window)
    xy = torch.from_numpy(sequence.xy).float()[None]
    eps = torch.randn(xy.shape, generator=generator).to(device)
    x0 = parametrisation.from_pixels(xy.to(device))
    near = near_playfield(sequence.xy)
    errors = {}
    with torch.inference_mode():
        for level in sigmas_px:
            sigma = torch.tensor(level / float(np.sqrt(np.prod(parametrisation.scale))))
            found = denoise(x0 + float(sigma) * eps, sigma)
            error = parametrisation.to_pixels(found).cpu() - xy
            errors[level] = error[0].double().numpy()[near].ravel() ** 2
    return errors


class Denoising:
    """The denoising errors of many maps; it needs the network, but no remaps."""

    def __init__(self) -> None:
        self.errors: dict[float, list[FloatArray]] = {}

    def add(
        self, loaded: LoadedModel, sequence: Sequence, seed: int, half_window: int | None = None
    ) -> None:
        """Measures a map, with noise of its own for every seed."""
        generator = torch.Generator().manual_seed(int(sequence.beatmap.md5[:12], 16) + seed)
        found = denoising_errors(loaded, sequence, generator, half_window=half_window)
        for level, squares in found.items():
            self.errors.setdefault(level, []).append(squares)

    def summarise(self) -> dict[str, float]:
        """Root mean square in px over all coordinates of all maps, by noise level."""
        return {
            f"denoising_rmse_at_{level:g}_px": float(np.sqrt(np.concatenate(errors).mean()))
            for level, errors in self.errors.items()
        }
