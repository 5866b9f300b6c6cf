"""Which beatmaps a dataset takes: filters, and mappers who do not want to be in one."""

import argparse
import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from conventions.errors import FieldError

_GUESTS = re.compile(r"(.+?)(?:['’]s|(?<=[sSzZxX])['’])(?=\s|$)")
_BETWEEN_GUESTS = re.compile(r"\s*[&+,/]\s*|\s+(?:x|and|vs\.?|feat\.?)\s+", re.IGNORECASE)

Dates = dict[tuple[str, int], date]
"""("beatmap_id" or "set_id", ID) -> date."""


@dataclass(frozen=True)
class Filters:
    """Filters on the rows that `create_dataset.py` makes; None and empty sets let everything pass.

    `mappers`, `exclude_mappers` and `exclude` are names in the form of `normal_name`.
    """

    min_objects: int | None = None
    max_objects: int | None = None
    min_stars: float | None = None
    max_stars: float | None = None
    min_id: int | None = None
    max_id: int | None = None
    since: date | None = None
    until: date | None = None
    mappers: frozenset[str] = frozenset()
    exclude_mappers: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    dates: Dates = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("objects", "stars", "id"):
            self._require_order(f"min_{name}", f"max_{name}")
        self._require_order("since", "until")
        if (self.since or self.until) and not self.dates:
            raise FieldError("{since} and {until} need {dates}: beatmaps hold no date themselves")

    def _require_order(self, low: str, high: str) -> None:
        a, b = getattr(self, low), getattr(self, high)
        if a is not None and b is not None and a > b:
            text = f"{{{low}}} {{0}} is above {{{high}}} {{1}}: nothing would be left"
            raise FieldError(text, a, b)

    @property
    def needs_stars(self) -> bool:
        """Whether star ratings must be known."""
        return self.min_stars is not None or self.max_stars is not None

    def describe(self) -> dict[str, Any]:
        """The filters in use, for dataset.json; lists of names only by their size and hash."""
        described: dict[str, Any] = {}
        for name in (entry.name for entry in fields(self)):
            value = getattr(self, name)
            if isinstance(value, date):
                described[name] = value.isoformat()
            elif isinstance(value, frozenset | dict):
                entries = value.items() if isinstance(value, dict) else value
                text = "\n".join(sorted(map(str, entries)))
                digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
                if value:
                    described[name] = {"entries": len(value), "sha256": digest}
            elif value is not None:
                described[name] = value
        return described

    def reason_against(self, row: dict[str, Any]) -> str | None:
        """Why a beatmap is left out; None if it is taken."""
        return (
            self._range_reason("hit objects", row["objects"], self.min_objects, self.max_objects)
            or self._range_reason("stars", row["star_rating"], self.min_stars, self.max_stars)
            or self._range_reason("beatmap ID", row["beatmap_id"], self.min_id, self.max_id)
            or self._date_reason(row)
            or self._mapper_reason(row)
        )

    @staticmethod
    def _range_reason(name: str, value: Any, low: Any, high: Any) -> str | None:
        if low is None and high is None:
            return None
        if value is None:
            return f"{name} not known"
        if low is not None and value < low:
            return f"{name} below {low}"
        if high is not None and value > high:
            return f"{name} above {high}"
        return None

    def _date_reason(self, row: dict[str, Any]) -> str | None:
        return self._range_reason("date", date_of(row, self.dates), self.since, self.until)

    def _mapper_reason(self, row: dict[str, Any]) -> str | None:
        mappers = likely_mappers(row["creator"], row["version"])
        if self.mappers and not mappers & self.mappers:
            return "mapper not among --mappers"
        if mappers & self.exclude_mappers:
            return "mapper among --exclude-mappers"
        return "mapper on the exclusion list" if self.is_excluded(row) else None

    def is_excluded(self, row: dict[str, Any]) -> bool:
        """Whether anything says that a mapper of the exclusion list took part in the beatmap.

        Creator, difficulty name and tags are searched. Tags name a set's guest mappers, but not who
        made which difficulty, so in doubt a map is left out.
        """
        if normal_name(row["creator"]) in self.exclude:
            return True
        words = self._excluded_words
        longest = max(map(len, words), default=0)
        texts = (row["version"], row["tags"])
        return any(run in words for text in texts for run in _runs(_words(text), longest))

    @cached_property
    def _excluded_words(self) -> frozenset[tuple[str, ...]]:
        """The exclusion list, each name as words; names without letters and digits are dropped."""
        return frozenset(words for words in map(_words, self.exclude) if words)


