"""Remaps a beatmap: keeps its rhythm and spacing, gives every object a new position."""

from conventions import requirements_check  # (first: says what is missing)

# isort: split
import gc
import sys

if __name__ == "__main__":
    requirements_check.announce()
    gc.disable()  # what is imported stays: looking for garbage in it takes a tenth of the time

# isort: split
import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from beatmaps.differences import compare
from beatmaps.inputs import Choice, Job, find_inputs, is_archive, open_jobs
from beatmaps.osu_file import Beatmap, read_beatmap
from beatmaps.sequence import beatmap_to_sequence
from checkpoint import LoadedModel
from constraints.spacing import suggestion
from conventions import command_line
from conventions.errors import naming
from conventions.ranks import Ranks, process_group
from models import SIZES
from sampling import report
from sampling.flags import NAMES, remap_parser, request_from
from sampling.loaded_models import Models, load_models
from sampling.many_maps import Tally
from sampling.progress import Reports, bar
from sampling.remap import Remapped, remap, result_version
from sampling.request import RemapRequest
from sampling.results import Outputs, put_bytes
from viewer.previews import HOW_TO_WATCH


def make_parser() -> argparse.ArgumentParser:
    """The command line of sample.py."""
    return remap_parser(__doc__)


def check_model(loaded: LoadedModel, size: str | None, num_classes: int | None) -> None:
    """Checks that `--model` and `--num-classes`, if given, are those of the checkpoint."""
    config = loaded.model.config
    found = {"width": config.width, "depth": config.depth, "heads": config.heads}
    if size is not None and SIZES[size] != found:
        name = next((name for name, s in SIZES.items() if s == found), str(found))
        raise ValueError(f"--model {size}: the checkpoint holds a {name}; leave --model out")
    if num_classes is not None and num_classes != config.num_classes:
        raise ValueError(
            f"--num-classes {num_classes}: the checkpoint has {config.num_classes}; "
            "leave --num-classes out"
        )


class Command:
    """A request from flags, and what the loaded models do for it, file by file.

    `arguments` are the flags, for the reports.
    """

    def __init__(self, models: Models, request: RemapRequest, arguments: dict[str, Any]) -> None:
        self.models, self.request, self.arguments = models, request, arguments

    def remap_input(self, path: Path, tally: Tally) -> None:
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
                    if self.remap_job(job, quiet=not tally.strict):
                        tally.done += len(job.beatmaps)
                    else:
                        tally.finished += len(job.beatmaps)

    def remap_job(self, job: Job, quiet: bool) -> bool:
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
        self.write(job, outputs, remapped, found)
        for k, variant in enumerate([] if quiet else found["variants"], 1):
            number = f"#{k}: " if variants > 1 else ""
            print(number + report.outcome(variant["written"], request.options.spacing))
            if places := report.to_look_at(variant["marks"]):
                print(places)
        return True

    def write(
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

    def remap_inputs(
        self, paths: list[Path], left_out: list[tuple[Path, str]], ranks: Ranks
    ) -> int:
        """Remaps this rank's share of many files with one model; returns all ranks' exit code."""
        tally = Tally(strict=False)
        for path, reason in left_out if ranks.is_main else []:
            tally.skipped += 1
            print(f"skipped {path}: {reason}", file=sys.stderr)
        share = paths[ranks.rank :: ranks.world_size]
        desc = "remapping" if ranks.world_size == 1 else f"rank {ranks.rank}"
        for path in tqdm(share, desc=desc, unit="file", file=sys.stderr, position=ranks.rank):
            self.remap_input(path, tally)
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


def check_result(path: Path, request: RemapRequest) -> int:
    """Prints what differs between a result and its source; 1 if more than a remap may change."""
    if len(request.sources) != 1:
        raise ValueError("--check compares with one --beatmap: give the result's source alone")
    if is_archive(path):
        raise ValueError(
            f"--check {path} is an archive: take the new .osu file out of it, or remap with "
            "--format osu"
        )
    after = read_beatmap(path)
    choice = Choice(request.choice.difficulty, format="osu")
    with open_jobs(request.sources[0], choice) as (jobs, _):
        proof = compare(jobs[0].beatmaps[0], after)
    print(*proof.table(), sep="\n")
    return 1 if proof.others else 0


@naming(NAMES)
def main() -> int:
    args = make_parser().parse_args()
    request = request_from(args)
    if args.check is not None:
        return check_result(args.check, request)
    with process_group("gloo", minutes=14 * 24 * 60) as ranks:
        device = command_line.pick_device(args.device, ranks.local_rank)
        models = load_models(request, device)
        check_model(models.sampler, args.model, args.num_classes)
        paths, left_out = find_inputs(request.sources, request.output)
        command_line.check_folder(request.output)
        single = len(paths) == 1 and not left_out and not request.choice.all_difficulties
        if args.picture is None:  # only of a single map
            args.picture = single
            request = request_from(args)
        command = Command(models, request, vars(args))
        if not single or ranks.world_size > 1:
            return command.remap_inputs(paths, left_out, ranks)
        command.remap_input(paths[0], Tally(strict=True))
    print(report.how_to_play(request.choice.into_archive(is_archive(paths[0]))))
    if "html" in request.pictures.kinds:
        print(HOW_TO_WATCH)
    return 0


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    command_line.run(main)
