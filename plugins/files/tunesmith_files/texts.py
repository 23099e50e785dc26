"""Read rows of text files: {"text": ...} for each line, paragraph or document."""

from __future__ import annotations

import io
from collections.abc import Iterator

from tunesmith import Row
from tunesmith_files.lines import LIMIT, decode, lines, too_long


def by_line(stream: io.BufferedReader, label: str) -> Iterator[Row]:
    """Yield a row for each line that is not blank, without its line end."""
    for number, line in lines(stream, label):
        text = decode(line, label, number).rstrip("\r\n")
        if text.strip():
            yield Row({"text": text}, f"{label}:{number}")


def by_paragraph(stream: io.BufferedReader, label: str) -> Iterator[Row]:
    """Yield a row for each block of lines between blank ones."""
    first, size, parts = 1, 0, list[str]()
    for number, line in lines(stream, label):
        text = decode(line, label, number).rstrip("\r\n")
        if text.strip():
            first = first if parts else number
            size += len(line)
            if size > LIMIT:
                raise too_long(f"{label}:{first}", "a paragraph")
            parts.append(text)
        elif parts:
            yield Row({"text": "\n".join(parts)}, f"{label}:{first}")
            parts, size = [], 0
    if parts:
        yield Row({"text": "\n".join(parts)}, f"{label}:{first}")


def by_document(stream: io.BufferedReader, label: str) -> Iterator[Row]:
    """Yield the content of the file as one row, unless it is blank."""
    size, parts = 0, list[str]()
    for number, line in lines(stream, label):
        size += len(line)
        if size > LIMIT:
            raise too_long(label, "a document")
        parts.append(decode(line, label, number))
    text = "".join(parts)
    if text.strip():
        yield Row({"text": text}, label)


UNITS = {"line": by_line, "paragraph": by_paragraph, "document": by_document}
"""Value of `sample_by` -> its reader."""
