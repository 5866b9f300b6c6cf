"""The tables of results are those of the measured files."""

import json

import pytest
from result_tables import DOCUMENTS, REPORTS, rows, table, with_table


@pytest.mark.parametrize("number", range(len(DOCUMENTS)))
def test_documents_have_the_table_that_was_measured(number: int) -> None:
    """If not: `python testing/result_tables.py`."""
    text = DOCUMENTS[number].read_text(encoding="utf-8")
    assert table() in text and with_table(text) == text


def test_the_table_has_a_column_for_each_evaluation() -> None:
    lines = table().split("\n")
    assert {line.count(" | ") for line in lines if "---" not in line} == {len(REPORTS)}
    assert lines[1] == "|---|---|---|"


def test_what_real_maps_have_is_what_was_measured_of_them() -> None:
    report = json.loads(REPORTS["default"].read_text(encoding="utf-8"))
    report["summary"]["source_points_off_playfield"] = 0.125
    report["summary"]["source_objects_crossing_share"] = 0.25
    (label,) = (label for label in rows(report) if label.startswith("data points off"))
    assert "(real maps: 12.50%)" in label
    (label,) = (label for label in rows(report) if label.startswith("objects that cross"))
    assert "(real maps: 25.0%)" in label


def test_a_document_without_a_table_is_said_to_have_none() -> None:
    with pytest.raises(ValueError, match="no table of results"):
        with_table("# Nothing measured")
