"""The log of a training run: log.txt, metrics.jsonl; and how fast the run is."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from conventions.whole_files import replacing
from models import DiTConfig, NoiseEmbedder
from training.trackers import Tracker

log = logging.getLogger("train")


class LogFile(logging.FileHandler):
    """A log file; a line that cannot be written, as on a full disk, costs one line on stderr."""

    def handleError(self, record: logging.LogRecord) -> None:
        reason = sys.exc_info()[1]
        print(f"{self.baseFilename} cannot be written: {reason}", file=sys.stderr)


def start_logging(is_main: bool, folder: Path | None) -> None:
    """Main rank: to the console and log.txt; the others stay silent."""
    log.setLevel(logging.INFO if is_main else logging.ERROR)
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if folder is not None:
        handlers.append(LogFile(folder / "log.txt", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)


class Metrics:
    """metrics.jsonl, one JSON object with its step per line, which trackers get as well."""

    def __init__(self, folder: Path, step: int, trackers: Sequence[Tracker] = ()) -> None:
        self.path = folder / "metrics.jsonl"
        self.trackers = trackers
        self._forget_after(step)

    def _forget_after(self, step: int) -> None:
        """Drops lines of steps that will be trained again, and an incomplete line."""
        if not self.path.is_file():
            return
        lines = [line for line in read_metrics(self.path) if line["step"] <= step]
        with replacing(self.path) as temporary:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            temporary.write_text(text, encoding="utf-8")

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Appends a line; for trackers, nested dicts become names with slashes."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
            for tracker in self.trackers:
                tracker.write(step, _scalars(values))
        except OSError as error:
            log.error("%s cannot be written: %s", self.path, error.strerror or error)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; ignores a last line that a killed process did not finish."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            log.warning("%s: passed over a line that was cut off", path)
    return lines


def _scalars(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    pairs = []
    for name, value in values.items():
        if isinstance(value, dict):
            pairs += _scalars(value, f"{prefix}{name}/")
        elif value is not None:
            pairs.append((prefix + name, float(value)))
    return pairs


def training_flops(config: DiTConfig, seq_len: int, half_window: int) -> float:
    """Floating-point operations of the matrix products that train on one window of T points.

    Two for each multiplication of the forward pass, times three for forward and backward pass. Of
    attention, only the keys that a point may see count.
    """
    width, hidden = config.width, int(config.width * config.mlp_ratio)
    # A query sees half_window keys on either side, fewer at a window's ends: averages.
    before = sum(min(i, half_window - 1) for i in range(seq_len))
    after = sum(min(seq_len - 1 - i, half_window) for i in range(seq_len))
    scores = seq_len * seq_len if seq_len <= half_window else before + after + seq_len
    block = seq_len * (4 * width**2 + 2 * width * hidden) + 2 * scores * width
    adaptive = 6 * width**2  # once a window
    first = seq_len * config.in_features * width
    last = seq_len * width * config.out_channels + 2 * width**2
    noise = NoiseEmbedder.FREQUENCIES * width + width**2
    return 6.0 * (config.depth * (block + adaptive) + first + last + noise)


def measured_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations/s of the device, the best of a few products of square matrices in `dtype`."""
    size, repeats = (8192, 5) if device.type == "cuda" else (1024, 3)
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(repeats + 1):  # the first one warms up
        _synchronise(device)
        start = time.perf_counter()
        a @ b
        _synchronise(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
