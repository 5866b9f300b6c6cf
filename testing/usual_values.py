"""Measures what is usual in a collection of maps: makes metrics/usual.json, which marks need.

    python testing/usual_values.py "C:/osu/Songs" --output results/usual.json

Only counts over all objects of all maps are written: nothing in it leads back to a map.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

# As a script only this folder is on the path; the project is one level up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tqdm import tqdm

from beatmaps.osu_file import Beatmap
from beatmaps.sequence import beatmap_to_sequence
from conventions import command_line
from conventions.whole_files import replacing
from datasets.read import Skipped, each_beatmap
from datasets.sources import WHAT_IS_FOUND, Known, Source, find_beatmaps
from metrics.usual import Values, count, judged


def values_of(_: str, beatmap: Beatmap, __: Known) -> dict[str, Values]:
    """What of a map's objects can be unusual."""
    return judged(beatmap_to_sequence(beatmap))[0]


class Maps:
    """The values of all maps of a collection, one after another, and how many there were."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources, self.maps, self.objects = sources, 0, 0

    def __iter__(self) -> Iterator[dict[str, Values]]:
        for source in tqdm(self.sources, unit="file"):
            for found in each_beatmap(source, values_of):
                if isinstance(found, Skipped):
                    tqdm.write(f"skipped {found.file}: {found.reason}", file=sys.stderr)
                    continue
                self.maps += 1
                self.objects += len(found["off_playfield"].values)
                yield found


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("maps", type=Path, nargs="+", help=WHAT_IS_FOUND)
    add("--output", type=Path, required=True, help="the JSON file to write")
    add("--overwrite", action="store_true", help="replace it if it is there")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    command_line.claim_output(args.output, args.overwrite)
    maps = Maps(find_beatmaps(*args.maps))
    counts = count(maps)
    if not any(counts.values()):
        raise ValueError("too few maps: some hundred are needed to say what is usual")
    source = f"counted by testing/usual_values.py over {maps.objects} objects of {maps.maps} maps"
    text = json.dumps({"source": source, "counts": counts}, indent=None)
    with replacing(args.output) as temporary:
        temporary.write_text(text.replace('": {"', '": {\n"') + "\n", encoding="utf-8")
    print(f"wrote {args.output}: {source}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
