"""Read rows of parquet and Arrow files in small batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tunesmith import DataError, Row
from tunesmith_files.compression import File, opened, seekable

BATCH = 1000
"""Number of rows that are Python objects at a time."""
MAGIC = b"ARROW1\0\0"
END = b"\xff\xff\xff\xff\0\0\0\0"
"""The start of a file in Arrow's file format, and the end of every Arrow stream."""


def parquet_rows(file: File, compression: str | None, start: int = 0) -> Iterator[Row]:
    """Yield the rows from number `start` on. Earlier row groups are not read."""
    with _table(file, compression) as table:
        number, groups = 0, list(range(table.num_row_groups))
        while groups and number + table.metadata.row_group(groups[0]).num_rows <= start:
            number += table.metadata.row_group(groups.pop(0)).num_rows
        yield from _rows(table.iter_batches(BATCH, row_groups=groups), file.label, number, start)


def parquet_count(file: File, compression: str | None) -> int:
    """Return the number of rows, which is in the footer of the file."""
    with _table(file, compression) as table:
        return int(table.metadata.num_rows)


def arrow_rows(file: File, compression: str | None, start: int = 0) -> Iterator[Row]:
    """Yield the rows from number `start` on. Arrow's file format is read as its stream format followed by an index."""
    with _pyarrow_errors(file, "Arrow", code="broken-arrow"), opened(file, compression) as raw:
        yield from _rows(_batches(raw, file.label), file.label, 0, start)


def arrow_count(file: File, compression: str | None) -> int:
    """Return the number of rows without building them."""
    with _pyarrow_errors(file, "Arrow", code="broken-arrow"), opened(file, compression) as raw:
        return sum(batch.num_rows for batch in _batches(raw, file.label))


@contextlib.contextmanager
def _table(file: File, compression: str | None) -> Iterator[Any]:
    from pyarrow import parquet

    with _pyarrow_errors(file, "parquet", code="broken-parquet"), seekable(file, compression) as stream:
        table = parquet.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)  # reads pages, not columns
        with table:
            yield table


@contextlib.contextmanager
def _pyarrow_errors(file: File, kind: str, code: str) -> Iterator[None]:
    """Convert pyarrow's errors within the block to DataError. An error of the disk is not changed."""
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ValueError, ArrowException) as error:
        if getattr(error, "errno", None):
            raise
        message, help = f"can't be read as {kind}: {error}", "write the file again; or set ds_type to its real kind"
        raise DataError(message, where=file.label, code=code, help=help) from error


def _batches(raw: Any, label: str) -> Iterator[Any]:
    from pyarrow import ipc

    if raw.peek(len(MAGIC)).startswith(MAGIC):
        raw.read(len(MAGIC))
    stream = _TailStream(raw)
    yield from ipc.open_stream(stream)
    if stream.last != END:  # pyarrow accepts a stream that is cut off between two batches
        message, help = "is cut off after a batch of rows", "copy or write it again"
        raise DataError(message, where=label, code="broken-arrow", help=help)


class _TailStream:
    """A stream that remembers the last bytes that were read."""

    closed = False

    def __init__(self, raw: Any):
        self.raw, self.last = raw, b""

    def read(self, size: int = -1) -> bytes:
        piece: bytes = self.raw.read(size)
        self.last = (self.last + piece)[-len(END) :] if len(piece) < len(END) else piece[-len(END) :]
        return piece

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def _rows(batches: Iterator[Any], label: str, number: int, start: int) -> Iterator[Row]:
    """Yield the rows of batches from number `start` on. `number` is the number of the first batch's first row."""
    for batch in batches:
        for first in range(max(start - number, 0), batch.num_rows, BATCH):
            for offset, record in enumerate(batch.slice(first, BATCH).to_pylist(), number + first + 1):
                yield Row(record, f"{label}#{offset}", padded=True)
        number += batch.num_rows
