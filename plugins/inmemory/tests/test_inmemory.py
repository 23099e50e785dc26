"""Rows of Python are read as they are, and their fingerprint changes with their content."""

from __future__ import annotations

from datetime import date

import pytest
from tunesmith_inmemory.rows import GivenRows

from tunesmith import DataError

ROWS = [{"text": "one"}, {"text": "two"}]


def test_rows_have_their_place() -> None:
    rows = GivenRows("rows://train", ROWS)
    assert [dict(row) for row in rows] == ROWS == [dict(row) for row in rows]
    assert [row.where for row in rows] == ["rows://train#1", "rows://train#2"]


def test_the_fingerprint_changes_with_the_content_only() -> None:
    first = GivenRows("rows://train", ROWS).fingerprint
    assert first == GivenRows("rows://other", [dict(row) for row in ROWS]).fingerprint
    assert first != GivenRows("rows://train", [*ROWS, {"text": "three"}]).fingerprint
    assert first != GivenRows("rows://train", ROWS[::-1]).fingerprint


def test_rows_that_json_does_not_have_are_not_kept() -> None:
    assert GivenRows("rows://train", [{"day": date(2026, 1, 1)}]).fingerprint is None


def test_a_row_is_a_mapping() -> None:
    with pytest.raises(DataError, match=r"rows://train#2.*a row is a mapping"):
        list(GivenRows("rows://train", [ROWS[0], ["two"]]))  # type: ignore[list-item]
