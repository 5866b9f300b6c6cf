"""All metrics, in the order in which they are reported. To add one, name its class here."""

from metrics.classifier import Classifier
from metrics.fidelity import Changes, Crossings, Faults, OutOfBounds
from metrics.geometry_judge import GeometryJudge
from metrics.metric import Metric
from metrics.realism_metric import RealismDistances
from metrics.spacing_metric import SpacingErrors
from metrics.whole_maps import Speed, StarRatings

METRICS: tuple[type[Metric], ...] = (
    SpacingErrors,
    Changes,
    OutOfBounds,
    Faults,
    Crossings,
    StarRatings,
    Speed,
    RealismDistances,
    Classifier,
    GeometryJudge,
)
