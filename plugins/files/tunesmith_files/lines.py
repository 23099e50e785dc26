"""Read lines of bounded length from a stream, and decode them."""

from __future__ import annotations

import io
from collections.abc import Iterator

from tunesmith import DataError

LIMIT = 64 << 20
"""Limit on the bytes of one row: 64 MiB."""


def lines(stream: io.BufferedReader, label: str, number: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number, counted from 1. Raise DataError for a line longer than LIMIT.

    number: the number of lines that were read before.
    """
    while line := stream.readline(LIMIT + 1):
        number += 1
        if len(line) > LIMIT:
            raise too_long(f"{label}:{number}", "a line")
        yield number, line


def too_long(where: str, what: str, help: str = "check that the file has the format of its name") -> DataError:
    """Return the error for a line, element, paragraph, row or document longer than LIMIT."""
    return DataError(f"{what} of more than {LIMIT >> 20} MiB", where=where, code="broken-text", help=help)


def decode(line: bytes, label: str, number: int) -> str:
    """Return a line as text, without the byte order mark of line 1. Raise DataError if it is not UTF-8."""
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        where = f"{label}:{number}:{error.start + 1}"
        message, help = f"is not UTF-8: byte {error.start}", "save the file as UTF-8"
        raise DataError(message, where=where, code="broken-text", help=help) from error
