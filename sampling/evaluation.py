"""Measures how faithful and how real remaps are: of a folder of beatmaps, by all metrics.

Remaps are sampled, or read from files that exist already.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from beatmaps.osu_file import BeatmapError, read_beatmap, write_new_file
from beatmaps.sequence import Sequence, beatmap_to_sequence
from checkpoint import LoadedModel
from constraints.bounds import Bounds, bounds_named
from constraints.spacing import wanted_distances
from conventions import command_line
from conventions.arrays import FloatArray
from conventions.errors import FieldError
from datasets.sources import find_beatmaps
from metrics.denoising import Denoising
from metrics.fidelity import count_changes
from metrics.metric import Pair
from metrics.registry import METRICS
from sampling.loaded_models import Models
from sampling.options import SampleOptions
from sampling.remap import remap, to_remap
from sampling.request import RemapRequest

TABLE, REPORT = "evaluation.csv", "evaluation.json"


@dataclass(frozen=True)
class EvaluationRequest:
    """Which maps are measured, how they are remapped, and where tables and maps go.

    Of the maps in `folder` at most `limit` are taken, evenly spread. With `remaps`, a folder, the
    files of the same names there are measured and nothing is sampled. `denoising` also measures the
    network alone; `sampling` can be left out then.
    """

    folder: Path
    output: Path = Path("results/evaluation")
    options: SampleOptions = field(default_factory=SampleOptions)
    limit: int | None = None
    remaps: Path | None = None
    save_maps: bool = False
    overwrite: bool = False
    denoising: bool = False
    sampling: bool = True

    def __post_init__(self) -> None:
        if self.remaps is not None and (self.denoising or self.save_maps):
            raise FieldError("{remaps} samples nothing: leave out {denoising} and {save_maps}")
        if self.remaps is not None and not self.remaps.is_dir():
            raise FieldError("{remaps} {0} is not a folder", self.remaps)
        if not (self.sampling or self.denoising):
            raise FieldError("{no_sampling} leaves nothing to do: add {denoising}")

    def paths(self) -> list[Path]:
        """The beatmap files that are measured."""
        paths = [source.path for source in find_beatmaps(self.folder) if not source.is_archive]
        if self.limit:
            chosen = np.linspace(0, len(paths) - 1, min(self.limit, len(paths))).round().astype(int)
            paths = [paths[i] for i in chosen]
        return paths

    def prepare_output(self) -> None:
        """Makes the output folder; ValueError if it would mix with the maps or replace tables."""
        if self.output.resolve().is_relative_to(self.folder.resolve()):
            raise FieldError(
                "{output} {0} lies in the folder that is evaluated: choose another", self.output
            )
        for name in (TABLE, REPORT):
            command_line.claim_output(self.output / name, self.overwrite)


class Evaluation:
    """All metrics, and the rows of their table, one for each map and its remap."""

    def __init__(self, options: SampleOptions) -> None:
        self.options = options
        self.metrics = [metric(options.seed) for metric in METRICS]
        self.denoising = Denoising()
        self.rows: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []

    def add_remap(
        self, loaded: LoadedModel, path: Path, output: Path | None = None, overwrite: bool = False
    ) -> None:
        """Remaps the beatmap at `path` and measures the resulting file, written to `output`."""
        beatmap = read_beatmap(path)
        request = RemapRequest(options=self.options)
        (made,) = remap(Models(loaded), beatmap, [f"{beatmap.version} (AI remap)"], request)
        before, _ = to_remap(beatmap, self.options, None)
        self._measure(path, before, beatmap_to_sequence(made.beatmap), made.raw, made.seconds)
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_new_file(output, made.data, overwrite=overwrite)

    def add_existing(self, path: Path, remap_path: Path) -> None:
        """Measures an existing remap, without what only sampling gives.

        Raises BeatmapError if it is not a remap of the beatmap at `path`.
        """
        sequence, _ = to_remap(read_beatmap(path), self.options, None)
        after = beatmap_to_sequence(read_beatmap(remap_path))
        changes = count_changes(sequence.beatmap, after.beatmap)
        names = ("objects_lost", "objects_moved_in_time", "objects_of_other_kind")
        if any(changes[name] for name in names) or len(after) != len(sequence):
            raise BeatmapError(f"{remap_path} is no remap of {path}: its objects are not the same")
        self._measure(path, sequence, after)

    def _measure(
        self,
        path: Path,
        before: Sequence,
        after: Sequence,
        raw: FloatArray | None = None,
        seconds: float | None = None,
    ) -> None:
        wanted = wanted_distances(before, self.options.spacing)
        bounds = bounds_named(self.options.bounds, before.beatmap) or Bounds()
        pair = Pair(before, after, wanted, bounds, raw, seconds)
        row: dict[str, Any] = {"file": path.name, "points": len(pair.before)}
        for metric in self.metrics:
            row |= metric.measure(pair)
        self.rows.append(row)

    def summarise(self) -> dict[str, Any]:
        """The numbers of all maps."""
        table, result = self.table, {}
        if self.rows:
            result = {"maps": len(table), "points": int(table["points"].sum())}
            for metric in self.metrics:
                result |= metric.summarise(table)
        return result | self.denoising.summarise() | {"failed": len(self.failed)}

    @property
    def table(self) -> pd.DataFrame:
        """A row a map, a column a number."""
        return pd.DataFrame(self.rows)

    def publish(self, output: Path, report: dict[str, Any]) -> None:
        """Prints the results and writes the tables to `output`; `report` says what was run.

        The judges take minutes, so the summary is printed before they begin.
        """
        summary = self.summarise()
        for name, value in summary.items():
            shown = f"{value:>12.4f}" if isinstance(value, float) else f"{value:>12}"
            print(f"{name:<42} {shown}")
        for entry in self.failed:
            print(f"failed: {entry['file']}: {entry['reason']}")
        report = report | {"summary": summary, "failed": self.failed}
        if self.rows:
            for metric in self.metrics:
                report |= metric.judge()
                for line in metric.lines():
                    print(line)
            table = self.table
            table.to_csv(output / TABLE, index=False, encoding="utf-8", errors="backslashreplace")
        text = json.dumps(report, indent=1, ensure_ascii=False)
        write_new_file(output / REPORT, text.encode("utf-8", "backslashreplace"), overwrite=True)


def evaluate(request: EvaluationRequest, loaded: LoadedModel | None) -> Evaluation:
    """Measures the maps of a request, and prints and writes what was found, also which maps failed.

    Without a model its `remaps` are measured. ValueError if no map can be.
    """
    paths = request.paths()
    request.prepare_output()
    evaluation = Evaluation(request.options)
    for path in tqdm(paths, desc="evaluating", unit="map", file=sys.stderr):
        try:
            _evaluate_map(request, loaded, path, evaluation)
        except BeatmapError as error:
            evaluation.failed.append({"file": str(path), "reason": str(error)})
    if not (evaluation.rows or evaluation.denoising.errors):
        raise ValueError(f"no beatmap could be evaluated in {request.folder}")
    report: dict[str, Any] = {"options": asdict(request.options)}
    if loaded is not None:
        report = {"checkpoint": loaded.to_dict()} | report
    evaluation.publish(request.output, report)
    return evaluation


def _evaluate_map(
    request: EvaluationRequest, loaded: LoadedModel | None, path: Path, evaluation: Evaluation
) -> None:
    place, options = path.relative_to(request.folder), request.options
    if loaded is None:
        assert request.remaps is not None
        evaluation.add_existing(path, request.remaps / place)
        return
    if request.denoising:
        sequence = beatmap_to_sequence(read_beatmap(path))
        evaluation.denoising.add(loaded, sequence, options.seed, options.half_window)
    if request.sampling:
        output = request.output / place if request.save_maps else None
        evaluation.add_remap(loaded, path, output, request.overwrite)
