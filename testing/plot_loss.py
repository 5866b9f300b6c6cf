"""Draws the losses of any number of runs: python testing/plot_loss.py RUN... [--output loss.png].

A RUN is a run's folder, its metrics.jsonl, or a log.txt, also of the public osu-diffusion.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from figures import save_figure

from conventions import command_line
from training.log import read_metrics

LINE = re.compile(r"\(step=(\d+)\) Train Loss: (\S+?),")
Curve = list[tuple[int, float]]


def read_run(path: Path) -> tuple[Curve, Curve]:
    """Training and validation losses by step; a step logged twice counts as it was last."""
    if path.is_dir():
        path = next((p for p in (path / "metrics.jsonl", path / "log.txt") if p.is_file()), path)
    if not path.is_file():
        raise ValueError(f"{path}: no run: give a run's folder, its metrics.jsonl or its log.txt")
    training: dict[int, float] = {}
    validation: dict[int, float] = {}
    if path.suffix == ".jsonl":
        for line in read_metrics(path):
            if "loss" in line:
                training[line["step"]] = line["loss"]
            elif "loss" in line.get("validation", {}):
                validation[line["step"]] = line["validation"]["loss"]
    else:
        text = path.read_text(encoding="utf-8", errors="replace")
        training = {int(step): float(loss) for step, loss in LINE.findall(text)}
    if not training:
        raise ValueError(f"{path} has no losses in it")
    return sorted(training.items()), sorted(validation.items())


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and up to window - 1 before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw(runs: dict[str, tuple[Curve, Curve]], window: int) -> Figure:
    """All runs in one picture, validation dashed."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name, (training, validation) in runs.items():
        steps, losses = np.array(training).T
        (line,) = axes.plot(steps, smooth(losses, window), label=name, linewidth=1)
        if validation:
            axes.plot(
                *np.array(validation).T, "--", color=line.get_color(), label=f"{name}, held out"
            )
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, default=Path("loss.png"))
    parser.add_argument("--smooth", type=int, default=1, help="lines of the log that are averaged")
    parser.add_argument("--overwrite", action=command_line.BooleanFlag, default=False)
    args = parser.parse_args()
    command_line.claim_output(args.output, args.overwrite)
    if args.smooth < 1:
        raise ValueError(f"--smooth {args.smooth}: give a number above 0")
    figure = draw({str(path): read_run(path) for path in args.runs}, args.smooth)
    save_figure(args.output, figure)
    print(args.output)
    return 0


if __name__ == "__main__":
    command_line.run(main)
