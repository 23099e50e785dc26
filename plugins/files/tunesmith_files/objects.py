"""Read rows of JSON files: one object per line, or one array of objects that is parsed element by element."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any

from tunesmith import DataError, Row
from tunesmith_files.lines import LIMIT, lines, too_long

HELP = "write one JSON object per line, or one array of objects that begins with ["
PIECE = 1 << 20
"""Bytes of an array that are read at a time."""
MARGIN = 32
"""An error within so many characters of the end of the text may go away when more of the array is read."""


class _Decoder(json.JSONDecoder):
    """A decoder that collects the keys that an object has twice, of which json keeps the last.

    The hook costs 0.3 microseconds for each object, a quarter of the time to parse it.
    """

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self.repeated: list[str] = []

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            keys = [key for key, _ in pairs]
            self.repeated += [key for key in result if keys.count(key) > 1]
        return result


def rows(stream: io.BufferedReader, label: str) -> Iterator[Row]:
    """Yield the rows of either form, which the first character shows. Raise DataError with line and column.

    A row is numbered from 1: by its line, or by its place in the array.
    """
    line, column = _skip_blanks(stream, label)
    decoder = _Decoder()
    if stream.peek(1).startswith(b"["):
        for number, record in enumerate(_Array(stream, label, line, column, decoder), 1):
            yield _row(record, f"{label}#{number}", decoder)
        return
    for number, content in lines(stream, label, line - 1):
        if content.strip():
            yield _row(_parse(content, label, number, column, decoder), f"{label}:{number}", decoder)
        column = 1


def _skip_blanks(stream: io.BufferedReader, label: str) -> tuple[int, int]:
    """Read up to the first character that is neither a byte order mark nor a blank. Return its line and column."""
    if stream.peek(3).startswith(codecs.BOM_UTF8):
        stream.read(3)
    line, column, size = 1, 1, 0
    while piece := stream.peek(1):
        blanks = piece[: len(piece) - len(piece.lstrip(b" \t\r\n"))]
        stream.read(len(blanks))
        size += len(blanks)
        line += blanks.count(b"\n")
        column = len(blanks) - blanks.rfind(b"\n") if b"\n" in blanks else column + len(blanks)
        if size > LIMIT:
            raise too_long(f"{label}:{line}", "blank space")
        if len(blanks) < len(piece):
            break
    return line, column


def _row(record: Any, where: str, decoder: _Decoder) -> Row:
    repeated, decoder.repeated = tuple(dict.fromkeys(decoder.repeated)), []
    if not isinstance(record, dict):
        message, help = f"a row must be a JSON object, got {type(record).__name__}", 'write {"text": "..."}'
        raise DataError(message, where=where, code="broken-json", help=help)
    return Row(record, where, repeated=repeated)


def _parse(line: bytes, label: str, number: int, column: int, decoder: _Decoder) -> Any:
    """Return the value of a line. column: that of its first byte, in which blanks may have been skipped."""
    try:
        # Without its line end: an error after it would be in column 1 of the next line.
        return decoder.decode(line.rstrip(b"\r\n").decode())
    except json.JSONDecodeError as error:
        raise _broken(f"{label}:{number}:{error.colno + column - 1}", error.msg) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{label}:{number}:{error.start + column}", error.start) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise _broken(f"{label}:{number}", str(error)) from error


def _broken(where: str, what: str) -> DataError:
    return DataError(f"broken JSON: {what}", where=where, code="broken-json", help=HELP)


def _not_utf8(where: str, byte: int) -> DataError:
    return DataError(f"is not UTF-8: byte {byte}", where=where, code="broken-json", help="save the file as UTF-8")


class _Array:
    """The elements of a JSON array, which are parsed while the file is read. Parsed text is discarded."""

    def __init__(self, stream: io.BufferedReader, label: str, line: int, column: int, decoder: _Decoder):
        self.stream, self.label, self.decoder = stream, label, decoder
        self.utf8 = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.ended = "", 0, False
        self.line, self.column, self.read = line, column, 0  # place of the text's first character; bytes read so far

    def __iter__(self) -> Iterator[Any]:
        self.expect("[")
        if self.peek() == "]":
            self.at += 1
        else:
            while True:
                self.peek()
                yield self.element()
                if self.expect(",]") == "]":
                    break
        if self.peek():
            raise _broken(self.place(self.at), "unexpected text after the array")

    def element(self) -> Any:
        """Parse the element at the current position, and read more of the file until it is complete."""
        size = PIECE
        while True:
            try:
                self.decoder.repeated.clear()  # of an attempt that ended too early
                value, self.at = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string") or error.pos + MARGIN > len(self.text)
                if self.ended or not unfinished:
                    raise _broken(self.place(error.pos), error.msg) from error
                if len(self.text) - self.at > LIMIT:
                    raise too_long(self.place(self.at), "an element") from error
                self.read_more(size)
                size *= 2
            except (ValueError, RecursionError) as error:
                raise _broken(f"{self.label}:{self.place(self.at).split(':')[-2]}", str(error)) from error
            else:
                return value

    def peek(self) -> str:
        """Return the next character that is not whitespace, or an empty string at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.read_more(PIECE)

    def expect(self, expected: str) -> str:
        """Consume and return the next character, which must be one of `expected`. Raise DataError otherwise."""
        character = self.peek()
        if not character or character not in expected:
            what = "the array is not closed" if not character else f"expecting {' or '.join(map(repr, expected))}"
            raise _broken(self.place(self.at), what)
        self.at += 1
        return character

    def read_more(self, size: int) -> None:
        """Read up to `size` more bytes, and discard the text before the current position."""
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
        """Return file:line:column of a character of the text."""
        line, column = self._line_and_column(index)
        return f"{self.label}:{line}:{column}"
