"""Lines of a stream, of bounded length, as text."""

from __future__ import annotations

import io
from collections.abc import Iterator

from tunesmith import DataError

LIMIT = 64 << 20
"""Bytes that one row may have."""


def lines(stream: io.BufferedReader, label: str) -> Iterator[tuple[int, bytes]]:
    """Each line with its number, from 1. Raises DataError for one without an end."""
    number = 0
    while line := stream.readline(LIMIT + 1):
        number += 1
        if len(line) > LIMIT:
            raise too_long(f"{label}:{number}", "a line")
        yield number, line


def too_long(
    where: str, what: str, help: str = "is it what its name says, and not something that was packed?"
) -> DataError:
    return DataError(f"{what} of more than {LIMIT >> 20} MiB", where=where, code="broken-text", help=help)


def decode(line: bytes, label: str, number: int) -> str:
    """A line as text, without the byte order mark of the first. Raises DataError if it is no UTF-8."""
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(f"{label}:{number}:{error.start + 1}", error.start) from error


def not_utf8(where: str, byte: int) -> DataError:
    return DataError(f"is not UTF-8: byte {byte}", where=where, code="broken-text", help="save the file as UTF-8")
