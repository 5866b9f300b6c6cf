"""What a request asks of one beatmap beside numbers: its objects to remap, styles, a refiner."""

from dataclasses import dataclass, field

from beatmaps.osu_file import Beatmap
from beatmaps.selection import Mask, choose_objects
from checkpoint import LoadedModel
from sampling.progress import Progress, no_progress
from sampling.request import RemapRequest
from sampling.style import Style, resolve


@dataclass(frozen=True)
class Models:
    """The model that samples, and another one that refines what it gives, if asked for."""

    sampler: LoadedModel
    refiner: LoadedModel | None = None


@dataclass(frozen=True)
class Steering:
    """What `generate` is told about one map.

    chosen (M,) marks the objects to remap, None all of them; a refiner is another model for the
    refining iterations, with the style in its own terms.
    """

    chosen: Mask | None = None
    style: Style = field(default_factory=Style)
    refiner: LoadedModel | None = None
    refiner_style: Style = field(default_factory=Style)


def steer(
    models: Models, beatmap: Beatmap, request: RemapRequest, progress: Progress = no_progress
) -> Steering:
    """What the request asks for on one beatmap; ValueError where it fits none of its objects.

    Styles come last: one that is new has to be learnt, with `progress`.
    """
    selection, loaded, refiner = request.selection, models.sampler, models.refiner
    chosen = None if selection.is_everything else choose_objects(beatmap, selection)
    style = resolve_styles(loaded, request, progress)
    if refiner is None or refiner.sha256 == loaded.sha256:
        return Steering(chosen, style, refiner, style)
    return Steering(chosen, style, refiner, resolve_styles(refiner, request, progress))


def resolve_styles(loaded: LoadedModel, request: RemapRequest, progress: Progress) -> Style:
    """The embeddings of the wanted and of the negative style in a model's terms."""
    embeddings = [
        resolve(
            loaded,
            mix,
            index_path=request.beatmap_idx,
            cache=request.output / ".cache",
            progress=progress,
        )
        for mix in (request.style, request.unwanted)
    ]
    return Style(*embeddings)
