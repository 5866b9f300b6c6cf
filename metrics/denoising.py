"""How well a model tells coordinates from noise: one forward pass, no sampling."""

from collections.abc import Sequence as Levels

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beatmaps.game import PLAYFIELD
from beatmaps.sequence import Sequence
from checkpoint import LoadedModel
from constraints.rules import clamp_prediction
from data_loading import MARGIN_PX
from diffusion.parametrisation import Denoise
from models import make_context

FloatArray = NDArray[np.float64]

SIGMAS_PX = (30.0, 100.0, 300.0)


def bind_denoiser(
    loaded: LoadedModel,
    sequence: Sequence,
    n: int = 1,
    half_window: int | None = None,
    distances: FloatArray | None = None,
) -> Denoise:
    """`denoise` of x (n, T, 2) for this map, without a style and without constraints.

    distances (n, T) px, -1 for unknown ones, are told to the model instead of the map's own.
    """
    model, parametrisation = loaded.model, loaded.parametrisation
    device = next(model.parameters()).device
    told = np.repeat(sequence.distances()[None], n, axis=0) if distances is None else distances
    context = make_context(
        model.config,
        torch.from_numpy(sequence.times - sequence.times[0]).expand(n, -1),
        torch.from_numpy(told).float().to(device),
        torch.from_numpy(sequence.types).expand(n, -1).to(device),
        torch.full((n,), model.null_class, device=device),
    )

    def network(x: Tensor, labels: Tensor) -> Tensor:
        return model(x, labels, context, half_window).float()

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        return parametrisation.denoise(network, x, sigma)

    return clamp_prediction(predict) if loaded.is_reference else predict


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
    device = next(loaded.model.parameters()).device
    denoise = bind_denoiser(loaded, sequence, half_window=half_window)
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
