"""Says what a result of any program differs in from its source."""

from pathlib import Path

from beatmaps.differences import compare
from beatmaps.inputs import Choice, is_archive, open_jobs
from beatmaps.osu_file import read_beatmap
from conventions.errors import FieldError
from sampling.request import RemapRequest


def check_result(path: Path, request: RemapRequest) -> int:
    """Prints what differs between a result and its source; 1 if more than a remap may change."""
    if len(request.sources) != 1:
        raise FieldError("{check} compares with one {beatmap}: give the result's source alone")
    if is_archive(path):
        raise FieldError(
            "{check} {0} is an archive: take the new .osu file out of it, or remap with "
            "{format} osu",
            path,
        )
    after = read_beatmap(path)
    choice = Choice(request.choice.difficulty, format="osu")
    with open_jobs(request.sources[0], choice) as (jobs, _):
        proof = compare(jobs[0].beatmaps[0], after)
    print(*proof.table(), sep="\n")
    return 1 if proof.others else 0