def date_of(row: dict[str, Any], dates: Dates) -> date | None:
    """The date of a beatmap; if it is unknown, that of its set."""
    ids = ((name, row[name]) for name in ("beatmap_id", "set_id"))
    return next((dates[key] for key in ids if key in dates), None)


def normal_name(name: str) -> str:
    """A mapper's name for comparison: the game ignores case and treats `_` as a space."""
    return " ".join(name.replace("_", " ").casefold().split())


def likely_mappers(creator: str, version: str) -> frozenset[str]:
    """Normal names of who made a difficulty: the guests named in its name, else the set's creator.

    "Sky's Insane" is by Sky, "Sky & Sea's Extra" by Sky and Sea. A nickname there cannot be
    resolved.
    """
    guests = " & ".join(_GUESTS.findall(version))
    names = _BETWEEN_GUESTS.split(guests) if guests else [creator]
    return frozenset(filter(None, map(normal_name, names)))


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", normal_name(text)))


def _runs(words: tuple[str, ...], longest: int) -> Iterator[tuple[str, ...]]:
    """All runs of up to `longest` neighbouring words."""
    for start in range(len(words)):
        for stop in range(start + 1, min(start + longest, len(words)) + 1):
            yield words[start:stop]


# --- the command line -----------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the filters, for `from_arguments`."""
    add = parser.add_argument_group("filters, for beatmaps that are not in the dataset yet")
    for name, kind, what in (
        ("objects", int, "hit objects"),
        ("stars", float, "star rating (needs rosu-pp-py, or a Mapperator dataset)"),
        ("id", int, "beatmap ID"),
    ):
        add.add_argument(f"--min-{name}", type=kind, help=f"least {what}")
        add.add_argument(f"--max-{name}", type=kind, help=f"greatest {what}")
    for name in ("since", "until"):
        add.add_argument(
            f"--{name}", type=date.fromisoformat, help="date (2015-12-31) by --dates, inclusive"
        )
    add.add_argument(
        "--dates",
        type=Path,
        help="CSV with columns beatmap_id or set_id, and date; maps that it lacks are left out",
    )
    names = "names separated by commas, or a file with one a line"
    add.add_argument("--mappers", help=f"only difficulties by these mappers: {names}")
    add.add_argument("--exclude-mappers", help=f"no difficulties by these mappers: {names}")
    add.add_argument(
        "--exclude",
        type=Path,
        metavar="FILE",
        help="mappers who do not want to be in a training set, one a line: also takes out what "
        "is in the dataset already, and maps whose difficulty name or tags name them",
    )


def from_arguments(args: argparse.Namespace) -> Filters:
    """The filters that the command line asks for; ValueError for files that cannot be read."""
    plain = ("min_objects", "max_objects", "min_stars", "max_stars", "min_id", "max_id")
    return Filters(
        **{name: getattr(args, name) for name in (*plain, "since", "until")},
        mappers=_names(args.mappers),
        exclude_mappers=_names(args.exclude_mappers),
        exclude=_read_names(args.exclude) if args.exclude else frozenset(),
        dates=read_dates(args.dates) if args.dates else {},
    )


def _names(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset()
    if Path(text).is_file():
        return _read_names(Path(text))
    return frozenset(name for name in map(normal_name, text.split(",")) if name)


def _read_names(path: Path) -> frozenset[str]:
    """Names of a text file, one a line."""
    if not path.is_file():
        raise ValueError(f"there is no list of mappers at {path}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as such ({error})") from error
    return frozenset(name for name in map(normal_name, lines) if name)


def read_dates(path: Path) -> Dates:
    """Dates, without times of day, from a CSV file with beatmap_id or set_id, and date."""
    if not path.is_file():
        raise ValueError(f"there is no table of dates at {path}")
    dates = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        columns = [c for c in ("beatmap_id", "set_id") if c in (table.fieldnames or ())]
        if not columns or "date" not in (table.fieldnames or ()):
            raise ValueError(f"{path} needs the columns date, and beatmap_id or set_id")
        try:
            for row in table:
                column = next((c for c in columns if row[c]), None)
                if column:  # the beatmap's date; a line without beatmap_id is for the set
                    dates[column, int(row[column])] = date.fromisoformat(row["date"][:10])
        except (ValueError, TypeError, csv.Error) as error:
            raise ValueError(f"{path}, line {table.line_num}: {error}") from error
    return dates
