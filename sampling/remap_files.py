"""Remaps files and archives: results, pictures and reports are written, and the terminal is told.

`remap` does the same in memory, for one beatmap.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from beatmaps.inputs import Job, open_jobs
from beatmaps.osu_file import Beatmap
from beatmaps.sequence import beatmap_to_sequence
from constraints.spacing import suggestion
from conventions.errors import naming
from conventions.ranks import Ranks
from sampling import report
from sampling.flags import NAMES
from sampling.loaded_models import Models
from sampling.many_maps import Tally
from sampling.progress import Reports, bar
from sampling.remap import Remapped, remap, result_version
from sampling.request import RemapRequest
from sampling.results import Outputs, put_bytes


class FileRemapper:
    """A request, and what the loaded models do for it, file by file.

    `arguments` are the flags, for the reports.
    """

    def __init__(self, models: Models, request: RemapRequest, arguments: dict[str, Any]) -> None:
        self.models, self.request, self.arguments = models, request, arguments

    def remap_file(self, path: Path, tally: Tally) -> None:
        """Remaps what is chosen of one file, and counts it in `tally`."""
        choice = self.request.choice
        with tally.guard(str(path)), naming(NAMES), open_jobs(path, choice) as (jobs, left_out):
            for error in left_out:
                if choice.all_difficulties:
                    tally.leave_out(error, str(path))
                else:
                    tqdm.write(f"skipped {error}", file=sys.stderr)
            for job in jobs:
                with tally.guard(str(job)), naming(NAMES):
                    if self._remap_job(job, quiet=not tally.strict):
                        tally.done += len(job.beatmaps)
                    else:
                        tally.finished += len(job.beatmaps)

    def _remap_job(self, job: Job, quiet: bool) -> bool:
        """Samples a job's beatmaps and writes the results; False if they were there already."""
        request, variants = self.request, self.request.options.variants
        versions = [result_version(beatmap, request) for beatmap in job.beatmaps]
        previews = report.preview_suffixes(request.pictures)
        outputs = Outputs.plan(job, request.output, versions, variants, previews)
        found = report.describe(self.models, job, request, self.arguments)
        if not request.overwrite and outputs.finished(report.is_report_of(found)):
            for path in [outputs.report] if quiet else outputs.files():
                tqdm.write(f"done before: {path}")
            if not quiet:
                print("Another --seed gives another result, --overwrite makes this one again.")
            return False
        for beatmap in job.beatmaps:
            report.check_previews(beatmap, request.pictures)
        remapped = []
        for beatmap, results in zip(job.beatmaps, outputs.results, strict=True):
            names = [result.version for result in results]
            with on_terminal(beatmap, request, quiet) as reports:
                remapped.append(remap(self.models, beatmap, names, request, reports))
        self._write(job, outputs, remapped, found)
        for k, variant in enumerate([] if quiet else found["variants"], 1):
            number = f"#{k}: " if variants > 1 else ""
            print(number + report.outcome(variant["written"], request.options.spacing))
            if places := report.to_look_at(variant["marks"]):
                print(places)
        return True

    def _write(
        self, job: Job, outputs: Outputs, remapped: list[list[Remapped]], found: dict[str, Any]
    ) -> None:
        """Writes results, pictures and the report `found`, which it completes."""
        data = [[variant.data for variant in row] for row in remapped]
        found["files"] = outputs.write(job, data, self.request.overwrite)
        for path in outputs.files():
            tqdm.write(f"wrote {path}")
        for before, results, row in zip(job.beatmaps, outputs.results, remapped, strict=True):
            for result, made in zip(results, row, strict=True):
                report.draw(job, before, made, result, self.request)
        found["variants"] = report.describe_variants(job, outputs, remapped)
        text = json.dumps(found, indent=1, ensure_ascii=False)
        # An existing report is of the same run, or may be replaced: `finished` has checked that.
        put_bytes(outputs.report, text.encode("utf-8", "backslashreplace"), overwrite=True)
        tqdm.write(f"wrote {outputs.report}")

    def remap_files(self, paths: list[Path], left_out: list[tuple[Path, str]], ranks: Ranks) -> int:
        """Remaps this rank's share of many files with one model; returns all ranks' exit code."""
        tally = Tally(strict=False)
        for path, reason in left_out if ranks.is_main else []:
            tally.skipped += 1
            print(f"skipped {path}: {reason}", file=sys.stderr)
        share = paths[ranks.rank :: ranks.world_size]
        desc = "remapping" if ranks.world_size == 1 else f"rank {ranks.rank}"
        for path in tqdm(share, desc=desc, unit="file", file=sys.stderr, position=ranks.rank):
            self.remap_file(path, tally)
        return tally.close(ranks)


@contextmanager
def on_terminal(beatmap: Beatmap, request: RemapRequest, quiet: bool) -> Iterator[Reports]:
    """Progress bars; before sampling it prints the description of the map."""
    with bar("learning the style") as learning, bar("sampling", disable=quiet) as steps:

        def sampling(done: int, total: int) -> None:
            if not done:
                describe_map(beatmap, request, quiet)
            steps(done, total)

        yield Reports(learning, sampling)


def describe_map(beatmap: Beatmap, request: RemapRequest, quiet: bool) -> None:
    """The size of a map, and advice on its spacing."""
    sequence = beatmap_to_sequence(beatmap)
    if not quiet:
        print(f"{len(beatmap.objects)} hit objects, {len(sequence)} data points", file=sys.stderr)
    if hint := suggestion(sequence, request.options.spacing):
        tqdm.write(f"{beatmap.name}: {hint}", file=sys.stderr)
