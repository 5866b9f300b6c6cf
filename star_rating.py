"""Star rating of a beatmap by rosu-pp-py, an optional extra (`pip install rosu-pp-py`)."""


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
