"""What sampling is given for one beatmap besides options: objects to remap, styles, models."""

from dataclasses import dataclass, field

from beatmaps.osu_file import Beatmap
from beatmaps.selection import Mask, choose_objects
from checkpoint import LoadedModel
from sampling import conditioning
from sampling.experts import Expert
from sampling.loaded_models import Models
from sampling.progress import Progress, no_progress
from sampling.request import RemapRequest
from sampling.style import Style, resolve


@dataclass(frozen=True)
class MapInputs:
    """Inputs of `generate` that belong to one map.

    chosen (M,) marks the objects to remap, None means all; a refiner is another model for the
    refining iterations, with its own embedding of the style; an expert takes over at low noise. The
    one beside the model, which is used without another one, does so below `companion_below` px.
    """

    chosen: Mask | None = None
    style: Style = field(default_factory=Style)
    refiner: LoadedModel | None = None
    refiner_style: Style = field(default_factory=Style)
    expert: Expert | None = None
    companion_below: float | None = None


def map_inputs(
    models: Models, beatmap: Beatmap, request: RemapRequest, progress: Progress = no_progress
) -> MapInputs:
    """What the request asks for on one beatmap; ValueError if it fits none of its objects.

    Styles come last: a new one has to be learnt, with `progress`.
    """
    selection, loaded, expert = request.selection, models.sampler, models.expert
    chosen = None if selection.is_everything else choose_objects(beatmap, selection)
    conditioning.check_models([loaded, models.refiner, expert], request.wishes)
    styles: dict[str, Style] = {}

    def style_for(model: LoadedModel) -> Style:
        if model.sha256 not in styles:
            styles[model.sha256] = resolve_styles(model, beatmap, request, progress)
        return styles[model.sha256]

    return MapInputs(
        chosen,
        style_for(loaded),
        models.refiner,
        style_for(models.refiner or loaded),
        None if expert is None else Expert(expert, style_for(expert), request.expert_below),
        request.expert_below,
    )


def resolve_styles(
    loaded: LoadedModel, beatmap: Beatmap, request: RemapRequest, progress: Progress
) -> Style:
    """The embeddings of the wanted and of the negative style for a model of any kind.

    Some models also get conditions from the beatmap.
    """
    if loaded.vocabulary is not None:
        return conditioning.style(loaded, beatmap, request, progress)
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
