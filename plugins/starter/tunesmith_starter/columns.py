"""Describe the columns of the first rows of a dataset: what kind of values each of them has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

ROLE_KEYS, CONTENT_KEYS = ("role", "from", "speaker", "author"), ("content", "value", "text", "message")
"""Names that the properties of messages have in data, in the order in which they are tried."""


@dataclass(frozen=True)
class Messages:
    """The shape of a column of messages: property names, and roles in the order of their first use."""

    role: str
    content: str
    roles: tuple[str, ...]
    properties: frozenset[str]
    first: tuple[str, ...]
    last: tuple[str, ...]


class Columns:
    """The columns of rows. A column is of a kind if all of its values that are not null are."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]):
        self.rows = rows
        self.names = list(dict.fromkeys(name for row in rows for name in row))

    def values(self, name: str) -> list[Any]:
        """Return the values of a column that are not null."""
        return [row[name] for row in self.rows if row.get(name) is not None]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def complete(self, name: str) -> bool:
        """Return True if every row has a value in the column."""
        return len(self.values(name)) == len(self.rows)

    def _all(self, name: str, kind: type | tuple[type, ...]) -> bool:
        values = self.values(name)
        return bool(values) and all(isinstance(value, kind) for value in values)

    def is_text(self, name: str) -> bool:
        return self._all(name, str)

    def is_label(self, name: str) -> bool:
        """Return True for true and false, or 0 and 1."""
        values = self.values(name)
        return bool(values) and all(isinstance(value, int) and value in (0, 1) for value in values)

    def is_number(self, name: str) -> bool:
        return self._all(name, (int, float)) and not self._all(name, bool)

    def is_mapping(self, name: str) -> bool:
        return self._all(name, Mapping)

    def is_texts(self, name: str) -> bool:
        """Return True for lists of texts."""
        return self._all(name, list) and all(isinstance(item, str) for value in self.values(name) for item in value)

    def mappings(self, name: str) -> list[Mapping[str, Any]]:
        """Return the items of a column of lists of mappings; [] if it is another column."""
        items = [item for value in self.values(name) for item in value] if self._all(name, list) else []
        return items if all(isinstance(item, Mapping) for item in items) else []

    def parsed(self, name: str) -> list[Any]:
        """Return the values of a column of JSON texts of lists or mappings; [] if it is another column."""
        if not self.is_text(name):
            return []
        try:
            values = [json.loads(value) for value in self.values(name) if value.strip()]
        except (ValueError, RecursionError):
            return []
        return values if all(isinstance(value, list | dict) for value in values) else []

    def messages(self, name: str) -> Messages | None:
        """Return what the messages of a column look like; None if it has no lists of messages."""
        items = self.mappings(name)
        if not items or not all(self.values(name)):
            return None
        role = next((key for key in ROLE_KEYS if all(isinstance(item.get(key), str) for item in items)), None)
        content = next(
            (key for key in CONTENT_KEYS if any(isinstance(item.get(key), str | list) for item in items)), None
        )
        if role is None or content is None:
            return None
        ends = [tuple(dict.fromkeys(value[index][role] for value in self.values(name))) for index in (0, -1)]
        roles = tuple(dict.fromkeys(item[role] for item in items))
        properties = frozenset(key for item in items for key, value in item.items() if value is not None)
        return Messages(role, content, roles, properties, *ends)

    def first(self, names: Sequence[str], kind: str = "text") -> str | None:
        """Return the first of some names that is a complete column of a kind; None if there is none."""
        is_kind = getattr(self, f"is_{kind}")
        return next((name for name in names if name in self and self.complete(name) and is_kind(name)), None)

    @cached_property
    def texts(self) -> list[str]:
        """The names of all columns of texts."""
        return [name for name in self.names if self.is_text(name)]

    def described(self) -> Iterator[str]:
        """Yield a line for each column: its name and the kind of its values."""
        for name in self.names:
            yield f"{name}: {self.kind(name)}"

    def kind(self, name: str) -> str:
        """Return the kind of the values of a column in words."""
        if not self.values(name):
            return "always null"
        if messages := self.messages(name):
            return f"messages of {messages.role} and {messages.content}"
        if items := self.mappings(name):
            return f"list of mappings of {', '.join(map(str, list(items[0])[:6]))}"
        if self.parsed(name):
            return "JSON text"
        if self.is_mapping(name):
            return f"mapping of {', '.join(map(str, list(self.values(name)[0])[:6]))}"
        if self.is_label(name):
            return "true or false" if self._all(name, bool) else "0 or 1"
        kinds = {"text": self.is_text, "number": self.is_number, "list of texts": self.is_texts}
        matching = next((words for words, is_kind in kinds.items() if is_kind(name)), None)
        return matching or " or ".join(sorted({type(value).__name__ for value in self.values(name)}))
