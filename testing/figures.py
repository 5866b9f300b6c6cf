"""Pictures that the analysis scripts draw, as files."""

from pathlib import Path

from matplotlib.figure import Figure

from conventions.whole_files import replacing


def save_figure(path: Path, figure: Figure) -> None:
    """Writes a PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
