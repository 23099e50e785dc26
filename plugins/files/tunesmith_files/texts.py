"""Rows of text files: {"text": ...} of each line, paragraph or document."""

from __future__ import annotations

import io
from collections.abc import Iterator

from tunesmith import Row
from tunesmith_files.lines import LIMIT, decode, lines, too_long


def by_line(stream: io.BufferedReader, label: str) -> Iterator[Row]:
    """One row for each line that says something, without its end."""
    for number, line in lines(stream, label):
        text = decode(line, label, number).rstrip("\r\n")
        if text.strip():
            yield Row({"text": text}, f"{label}:{number}")


def by_paragraph(stream: io.BufferedReader, label: str) -> Iterator[Row]:
    """One row for the lines between empty ones."""
    first, size, gathered = 1, 0, list[str]()
    for number, line in lines(stream, label):
        text = decode(line, label, number).rstrip("\r\n")
        if text.strip():
            first = first if gathered else number
            size += len(line)
            if size > LIMIT:
                raise too_long(f"{label}:{first}", "a paragraph")
            gathered.append(text)
        elif gathered:
            yield Row({"text": "\n".join(gathered)}, f"{label}:{first}")
            gathered, size = [], 0
    if gathered:
        yield Row({"text": "\n".join(gathered)}, f"{label}:{first}")


def by_document(stream: io.BufferedReader, label: str) -> Iterator[Row]:
    """One row for the whole file, as it is."""
    size, gathered = 0, list[str]()
    for number, line in lines(stream, label):
        size += len(line)
        if size > LIMIT:
            raise too_long(label, "a document")
        gathered.append(decode(line, label, number))
    text = "".join(gathered)
    if text.strip():
        yield Row({"text": text}, label)


UNITS = {"line": by_line, "paragraph": by_paragraph, "document": by_document}
"""By the value of `sample_by`."""
