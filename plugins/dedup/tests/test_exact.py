"""Training rows that equal an earlier row or an evaluation row are dropped and reported."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunesmith_dedup.exact import equal_rows
from tunesmith_dedup.table import Table

from tunesmith import DataError, Row, Source

EXACT = {"dataset_exact_deduplication": True}


def texts(*words: str) -> list[dict[str, Any]]:
    return [{"text": word} for word in words]


def test_the_first_of_equal_rows_over_all_entries_is_kept(dedup: Any) -> None:
    files = {"a": texts("one", "two", "one"), "b": texts("three", "two", "four", "three", "one")}
    assert dedup.kept(files, **EXACT) == {"a": [1, 2], "b": [1, 3]}


def test_a_note_names_the_dropped_rows_and_the_rows_that_they_equal(dedup: Any) -> None:
    dedup.kept({"a": texts("one", "two"), "b": texts("new", *["one"] * 4, "two")}, **EXACT)
    assert dedup.notes == {
        "datasets[1] b: rows dropped: exact duplicates": "5 of 6, first: b:2 equals a:1, b:3 equals a:1, b:4 equals a:1"
    }


def test_a_note_says_that_there_are_no_duplicates(dedup: Any) -> None:
    assert dedup.kept({"a": texts("one", "two"), "b": []}, **EXACT) == {"a": [1, 2], "b": []}
    assert dedup.notes == {"exact duplicates": "none in 2 rows"}


def test_an_evaluation_row_is_kept_and_an_equal_training_row_is_dropped_in_any_order(dedup: Any) -> None:
    files = {"a": texts("seen", "one", "one"), "test": texts("seen", "seen", "other"), "b": texts("other", "two")}
    assert dedup.kept(files, **EXACT) == {"a": [2], "test": [1, 2, 3], "b": [2]}
    assert "a:1 equals test:1" in dedup.notes["datasets[0] a: rows dropped: exact duplicates"]


def test_dropping_all_rows_of_an_entry_is_an_error_that_gives_the_reason(dedup: Any) -> None:
    with pytest.raises(
        DataError, match=r"datasets\[1\] b: all rows are dropped; exact duplicates: 2 of 2, first: b:1 equals"
    ):
        dedup.kept({"a": texts("one"), "b": texts("one", "one")}, **EXACT)


def test_rows_are_read_lazily_and_repeatedly_with_the_same_result(dedup: Any) -> None:
    lines = {"a": texts("one", "one", "two"), "b": texts("two", "three")}
    first, second = dedup.sources(lines, **EXACT)
    assert not dedup.notes
    for _ in range(3):
        assert [row["text"] for row in second.rows] == ["three"]
        assert [row["text"] for row in first.rows] == ["one", "two"]
    rows = iter(first.rows)
    assert next(rows).where == "a:1" and [row.where for row in first.rows] == ["a:1", "a:3"]


def test_a_file_that_changes_during_a_run_is_an_error(dedup: Any) -> None:
    records = texts("one", "one", "two")
    (source,) = dedup.sources({"a": records}, **EXACT)
    assert len(list(source.rows)) == 2
    lines = source.rows.filters.sources[0].rows
    for changed in (records[:2], records + texts("three")):
        lines.records = changed
        with pytest.raises(DataError, match="a: the number of rows changed since the file was last read"):
            list(source.rows)


def test_values_that_json_does_not_support_are_compared_by_their_repr_or_refused(dedup: Any) -> None:
    assert dedup.kept({"a": [{"x": b"one"}, {"x": b"one"}, {"x": "\ud800"}]}, **EXACT) == {"a": [1, 3]}
    with pytest.raises(DataError, match="a:1"):
        dedup.kept({"a": [{"x": 1, None: 2}]}, **EXACT)


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["", "a", "1", "é", "\ud800"]) | st.floats(0, 1),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), values, max_size=3), max_size=20))
def test_the_first_row_of_each_json_text_is_kept(records: list[dict[str, Any]]) -> None:
    lines = [json.dumps(record, sort_keys=True) for record in records]
    rows: Any = [Row(record, str(n)) for n, record in enumerate(records)]
    spec: Any = type("Spec", (), {"group": "datasets"})
    dropped = equal_rows(Table([Source(spec, rows)]))
    kept = sorted(set(range(len(rows))) - set(dropped.rows.tolist()))
    assert kept == sorted(lines.index(text) for text in set(lines))
    assert [lines[n] for n in dropped.rows] == [lines[n] for n in dropped.twins]
