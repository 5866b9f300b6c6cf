"""The models, and what open pages have them do: their runs one after the other, their files."""

import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from beatmaps.inputs import Choice, Job, open_jobs
from beatmaps.osu_file import Beatmap, read_beatmap
from beatmaps.selection import choose_objects
from beatmaps.sequence import beatmap_to_sequence
from metrics.marks import MarkFinder
from sampling.combining import Joint, combine, parse_parts
from sampling.loaded_models import Models
from sampling.progress import Progress, Reports
from sampling.remap import remap, result_version
from sampling.request import RemapRequest
from sampling.results import Outputs
from viewer.pictures import time_slices
from viewer.player_page import player_frame
from viewer.previews import write_preview
from web.cards import draw_card
from web.figures import placement_figures
from web.maps import only, song_of

KEPT_RUNS = 8
"""Results that a page can go back to."""
KEPT_COMBINATIONS = 4
"""Of each result."""
GONE = "that result is gone: generate again"

Report = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""


class Stopped(Exception):
    """The visitor has cancelled the run, or left."""


@dataclass(frozen=True)
class Variant:
    """A new difficulty: its name, file, the picture on its card, its figures.

    `placement` is as `placement_figures` has it; `joints` are those of a combination.
    """

    version: str
    file: Path
    card: Path
    written: dict[str, float]
    placement: dict[str, float]
    joints: tuple[Joint, ...] = ()


@dataclass(frozen=True)
class Look:
    """A variant as the page shows it: beside the original in the player and in a picture.

    `archive` is the .osz with this new difficulty alone; None where the map came without one.
    """

    player: str
    picture: Path
    archive: Path | None


@dataclass(frozen=True)
class Run:
    """The results of a run on one difficulty of a file, below `folder`: variants, combinations.

    `settings` are the values that the page's controls had, `span` is the passage in ms that cards
    show, `placement` the figures of the original; `finder` has measured it for the marks of all
    variants.
    """

    source: Path
    chosen: int
    request: RemapRequest
    settings: Mapping[str, Any]
    folder: Path
    span: tuple[float, float]
    placement: dict[str, float]
    finder: MarkFinder
    variants: tuple[Variant, ...]
    shown: int = 0

    @property
    def sampled(self) -> int:
        """How many variants were sampled; combinations follow them."""
        return self.request.options.variants

    @contextmanager
    def job(self) -> Iterator[Job]:
        """The difficulty and the file that it is in."""
        with opened(self.source, self.chosen) as job:
            yield job

    def look(self, k: int) -> Look:
        """Variant k, with its picture and archive written when they are first looked at."""
        variant = self.variants[k]
        after = read_beatmap(variant.file)
        picture = variant.file.with_suffix(".png")
        with self.job() as job:
            (before,) = job.beatmaps
            if not picture.exists():
                write_preview("png", before, after, picture)
            archive = None
            if job.archive is not None:
                place = variant.file.parents[1] / "archive"
                outputs = Outputs.plan(job, place, [variant.version], 1, {})
                outputs.write(job, [[variant.file.read_bytes()]], overwrite=True)
                archive = outputs.archive
            marks = self.finder.find(beatmap_to_sequence(after))
            player = player_frame(before, after, song_of(job, before), marks=marks)
            return Look(player, picture, archive)

    def forget_archives(self, but: int | None = None) -> None:
        """Removes the archives, which are as large as the songs, of all variants or all but one."""
        for k, variant in enumerate(self.variants):
            if k != but:
                shutil.rmtree(variant.file.parents[1] / "archive", ignore_errors=True)


@contextmanager
def opened(path: Path, chosen: int) -> Iterator[Job]:
    """The job of one difficulty of a file, by its place among those of the file."""
    with open_jobs(path, Choice(all_difficulties=True)) as ((all_of_them, *_), _):
        yield only(all_of_them, chosen)


def write_variant(
    job: Job,
    folder: Path,
    span: tuple[float, float],
    version: str,
    data: bytes,
    written: dict[str, float],
    joints: Iterable[Joint] = (),
) -> Variant:
    """Writes a new difficulty's file and its card into a folder of its own below `folder`."""
    own = folder / secrets.token_hex(4)
    alone = replace(job, archive=None, members=[])
    outputs = Outputs.plan(alone, own, [version], 1, {})
    outputs.write(alone, [[data]], overwrite=False)
    (file,) = outputs.files()
    beatmap = read_beatmap(file)
    card = own / "card.png"
    draw_card(beatmap, span, card)
    return Variant(version, file, card, written, placement_figures(beatmap), tuple(joints))


