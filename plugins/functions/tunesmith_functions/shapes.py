"""What a function may return for a row, by the kind of row that the method trains on.

| kind | a mapping of |
|---|---|
| conversation, text | prompt (may be missing), completion |
| pair | prompt, chosen, rejected, margin (may be missing) |
| labelled | prompt, completion, label |
| prompt | prompt, and whatever a reward needs |

Or a list of Pieces, or of (text, trained); or an Example; or None to leave the row out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith import DataError, Example, Piece, Row
from tunesmith.files.row import flaw


@dataclass
class Shaped:
    """Pieces to be tokenised and what goes with them; or an example that is done."""

    pieces: list[Piece]
    columns: dict[str, float] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    example: Example | None = None


def shape(made: Any, row: Row, kind: str) -> Shaped:
    """Take what a function returned for a row. Raises DataError at the row for anything else."""
    if isinstance(made, Example):
        return Shaped([], example=made)
    if made is None:
        return Shaped([], example=Example.text([], []))
    if isinstance(made, list | tuple):
        return Shaped([_piece(piece, row) for piece in made])
    if isinstance(made, Mapping):
        return _of_mapping(Row(made, row.where), kind)
    help = "an Example, a mapping of texts, a list of (text, trained), or None"
    raise DataError(f"the function returned {type(made).__name__}", where=row.where, code="row", help=help)


def _of_mapping(made: Row, kind: str) -> Shaped:
    prompt = [Piece.prompt(made.require("prompt"))] if kind != "text" and made.get("prompt") is not None else []
    if kind in ("conversation", "text"):
        return Shaped([*prompt, Piece(made.require("completion"), why="completion"), Piece.end()])
    made.require("prompt")
    if kind == "prompt":
        return Shaped(prompt, fields={key: value for key, value in made.items() if key != "prompt"})
    if kind == "pair":
        chosen, rejected = made.require("chosen"), made.require("rejected")
        pieces = [Piece(chosen, why="chosen"), Piece.end(), Piece(rejected, why="rejected", branch=2)]
        columns = {"margin": _number(made, "margin")} if "margin" in made else {}
        return Shaped([*prompt, *pieces, Piece.end(branch=2)], columns)
    if kind == "labelled":
        label = {"label": float(made.require("label", bool))}
        return Shaped([*prompt, Piece(made.require("completion"), why="completion"), Piece.end()], label)
    help = "return an Example: tunesmith.Example and tunesmith.segment make one"
    raise DataError(f"a mapping can't say what a row of kind {kind} is", where=made.where, code="row", help=help)


def _number(made: Row, field: str) -> float:
    value = made[field]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise made.error(field, f"is {value!r:.40}, not a number")
    return float(value)


def _piece(piece: Any, row: Row) -> Piece:
    if not isinstance(piece, Piece):
        fine = isinstance(piece, list | tuple) and len(piece) == 2
        if not (fine and isinstance(piece[0], str) and isinstance(piece[1], bool)):
            help = 'such as [("2 + 2 = ", False), ("4", True)]'
            raise DataError(f"the function returned a piece {piece!r:.60}", where=row.where, code="row", help=help)
        piece = Piece(piece[0], float(piece[1]), "trained" if piece[1] else "context")
    if piece.text is not None and (why := flaw(piece.text)):
        raise DataError(f"the function returned a text that {why}", where=row.where, code="row")
    return piece
