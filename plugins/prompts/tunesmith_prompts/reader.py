"""Read the prompt of a row: a text or messages, its tools, and the columns for rewards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tunesmith import Row
from tunesmith.files.row import without_padding
from tunesmith_prompts import PromptDataset
from tunesmith_prompts.messages import Messages, read_messages

COLUMNS = ("prompt", "messages", "question")
"""Columns that may have the prompt if field_prompt is not set, in the order in which they are tried."""
PROMPT = "prompt"
"""The field that has the messages of a prompt, for rewards."""
VARIABLES = "chat_template_kwargs"
_FOR_MESSAGES = ("system_prompt", "field_tools", VARIABLES, "continue_final_message")
_HELP = "write chat: true to render texts as messages of the user, or drop the key"


class ReadPrompt(NamedTuple):
    """The prompt of a row: a text, or messages with what the chat template gets beside them.

    column: where it was read. continued: the answer continues the last message. fields: the columns for rewards.
    """

    row: Row
    column: str
    text: str
    messages: Messages
    tools: list[Any] | None
    variables: dict[str, Any]
    continued: bool
    fields: dict[str, Any]


class PromptReader:
    """A reader of the rows of one entry."""

    def __init__(self, options: PromptDataset):
        self.options = options
        self._written = [key for key in _FOR_MESSAGES if key in options.model_fields_set]

    def read(self, row: Row) -> ReadPrompt:
        """Return the prompt of a row. Raises DataError with the place of what can't be used."""
        column = self.column(row)
        value = row.get(column)
        if isinstance(value, list):
            return self._chat(row, column, read_messages(row, column, value))
        text = row.require(column)
        if "continue_final_message" in self._written and self.options.continue_final_message:
            help = "drop continue_final_message: a text has no final message, and without chat: true it is continued"
            raise row.error(column, "is a text, so continue_final_message has no effect", help)
        if self.options.chat:
            return self._chat(row, column, [{"role": "user", "content": text}])
        if self._written:
            raise row.error(column, f"is a plain text, so {self._written[0]} has no effect", _HELP)
        for name in (self.options.field_tools, VARIABLES):
            if row.get(name):
                row.notice(f"column {name!r} is not rendered, because the prompt is a plain text; rewards get it")
        fields = fields_of(row, {column})
        if isinstance(fields.get(PROMPT), list):
            help = "rename the column: rewards read a list there as the messages of the prompt"
            raise row.error(PROMPT, f"is a list, but the prompt is the text in {column}", help)
        return ReadPrompt(row, column, text, [], None, {}, False, fields)

    def column(self, row: Row) -> str:
        """Return the column with the prompt of a row. Raises DataError if it is missing."""
        if self.options.field_prompt is not None:
            return self.options.field_prompt
        column = next((name for name in COLUMNS if row.get(name) is not None), None)
        if column is None:
            column = next((name for name in COLUMNS if name in row), None)
        if column is None:
            raise row.missing(PROMPT)
        return column

    def _chat(self, row: Row, column: str, messages: Messages) -> ReadPrompt:
        continued = self._is_continued(row, column, messages)
        system = self.options.system_prompt
        if system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        tools, variables = self._tools(row), self._variables(row)
        fields = fields_of(row, {column, VARIABLES})
        if fields.get(PROMPT) is not None:
            row.notice(f"column {PROMPT!r} is not read: rewards get the messages in {column} under this name")
        if row.get("system"):
            row.notice("column 'system' is not rendered; rewards get it")
        fields[PROMPT] = messages
        return ReadPrompt(row, column, "", messages, tools, variables, continued, fields)

    def _is_continued(self, row: Row, column: str, messages: Messages) -> bool:
        last = messages[-1]
        if last["role"] != "assistant":
            return False
        if not self.options.continue_final_message:
            help = "remove it, write continue_final_message: true to let the model continue it, or use type: "
            help += "chat_template, which reads a prompt up to its last user message"
            raise row.error(column, "ends with an assistant message", help)
        if not isinstance(last.get("content"), str) or not last["content"].strip() or last.get("tool_calls"):
            problem = "must be a text to be continued, without tool calls"
            raise row.error(f"{column}[{len(messages) - 1}].content", problem, "remove the message")
        return True

    def _tools(self, row: Row) -> list[Any] | None:
        """Return the tools of a row: a list of JSON schemas, or the same as JSON text, as in tables."""
        column = self.options.field_tools
        if "field_tools" in self._written and column not in row:
            raise row.missing(column)
        value = _from_json(row, column)
        if not value:
            return None
        if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
            raise row.error(column, "must be a list of JSON schemas")
        return list(without_padding(value)) if row.padded else value

    def _variables(self, row: Row) -> dict[str, Any]:
        value = _from_json(row, VARIABLES)
        if not value:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise row.error(VARIABLES, "must be a mapping of variables", "write {enable_thinking: false}")
        return dict(without_padding(value)) if row.padded else dict(value)


def _from_json(row: Row, column: str) -> Any:
    """Return a value of a row, parsed if it is JSON text; None if the row has none."""
    value = row.get(column)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError) as error:
        raise row.error(column, f"is not valid JSON: {error}") from None


def fields_of(row: Row, columns: set[str]) -> dict[str, Any]:
    """Return the columns other than these. Raises DataError for one that is not a JSON value."""
    return {name: _json(row, name) for name in row if name not in columns}


def _json(row: Row, name: str) -> Any:
    try:
        json.dumps(row[name])
    except (TypeError, ValueError, RecursionError) as error:
        raise row.error(
            name, f"must be a JSON value to be passed to rewards, got {type(row[name]).__name__}: {error}"
        ) from None
    return row[name]
