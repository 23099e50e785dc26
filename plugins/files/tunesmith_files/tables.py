"""Rows of parquet and Arrow files, in small batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tunesmith import DataError, Row
from tunesmith_files.packed import File, opened, seekable

BATCH = 1000
"""Rows that are Python objects at a time."""
MAGIC = b"ARROW1\0\0"
END = b"\xff\xff\xff\xff\0\0\0\0"
"""How a file of Arrow's file format begins, and how every stream of it ends."""


def parquet_rows(file: File, packing: str | None, start: int = 0) -> Iterator[Row]:
    """Rows from `start` on; groups of rows before it are not read."""
    with _table(file, packing) as table:
        number, groups = 0, list(range(table.num_row_groups))
        while groups and number + table.metadata.row_group(groups[0]).num_rows <= start:
            number += table.metadata.row_group(groups.pop(0)).num_rows
        yield from _rows(table.iter_batches(BATCH, row_groups=groups), file.label, number, start)


def parquet_count(file: File, packing: str | None) -> int:
    """The number of rows, by the end of the file alone."""
    with _table(file, packing) as table:
        return int(table.metadata.num_rows)


def arrow_rows(file: File, packing: str | None, start: int = 0) -> Iterator[Row]:
    """Rows from `start` on of a file of either format: the one for files is a stream with an index after it."""
    with _told(file, "Arrow", code="broken-arrow"), opened(file, packing) as raw:
        yield from _rows(_batches(raw, file.label), file.label, 0, start)


def arrow_count(file: File, packing: str | None) -> int:
    """The number of rows, none of which is made an object."""
    with _told(file, "Arrow", code="broken-arrow"), opened(file, packing) as raw:
        return sum(batch.num_rows for batch in _batches(raw, file.label))


@contextlib.contextmanager
def _table(file: File, packing: str | None) -> Iterator[Any]:
    from pyarrow import parquet

    with _told(file, "parquet", code="broken-parquet"), seekable(file, packing) as stream:
        table = parquet.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)  # pages, not whole columns
        with table:
            yield table


@contextlib.contextmanager
def _told(file: File, kind: str, code: str) -> Iterator[None]:
    """What pyarrow raises as an error of the file; an error of the disk stays what it is."""
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ValueError, ArrowException) as error:
        if getattr(error, "errno", None):
            raise
        message, help = f"can't be read as {kind}: {error}", "write the file again; or ds_type says what else it is"
        raise DataError(message, where=file.label, code=code, help=help) from error


def _batches(raw: Any, label: str) -> Iterator[Any]:
    from pyarrow import ipc

    if raw.peek(len(MAGIC)).startswith(MAGIC):
        raw.read(len(MAGIC))
    stream = _Watched(raw)
    yield from ipc.open_stream(stream)
    if stream.last != END:  # arrow takes a stream that ends between two batches for a whole one
        message, help = "is cut off after a batch of rows", "copy or write it again"
        raise DataError(message, where=label, code="broken-arrow", help=help)


class _Watched:
    """A stream that remembers the last bytes which were read of it."""

    closed = False

    def __init__(self, raw: Any):
        self.raw, self.last = raw, b""

    def read(self, size: int = -1) -> bytes:
        found: bytes = self.raw.read(size)
        self.last = (self.last + found)[-len(END) :] if len(found) < len(END) else found[-len(END) :]
        return found

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def _rows(batches: Iterator[Any], label: str, number: int, start: int) -> Iterator[Row]:
    """Rows of batches of which the first begins with row `number`, from row `start` on."""
    for batch in batches:
        for first in range(max(start - number, 0), batch.num_rows, BATCH):
            for offset, record in enumerate(batch.slice(first, BATCH).to_pylist(), number + first):
                yield Row(record, f"{label}[{offset}]")
        number += batch.num_rows
