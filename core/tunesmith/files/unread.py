"""Find columns that have a known meaning and that no strategy reads."""

from __future__ import annotations

from collections.abc import Collection, ItemsView, Iterator, Mapping, ValuesView
from typing import Any

from tunesmith.files.row import Row

_COLUMNS = (
    "system system_prompt history context input tools functions documents chat_template_kwargs margin weight weights "
    "loss loss_weight loss_mask train image images video videos audio audios thinking reasoning reasoning_content"
)
COLUMNS = frozenset(_COLUMNS.split())
"""Columns that change what a row means. A row is trained without them if its type does not read them."""

MARKS = ("weight", "train", "training", "trainable", "loss", "loss_weight", "loss_mask", "mask", "masked")
"""Properties of messages: whether or how much a message is trained on."""
MEDIA = ("image", "images", "video", "videos", "audio", "audios", "documents")
"""Properties of messages with more than text."""
PROPERTIES = frozenset(
    {*MARKS, *MEDIA, "name", "tool_calls", "function_call", "tools", "thinking", "reasoning", "reasoning_content"}
)
"""Properties that change what a message means."""


class Watched(Row):
    """A row that records which of its columns are read. Asking if it has a column, or for all names, does not count."""

    __slots__ = ("columns_read",)

    def __init__(self, row: Row):
        dict.__init__(self, row)
        for name in Row.__slots__:
            setattr(self, name, getattr(row, name))
        self.columns_read: set[Any] = set()

    def __getitem__(self, column: str) -> Any:
        self.columns_read.add(column)
        return super().__getitem__(column)

    def get(self, column: str, default: Any = None) -> Any:
        self.columns_read.add(column)
        return super().get(column, default)

    def pop(self, column: str, *default: Any) -> Any:
        self.columns_read.add(column)
        return super().pop(column, *default)

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        self.columns_read.update(self)
        return super().items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        self.columns_read.update(self)
        return super().values()

    def copy(self) -> dict[str, Any]:
        return dict(self.items())

    def __iter__(self) -> Iterator[str]:
        # Python copies a dict without asking it, unless the dict has an __iter__ of its own: dict(row), {**row}
        return super().__iter__()


def watched(row: Row, read: Collection[str] = ()) -> Row:
    """Return the row, as Watched if it has a column of COLUMNS. read: columns that something else reads."""
    if COLUMNS.isdisjoint(row):
        return row
    row = Watched(row)
    row.columns_read.update(read)
    return row


def note_properties(row: Row, message: Mapping[str, Any], read: Collection[str]) -> None:
    """Add a notice to a row for each of PROPERTIES that a message has and that is not among those that are read."""
    if len(message) > len(read):
        for name in PROPERTIES.intersection(message).difference(read):
            if not _is_empty(message[name]):
                row.notice(f"messages: property {name!r} is not read")


def note_unread(row: Row) -> None:
    """Add a notice to a row for each column of COLUMNS that has a value and was not read. It has been read by now."""
    if isinstance(row, Watched):
        for name in COLUMNS.intersection(row) - row.columns_read:
            if not _is_empty(dict.__getitem__(row, name)):
                row.notice(f"column {name!r} is not read")


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)