def passage_to_show(beatmap: Beatmap, request: RemapRequest) -> tuple[float, float]:
    """(start, end) ms of a passage in the middle of what is remapped."""
    start = end = None
    if not request.selection.is_everything:
        chosen = choose_objects(beatmap, request.selection)
        times = [hit.time for hit, mine in zip(beatmap.objects, chosen, strict=True) if mine]
        start, end = times[0], times[-1]
    passages = time_slices(beatmap, start, end)
    return passages[len(passages) // 2]


def stoppable(what: str, stop: threading.Event, report: Report) -> Progress:
    """Progress of `what` that raises `Stopped` once `stop` is set."""

    def progress(done: int, total: int) -> None:
        if stop.is_set():
            raise Stopped
        report(what, done, max(1, total))

    return progress


def sample(
    models: Models, before: Beatmap, request: RemapRequest, reports: Reports
) -> list[tuple[str, bytes, dict[str, float]]]:
    """Of each variant its name, its file's content and how well it keeps distances."""
    name, count = result_version(before, request), request.options.variants
    names = [f"{name} #{k + 1}" for k in range(count)] if count > 1 else [name]
    made = remap(models, before, names, request, reports)
    return [(v, m.data, m.written) for v, m in zip(names, made, strict=True)]


# --- visitors and their runs ----------------------------------------------------------------------


@dataclass
class Visitor:
    """An open page: its results' folder, its runs, what ends the one under way, its uploads.

    `runs` are the last ones, oldest first; the page shows the one at `at`.
    """

    folder: Path
    runs: list[Run] = field(default_factory=list)
    at: int = -1
    stop: threading.Event = field(default_factory=threading.Event)
    uploads: set[Path] = field(default_factory=set)

    @property
    def run(self) -> Run | None:
        """The run that is shown."""
        return self.runs[self.at] if 0 <= self.at < len(self.runs) else None

    def add(self, run: Run) -> None:
        """Makes a run the last one, which is shown; the oldest ones go with their files."""
        self.runs.append(run)
        for gone in self.runs[:-KEPT_RUNS]:
            shutil.rmtree(gone.folder, ignore_errors=True)
        del self.runs[:-KEPT_RUNS]
        self.at = len(self.runs) - 1


class Sessions:
    """The models, kept loaded, and the visitors by the hash of their page's session.

    One run at a time uses the models, the others wait in the order in which they came. All files
    are below `folder`.
    """

    def __init__(self, models: Models, folder: Path) -> None:
        self.models, self.folder = models, folder
        self._visitors: dict[str, Visitor] = {}
        self._turns: list[object] = []  # one for each run; the first has the models

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
        self,
        session: str,
        path: Path,
        request: RemapRequest,
        report: Report,
        chosen: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> Run:
        """Remaps a difficulty of the file at `path`; the visitor's earlier results stay behind it.

        `chosen` is its place among those of the file, `settings` are kept with the results. Styles
        that are learnt stay in the folder of all sessions. Raises `Stopped`, and ValueError for a
        file that cannot be used or to which the request does not fit.
        """
        visitor = self.visitor(session)
        stop, folder = visitor.stop, visitor.folder / secrets.token_hex(4)
        request = replace(request, output=self.folder)

        def reporting(what: str) -> Progress:
            return stoppable(what, stop, report)

        try:
            with self._turn(stop, report):
                reporting("Reading the map")(0, 1)
                with opened(path, chosen) as job:
                    (before,) = job.beatmaps
                reports = Reports(reporting("Learning the style"), reporting("Sampling"))
                sampled = sample(self.models, before, request, reports)
            span = passage_to_show(before, request)
            writing, variants = reporting("Writing and drawing"), []
            for k, (version, data, written) in enumerate(sampled):
                writing(k, len(sampled))
                variants.append(write_variant(job, folder, span, version, data, written))
            finder = MarkFinder(beatmap_to_sequence(before))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        run = Run(
            *(path, chosen, request, settings or {}, folder),
            *(span, placement_figures(before), finder),
            tuple(variants),
        )
        visitor.add(run)
        if self._visitors.get(session) is not visitor:
            shutil.rmtree(visitor.folder, ignore_errors=True)
        return run

    @contextmanager
    def _turn(self, stop: threading.Event, report: Report) -> Iterator[None]:
        """Waits for the models."""
        turn, told = object(), 0
        self._turns.append(turn)
        try:
            while before := self._turns.index(turn):
                if before != told:
                    report(f"Waiting for {before} other run{'s' * (before > 1)}", 0, 1)
                    told = before
                if stop.wait(0.05):
                    raise Stopped
            yield
        finally:
            self._turns.remove(turn)

    def show(self, session: str, at: int | None = None, variant: int | None = None) -> Run:
        """Makes one of a visitor's runs, and one of its variants, what the page shows.

        By default those that were shown last. ValueError where there is none of that number.
        """
        visitor = self.visitor(session)
        at = visitor.at if at is None else at
        if at not in range(len(visitor.runs)):
            raise ValueError(GONE)
        run = visitor.runs[at]
        shown = run.shown if variant is None else variant
        if shown not in range(len(run.variants)):
            raise ValueError(GONE)
        visitor.at, visitor.runs[at] = at, replace(run, shown=shown)
        for other in visitor.runs:
            other.forget_archives(but=shown if other.folder == run.folder else None)
        return visitor.runs[at]

    def combine(self, session: str, text: str, rest: int) -> Run:
        """Adds a combination of the shown run's variants to it, by lines as `parse_parts` has them.

        What they leave out comes from the variant `rest`. ValueError for what cannot be.
        """
        run = self.show(session)
        if rest not in range(run.sampled):
            raise ValueError(f"there are variants 1 to {run.sampled}: choose one of them")
        parts = parse_parts(text, run.sampled)
        with run.job() as job:
            variants = [read_beatmap(variant.file) for variant in run.variants[: run.sampled]]
            made = combine(job.beatmaps[0], variants, run.request, parts, rest)
            new = write_variant(
                *(job, run.folder, run.span, made.version, made.data, made.written, made.joints)
            )
        combined = [*run.variants[run.sampled :], new]
        for gone in combined[:-KEPT_COMBINATIONS]:
            shutil.rmtree(gone.card.parent, ignore_errors=True)
        kept = (*run.variants[: run.sampled], *combined[-KEPT_COMBINATIONS:])
        visitor = self.visitor(session)
        if run not in visitor.runs:
            raise Stopped  # the page was closed meanwhile, or the run is too old
        visitor.runs[visitor.runs.index(run)] = replace(run, variants=kept)
        return self.show(session, variant=len(kept) - 1)
