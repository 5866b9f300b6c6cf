"""The model, and what open pages have it do: their runs one after the other, their files."""

import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from beatmaps.inputs import Choice, Job, open_jobs
from beatmaps.osu_file import Beatmap
from checkpoint import LoadedModel
from sampling.progress import Progress, Reports
from sampling.remap import Remapped, remap, result_version
from sampling.request import RemapRequest
from sampling.results import Outputs
from sampling.steering import Models
from viewer.player_page import player_frame
from viewer.previews import write_preview
from web.maps import only, song_of

Report = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""


class Stopped(Exception):
    """The visitor has cancelled the run, or left."""


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
        return player_frame(self.before, self.made[k].beatmap, self.song)

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


class Sessions:
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

        `chosen` is its place among those of the file. Styles that are learnt stay in the sessions'
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
