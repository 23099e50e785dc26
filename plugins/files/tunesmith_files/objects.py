"""Rows of JSON files: one object on each line, or one array of objects, read element by element."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any

from tunesmith import DataError, Row
from tunesmith_files.lines import LIMIT, lines, too_long

HELP = "each line is one JSON object; a file that begins with [ is one array of them"
PIECE = 1 << 20
"""Bytes of an array that are read at a time."""
CERTAIN = 32
"""Characters before the end of what is read of an array, from where on an error may be for want of the rest."""


def rows(stream: io.BufferedReader, label: str) -> Iterator[Row]:
    """Rows of either form, told apart by the first character. Raises DataError with line and column."""
    start = stream.peek(64)[:64].removeprefix(codecs.BOM_UTF8).lstrip()
    if start.startswith(b"["):
        for number, record in enumerate(_Array(stream, label)):
            yield _row(record, f"{label}[{number}]")
        return
    for number, line in lines(stream, label):
        if line.strip():
            yield _row(_parse(line, label, number), f"{label}:{number}")


def _row(record: Any, where: str) -> Row:
    if not isinstance(record, dict):
        message, help = f"a row has to be a JSON object, not {type(record).__name__}", 'such as {"text": "..."}'
        raise DataError(message, where=where, code="broken-json", help=help)
    return Row(record, where)


def _parse(line: bytes, label: str, number: int) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except json.JSONDecodeError as error:
        raise _broken(f"{label}:{number}:{error.colno}", error.msg) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{label}:{number}:{error.start + 1}", error.start) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise _broken(f"{label}:{number}", str(error)) from error


def _broken(where: str, what: str) -> DataError:
    return DataError(f"broken JSON: {what}", where=where, code="broken-json", help=HELP)


def _not_utf8(where: str, byte: int) -> DataError:
    return DataError(f"is not UTF-8: byte {byte}", where=where, code="broken-json", help="save the file as UTF-8")


class _Array:
    """The elements of a JSON array, parsed while it is read; what was given is forgotten."""

    def __init__(self, stream: io.BufferedReader, label: str):
        self.stream, self.label = stream, label
        self.utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.ended = "", 0, False
        self.line, self.column, self.read = 1, 1, 0  # of the text's first character; bytes before its end

    def __iter__(self) -> Iterator[Any]:
        decoder = json.JSONDecoder()
        self.next_mark("[")
        if self.mark() == "]":
            self.at += 1
        else:
            while True:
                self.mark()
                yield self.element(decoder)
                if self.next_mark(",]") == "]":
                    break
        if self.mark():
            raise _broken(self.place(self.at), "something follows the array")

    def element(self, decoder: json.JSONDecoder) -> Any:
        """The element at the present place, for which more is read until it is whole."""
        size = PIECE
        while True:
            try:
                value, self.at = decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string") or error.pos + CERTAIN > len(self.text)
                if self.ended or not unfinished:
                    raise _broken(self.place(error.pos), error.msg) from error
                if len(self.text) - self.at > LIMIT:
                    raise too_long(self.place(self.at), "an element") from error
                self.more(size)
                size *= 2
            except (ValueError, RecursionError) as error:
                raise _broken(f"{self.label}:{self.place(self.at).split(':')[-2]}", str(error)) from error
            else:
                return value

    def mark(self) -> str:
        """The next character that is no space; none at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more(PIECE)

    def next_mark(self, wanted: str) -> str:
        """Step over a character that has to be there."""
        found = self.mark()
        if not found or found not in wanted:
            what = "the array is not closed" if not found else f"expecting {' or '.join(map(repr, wanted))}"
            raise _broken(self.place(self.at), what)
        self.at += 1
        return found

    def more(self, size: int) -> None:
        """Read on, and forget what stands before the present place."""
        piece = self.stream.read(size)
        self.line, self.column = self._line_and_column(self.at)
        self.text, self.at = self.text[self.at :], 0
        try:
            self.text += self.utf8.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            self.text += error.object[: error.start].decode()
            byte = self.read + len(piece) - len(error.object) + error.start
            raise _not_utf8(self.place(len(self.text)), byte) from error
        self.read += len(piece)
        self.ended = not piece

    def _line_and_column(self, index: int) -> tuple[int, int]:
        before = self.text.count("\n", 0, index)
        if not before:
            return self.line, self.column + index
        return self.line + before, index - self.text.rfind("\n", 0, index)

    def place(self, index: int) -> str:
        line, column = self._line_and_column(index)
        return f"{self.label}:{line}:{column}"
