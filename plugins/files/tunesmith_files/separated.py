"""Rows of CSV and TSV files: the first line names the columns, every value is text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from tunesmith import DataError, Row
from tunesmith_files.lines import LIMIT, decode, lines, too_long

HELP = 'a value with a separator, a quote or a line end stands in quotes, and a quote in it is doubled: "so ""called"""'


class _Lines:
    """Lines for the csv module, which asks for more of them while a quote is open: a row stays bounded."""

    def __init__(self, stream: io.BufferedReader, label: str):
        self.lines, self.label = lines(stream, label), label
        self.number, self.first, self.size = 0, 1, 0

    def begin(self) -> str:
        """Before the next row; the place where it begins."""
        self.first, self.size = self.number + 1, 0
        return f"{self.label}:{self.first}"

    def __iter__(self) -> Iterator[str]:
        for number, line in self.lines:
            self.number = number
            self.size += len(line)
            if self.size > LIMIT:
                raise too_long(f"{self.label}:{self.first}", "a row", "a quote is opened in it and never closed")
            yield decode(line, self.label, self.number)


def rows(stream: io.BufferedReader, label: str, delimiter: str) -> Iterator[Row]:
    """Rows of the file; empty lines between them are passed over. Raises DataError."""
    csv.field_size_limit(max(csv.field_size_limit(), 2 * LIMIT))  # the module's own is 128 kB, for every reader
    source = _Lines(stream, label)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        where = source.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _broken(error, where) from error
        if header is None:
            header = _header(fields, where)
        elif len(fields) == len(header):
            yield Row(dict(zip(header, fields, strict=True)), where)
        elif fields:
            message = f"has {len(fields)} fields, and the header {len(header)}: {', '.join(header)[:200]}"
            raise DataError(message, where=where, code="broken-csv", help=HELP)


def _header(fields: list[str], where: str) -> list[str]:
    message = help = None
    if not any(fields):
        message, help = "the header is empty", "the first line names the columns"
    elif "" in fields:
        message = f"column {fields.index('') + 1} of the header has no name"
        help = "name it; or leave it out, in pandas by to_csv(index=False)"
    elif len(set(fields)) < len(fields):
        twice = next(name for name in fields if fields.count(name) > 1)
        message, help = f"two columns of the header are called {twice!r}", "rename one"
    if message:
        raise DataError(message, where=where, code="broken-csv", help=help)
    return fields


def _broken(error: csv.Error, where: str) -> DataError:
    said = str(error)
    if "unexpected end of data" in said:
        said = "a quote is opened in this row and never closed"
    elif "new-line character" in said:
        said = "a line ends with a bare carriage return"
    return DataError(f"broken CSV: {said}", where=where, code="broken-csv", help=HELP)
