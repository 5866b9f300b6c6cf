"""What the web page does for its visitors: their maps, requests, runs and files; not the page."""

import math
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from beatmaps.inputs import Choice, Job, LeftOut, open_jobs
from beatmaps.osu_file import Beatmap
from beatmaps.osz import pack_folder
from beatmaps.selection import Selection
from checkpoint import LoadedModel
from constraints.spacing import Spacing
from conventions.errors import in_words
from conventions.whole_files import replacing
from sampling.options import SampleOptions, check_spacing
from sampling.progress import Progress, Reports
from sampling.remap import Remapped, remap, result_version
from sampling.request import RemapRequest
from sampling.results import Outputs
from sampling.steering import Models
from sampling.style import ClassEntry, StyleMix, read_class_table
from viewer.player_page import check_audio, player_frame
from viewer.previews import write_preview

MAX_STEPS, MAX_VARIANTS = 100, 8
"""Less than the command line allows: others are waiting."""
LISTED = 40
"""Styles that a search shows."""

Report = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""


class Stopped(Exception):
    """The visitor has cancelled the run, or left."""


# --- maps -----------------------------------------------------------------------------------------


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


# --- styles ---------------------------------------------------------------------------------------


def class_table(loaded: LoadedModel) -> list[ClassEntry]:
    """The model's class table; none for a model that comes without one."""
    try:
        return read_class_table(loaded)
    except ValueError:
        return []


