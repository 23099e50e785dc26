"""Bad tables, texts, compressed files, splits and saved datasets are reported once, with place and advice."""

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


def table(
    content: bytes, place: str, message: str, help: str | None = None, name: str = "bad.csv", **more: Any
) -> Case:
    return rows(content, "completion", place, message, help, name, **more)


def stream(complete: bool = True) -> bytes:
    """Return an Arrow stream of two batches; without `complete`, it ends after the first one."""
    batch, sink = pa.record_batch({"text": ["a", "b"]}), io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
        length = sink.tell()
        writer.write_batch(batch)
    return sink.getvalue() if complete else sink.getvalue()[:length]


MANY = lines(*[{"text": f"text {i} {i * 7919}"} for i in range(99)])
TABLES = {
    "too many fields": table(
        b"text,id\na,1\n\nb,2,3\n", "data/bad.csv:4", "has 3 fields, but the header has 2: text", ""
    ),
    "too few fields": table(
        b'text,id\n"a\nb",1\nb\n', "data/bad.csv:4", "has 1 fields, but the header has 2", "in quotes"
    ),
    "quote not closed": table(
        b'text\na\n"b\nc\n', "data/bad.csv:3", "a quote that opens in this row is never closed", "quotes"
    ),
    "quote in a value": table(b'text\n"a"b"\n', "data/bad.csv:2", "broken CSV: ',' expected after '\"'", "double each"),
    "bare carriage return": table(b"text\ra\r", "data/bad.csv:1", "a carriage return alone", "in quotes"),
    "header empty": table(b"\na\n", "data/bad.csv:1", "the header is empty", "name the columns in the first line"),
    "column without a name": table(b",text\n0,a\n", "data/bad.csv:1", "column 1 of the header has", "index=False"),
    "duplicate column": table(
        b"text,text\na,b\n", "data/bad.csv:1", "duplicate column 'text' in the header", "rena"
    ),
    "header without rows": table(b"text\n", "run.yaml:7:11", "./data/bad.csv has no rows"),
    "empty CSV": table(b"", "run.yaml:7:11", "./data/bad.csv has no rows"),
    "CSV in Latin-1": table(b"text\n\xfc\n", "data/bad.csv:2:1", "is not UTF-8: byte 0", "save the file as UTF-8"),
    "CSV in UTF-16": table("text\na".encode("utf-16"), "data/bad.csv:1:1", "is not UTF-8: byte 0", "as UTF-8"),
    "TSV with commas": table(b"text\tid\na,1\n", "data/bad.tsv:2", "has 1 fields, but the header has 2", "", "bad.tsv"),
    "text in Latin-1": table(b"a\nb\xfc\n", "data/bad.txt:2:2", "is not UTF-8: byte 1", "as UTF-8", "bad.txt"),
    "text of spaces": table(b"\n  \n", "run.yaml:7:11", "./data/bad.txt has no rows", None, "bad.txt"),
    "gz cut off": table(
        gzip.compress(MANY)[:-20], "data/bad.jsonl.gz", "can't be decompressed as .gz from the start: ",
        "cut off", "bad.jsonl.gz",
    ),
    "not gz": table(b"text\na\n", "data/bad.csv.gz", "as .gz from the start: Not a gzipped", "", "bad.csv.gz"),
    "zst cut off": table(
        pa.compress(MANY, "zstd", asbytes=True)[:-5], "data/bad.jsonl.zst", "Truncated compressed stream", "cut off",
        "bad.jsonl.zst",
    ),
    "not zst": table(b"text\na\n", "data/bad.csv.zst", "as .zst from the start", "cut off", "bad.csv.zst"),
    "xz cut off": table(lzma.compress(MANY)[:-30], "data/bad.jsonl.xz", "as .xz", "cut off", "bad.jsonl.xz"),
    "compressed table cut off": table(
        gzip.compress(stream())[:-9], "data/bad.arrow.gz", "can't be decompressed as .gz", "cut off", "bad.arrow.gz"
    ),
    "empty Arrow file": table(b"", "data/bad.arrow", "can't be read as Arrow", "write the file again", "bad.arrow"),
    "Arrow cut off": table(stream()[:-99], "data/bad.arrow", "can't be read as Arrow", "ds_type", "bad.arrow"),
    "Arrow cut off between batches": table(
        stream(complete=False), "data/bad.arrow", "is cut off after a batch of rows", "copy or write it again",
        "bad.arrow",
    ),
    "not parquet, compressed": table(
        gzip.compress(b"PAR1"), "data/bad.parquet.gz", "can't be read as parquet", "again", "bad.parquet.gz"
    ),
}  # fmt: skip


def split(value: str, message: str, help: str, **more: Any) -> Case:
    """Return the case of a bad `split:` of a file with six rows."""
    text = f"{BASE}datasets:\n  - path: ./data/text.jsonl\n    type: completion\n    split: @{value}\n"
    return Case(text, 3, message, help, **more)


SPLITS = {
    "of a file": split("test", "text.jsonl has no split 'test'", "it has train"),
    "not a slice": split("'train[1]'", "split 'train[1]' is not valid for files", "train[:10%]"),
    "several splits": split("train+test", "split 'train+test' is not valid for files", "write, for example"),
    "more than 100 percent": split("'train[:110%]'", "has more than 100%", "write, for example"),
    "rows and percent": split("'train[2:50%]'", "mixes rows and percent", "write, for example"),
    "empty slice": split("'train[3:3]'", "ends where it begins", "write, for example"),
    "past the end": split("'train[4:9]'", "ends after the last of 6 rows", "shorter", command="preprocess"),
    "after the end": split("'train[9:]'", "ends after the last of 6 rows", "shorter", command="preprocess"),
    "before the start": split(
        "'train[-9:]'", "train[-9:] is empty or outside the 6 rows", "within", command="preprocess"
    ),
    "less than a row": split(
        "'train[:1%]'", "train[:1%] is empty or outside the 6 rows", "at least one", command="preprocess"
    ),
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
    "state not JSON": ('{"_data_files": ', "state.json is not valid JSON"),
    "no files named": ("{}", "state.json lists no files"),
    "file missing": ('{"_data_files": [{"filename": "data.arrow"}]}', "data.arrow is missing"),
    "file elsewhere": (
        '{"_data_files": [{"filename": "../x.arrow"}]}',
        "'../x.arrow' is not the name of a file in the folder",
    ),
}
SAVED_CASES = {
    name: file("saved", message, "save or copy it again", place="saved", files={
        "saved/state.json": state, "saved/dataset_info.json": "{}",
    })
    for name, (state, message) in SAVED.items()
}  # fmt: skip
CASES = {
    f"{group}: {name}": case
    for group, cases in {"table": TABLES, "split": SPLITS, "saved": SAVED_CASES}.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_bad_file_is_reported_with_file_and_line(name: str, project: Path) -> None:
    judge(CASES[name], project)
