"""How well a model tells coordinates from noise: one forward pass, no sampling."""

from collections.abc import Sequence as Levels

import numpy as np
import torch
from numpy.typing import NDArray

from beatmaps.game import PLAYFIELD
from beatmaps.sequence import Sequence
from checkpoint import LoadedModel
from data_loading import MARGIN_PX
from models import Conditions

FloatArray = NDArray[np.float64]

SIGMAS_PX = (30.0, 100.0, 300.0)


def unstyled_conditions(
    loaded: LoadedModel, sequence: Sequence, distances: FloatArray | None = None
) -> Conditions:
    """A map's conditions without a style: (N, T), with distances (N, T) px, or its own, for N = 1.

    -1 stands for a distance that the model is not told.
    """
    null = loaded.model.null_classes()
    times = sequence.times - sequence.times[0]
    conditions = Conditions.of_arrays(times, sequence.distances(), sequence.types, null)
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
    """Squared errors in px^2 of both coordinates of the data points, (n,) a noise level.

    The map is noised to each level, the same noise scaled, and denoised as the samplers do it. A
    level in px is the geometric mean over the axes where the parametrisation's noise differs by
    axis. Points so far off the playfield that no model was trained on them are left out.
    """
    parametrisation = loaded.parametrisation
    device = loaded.device
    denoise = loaded.denoiser(unstyled_conditions(loaded, sequence), half_window)
    xy = torch.from_numpy(sequence.xy).float()[None]
    eps = torch.randn(xy.shape, generator=generator).to(device)
    x0 = parametrisation.from_pixels(xy.to(device))
    near = ((sequence.xy >= -MARGIN_PX) & (sequence.xy <= np.add(PLAYFIELD, MARGIN_PX))).all(axis=1)
    errors = {}
    with torch.inference_mode():
        for level in sigmas_px:
            sigma = torch.tensor(level / float(np.sqrt(np.prod(parametrisation.scale))))
            found = denoise(x0 + float(sigma) * eps, sigma)
            error = parametrisation.to_pixels(found).cpu() - xy
            errors[level] = error[0].double().numpy()[near].ravel() ** 2
    return errors
