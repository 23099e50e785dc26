"""Write rows in every kind of file and compression, with other libraries than those that read them."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyarrow import ipc, parquet

Records = list[dict[str, Any]]


def json_lines(rows: Records) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def json_array(rows: Records) -> bytes:
    return json.dumps(rows, indent=1, ensure_ascii=False).encode()


def separated(delimiter: str) -> Callable[[Records], bytes]:
    def write(rows: Records) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    return write


def as_parquet(rows: Records) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), sink, row_group_size=2)
    return sink.getvalue()


def as_arrow(new: Callable[..., Any]) -> Callable[[Records], bytes]:
    def write(rows: Records) -> bytes:
        sink, table = io.BytesIO(), pa.Table.from_pylist(rows)
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        return sink.getvalue()

    return write


def as_text(rows: Records) -> bytes:
    return "".join(f"{row['text']}\n" for row in rows).encode()


WRITERS: dict[str, Callable[[Records], bytes]] = {  # name of the file -> its content
    "a.jsonl": json_lines, "a.json": json_array, "a.ndjson": json_lines, "a.csv": separated(","),
    "a.tsv": separated("\t"), "a.parquet": as_parquet, "a.arrow": as_arrow(ipc.new_stream),
    "a.file.arrow": as_arrow(ipc.new_file), "a.txt": as_text, "a.md": as_text,
}  # fmt: skip
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}  # fmt: skip
