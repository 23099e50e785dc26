"""Read how a message sets its own training: a flag, spans of characters, or parts with weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith import Row

Pieces = list[tuple[int, float | None]]
"""For each piece of a text: its end (exclusive, in characters) and its loss weight, or None for that of the message."""
LARGEST = 1e4
"""The largest loss weight of a part. A larger value is taken for a mistake."""
NOT_TRAINED = 0
"""The plan of a message that is not trained at all."""


def read_parts(row: Row, place: str, parts: Sequence[Any]) -> tuple[str, Pieces | None]:
    """Return the joined text of parts, and their weights if any part has one. Raise DataError."""
    texts: list[str] = []
    pieces: Pieces = []
    length = 0
    for index, part in enumerate(parts):
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise row.error(f"{place}[{index}]", f"is a part of type {kind}; only text parts are supported")
        texts.append(text)
        length += len(text)
        pieces.append((length, _weight(row, f"{place}[{index}]", part)))
    marked = any(weight is not None for _, weight in pieces)
    return "".join(texts), pieces if marked else None


def _weight(row: Row, place: str, part: Mapping[str, Any]) -> float | None:
    """Return the loss weight that a part sets with `train` or `weight`, or None. Raise DataError."""
    train, weight = part.get("train"), part.get("weight")
    if train is not None and not isinstance(train, bool):
        raise row.error(f"{place}.train", f"must be true or false, got {type(train).__name__}")
    if weight is None:
        return None if train is None else float(train)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise row.error(f"{place}.weight", f"must be a number, got {type(weight).__name__}")
    if not 0 <= weight <= LARGEST or math.isnan(weight):
        raise row.error(f"{place}.weight", f"must be from 0 to {LARGEST:g}, got {weight}")
    if train is not None and train != (weight > 0):
        raise row.error(f"{place}.weight", f"is {weight}, but train is {str(train).lower()}", "write one of the two")
    return float(weight)


def read_flag(row: Row, place: str, value: Any) -> bool | None:
    """Return the value of a training flag, or None if it is not set. Raise DataError for another type."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    actual = value if isinstance(value, int | float) else type(value).__name__
    raise row.error(place, f"must be true or false (1 or 0), got {actual}")


def read_spans(row: Row, place: str, spans: Any, text: str) -> Pieces | None:
    """Return the pieces of a text by its spans. Characters outside all spans get the weight 0.

    begin_offset and end_offset of a span are characters from 0, both inclusive. Raise DataError for spans that overlap
    or exceed the text.
    """
    if spans is None or spans == []:
        return None
    if not isinstance(spans, list) or not all(isinstance(span, Mapping) for span in spans):
        raise row.error(
            place, "must be a list of mappings", "for example [{begin_offset: 0, end_offset: 4, train: true}]"
        )
    ranges = []
    for index, span in enumerate(spans):
        begin, end, train = (span.get(key) for key in ("begin_offset", "end_offset", "train"))
        for key, value, kind in (("begin_offset", begin, int), ("end_offset", end, int), ("train", train, bool)):
            if type(value) is not kind:
                expected = "true or false" if kind is bool else "an integer"
                problem = "is missing; write" if value is None else f"is {type(value).__name__}, must be"
                raise row.error(f"{place}[{index}].{key}", f"{problem} {expected}")
        if not 0 <= begin <= end < len(text):
            message = f"covers {begin} to {end}, but the content has {len(text)} characters"
            raise row.error(f"{place}[{index}]", message, "offsets count characters from 0; end_offset is inclusive")
        ranges.append((begin, end + 1, train, index))
    pieces: Pieces = []
    position = 0
    for begin, stop, train, index in sorted(ranges):
        if begin < position:
            raise row.error(f"{place}[{index}]", "overlaps with another span")
        pieces += [(begin, 0.0), (stop, float(train))]
        position = stop
    return [*pieces, (len(text), 0.0)]


def cut(pieces: Pieces | None, begin: int, stop: int) -> Pieces | None:
    """Return the pieces of characters [begin, stop) of a text, with ends relative to `begin`."""
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
    """Return the training plan of a message: None if its role decides, NOT_TRAINED, or the fields of a spans.Plan.

    by_role: its role is trained. flag: the flag that the message sets. pieces: those of its content and of its
    reasoning. spans: the pieces of the content come from spans, so of the rest only the end token is trained. further:
    the message has more to train, such as tool calls. Raise DataError for a message that contradicts itself.
    """
    content, reasoning = pieces
    weights = [weight for part in pieces for _, weight in part or ()]
    if flag is False and any(weights):
        raise row.error(place, "is excluded from training, but a part of it is trained", "drop one of the two")
    trained = by_role if flag is None else flag
    rest = float(trained and not spans)
    if not any(rest if weight is None else weight for weight in weights) and not (rest and (further or not content)):
        return NOT_TRAINED if by_role else None
    if content is None and reasoning is None:
        return None if trained == by_role else (1.0, None, None)
    return rest, _resolved(content, rest), _resolved(reasoning, rest)


def _resolved(pieces: Pieces | None, rest: float) -> list[tuple[int, float]] | None:
    return None if pieces is None else [(end, rest if weight is None else weight) for end, weight in pieces]
