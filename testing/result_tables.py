"""Writes the tables of results in README.md and checkpoints/README.md.

    python testing/result_tables.py

They are the summaries of `checkpoints/evaluation-default.json` and `evaluation-raw.json`, which
`evaluate.py` wrote for the bundled model.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# As a script only this folder is on the path; the project is one level up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from conventions import command_line
from conventions.bundled import DEFAULT_MODEL, HERE
from conventions.whole_files import replacing

Report = dict[str, Any]
DOCUMENTS = (HERE / "README.md", DEFAULT_MODEL.with_name("README.md"))
REPORTS = {
    "default": DEFAULT_MODEL.with_name("evaluation-default.json"),
    "raw: `--spacing model --bounds off --guidance 1`": DEFAULT_MODEL.with_name(
        "evaluation-raw.json"
    ),
}
OUT = "objects off the playfield, centre or body, also as stacking draws them"
JUDGE = (
    "judge by features, real or generated, windows of 32 objects / whole maps: AUC (0.5 is perfect)"
)


def error(kind: str, digits: Callable[[Report], int]) -> Callable[[Report], str]:
    """Median / p95 of a spacing error."""

    def cell(report: Report) -> str:
        found = report["summary"]
        median, p95 = (found[f"{kind}_spacing_error_{name}"] for name in ("median", "p95"))
        places = digits(report)
        return f"{median:.{places}f} / {p95:.{places}f} px"

    return cell


def fine(report: Report) -> int:
    """Decimals of px: two where rules meet distances, one where the network alone does."""
    return 2 if report["options"]["spacing"]["mode"] == "keep" else 1


def share(name: str, places: int) -> Callable[[Report], str]:
    """A share in per cent."""
    return lambda report: f"{report['summary'][name]:.{places}%}"


def mean(name: str) -> Callable[[Report], str]:
    """The mean of a feature that is a share, over all remapped objects."""
    return lambda report: f"{report['realism'][name]['generated_mean']:.1%}"


def judged(judge: str, suffix: str = "") -> Callable[[Report], str]:
    """AUC of windows / of whole maps."""
    return lambda report: " / ".join(
        f"{report[judge][f'{kind}auc{suffix}']:.3f}" for kind in ("", "map_")
    )


def unchanged(report: Report) -> str:
    """Counts of what must not change."""
    names = ("objects_lost", "objects_moved_in_time", "objects_of_other_kind")
    counts = ", ".join(f"{report['summary'][name]:.0f}" for name in names)
    return f"{counts}; {report['summary']['other_bytes_changed']:.0f}"


def stars(report: Report) -> str:
    """Median of changes, and of their sizes."""
    change = "star_rating_change_median"
    found = report["summary"]
    return f"{found[change]:+.1%} ({found[f'{change}_absolute']:.1%})"


def rows(report: Report) -> dict[str, Callable[[Report], str]]:
    """What the table says in each row; labels name what real maps have."""
    real = {name: entry["real_mean"] for name, entry in report["realism"].items()}
    found = report["summary"]
    off = f"{found['source_points_off_playfield']:.2%}"
    over = f"{found['source_objects_crossing_share']:.1%}"
    return {
        "spacing error of object starts, median / p95, written file": error("object", fine),
        "spacing error of inner points, median / p95, written file": error("inner", fine),
        "spacing error of all points before rounding, median / p95": error("raw_all", lambda _: 2),
        OUT: lambda r: f"{r['summary']['objects_drawn_out_of_bounds']:.0f}",
        f"data points off the playfield, control points too (real maps: {off})": share(
            "points_off_playfield", 2
        ),
        f"stacked objects that left their pixel, of {found['stacks']:,.0f}": lambda r: (
            share("stacks_broken_share", 1)(r) if r["summary"]["stacks_broken_share"] else "0"
        ),
        "paths shorter than their slider, the source's not being so": share(
            "paths_too_short_share", 2
        ),
        f"path lengths more than 5% off the source's, of {found['sliders']:,.0f} sliders": share(
            "paths_of_other_length_share", 2
        ),
        "objects lost, moved in time, of another kind; other bytes changed": unchanged,
        "star rating, median change (median of absolute changes)": stars,
        f"objects that overlap another that is still seen (real maps: {real['overlapping']:.1%})": (
            mean("overlapping")
        ),
        f"objects that cross a visible one by a slider's body alone (real maps: {over})": share(
            "objects_crossing_share", 1
        ),
        f"objects on the place of an earlier one (real maps: {real['repeated_position']:.1%})": (
            mean("repeated_position")
        ),
        "realism ratio: distance to real maps, over that of real maps to each other": lambda r: (
            f"{r['realism_ratio']:.2f}"
        ),
        JUDGE: judged("classifier"),
        "the same without the features that rules act on": judged("classifier", "_without_rules"),
        "judge by bare geometry, windows / whole maps: AUC": judged("geometry_judge"),
    }


def table() -> str:
    """The table, from its head on."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in REPORTS.values()]
    first = reports[0]
    maps, points = first["summary"]["maps"], first["summary"]["points"]
    steps = first["options"]["steps"]
    head = [f"on {maps} held-out maps ({points:,} data points), {steps} steps", *REPORTS]
    body = [[label, *map(cell, reports)] for label, cell in rows(first).items()]
    lines = [f"| {' | '.join(cells)} |" for cells in [head, *body]]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def with_table(text: str) -> str:
    """A document whose table of results is replaced; ValueError where it has none."""
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line.startswith("| on ")), None)
    if first is None:
        raise ValueError("no table of results")
    stop = next(i for i, line in enumerate(lines[first:], first) if not line.startswith("|"))
    return "\n".join([*lines[:first], *table().split("\n"), *lines[stop:]])


def main() -> int:
    for path in DOCUMENTS:
        text = with_table(path.read_text(encoding="utf-8"))
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {path.name} in {path.parent.name}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
