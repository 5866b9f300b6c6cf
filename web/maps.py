"""The files that visitors bring: their difficulties and song; the example as such a file."""

from dataclasses import dataclass, replace
from pathlib import Path

from beatmaps.inputs import Choice, Job, LeftOut, open_jobs
from beatmaps.osu_file import Beatmap
from beatmaps.osz import pack_folder
from conventions.whole_files import replacing
from viewer.player_page import check_audio


@dataclass(frozen=True)
class OpenedMap:
    """The osu!standard difficulties of a file; which one is chosen, and its song, if it is there.

    left_out says why other difficulties are none.
    """

    path: Path
    beatmaps: list[Beatmap]
    chosen: int
    song: bytes | None
    left_out: LeftOut

    @property
    def beatmap(self) -> Beatmap:
        """The chosen difficulty."""
        return self.beatmaps[self.chosen]


def open_map(path: Path, chosen: int = 0) -> OpenedMap:
    """Reads a `.osu` or `.osz` file; raises `BeatmapError` and `ArchiveError`."""
    with open_jobs(path, Choice(all_difficulties=True)) as ((job, *_), left_out):
        beatmap = only(job, chosen).beatmaps[0]
        return OpenedMap(path, job.beatmaps, chosen, song_of(job, beatmap), left_out)


def only(job: Job, chosen: int) -> Job:
    """The job of one difficulty alone, by its place among those of the file."""
    if not 0 <= chosen < len(job.beatmaps):
        raise ValueError(f"{job.path} has {len(job.beatmaps)} difficulties: choose one of them")
    members = job.members[chosen : chosen + 1]
    return replace(job, beatmaps=[job.beatmaps[chosen]], members=members)


def song_of(job: Job, beatmap: Beatmap) -> bytes | None:
    """The song in the archive, if browsers can play it."""
    data = job.song(beatmap)
    return None if data is None else check_audio(data, beatmap.audio_filename)[0]


def pack_example(example: Path, folder: Path) -> Path:
    """The archive of the bundled example in `folder`, made when it is not there."""
    path = folder / f"{example.stem.partition(' (')[0]}.osz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            pack_folder(example.parent, file)
    return path
