"""The types of data points, with the same numbers in maps, packed datasets and the network."""

from enum import IntEnum


class PointType(IntEnum):
    """What a data point is; the order is that of the model's one-hot input."""

    CIRCLE = 0
    CIRCLE_NC = 1
    SPINNER = 2
    SPINNER_END = 3
    SLIDER_HEAD = 4
    SLIDER_HEAD_NC = 5
    BEZIER_ANCHOR = 6
    PERFECT_ANCHOR = 7
    CATMULL_ANCHOR = 8
    RED_ANCHOR = 9  # also every inner point of a linear slider
    LAST_ANCHOR = 10
    SLIDER_END_1 = 11
    SLIDER_END_2 = 12
    SLIDER_END_3 = 13
    SLIDER_END_EVEN = 14  # 4, 6, ... slides
    SLIDER_END_ODD = 15  # 5, 7, ... slides


STARTS = (
    PointType.CIRCLE,
    PointType.CIRCLE_NC,
    PointType.SPINNER,
    PointType.SLIDER_HEAD,
    PointType.SLIDER_HEAD_NC,
)
SPINNERS = (PointType.SPINNER, PointType.SPINNER_END)
