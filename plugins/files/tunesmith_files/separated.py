"""Read rows of CSV and TSV files. The first line names the columns, and every value is text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from tunesmith import DataError, Row
from tunesmith_files.lines import LIMIT, decode, lines, too_long

HELP = 'put a value with a separator, a quote or a line end in quotes, and double each quote in it: "so ""called"""'


class _Lines:
    """Lines for the csv module, which reads more of them while a quote is open. Limits the size of a row."""

    def __init__(self, stream: io.BufferedReader, label: str):
        self.lines, self.label = lines(stream, label), label
        self.number, self.first, self.size = 0, 1, 0

    def begin(self) -> str:
        """Start the next row, and return its place."""
        self.first, self.size = self.number + 1, 0
        return f"{self.label}:{self.first}"

    def __iter__(self) -> Iterator[str]:
        for number, line in self.lines:
            self.number = number
            self.size += len(line)
            if self.size > LIMIT:
                raise too_long(f"{self.label}:{self.first}", "a row", "close the quote that opens in this row")
            yield decode(line, self.label, self.number)


def rows(stream: io.BufferedReader, label: str, delimiter: str) -> Iterator[Row]:
    """Yield the rows of a file. Empty lines are skipped. Raise DataError."""
    csv.field_size_limit(max(csv.field_size_limit(), 2 * LIMIT))  # of all readers; the default is 128 kB
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
            message = f"has {len(fields)} fields, but the header has {len(header)}: {', '.join(header)[:200]}"
            raise DataError(message, where=where, code="broken-csv", help=HELP)


def _header(fields: list[str], where: str) -> list[str]:
    message = help = None
    if not any(fields):
        message, help = "the header is empty", "name the columns in the first line"
    elif "" in fields:
        message = f"column {fields.index('') + 1} of the header has no name"
        help = "name it; or leave it out, in pandas with to_csv(index=False)"
    elif len(set(fields)) < len(fields):
        duplicate = next(name for name in fields if fields.count(name) > 1)
        message, help = f"duplicate column {duplicate!r} in the header", "rename one of them"
    if message:
        raise DataError(message, where=where, code="broken-csv", help=help)
    return fields


def _broken(error: csv.Error, where: str) -> DataError:
    detail = str(error)
    if "unexpected end of data" in detail:
        detail = "a quote that opens in this row is never closed"
    elif "new-line character" in detail:
        detail = "a line ends with a carriage return alone"
    return DataError(f"broken CSV: {detail}", where=where, code="broken-csv", help=HELP)
