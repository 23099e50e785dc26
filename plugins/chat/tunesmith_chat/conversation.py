"""Read the conversation of a raw row in the form that a chat template takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tunesmith import Row
from tunesmith_chat import ChatDataset
from tunesmith_chat.messages import Message, MessageReader, plain
from tunesmith_chat.padding import unpadded_tool

Plans = list[Any]


class Conversation(NamedTuple):
    """A row, its messages, and its tools.

    A message has a role and a text `content`; the content may be missing next to tool calls. plans: the training plan
    of each message (marks.plan_of), or None if no message sets one. field: the column to name in errors.
    """

    row: Row
    messages: list[Message]
    tools: list[Any] | None
    plans: Plans | None = None
    field: str = "messages"


class Reader:
    """A reader of the conversations of one dataset entry.

    default_system: the system message of conversations that have none, unless the entry sets its own.
    """

    def __init__(self, options: ChatDataset, default_system: str | None = None):
        self.options = options
        self.field = options.field_messages
        self.field_tools = options.field_tools
        self.field_system = options.field_system
        self.message = MessageReader(options)
        self._drop_system = options.drop_system_message
        self._system = default_system if options.default_system_message is None else options.default_system_message

    def read(self, row: Row) -> Conversation:
        """Return the conversation of a row. Raise DataError with the message and the property that can't be used."""
        raw = row.get(self.field)
        if not isinstance(raw, list):
            row.require(self.field, list)
        messages, plans = self.messages(row, self.field, raw or [])
        if messages[0]["role"] != "system" and (system := self.system(row)):
            messages, plans = [system, *messages], plans and [None, *plans]
        return self.conversation(row, self.field, messages, plans)

    def system(self, row: Row) -> Message | None:
        """Return the text of the system column as a message, or None if the row has none. Raise DataError."""
        if row.get(self.field_system) in (None, ""):
            return None
        return {"role": "system", "content": row.require(self.field_system)}

    def messages(self, row: Row, place: str, raw: Sequence[Any]) -> tuple[list[Message], Plans | None]:
        """Return the messages of a list, and their training plans if any message sets one. Raise DataError."""
        if not raw:
            raise row.error(place, "has no messages")
        messages: list[Message] = []
        plans: Plans = []
        marked = False
        for index, record in enumerate(raw):
            message, plan = self.message.read(row, f"{place}[{index}]", record)
            messages.append(message)
            plans.append(plan)
            marked = marked or plan is not None
        return messages, plans if marked else None

    def conversation(self, row: Row, field: str, messages: list[Message], plans: Plans | None = None) -> Conversation:
        """Add the row's tools and apply the entry's system message options. Raise DataError."""
        if self._drop_system and messages[0]["role"] == "system":
            messages, plans = messages[1:], plans and plans[1:]
            if not messages:
                raise row.error(field, "has only a system message, which drop_system_message removes")
        if self._system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self._system}, *messages]
            plans = plans and [None, *plans]
        if self.field_tools is None:
            row.get("tools")  # the entry leaves the column out, so it is not reported as unread
        tools = self._tools(row, self.field_tools) if self.field_tools is not None and self.field_tools in row else None
        return Conversation(row, messages, tools, plans, field)

    def _tools(self, row: Row, column: str) -> list[Any] | None:
        """Return the row's tools: a list of JSON schemas, or the same as JSON text, as in columns of Parquet files."""
        value = row[column]
        if isinstance(value, str):
            try:
                value = json.loads(value) if value.strip() else None
            except ValueError as error:
                raise row.error(column, f"is not valid JSON: {error}") from error
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
            raise row.error(column, "must be a list of JSON schemas")
        if row.padded and not isinstance(row[column], str):
            value = [unpadded_tool(row, tool) for tool in value]
        return [plain(tool) for tool in value]