def find_styles(
    table: Sequence[ClassEntry], query: str, picked: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """(text, value) of styles to choose from: the picked ones, then mappers and maps that match.

    Every word of the query must be in the text, in any case. Without a query the mappers with the
    most maps are found. Values are as `split_styles` takes them.
    """
    maps = Counter(entry.creator for entry in table)
    known = {
        f"mapper:{name}": f"{name} ({count} map{'s' * (count != 1)})"
        for name, count in maps.most_common()
    }
    known |= {
        f"map:{entry.beatmap_id}": f"{entry.song} [{entry.version}] by {entry.creator}"
        for entry in table
        if entry.beatmap_id > 0
    }
    words = query.casefold().split()
    found = [value for value, text in known.items() if all(w in text.casefold() for w in words)]
    listed = dict.fromkeys([*(value for value in picked if value in known), *found[:LISTED]])
    return [(known[value], value) for value in listed]


def split_styles(values: Iterable[str]) -> tuple[list[str], list[str]]:
    """(IDs, mappers) of values such as map:1180619 and mapper:NAME."""
    ids: list[str] = []
    mappers: list[str] = []
    for value in values:
        kind, _, name = value.partition(":")
        if kind not in ("map", "mapper"):
            raise ValueError(f"style {value!r}: choose one of the list")
        (ids if kind == "map" else mappers).append(name)
    return ids, mappers


def can_choose_distances(loaded: LoadedModel) -> bool:
    """Whether the model can do without distances."""
    try:
        check_spacing(loaded, Spacing("free"))
    except ValueError:
        return False
    return True


def chosen_range(value: object) -> tuple[float | None, float | None]:
    """(start, end) ms of what the page's timeline holds; None for an end of the map."""
    ends = [value.get("start"), value.get("end")] if isinstance(value, dict) else [None, None]
    for end in ends:
        if end is not None and not (isinstance(end, int | float) and math.isfinite(end)):
            raise ValueError(f"{end!r} is no time of the map in ms")
    start, stop = ends
    return start, stop


# --- requests -------------------------------------------------------------------------------------

LABELS = {
    "steps": "Steps",
    "variants": "Variants",
    "strength": "Strength",
    "spacing": "Distances",
    "cfg_scale": "Exaggerate the style",
    "time_start": "the start",
    "time_end": "the end",
    "style_id": "Style",
    "style_mapper": "Style",
    "style_beatmap": "the style of other maps",
}
"""What the page calls the fields of a request."""


def label_of(field: str) -> str:
    """What the page calls a field, for errors."""
    return LABELS.get(field, in_words(field))


def page_request(
    *,
    styles: Iterable[str] = (),
    style_files: Iterable[Path] = (),
    guidance: float = 1.0,
    start: float | None = None,
    end: float | None = None,
    spacing: str = "keep",
    steps: int = SampleOptions.steps,
    strength: float = 1.0,
    variants: int = 1,
    seed: int = 0,
) -> RemapRequest:
    """The request of a page whose controls have these values.

    `start` and `end` are ms, `spacing` is as `Spacing.parse` takes it. Without a style there is
    nothing for `guidance` to exaggerate.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"{steps} steps: give a number from 1 to {MAX_STEPS}")
    if not 1 <= variants <= MAX_VARIANTS:
        raise ValueError(f"{variants} variants: give a number from 1 to {MAX_VARIANTS}")
    ids, mappers = split_styles(styles)
    mix = StyleMix(tuple(ids), tuple(mappers), tuple(style_files))
    return RemapRequest(
        options=SampleOptions(
            steps=steps,
            cfg_scale=guidance if mix else 1.0,
            variants=variants,
            seed=seed,
            spacing=Spacing.parse(spacing),
            strength=strength,
        ),
        selection=Selection(start, end),
        style=mix,
    )


# --- visitors and their runs ----------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """The results of a run: `made` and their files of the same order, and the archive with all."""

    before: Beatmap
    song: bytes | None
    made: list[Remapped]
    files: list[Path]
    archive: Path | None

    def player(self, k: int) -> str:
        """The original and a variant in the player."""
        made = self.made[k]
        return player_frame(self.before, made.beatmap, self.song, marks=made.marks)

    def picture(self, k: int) -> Path:
        """The original and a variant in a picture, drawn when it is first looked at."""
        path = self.files[k].with_suffix(".png")
        if not path.exists():
            write_preview("png", self.before, self.made[k].beatmap, path)
        return path


@dataclass
class Visitor:
    """An open page: its results' folder, its last run, what ends the one under way, its uploads."""

    folder: Path
    run: Run | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    uploads: set[Path] = field(default_factory=set)


class Workshop:
    """The model, kept loaded, and the visitors by the hash of their page's session.

    One run at a time uses the model, the others wait in the order in which they came. All files
    are below `folder`.
    """

    def __init__(self, loaded: LoadedModel, folder: Path) -> None:
        self.loaded, self.folder = loaded, folder
        self._visitors: dict[str, Visitor] = {}
        self._turns: list[object] = []  # one for each run; the first has the model

    def visitor(self, session: str) -> Visitor:
        """The visitor of a page, who may be new."""
        # A name that nobody guesses: the server hands out whatever is below its folder.
        new = Visitor(self.folder / secrets.token_hex(16))
        return self._visitors.setdefault(session, new)

    def begin(self, session: str) -> None:
        """A run is about to follow: earlier cancelling is not meant for it."""
        self.visitor(session).stop = threading.Event()

    def cancel(self, session: str) -> None:
        """Ends the run that a page waits for, at once or at its next step."""
        visitor = self._visitors.get(session)
        if visitor is not None:
            visitor.stop.set()

    def hold(self, session: str, uploads: Iterable[Path]) -> None:
        """Notes files that were uploaded for a page, below `folder`, to be removed with it."""
        held = {path for path in uploads if path.is_relative_to(self.folder)}
        self.visitor(session).uploads.update(held)

    def leave(self, session: str) -> None:
        """Ends what a closed page has under way, and removes its files.

        An upload stays while another page has the same: equal files are stored once.
        """
        visitor = self._visitors.pop(session, None)
        if visitor is None:
            return
        visitor.stop.set()
        shutil.rmtree(visitor.folder, ignore_errors=True)
        others = [other.uploads for other in list(self._visitors.values())]
        for path in visitor.uploads.difference(*others):
            with suppress(OSError):
                path.unlink()

    def remap(
        self, session: str, path: Path, request: RemapRequest, report: Report, chosen: int = 0
    ) -> Run:
        """Remaps a difficulty of the file at `path`; the results replace the visitor's last ones.

        `chosen` is its place among those of the file. Styles that are learnt stay in the workshop's
        folder. Raises `Stopped`, and ValueError for a file that cannot be used or to which the
        request does not fit.
        """
        visitor = self.visitor(session)
        stop = visitor.stop
        request = replace(request, output=self.folder)
        folder = visitor.folder / secrets.token_hex(4)

        def reporting(what: str) -> Progress:
            def progress(done: int, total: int) -> None:
                if stop.is_set():
                    raise Stopped
                report(what, done, max(1, total))

            return progress

        choice = Choice(all_difficulties=True)
        with self._turn(stop, report), open_jobs(path, choice) as ((all_of_them, *_), _):
            job = only(all_of_them, chosen)
            (before,) = job.beatmaps
            reports = Reports(reporting("Learning the style"), reporting("Sampling"))
            plans = plan_results(job, folder, result_version(before, request), request)
            names = [result.version for result in plans[0][1].results[0]]
            made = remap(Models(self.loaded), before, names, request, reports)
            for planned, outputs in plans:
                outputs.write(planned, [[variant.data for variant in made]], overwrite=False)
            files, archive = plans[-1][1].files(), plans[0][1].archive
            run = Run(before, song_of(job, before), made, files, archive)
        self._show(session, visitor, run, folder)
        return run

    @contextmanager
    def _turn(self, stop: threading.Event, report: Report) -> Iterator[None]:
        """Waits for the model."""
        turn, told = object(), 0
        self._turns.append(turn)
        try:
            while before := self._turns.index(turn):
                if before != told:
                    report(f"Waiting for {before} other run{'s' * (before > 1)}", 0, before)
                    told = before
                if stop.wait(0.05):
                    raise Stopped
            yield
        finally:
            self._turns.remove(turn)

    def _show(self, session: str, visitor: Visitor, run: Run, folder: Path) -> None:
        """Makes a run the visitor's last one; the files of earlier ones go."""
        visitor.run = run
        gone = visitor.folder if self._visitors.get(session) is not visitor else None
        for path in [gone] if gone else visitor.folder.iterdir():
            if path != folder:
                shutil.rmtree(path, ignore_errors=True)


def plan_results(
    job: Job, folder: Path, version: str, request: RemapRequest
) -> list[tuple[Job, Outputs]]:
    """Where the results go: into an archive if they come from one, and into files of their own."""
    alone = replace(job, archive=None, members=[])
    jobs = [alone] if job.archive is None else [job, alone]
    places = [folder / str(k) for k in range(len(jobs))]
    return [
        (planned, Outputs.plan(planned, place, [version], request.options.variants, {}))
        for planned, place in zip(jobs, places, strict=True)
    ]
