"""Which beatmaps a dataset takes: ranges, dates, mappers, the exclusion list."""

import argparse
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from datasets import filters
from datasets.filters import Filters, likely_mappers, normal_name


def row(**changes: Any) -> dict[str, Any]:
    plain = {
        "objects": 100,
        "star_rating": 4.5,
        "beatmap_id": 1000,
        "set_id": 77,
        "creator": "Sea",
        "version": "Insane",
        "tags": "rock night_sky guest",
    }
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("flag", "field", "value", "passes"),
    [
        ("min_objects", "objects", 100, (100, 101)),
        ("max_objects", "objects", 100, (99, 100)),
        ("min_stars", "star_rating", 4.5, (4.5, 9.0)),
        ("max_stars", "star_rating", 4.5, (0.1, 4.5)),
        ("min_id", "beatmap_id", 1000, (1000, 2000)),
        ("max_id", "beatmap_id", 1000, (0, 1000)),
    ],
)
def test_ranges_include_their_ends(
    flag: str, field: str, value: float, passes: tuple[float, ...]
) -> None:
    chosen = Filters(**{flag: value})  # type: ignore[arg-type]
    for inside in passes:
        assert chosen.reason_against(row(**{field: inside})) is None
    outside = value - 0.5 if flag.startswith("min") else value + 0.5
    direction = "below" if flag.startswith("min") else "above"
    assert f"{direction} {value}" in (chosen.reason_against(row(**{field: outside})) or "")


def test_nothing_is_left_out_unasked() -> None:
    assert Filters().reason_against(row(star_rating=None, creator="", tags="")) is None
    assert Filters().describe() == {}


def test_an_unknown_star_rating_passes_no_filter_of_it() -> None:
    assert Filters(min_stars=0).reason_against(row(star_rating=None)) == "stars not known"


def test_a_range_without_anything_in_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="min stars 5 is above max stars 4"):
        Filters(min_stars=5, max_stars=4)


# --- mappers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "mappers"),
    [
        ("Insane", {"sea"}),
        ("Sky's Insane", {"sky"}),
        ("Sotarks' Insane", {"sotarks"}),
        ("Night_Sky’s Hard", {"night sky"}),
        ("Sky & Moon's Extra", {"sky", "moon"}),
        ("Sky x Moon's Extra", {"sky", "moon"}),
        ("Sky's & Moon's Extra", {"sky", "moon"}),
        ("Collab Insane", {"sea"}),
        ("Don't Stop", {"sea"}),
    ],
)
def test_a_difficulty_is_by_the_guests_that_its_name_tells(version: str, mappers: set[str]) -> None:
    assert likely_mappers("Sea", version) == mappers


def test_mapper_filters_go_by_who_made_the_difficulty() -> None:
    only, without = (
        Filters(mappers=frozenset(["sea"])),
        Filters(exclude_mappers=frozenset(["sky"])),
    )
    assert only.reason_against(row(creator="SEA")) is None
    assert "among --mappers" in (only.reason_against(row(version="Sky's Hard")) or "")
    assert only.reason_against(row(creator="Sky", version="Sea's Hard")) is None
    assert without.reason_against(row(tags="sky")) is None  # a guest of another difficulty
    assert "--exclude-mappers" in (without.reason_against(row(version="Sky's Hard")) or "")


@pytest.mark.parametrize(
    ("excluded", "changes", "taken"),
    [
        ("SEA", {}, False),
        ("sky", {}, False),  # as a word of the tag night_sky: rather one too many
        ("Night Sky", {}, False),
        ("night", {"tags": "knights nightly"}, True),
        ("Moon", {"version": "Moon's Insane"}, False),
        ("Moon", {"version": "Sky x moon collab"}, False),
        ("Moon", {"version": "Moonlight"}, True),
        ("-Moon-", {"creator": "-moon-"}, False),
        ("[]", {"creator": "[]"}, False),
        ("[]", {"version": "[] Insane", "tags": "[]"}, True),
        ("Sea Moon", {}, True),
    ],
)
def test_the_exclusion_list_takes_out_whatever_names_a_mapper(
    excluded: str, changes: dict[str, str], taken: bool
) -> None:
    chosen = Filters(exclude=frozenset([normal_name(excluded)]))
    assert (chosen.reason_against(row(**changes)) is None) == taken


# --- the command line -----------------------------------------------------------------------------


def parse(*flags: object) -> Filters:
    parser = argparse.ArgumentParser()
    filters.add_arguments(parser)
    return filters.from_arguments(parser.parse_args([str(flag) for flag in flags]))


def test_names_come_from_the_command_line_or_a_file(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\ufeffSea\n\n  Night_Sky \r\n", encoding="utf-8")
    assert parse("--mappers", "Sea, night sky,").mappers == {"sea", "night sky"}
    assert parse("--mappers", names).mappers == {"sea", "night sky"}
    assert parse("--exclude-mappers", names).exclude_mappers == {"sea", "night sky"}
    assert parse("--exclude", names).exclude == {"sea", "night sky"}
    with pytest.raises(ValueError, match="no list of mappers"):
        parse("--exclude", tmp_path / "none.txt")
    names.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="not UTF-8"):
        parse("--exclude", names)


def test_the_description_names_no_mapper() -> None:
    chosen = Filters(min_stars=2.5, since=date(2015, 1, 2), dates={("set_id", 1): date.min})
    described = chosen.describe()
    assert (described["min_stars"], described["since"]) == (2.5, "2015-01-02")
    one = Filters(exclude=frozenset(["sea"])).describe()
    other = Filters(exclude=frozenset(["sky"])).describe()
    assert one["exclude"]["entries"] == 1 and one != other and "sea" not in str(one)


def test_dates_come_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "dates.csv"
    table.write_text(
        "set_id,beatmap_id,date\n77,,2012-05-06T10:00:00+00:00\n77,1001,2014-01-01 00:00:00\n",
        encoding="utf-8",
    )
    early = parse("--dates", table, "--until", "2012-05-06")
    assert early.reason_against(row()) is None
    assert "date above 2012-05-06" in (early.reason_against(row(beatmap_id=1001)) or "")
    assert early.reason_against(row(set_id=78)) == "date not known"
    late = parse("--dates", table, "--since", "2012-05-07")
    assert "date below 2012-05-07" in (late.reason_against(row()) or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("set_id,day\n1,2\n", "needs the columns"),
        ("", "needs the columns"),
        ("set_id,date\n1,2012-05-06\n2,yesterday\n", "line 3"),
        ("set_id,date\nx,2012-05-06\n", "line 2"),
        ("set_id,date\n5\n", "line 2"),
    ],
)
def test_a_table_of_dates_that_is_none_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "dates.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        parse("--dates", table, "--since", "2012-01-01")


def test_a_date_filter_without_dates_is_an_error() -> None:
    with pytest.raises(ValueError, match="need dates"):
        parse("--since", "2012-01-01")
