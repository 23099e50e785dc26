"""What messages say themselves of their training: a flag, spans of characters, parts with weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith import Row

Pieces = list[tuple[int, float | None]]
"""Of each stretch of a text: the character after its last, and its loss weight; None is that of the message."""
LARGEST = 1e4
"""The largest loss weight of a part; more is a mistake."""
NOT_TRAINED = 0
"""The plan of a message of which nothing is trained."""


def read_parts(row: Row, place: str, parts: Sequence[Any]) -> tuple[str, Pieces | None]:
    """The text of parts put together, and their weights where any part has one. Raises DataError."""
    texts: list[str] = []
    pieces: Pieces = []
    length = 0
    for index, part in enumerate(parts):
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise row.error(f"{place}[{index}]", f"is a part of type {kind}; only text can be trained on")
        texts.append(text)
        length += len(text)
        pieces.append((length, _weight(row, f"{place}[{index}]", part)))
    marked = any(weight is not None for _, weight in pieces)
    return "".join(texts), pieces if marked else None


def _weight(row: Row, place: str, part: Mapping[str, Any]) -> float | None:
    """The loss weight that a part says it has."""
    train, weight = part.get("train"), part.get("weight")
    if train is not None and not isinstance(train, bool):
        raise row.error(f"{place}.train", f"is {type(train).__name__}, not true or false")
    if weight is None:
        return None if train is None else float(train)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise row.error(f"{place}.weight", f"is {type(weight).__name__}, not a number")
    if not 0 <= weight <= LARGEST or math.isnan(weight):
        raise row.error(f"{place}.weight", f"is {weight}; a loss weight is a number from 0 to {LARGEST:g}")
    if train is not None and train != (weight > 0):
        raise row.error(f"{place}.weight", f"is {weight}, and train is {str(train).lower()}", "write one of the two")
    return float(weight)


def read_flag(row: Row, place: str, value: Any) -> bool | None:
    """Whether a message says that it is trained. Raises DataError."""
    if value is None or isinstance(value, bool):
        return value
    raise row.error(place, f"is {type(value).__name__}, not true or false")


def read_spans(row: Row, place: str, spans: Any, text: str) -> Pieces | None:
    """The pieces of a text by its spans, whose ends are inclusive; what no span covers is not trained.

    Raises DataError for spans that overlap or leave the text.
    """
    if spans is None or spans == []:
        return None
    if not isinstance(spans, list) or not all(isinstance(span, Mapping) for span in spans):
        raise row.error(
            place, "has to be a list of mappings", "such as [{begin_offset: 0, end_offset: 4, train: true}]"
        )
    found = []
    for index, span in enumerate(spans):
        begin, end, train = (span.get(key) for key in ("begin_offset", "end_offset", "train"))
        for key, value, kind in (("begin_offset", begin, int), ("end_offset", end, int), ("train", train, bool)):
            if type(value) is not kind:
                wanted = "true or false" if kind is bool else "a whole number"
                raise row.error(f"{place}[{index}].{key}", f"is {_shown(value)}, not {wanted}")
        if not 0 <= begin <= end < len(text):
            message = f"goes from {begin} to {end}, of a content of {len(text)} characters"
            raise row.error(f"{place}[{index}]", message, "offsets count characters from 0; the end is the last one")
        found.append((begin, end + 1, train, index))
    pieces: Pieces = []
    position = 0
    for begin, stop, train, index in sorted(found):
        if begin < position:
            raise row.error(f"{place}[{index}]", "overlaps with another span")
        pieces += [(begin, 0.0), (stop, float(train))]
        position = stop
    return [*pieces, (len(text), 0.0)]


def _shown(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


def cut(pieces: Pieces | None, begin: int, stop: int) -> Pieces | None:
    """The pieces of the stretch [begin, stop) of a text."""
    if pieces is None:
        return None
    starts = [0, *(end for end, _ in pieces)]
    return [
        (min(end, stop) - begin, weight)
        for start, (end, weight) in zip(starts, pieces, strict=False)
        if end > begin and start < stop
    ]


def plan_of(
    row: Row, place: str, by_role: bool, flag: bool | None, pieces: Sequence[Pieces | None], spans: bool, further: bool
) -> Any:
    """What is sent of a message for training it: None where its role says all, NOT_TRAINED, or the fields of a Plan.

    flag: what it says itself; pieces: of its content and of its reasoning; spans: the former come from spans, beside
    which only the end token is trained; further: it has more to train, such as tool calls. Raises DataError for a
    message that contradicts itself.
    """
    content, reasoning = pieces
    weights = [weight for part in pieces for _, weight in part or ()]
    if flag is False and any(weights):
        raise row.error(place, "is not to be trained, and a part of it is", "drop one of the two")
    whole = by_role if flag is None else flag
    rest = float(whole and not spans)
    if not any(rest if weight is None else weight for weight in weights) and not (rest and (further or not content)):
        return NOT_TRAINED if by_role else None
    if content is None and reasoning is None:
        return None if whole == by_role else (1.0, None, None)
    return rest, _resolved(content, rest), _resolved(reasoning, rest)


def _resolved(pieces: Pieces | None, rest: float) -> list[tuple[int, float]] | None:
    return None if pieces is None else [(end, rest if weight is None else weight) for end, weight in pieces]
