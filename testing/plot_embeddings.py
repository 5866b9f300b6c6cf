"""Draws a map of a model's class embeddings: similar styles are near each other.

    python testing/plot_embeddings.py --output embeddings.png embeddings.html

t-SNE (van der Maaten & Hinton 2008), or UMAP with umap-learn, puts the embeddings on a plane by
their cosine distances. Only who is near whom means something; not the axes, nor how far far is.
The .html file shows names under the pointer and finds maps; it needs no network.
"""

import argparse
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from class_embeddings import Classes, add_flags, classes_from, mappers, names, unit
from figures import save_figure

from conventions import command_line
from conventions.arrays import FloatArray
from conventions.errors import naming
from conventions.whole_files import replacing
from datasets.filters import Dates, date_of, normal_name, read_dates
from datasets.read import readable
from viewer.html_page import fill_page

PAGE = Path(__file__).parent / "embedding_map"
PACKAGES = {"tsne": ("sklearn", "scikit-learn"), "umap": ("umap", "umap-learn")}
PALETTE = [to_hex(colour) for colour in colormaps["tab10"].colors]  # type: ignore[attr-defined]
UNKNOWN = "#cccccc"
SCALE = colormaps["viridis"]
CLIPPED = (0.02, 0.98)  # quantiles at which a scale of colours ends
FEWEST = 4  # classes; fewer have no neighbourhood


# --- places ---------------------------------------------------------------------------------------


