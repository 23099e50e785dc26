"""Turn a row of segments into pieces of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith import Piece, Row
from tunesmith.files.row import flaw


def row_to_pieces(row: Row, column: str, train_on_inputs: bool = False) -> list[Piece]:
    """Return a piece for each segment. Raise DataError if they are not a list of {label: true or false, text: ...}."""
    segments = row.require(column, list)
    if not segments:
        raise row.error(column, "has no segments")
    return [_piece(row, f"{column}[{index}]", segment, train_on_inputs) for index, segment in enumerate(segments)]


def _piece(row: Row, place: str, segment: Any, train_on_inputs: bool) -> Piece:
    if not isinstance(segment, Mapping):
        raise row.error(place, f"must be a mapping, got {type(segment).__name__}", "write {label: true, text: Hello}")
    for key, kind, name in (("label", bool, "true or false"), ("text", str, "a string")):
        value = segment.get(key)
        if not isinstance(value, kind):
            keys = ", ".join(map(str, segment)) or "none"
            actual = "null" if value is None else type(value).__name__
            problem = f"must be {name}, got {actual}" if key in segment else f"is missing; found: {keys}"
            raise row.error(f"{place}.{key}", problem)
    text, label = segment["text"], segment["label"]
    if why := flaw(text):
        raise row.error(f"{place}.text", why)
    if train_on_inputs and not label:
        return Piece(text, 1.0, "label: false (train_on_inputs)")
    return Piece(text, float(label), f"label: {'true' if label else 'false'}")
