"""The folder of a training run: numbered, locked, resumed; old checkpoints are removed.

results/003-DiT-B/run.json          options, data, whether it is finished
                  checkpoints/      0001000.pt, ... the last few and every so many steps
                  log.txt, metrics.jsonl, samples/, and at the end model.safetensors
"""

import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from checkpoint import save_training_checkpoint
from conventions import command_line
from conventions.errors import FieldError
from conventions.whole_files import replacing
from training.options import in_terms_of_today
from training.state import is_intact

log = logging.getLogger("train")
RUN = re.compile(r"(\d{3,})-DiT-\w+")
"""Names of runs; those of remapped beatmaps in the same folder begin with a number, too."""


@dataclass(frozen=True)
class RunFolder:
    """A run that only this process trains while it holds `lock`."""

    path: Path
    lock: FileLock

    def close(self) -> None:
        """Releases the lock, so that another process can train the run."""
        self.lock.release()

    def checkpoints(self) -> list[Path]:
        """Its checkpoints, the newest first."""
        found = (self.path / "checkpoints").glob("*.pt")
        return sorted((p for p in found if p.stem.isdecimal()), key=step_of, reverse=True)

    def newest_checkpoint(self) -> Path | None:
        """The newest intact checkpoint; warns of damaged ones and ignores them."""
        for path in self.checkpoints():
            if is_intact(path):
                return path
            log.warning("%s is damaged: going back to the checkpoint before it", path)
        return None

    def save(
        self, step: int, state: dict[str, Any], keep_last: int, keep_every: int | None
    ) -> Path:
        """Writes checkpoints/<step>.pt, and only then removes checkpoints that need not be kept."""
        path = self.path / "checkpoints" / f"{step:07d}.pt"
        save_training_checkpoint(path, state)
        older = [p for p in self.checkpoints() if step_of(p) < step]
        for old in older[max(0, keep_last - 1) :]:
            if not keep_every or step_of(old) % keep_every:
                old.unlink(missing_ok=True)
        return path

    def require_space(self, checkpoint_bytes: int, keep_last: int) -> None:
        """FieldError if not even two checkpoints fit on the disk; warns if not all of them fit."""
        free = shutil.disk_usage(self.path).free
        missing = max(0, keep_last + 1 - len(self.checkpoints()))
        text = (
            f"{free / 2**20:.0f} MiB are free on the disk of {self.path}, a checkpoint takes "
            f"{checkpoint_bytes / 2**20:.0f} MiB"
        )
        if free < min(missing, 2) * checkpoint_bytes:
            raise FieldError("{0}: make room for at least two, or name another {results_dir}", text)
        if free < missing * checkpoint_bytes:
            log.warning("%s: not all that --keep-last %d asks for will fit", text, keep_last)

    def finish(self) -> None:
        """Notes that the run is finished: the same command will begin a new one."""
        description = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        _write_description(self.path, {**description, "finished": True})

    def differences(self, options: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Options that differ from those the run began with: name -> (before, now)."""
        before, options = (
            in_terms_of_today(found)
            for found in (_description(self.path).get("options", {}), options)
        )
        names = sorted(before.keys() | options.keys())
        pairs = {name: (before.get(name), options.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's file name."""
    return int(checkpoint.stem)


def open_run(results: Path, model: str, options: dict[str, Any], resume: str) -> RunFolder:
    """The run to train, new or begun before.

    `resume` is `auto`: the newest unfinished run with the same options, else a new one; `never`: a
    new one; or a run's folder, or its newest checkpoint.
    """
    command_line.check_folder(results)
    results.mkdir(parents=True, exist_ok=True)
    if resume == "auto":
        for path in _runs(results):
            description = _description(path)
            if _is_same_run(description, options) and not description.get("finished"):
                return _go_on(path)
    elif resume != "never":
        return _named_run(Path(resume))
    path = _new_folder(results, model)
    folder = RunFolder(path, _lock(path))
    _write_description(path, {"options": options, "finished": False})
    return folder


def _is_same_run(description: dict[str, Any], options: dict[str, Any]) -> bool:
    if "options" not in description:
        return False
    return in_terms_of_today(description["options"]) == in_terms_of_today(options)


def _runs(results: Path) -> list[Path]:
    """Runs in `results`, the newest first."""
    runs = [path for path in results.iterdir() if RUN.fullmatch(path.name)]
    return sorted(runs, key=lambda path: int(path.name.split("-")[0]), reverse=True)


def _new_folder(results: Path, model: str) -> Path:
    """A new folder results/NNN-MODEL with a checkpoints folder inside."""
    last = next((int(path.name.split("-")[0]) for path in _runs(results)), -1)
    folder = results / f"{last + 1:03d}-{model}"
    (folder / "checkpoints").mkdir(parents=True)
    return folder


def _go_on(path: Path) -> RunFolder:
    """Continues a run, without files that a killed process left incomplete."""
    folder = RunFolder(path, _lock(path))
    for leftover in path.rglob(".osu-diffusion-*.tmp"):
        leftover.unlink(missing_ok=True)
    return folder


def _named_run(named: Path) -> RunFolder:
    """The run of a folder or of its newest checkpoint."""
    path = named.parent.parent if named.is_file() else named
    if not (path / "run.json").is_file():
        raise FieldError(
            "{resume} {0}: no run of this program (no {1}): name a run's "
            "folder, or start a new run from a checkpoint with {ckpt}",
            *(named, path / "run.json"),
        )
    folder = _go_on(path)
    if named.is_file() and named.name != folder.checkpoints()[0].name:
        raise FieldError(
            "{resume} {0}: {1} is the newest of this run; {ckpt} starts "
            "a new run from an older one",
            *(named, folder.checkpoints()[0]),
        )
    return folder


def _lock(path: Path) -> FileLock:
    """A lock that is held until the process ends, in whatever way."""
    lock = FileLock(path / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FieldError(
            "{0} is being trained by another process: wait for it, or add {resume} never "
            "to begin another run",
            path,
        ) from error
    return lock


def _description(path: Path) -> dict[str, Any]:
    """run.json; {} for runs of versions that wrote none."""
    file = path / "run.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _write_description(path: Path, description: dict[str, Any]) -> None:
    text = json.dumps(description, indent=1, ensure_ascii=False)
    with replacing(path / "run.json") as temporary:
        temporary.write_text(text, encoding="utf-8")