def project(vectors: FloatArray, method: str, neighbours: float, seed: int) -> FloatArray:
    """Places (n, 2) of embeddings (n, D) on a plane, the same for the same seed."""
    if len(vectors) < FEWEST:
        raise ValueError(f"{len(vectors)} classes are too few for a map: {FEWEST} are needed")
    # Between vectors of length 1, Euclidean distances are in the order of the cosine distances.
    vectors = unit(vectors)
    if method == "umap":
        from umap import UMAP

        count = min(int(neighbours), len(vectors) - 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a seed costs its threads
            places = UMAP(n_neighbors=count, random_state=seed).fit_transform(vectors)
    else:
        from sklearn.manifold import TSNE

        perplexity = min(neighbours, (len(vectors) - 1) / 3)
        places = TSNE(perplexity=perplexity, random_state=seed).fit_transform(vectors)
    return np.asarray(places, dtype=np.float64)


# --- colours --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Colouring:
    """What the colours of the points say.

    colours (n,) "#rrggbb"; `legend` names some of them; a scale runs from `low` to `high`.
    """

    name: str
    colours: list[str]
    legend: list[tuple[str, str]]
    low: float | None = None
    high: float | None = None

    @property
    def order(self) -> list[int]:
        """The points with a colour after those without, which would hide them."""
        return sorted(range(len(self.colours)), key=lambda k: self.colours[k] != UNKNOWN)


def by_mapper(table: pd.DataFrame) -> Colouring:
    """The mappers of most maps have colours."""
    makers = mappers(table)
    most = [name for name, _ in Counter(filter(None, makers)).most_common(len(PALETTE))]
    colour = dict(zip(most, PALETTE, strict=False))
    counts = Counter(makers)
    spelt = {normal_name(creator): creator for creator in table["creator"]}
    legend = [(readable(f"{spelt.get(n, n)} ({counts[n]})"), colour[n]) for n in most]
    rest = len(makers) - sum(counts[name] for name in most)
    legend += [(f"others ({rest})", UNKNOWN)] if rest else []
    return Colouring("mapper", [colour.get(name, UNKNOWN) for name in makers], legend)


def by_number(name: str, values: FloatArray) -> Colouring:
    """Values (n,) on a scale of colours; NaN is unknown."""
    known = np.isfinite(values)
    if not known.any():
        raise ValueError(
            f"--colour {name}: it is known of no class; give a --dataframe that has it"
        )
    low, high = np.quantile(values[known], CLIPPED)
    shades = SCALE(Normalize(low, high, clip=True)(np.where(known, values, low)))
    colours = [to_hex(c) if k else UNKNOWN for c, k in zip(shades, known, strict=True)]
    missing = len(known) - int(known.sum())
    legend = [(f"not known ({missing})", UNKNOWN)] if missing else []
    return Colouring(name, colours, legend, float(low), float(high))


def by_year(table: pd.DataFrame, dates: Dates) -> Colouring:
    """The date in years, or where no date is known, the beatmap ID, which grows with time."""
    days = [date_of(row, dates) for row in table[["beatmap_id", "set_id"]].to_dict("records")]
    known = pd.Series(pd.to_datetime(pd.Series(days, index=table.index)))
    if "date" in table:
        known = known.fillna(pd.to_datetime(table["date"].replace("", None)))
    if known.notna().any():
        years = known.dt.year + (known.dt.day_of_year - 1) / 366
        return by_number("year", years.to_numpy(dtype=np.float64))
    ids = table["beatmap_id"].to_numpy(dtype=np.float64)
    return by_number("beatmap ID, in place of the date", np.where(ids > 0, ids, np.nan))


def colouring(wanted: str, table: pd.DataFrame, dates: Dates) -> Colouring:
    """The colouring that `--colour` names: mapper, year, stars, or a column of numbers."""
    if wanted == "mapper":
        return by_mapper(table)
    if wanted == "year":
        return by_year(table, dates)
    column = "star_rating" if wanted == "stars" else wanted
    if column not in table:
        columns = [c for c in table if pd.api.types.is_numeric_dtype(table[c])]
        raise ValueError(f"--colour {wanted}: give mapper, year, stars or {', '.join(columns)}")
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    return by_number("star rating" if wanted == "stars" else wanted, values)


# --- pictures -------------------------------------------------------------------------------------


def draw(places: FloatArray, colourings: list[Colouring], title: str) -> Figure:
    """A panel for each colouring."""
    figure = Figure(figsize=(7.2 * len(colourings), 6.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(1, len(colourings), squeeze=False)[0]
    for axes, shown in zip(panels, colourings, strict=True):
        _draw_panel(figure, axes, places, shown)
    return figure


def _draw_panel(figure: Figure, axes: Axes, places: FloatArray, shown: Colouring) -> None:
    order = shown.order
    colours = [shown.colours[k] for k in order]
    size = float(np.clip(20_000 / len(places), 1.5, 30))
    sizes = [size if colour != UNKNOWN else 0.6 * size for colour in colours]
    x, y = places[order].T
    axes.scatter(x, y, c=colours, s=sizes, linewidths=0)
    axes.set(title=shown.name, xticks=[], yticks=[], aspect="equal")
    axes.invert_yaxis()  # as the page has it
    if shown.low is not None and shown.high is not None:
        scale = ScalarMappable(Normalize(shown.low, shown.high), SCALE)
        plain = "{x:,.0f}" if shown.high > 1e5 else None
        figure.colorbar(scale, ax=axes, shrink=0.8, extend="both", format=plain)
    marks = [
        Line2D([], [], marker="o", linestyle="", markersize=5, color=colour, label=label)
        for label, colour in shown.legend
    ]
    if marks:
        axes.legend(
            handles=marks,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.01),
            ncols=min(3, len(marks)),
            fontsize=8,
            frameon=False,
        )


def page(places: FloatArray, classes: Classes, colourings: list[Colouring], title: str) -> str:
    """The interactive page."""
    details = [
        ", ".join(
            [f"beatmap {row['beatmap_id']}"] * (row["beatmap_id"] > 0)
            + [f"{row['star_rating']:.2f} stars"] * bool(np.isfinite(row["star_rating"]))
            + [f"class {row['class_index']}"]
        )
        for row in classes.table[["beatmap_id", "star_rating", "class_index"]].to_dict("records")
    ]
    data = {
        "points": places.round(3).tolist(),
        "names": names(classes.table),
        "details": details,
        "colourings": [_page_colouring(shown) for shown in colourings],
    }
    return fill_page(PAGE / "page.html", PAGE / "page.css", [PAGE / "page.js"], title, data)


def _page_colouring(shown: Colouring) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "name": shown.name,
        "colours": shown.colours,
        "legend": shown.legend,
        "order": shown.order,
    }
    if shown.low is not None and shown.high is not None:
        parts["gradient"] = [to_hex(SCALE(k / 8)) for k in range(9)]
        digits = 0 if shown.high - shown.low > 20 else 1
        parts["ends"] = [f"{value:.{digits}f}" for value in (shown.low, shown.high)]
    return parts


# --- the command line -----------------------------------------------------------------------------


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=command_line.HelpFormatter
    )
    add = parser.add_argument
    add(
        "--output",
        nargs="+",
        type=Path,
        default=[Path("embeddings.png"), Path("embeddings.html")],
        help=".png and .html files",
    )
    add("--overwrite", action=command_line.BooleanFlag, default=False, help="replace --output")
    add("--method", choices=list(PACKAGES), default="tsne", help="umap needs umap-learn")
    add("--neighbours", type=float, default=30, help="perplexity of t-SNE, neighbours of UMAP")
    add(
        "--colour",
        nargs="+",
        default=["mapper", "year", "stars"],
        help="mapper, year, stars, or columns of numbers in --dataframe",
    )
    add("--dates", type=Path, help="CSV with columns beatmap_id or set_id, and date")
    add("--seed", type=int, default=0, help="of UMAP; t-SNE starts from principal components")
    add_flags(parser)
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    """Refuses what could not be drawn or written, before the work."""
    module, package = PACKAGES[args.method]
    if find_spec(module) is None:
        raise ValueError(f"--method {args.method} needs {package}: pip install {package}")
    if not 2 <= args.neighbours < np.inf:
        raise ValueError(f"--neighbours {args.neighbours}: give a number from 2 on")
    for path in args.output:
        if path.suffix not in (".png", ".html"):
            raise ValueError(f"--output {path}: give names that end in .png or .html")
        command_line.claim_output(path, args.overwrite)


@naming(command_line.flag_names())
def main() -> int:
    args = parse_args()
    check_args(args)
    loaded, classes = classes_from(args)
    dates = read_dates(args.dates) if args.dates else {}
    colourings = [colouring(wanted, classes.table, dates) for wanted in args.colour]
    method = {"tsne": "t-SNE", "umap": "UMAP"}[args.method]
    title = f"{len(classes)} class embeddings of {loaded.path.name}, {method}"
    places = project(classes.vectors, args.method, args.neighbours, args.seed)
    for path in args.output:
        if path.suffix == ".png":
            save_figure(path, draw(places, colourings, title))
        else:
            text = page(places, classes, colourings, title)
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
