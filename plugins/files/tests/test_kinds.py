"""Every kind of file, packed in every way, gives the rows that were written, each with its place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunesmith_files import objects
from tunesmith_files.kinds import kind_of
from tunesmith_files.local import LocalFile
from tunesmith_files.rows import Data

from .conftest import Read
from .made import PACKERS, WRITERS

ROWS = [{"text": "one, two"}, {"text": 'so "called"'}, {"text": "Grüße 🎉"}, {"text": "a\tb"}, {"text": " end"}]
PLACES = {
    "a.jsonl": ":1 :2 :3 :4 :5", "a.ndjson": ":1 :2 :3 :4 :5", "a.csv": ":2 :3 :4 :5 :6", "a.tsv": ":2 :3 :4 :5 :6",
    "a.txt": ":1 :2 :3 :4 :5", "a.md": ":1 :2 :3 :4 :5", "a.json": "[0] [1] [2] [3] [4]",
    "a.parquet": "[0] [1] [2] [3] [4]", "a.arrow": "[0] [1] [2] [3] [4]", "a.file.arrow": "[0] [1] [2] [3] [4]",
}  # fmt: skip


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_its_rows_with_their_places(name: str, packing: str, tmp_path: Path, load: Read) -> None:
    path = tmp_path / f"{name}{packing}"
    path.write_bytes(PACKERS[packing](WRITERS[name](ROWS)))
    rows = load(path)
    for _ in range(2):  # it can be started again
        found = list(rows)
        assert [dict(row) for row in found] == ROWS
        assert [row.where for row in found] == [f"{path}{place}" for place in PLACES[name].split()]


def test_values_of_csv_are_text_and_nothing_is_guessed(tmp_path: Path, load: Read) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfa,b,c\r\n007,,"x\r\ny"\r\n\r\nnull,1.0,\r\n')
    found = list(load(tmp_path / "a.csv"))
    assert found == [{"a": "007", "b": "", "c": "x\r\ny"}, {"a": "null", "b": "1.0", "c": ""}]
    assert [row.where[-2:] for row in found] == [":2", ":5"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_a_byte_order_mark_is_no_part_of_a_row(name: str, tmp_path: Path, load: Read) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + WRITERS[name](ROWS))
    assert list(load(tmp_path / name)) == ROWS


UNITS = {
    "line": [("one", ":1"), ("two ", ":2"), ("three", ":5")],
    "paragraph": [("one\ntwo ", ":1"), ("three", ":5")],
    "document": [("one\ntwo \n\n \nthree", "")],
}


@pytest.mark.parametrize("unit", UNITS)
def test_a_row_of_a_text_is_a_line_a_paragraph_or_the_document(unit: str, tmp_path: Path, load: Read) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"one\ntwo \n\n \nthree")
    found = list(load(path, sample_by=unit))
    assert [(row["text"], row.where) for row in found] == [(text, f"{path}{place}") for text, place in UNITS[unit]]


def test_ds_type_says_what_a_name_does_not(tmp_path: Path, load: Read) -> None:
    for kind, name in (("json", "a.jsonl"), ("csv", "a.csv"), ("parquet", "a.parquet"), ("arrow", "a.arrow")):
        (tmp_path / "data.bin").write_bytes(WRITERS[name](ROWS))
        assert list(load(tmp_path / "data.bin", ds_type=kind)) == ROWS


def test_a_file_url_is_a_path(tmp_path: Path, load: Read) -> None:
    (tmp_path / "with space.jsonl").write_bytes(WRITERS["a.jsonl"](ROWS))
    assert list(load((tmp_path / "with space.jsonl").as_uri())) == ROWS


def test_kinds_are_told_by_names_in_any_case() -> None:
    names = {"A.JSONL.GZ": "json", "a.b.Csv": "csv", "a.tsv.zst": "csv", "a.gz": None, "a": None, "a.json.zip": None}
    assert {name: kind_of(name) for name in names} == names


SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3))
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1).filter(
    lambda t: bool(t.strip()) and not t.startswith("\ufeff")
)
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r"))
NAMES = st.lists(st.text("abcä ,\"'\t", min_size=1), min_size=1, max_size=4, unique=True)
KNOWN = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reread(folder: Path, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    path = folder / name
    path.write_bytes(WRITERS[name](rows))
    return [dict(row) for row in Data(LocalFile(path), str(kind_of(name))).rows()]


@KNOWN
@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=4), min_size=1, max_size=6), st.integers(1, 40))
def test_any_json_rows_come_back(tmp_path: Path, rows: list[dict[str, Any]], piece: int) -> None:
    assert reread(tmp_path, "a.jsonl", rows) == rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "PIECE", piece)  # an array is cut anywhere
        assert reread(tmp_path, "a.json", rows) == rows


@KNOWN
@given(st.data(), NAMES, st.sampled_from(["a.csv", "a.tsv", "a.parquet", "a.arrow", "a.file.arrow"]))
def test_any_table_of_texts_comes_back(tmp_path: Path, data: st.DataObject, names: list[str], name: str) -> None:
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(names, CELL)), min_size=1, max_size=5))
    assert reread(tmp_path, name, rows) == rows


@KNOWN
@given(st.lists(LINE, min_size=1))
def test_any_lines_come_back(tmp_path: Path, texts: list[str]) -> None:
    assert reread(tmp_path, "a.txt", [{"text": text} for text in texts]) == [{"text": text} for text in texts]


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.none()


@KNOWN
@given(st.lists(st.fixed_dictionaries({"n": NUMBERS, "x": st.floats(allow_nan=False)}), min_size=1))
def test_numbers_of_tables_come_back(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    for name in ("a.parquet", "a.arrow"):
        found = reread(tmp_path, name, rows)
        assert found == rows
        assert all(math.copysign(1, a["x"]) == math.copysign(1, b["x"]) for a, b in zip(found, rows, strict=True))


@KNOWN
@given(st.binary(max_size=300), st.sampled_from([*WRITERS, *(f"a.jsonl{p}" for p in PACKERS)]))
def test_any_bytes_are_rows_or_one_error_with_a_place(tmp_path: Path, content: bytes, name: str) -> None:
    from tunesmith import DataError

    path = tmp_path / name
    path.write_bytes(content)
    try:
        assert all(row.where.startswith(str(path)) for row in Data(LocalFile(path), str(kind_of(name))).rows())
    except DataError as error:
        assert all(str(problem.where).startswith(str(path)) for problem in error.problems)
