"""Convert the value that a function returns for a row, by the row kind of the method.

| row kind | keys of a mapping |
|---|---|
| conversation, text | prompt (optional), completion |
| pair | prompt, chosen, rejected, margin (optional) |
| labelled | prompt, completion, label |
| prompt | prompt, and any columns for rewards |

A function may also return a list of Pieces or of (text, trained), an Example, or None to skip the row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith import DataError, Example, Piece, Row
from tunesmith.files.row import flaw

KEYS = {
    "conversation": {"prompt", "completion"},
    "text": {"prompt", "completion"},
    "pair": {"prompt", "chosen", "rejected", "margin"},
    "labelled": {"prompt", "completion", "label"},
}
"""Row kind -> the keys of a mapping that are read. Those of other kinds are all read or refused."""


@dataclass
class Shaped:
    """Pieces to tokenize with the columns and fields of their example, or a complete example."""

    pieces: list[Piece]
    columns: dict[str, float] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    example: Example | None = None


def shape(value: Any, row: Row, kind: str) -> Shaped:
    """Convert the value that a function returned for a row. Raise DataError for an unsupported value."""
    if isinstance(value, Example):
        return Shaped([], example=value)
    if value is None:
        return Shaped([], example=Example.text([], []))
    if isinstance(value, list | tuple):
        return Shaped([_piece(piece, row) for piece in value])
    if isinstance(value, Mapping):
        return _of_mapping(Row(value, row.where), row, kind)
    help = "return an Example, a mapping of texts, a list of (text, trained), or None"
    raise DataError(f"the function returned {type(value).__name__}", where=row.where, code="row", help=help)


def _of_mapping(result: Row, row: Row, kind: str) -> Shaped:
    for key in result.keys() - KEYS.get(kind, result.keys()):
        row.notice(f"the function returns {key!r}, which {kind} rows do not have")
    prompt = [Piece.prompt(result.require("prompt"))] if result.get("prompt") is not None else []
    if kind in ("conversation", "text"):
        if kind == "text":  # a text may be split, so it has no prompt of its own
            prompt = [piece._replace(branch=1) for piece in prompt]
        return Shaped([*prompt, Piece(result.require("completion"), why="completion"), Piece.end()])
    result.require("prompt")
    if kind == "prompt":
        return Shaped(prompt, fields={key: value for key, value in result.items() if key != "prompt"})
    if kind == "pair":
        chosen, rejected = result.require("chosen"), result.require("rejected")
        pieces = [Piece(chosen, why="chosen"), Piece.end(), Piece(rejected, why="rejected", branch=2)]
        columns = {"margin": _number(result, "margin")} if result.get("margin") is not None else {}
        return Shaped([*prompt, *pieces, Piece.end(branch=2)], columns)
    if kind == "labelled":
        label = {"label": float(result.require("label", bool))}
        return Shaped([*prompt, Piece(result.require("completion"), why="completion"), Piece.end()], label)
    help = "return an Example, built with tunesmith.Example and tunesmith.segment"
    raise DataError(f"rows of kind {kind} can't be returned as a mapping", where=result.where, code="row", help=help)


def _number(result: Row, field: str) -> float:
    value = result[field]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise result.error(field, f"must be a finite number, got {value!r:.40}")
    return float(value)


def _piece(piece: Any, row: Row) -> Piece:
    if not isinstance(piece, Piece):
        is_tuple = isinstance(piece, list | tuple) and len(piece) == 2
        if not (is_tuple and isinstance(piece[0], str) and isinstance(piece[1], bool)):
            help = 'return (text, trained), for example [("2 + 2 = ", False), ("4", True)]'
            raise DataError(
                f"the function returned an invalid piece {piece!r:.60}", where=row.where, code="row", help=help
            )
        piece = Piece(piece[0], float(piece[1]), "trained" if piece[1] else "context")
    if piece.text is not None and (why := flaw(piece.text)):
        raise DataError(f"the function returned a text that {why}", where=row.where, code="row")
    return piece
