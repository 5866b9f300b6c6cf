"""Writes beatmap_idx.pickle, beatmap ID -> class index, of a dataset or of its sources.

With a dataset of the Mapperator kind whose metadata.json knows every ID no beatmap is read, and
every class has its ID, as in a checkpoint of the public osu-diffusion. Of other sources the
classes are those that packing gives them.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from conventions import command_line
from data_loading import PackedDataset
from datasets.class_tables import save_beatmap_idx
from datasets.pack import default_workers, pack
from datasets.sources import WHAT_IS_FOUND, find_beatmaps


def beatmap_idx(
    paths: list[Path], data_start: int | None, data_end: int | None, workers: int
) -> dict[int, int]:
    """The index of a packed dataset, or of sources."""
    if len(paths) == 1 and (paths[0] / "dataset.json").is_file():
        return PackedDataset(paths[0]).beatmap_idx()
    sources = find_beatmaps(*paths, data_start=data_start, data_end=data_end)
    index: dict[int, int] = {}
    for source in sources:
        if source.known.beatmap_id is not None and source.class_index is not None:
            index.setdefault(source.known.beatmap_id, source.class_index)
    if sources and all(s.known.beatmap_id and s.class_index is not None for s in sources):
        return index
    with TemporaryDirectory() as folder:
        pack(sources, Path(folder), workers)
        return PackedDataset(folder).beatmap_idx()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=command_line.HelpFormatter
    )
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help=f"packed dataset, or folder with {WHAT_IS_FOUND}",
    )
    parser.add_argument("--output", type=Path, default=Path("beatmap_idx.pickle"))
    parser.add_argument("--data-start", type=int, help="first track of a Mapperator dataset")
    parser.add_argument("--data-end", type=int, help="track after the last one")
    parser.add_argument("--num-workers", type=int, default=default_workers(), help="processes")
    parser.add_argument(
        "--overwrite", action=command_line.BooleanFlag, default=False, help="replace --output"
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    command_line.claim_output(args.output, args.overwrite)
    index = beatmap_idx(args.sources, args.data_start, args.data_end, max(1, args.num_workers))
    save_beatmap_idx(args.output, index)
    print(f"wrote {len(index)} beatmap IDs to {args.output}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
