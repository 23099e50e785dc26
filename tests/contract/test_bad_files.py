"""Bad files of every kind but JSON, packed ones, slices and saved datasets: one answer with place and what to do."""

from __future__ import annotations

import gzip
import io
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.contract.bad import Case, judge
from tests.contract.test_bad_data import BASE, file, lines, rows


def table(content: bytes, place: str, said: str, help: str | None = None, name: str = "bad.csv", **more: Any) -> Case:
    return rows(content, "completion", place, said, help, name, **more)


def stream(whole: bool = True) -> bytes:
    """An Arrow stream of two batches; not whole, it ends after the first."""
    batch, sink = pa.record_batch({"text": ["a", "b"]}), io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
        length = sink.tell()
        writer.write_batch(batch)
    return sink.getvalue() if whole else sink.getvalue()[:length]


MANY = lines(*[{"text": f"text {i} {i * 7919}"} for i in range(99)])
TABLES = {
    "too many fields": table(b"text,id\na,1\n\nb,2,3\n", "data/bad.csv:4", "has 3 fields, and the header 2: text", ""),
    "too few fields": table(b'text,id\n"a\nb",1\nb\n', "data/bad.csv:4", "has 1 fields, and the header 2", "in quotes"),
    "quote not closed": table(b'text\na\n"b\nc\n', "data/bad.csv:3", "opened in this row and never closed", "quotes"),
    "quote in a value": table(b'text\n"a"b"\n', "data/bad.csv:2", "broken CSV: ',' expected after '\"'", "doubled"),
    "bare carriage return": table(b"text\ra\r", "data/bad.csv:1", "a bare carriage return", "in quotes"),
    "header empty": table(b"\na\n", "data/bad.csv:1", "the header is empty", "the first line names the columns"),
    "column without a name": table(b",text\n0,a\n", "data/bad.csv:1", "column 1 of the header has", "index=False"),
    "column twice": table(b"text,text\na,b\n", "data/bad.csv:1", "two columns of the header are called 'text'", "rena"),
    "header alone": table(b"text\n", "run.yaml:7:11", "./data/bad.csv has no rows"),
    "CSV of nothing": table(b"", "run.yaml:7:11", "./data/bad.csv has no rows"),
    "CSV in Latin-1": table(b"text\n\xfc\n", "data/bad.csv:2:1", "is not UTF-8: byte 0", "save the file as UTF-8"),
    "CSV in UTF-16": table("text\na".encode("utf-16"), "data/bad.csv:1:1", "is not UTF-8: byte 0", "as UTF-8"),
    "TSV with commas": table(b"text\tid\na,1\n", "data/bad.tsv:2", "has 1 fields, and the header 2", "", "bad.tsv"),
    "text in Latin-1": table(b"a\nb\xfc\n", "data/bad.txt:2:2", "is not UTF-8: byte 1", "as UTF-8", "bad.txt"),
    "text of spaces": table(b"\n  \n", "run.yaml:7:11", "./data/bad.txt has no rows", None, "bad.txt"),
    "gz cut off": table(
        gzip.compress(MANY)[:-20], "data/bad.jsonl.gz", "can't be unpacked as .gz from the start: ",
        "cut off", "bad.jsonl.gz",
    ),
    "no gz": table(b"text\na\n", "data/bad.csv.gz", "as .gz from the start: Not a gzipped", "", "bad.csv.gz"),
    "zst cut off": table(
        pa.compress(MANY, "zstd", asbytes=True)[:-5], "data/bad.jsonl.zst", "Truncated compressed stream", "cut off",
        "bad.jsonl.zst",
    ),
    "no zst": table(b"text\na\n", "data/bad.csv.zst", "as .zst from the start", "cut off", "bad.csv.zst"),
    "xz cut off": table(lzma.compress(MANY)[:-30], "data/bad.jsonl.xz", "as .xz", "cut off", "bad.jsonl.xz"),
    "packed table cut off": table(
        gzip.compress(stream())[:-9], "data/bad.arrow.gz", "can't be unpacked as .gz", "cut off", "bad.arrow.gz"
    ),
    "Arrow of nothing": table(b"", "data/bad.arrow", "can't be read as Arrow", "write the file again", "bad.arrow"),
    "Arrow cut off": table(stream()[:-99], "data/bad.arrow", "can't be read as Arrow", "ds_type", "bad.arrow"),
    "Arrow cut off between batches": table(
        stream(whole=False), "data/bad.arrow", "is cut off after a batch of rows", "copy or write it again", "bad.arrow"
    ),
    "parquet that is none, packed": table(
        gzip.compress(b"PAR1"), "data/bad.parquet.gz", "can't be read as parquet", "again", "bad.parquet.gz"
    ),
}  # fmt: skip


def split(value: str, said: str, help: str, **more: Any) -> Case:
    """A `split:` of six rows."""
    text = f"{BASE}datasets:\n  - path: ./data/text.jsonl\n    type: completion\n    split: @{value}\n"
    return Case(text, 3, said, help, **more)


SPLITS = {
    "of a file": split("test", "text.jsonl has no split 'test'", "it has train"),
    "no slice": split("'train[1]'", "split 'train[1]' is none of a file", "train[:10%]"),
    "several": split("train+test", "split 'train+test' is none of a file", "such as"),
    "more than all": split("'train[:110%]'", "has more than 100%", "such as"),
    "rows and percent": split("'train[2:50%]'", "counts in rows and in percent", "such as"),
    "nothing": split("'train[3:3]'", "ends where it begins", "such as"),
    "past the end": split("'train[4:9]'", "ends after the rows, which are 6", "shorter", command="preprocess"),
    "after the end": split("'train[9:]'", "ends after the rows, which are 6", "shorter", command="preprocess"),
    "before the start": split("'train[-9:]'", "train[-9:] of 6 rows is none", "within", command="preprocess"),
    "less than a row": split("'train[:1%]'", "train[:1%] of 6 rows is none", "has one", command="preprocess"),
    "of a folder": file(
        "parts", "parts has no split 'test'", "it has train, validation", keys="    split: @test\n",
        files={"parts/train.jsonl": lines({"text": "a"}), "parts/dev.jsonl": lines({"text": "a"})},
    ),
    "of a saved dataset": file(
        "saved", "saved has no split 'train'", "it has a, b: write split: a",
        files={"saved/dataset_dict.json": '{"splits": ["a", "b"]}'},
    ),
}  # fmt: skip
SAVED = {
    "state no JSON": ('{"_data_files": ', "state.json is no JSON"),
    "no files named": ("{}", "state.json names no files"),
    "file missing": ('{"_data_files": [{"filename": "data.arrow"}]}', "data.arrow is missing"),
    "file elsewhere": ('{"_data_files": [{"filename": "../x.arrow"}]}', "'../x.arrow' is not the name of a file in it"),
}
SAVED_CASES = {
    name: file("saved", said, "save or copy it again", place="saved", files={
        "saved/state.json": state, "saved/dataset_info.json": "{}",
    })
    for name, (state, said) in SAVED.items()
}  # fmt: skip
CASES = {
    f"{group}: {name}": case
    for group, cases in {"table": TABLES, "split": SPLITS, "saved": SAVED_CASES}.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_is_answered_with_file_and_line(name: str, project: Path) -> None:
    judge(CASES[name], project)
