"""Read what a reward function gets: completions as texts or messages, and the columns of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Completion: TypeAlias = str | Sequence[Mapping[str, Any]]
"""A text; or messages such as [{"role": "assistant", "content": "..."}], if the prompt is a conversation."""


def text_of(completion: Completion) -> str:
    """Return the text of a completion: that of its last message if it is a conversation."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, Sequence) and not isinstance(content, str):  # parts, as multimodal templates have them
        return "".join(str(part.get("text", "")) for part in content)
    return "" if content is None else str(content)


def column_of(columns: Mapping[str, Any], name: str, completions: Sequence[Completion]) -> Sequence[Any]:
    """Return the values of a column, one per completion: None in rows without it, and if no row has it.

    `outer.inner` names a key of a column of mappings, if there is no column of this name.
    """
    if name not in columns and "." in name:
        outer, _, inner = name.partition(".")
        mappings = [value if isinstance(value, Mapping) else {} for value in column_of(columns, outer, completions)]
        keys = {key for mapping in mappings for key in mapping}
        return column_of({key: [mapping.get(key) for mapping in mappings] for key in keys}, inner, completions)
    values: Sequence[Any] = columns.get(name) or [None] * len(completions)
    return values


def has_column(row: Mapping[str, Any], name: str) -> bool:
    """Return True if `column_of` finds a value in a row."""
    outer, _, inner = name.partition(".")
    value = row.get(outer)
    return name in row or (bool(inner) and isinstance(value, Mapping) and has_column(value, inner))
