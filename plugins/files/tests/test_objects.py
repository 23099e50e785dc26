"""JSON is read in either form, with the place of each mistake, and duplicate keys are remembered."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from tunesmith_files import objects

from tunesmith import DataError


def rows(text: str | bytes) -> list[Any]:
    content = text if isinstance(text, bytes) else text.encode()
    return list(objects.rows(io.BufferedReader(io.BytesIO(content)), "f"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1', "f:1:8"),
        ('{"a": 1\n{"a": 2}\n', "f:1:8"),
        ('{"a": 1}\r\n\r\n {"a":', "f:3:7"),
        ('{\n"a": 1}', "f:1:2"),
        ('  {"a": 1} x', "f:1:12"),
        ('\ufeff{"a": 1} x', "f:1:10"),
        ('\n\n   [{"a": 1}\n, x]', "f:4:3"),
        ('[{"a": 1},\n {"a" 2}]', "f:2:7"),
    ],
)
def test_broken_json_is_placed_where_it_breaks(text: str, place: str) -> None:
    with pytest.raises(DataError, match="broken JSON") as caught:
        rows(text)
    assert caught.value.problems[0].where == place


@pytest.mark.parametrize("blanks", [" " * 63, " " * 64, "\n" * 9000, "\ufeff" + "\t\r\n" * 100])
def test_an_array_after_blanks_is_an_array(blanks: str) -> None:
    assert [(dict(row), row.where) for row in rows(blanks + '[{"a": 1},\n{"a": 2}]')] == [
        ({"a": 1}, "f#1"), ({"a": 2}, "f#2")
    ]  # fmt: skip
    (row,) = rows(blanks + '{"a": 1}')
    assert row.where == f"f:{blanks.count(chr(10)) + 1}"


@pytest.mark.parametrize("form", ["{}\n{}", "[{},\n{}]"])
def test_a_duplicate_key_is_remembered_with_its_row(form: str) -> None:
    twice = '{"b": [{"c": 1, "d": 2, "c": 3}], "e": 1, "e": 2}'
    first, second = rows(form.replace("{}", twice, 1).replace("{}", '{"c": {"e": 1}, "e": 2}'))
    assert (first["b"][0]["c"], first.repeated, second.repeated) == (3, ("c", "e"), ())


def test_a_repeated_key_is_remembered_once_if_an_array_is_read_in_pieces() -> None:
    record = json.dumps({"text": "x" * (objects.PIECE * 2)})
    (row,) = rows("[" + record.replace('{"text"', '{"a": {"k": 1, "k": 2}, "text"') + "]")
    assert row.repeated == ("k",)
