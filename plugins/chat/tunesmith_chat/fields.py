"""Report properties of messages that have a known meaning and that nothing reads."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from tunesmith import Row
from tunesmith.files.unread import MARKS, MEDIA
from tunesmith_chat.roles import REASONING_NAMES

WEIGHT = "weight"
_READ = ("role", "content", "name", "tool_calls", "tool_call_id", *REASONING_NAMES)
"""Properties that templates read. spans.py checks if what they contain was rendered."""


class Fields:
    """The properties of the messages of an entry. read: the names that the entry gives a meaning."""

    def __init__(self, read: Collection[str | None]):
        self._notices: dict[str, str | None] = dict.fromkeys((*_READ, *filter(None, read)))
        """Property -> its notice, or None if it is read."""

    def check(self, row: Row, message: Mapping[str, Any]) -> None:
        """Add a notice to the row for each property with a known meaning that is not read."""
        for name in message:
            if name not in self._notices:
                self._notices[name] = _notice(name)
            if (notice := self._notices[name]) is not None:
                row.notice(notice)


def _notice(name: str) -> str | None:
    if name in MARKS:
        return f"messages: property {name!r} is not read; message_field_training: {name} reads true or false"
    if name in MEDIA:
        return f"messages: property {name!r} is not read"
    close = difflib.get_close_matches(name.lower(), (*MARKS, *MEDIA, *_READ), 1, cutoff=0.8)
    return f"messages: property {name!r} is not read; did you mean {close[0]!r}?" if close else None
