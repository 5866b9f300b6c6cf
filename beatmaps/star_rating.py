"""Star rating of a beatmap by rosu-pp-py, an optional extra (`pip install rosu-pp-py`)."""

from importlib.util import find_spec


def star_ratings_available() -> bool:
    """Whether rosu-pp-py is installed."""
    return find_spec("rosu_pp_py") is not None


def star_rating(data: bytes) -> float | None:
    """Star rating without mods of an .osu file's bytes; None where rosu-pp-py is not installed."""
    try:
        import rosu_pp_py
    except ImportError:
        return None
    beatmap = rosu_pp_py.Beatmap(bytes=data)
    # Gimmick maps can take this library minutes and gigabytes.
    if beatmap.is_suspicious():
        return None
    return float(rosu_pp_py.Difficulty().calculate(beatmap).stars)
