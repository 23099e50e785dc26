"""Every kind of file in every compression gives the rows that were written, each with its place."""

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
from .writers import COMPRESSORS, WRITERS

ROWS = [{"text": "one, two"}, {"text": 'so "called"'}, {"text": "Grüße 🎉"}, {"text": "a\tb"}, {"text": " end"}]
PLACES = {
    "a.jsonl": ":1 :2 :3 :4 :5", "a.ndjson": ":1 :2 :3 :4 :5", "a.csv": ":2 :3 :4 :5 :6", "a.tsv": ":2 :3 :4 :5 :6",
    "a.txt": ":1 :2 :3 :4 :5", "a.md": ":1 :2 :3 :4 :5", "a.json": "#1 #2 #3 #4 #5",
    "a.parquet": "#1 #2 #3 #4 #5", "a.arrow": "#1 #2 #3 #4 #5", "a.file.arrow": "#1 #2 #3 #4 #5",
}  # fmt: skip


@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_its_rows_and_their_places(name: str, compression: str, tmp_path: Path, load: Read) -> None:
    path = tmp_path / f"{name}{compression}"
    path.write_bytes(COMPRESSORS[compression](WRITERS[name](ROWS)))
    rows = load(path)
    for _ in range(2):  # the rows can be iterated again
        read = list(rows)
        assert [dict(row) for row in read] == ROWS
        assert [row.where for row in read] == [f"{path}{place}" for place in PLACES[name].split()]


def test_csv_values_stay_text(tmp_path: Path, load: Read) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfa,b,c\r\n007,,"x\r\ny"\r\n\r\nnull,1.0,\r\n')
    rows = list(load(tmp_path / "a.csv"))
    assert rows == [{"a": "007", "b": "", "c": "x\r\ny"}, {"a": "null", "b": "1.0", "c": ""}]
    assert [row.where[-2:] for row in rows] == [":2", ":5"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_byte_order_mark_is_skipped(name: str, tmp_path: Path, load: Read) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + WRITERS[name](ROWS))
    assert list(load(tmp_path / name)) == ROWS


UNITS = {
    "line": [("one", ":1"), ("two ", ":2"), ("three", ":5")],
    "paragraph": [("one\ntwo ", ":1"), ("three", ":5")],
    "document": [("one\ntwo \n\n \nthree", "")],
}


@pytest.mark.parametrize("unit", UNITS)
def test_sample_by_gives_lines_paragraphs_or_the_document(unit: str, tmp_path: Path, load: Read) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"one\ntwo \n\n \nthree")
    rows = list(load(path, sample_by=unit))
    assert [(row["text"], row.where) for row in rows] == [(text, f"{path}{place}") for text, place in UNITS[unit]]


def test_ds_type_sets_the_kind(tmp_path: Path, load: Read) -> None:
    for kind, name in (("json", "a.jsonl"), ("csv", "a.csv"), ("parquet", "a.parquet"), ("arrow", "a.arrow")):
        (tmp_path / "data.bin").write_bytes(WRITERS[name](ROWS))
        assert list(load(tmp_path / "data.bin", ds_type=kind)) == ROWS


def test_file_url_is_read_as_a_path(tmp_path: Path, load: Read) -> None:
    (tmp_path / "with space.jsonl").write_bytes(WRITERS["a.jsonl"](ROWS))
    assert list(load((tmp_path / "with space.jsonl").as_uri())) == ROWS


def test_names_show_the_kind_in_any_case() -> None:
    names = {"A.JSONL.GZ": "json", "a.b.Csv": "csv", "a.tsv.zst": "csv", "a.gz": None, "a": None, "a.json.zip": None}
    assert {name: kind_of(name) for name in names} == names


SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3))
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1).filter(
    lambda t: bool(t.strip()) and not t.startswith("\ufeff")
)
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r"))
NAMES = st.lists(st.text("abcä ,\"'\t", min_size=1), min_size=1, max_size=4, unique=True)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reread(folder: Path, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    path = folder / name
    path.write_bytes(WRITERS[name](rows))
    return [dict(row) for row in Data(LocalFile(path), str(kind_of(name))).rows()]


@FUZZ
@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=4), min_size=1, max_size=6), st.integers(1, 40))
def test_any_json_rows_are_read_back(tmp_path: Path, rows: list[dict[str, Any]], piece: int) -> None:
    assert reread(tmp_path, "a.jsonl", rows) == rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "PIECE", piece)  # pieces may end anywhere in the array
        assert reread(tmp_path, "a.json", rows) == rows


@FUZZ
@given(st.data(), NAMES, st.sampled_from(["a.csv", "a.tsv", "a.parquet", "a.arrow", "a.file.arrow"]))
def test_any_table_of_texts_is_read_back(tmp_path: Path, data: st.DataObject, names: list[str], name: str) -> None:
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(names, CELL)), min_size=1, max_size=5))
    assert reread(tmp_path, name, rows) == rows


@FUZZ
@given(st.lists(LINE, min_size=1))
def test_any_lines_are_read_back(tmp_path: Path, texts: list[str]) -> None:
    assert reread(tmp_path, "a.txt", [{"text": text} for text in texts]) == [{"text": text} for text in texts]


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.none()


@FUZZ
@given(st.lists(st.fixed_dictionaries({"n": NUMBERS, "x": st.floats(allow_nan=False)}), min_size=1))
def test_numbers_in_tables_are_read_back(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    for name in ("a.parquet", "a.arrow"):
        read = reread(tmp_path, name, rows)
        assert read == rows
        assert all(math.copysign(1, a["x"]) == math.copysign(1, b["x"]) for a, b in zip(read, rows, strict=True))


@FUZZ
@given(st.binary(max_size=300), st.sampled_from([*WRITERS, *(f"a.jsonl{p}" for p in COMPRESSORS)]))
def test_any_bytes_give_rows_or_one_error_with_a_place(tmp_path: Path, content: bytes, name: str) -> None:
    from tunesmith import DataError

    path = tmp_path / name
    path.write_bytes(content)
    try:
        assert all(row.where.startswith(str(path)) for row in Data(LocalFile(path), str(kind_of(name))).rows())
    except DataError as error:
        assert all(str(problem.where).startswith(str(path)) for problem in error.problems)
