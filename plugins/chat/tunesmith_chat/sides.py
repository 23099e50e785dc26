"""Rows with a prompt and answers to it: pairs, labelled answers, and prompts alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

from tunesmith import DataError, Row
from tunesmith_chat.conversation import Conversation, Reader
from tunesmith_chat.marks import NOT_TRAINED
from tunesmith_chat.messages import Message

SYSTEM, PROMPT, INPUT = "system", "prompt", "input"
"""Columns with texts: of the system, of the user, and of the user in rows for reward models."""

HELP = "tunesmith lint names all such rows: mend them or leave them out"


def check_answer(row: Row, column: str, answer: list[Message]) -> None:
    """Raises DataError for an answer in which the assistant neither says nor does anything."""
    own = [message for message in answer if message["role"] == "assistant"]
    if own and not any(str(value).strip() for m in own for key, value in m.items() if key != "role" and value):
        message = f"{column}: is empty or white space, and no answer"
        raise DataError(message, where=row.where, code="empty-answer", help=HELP)


class RowReader(Protocol):
    """Reads rows of one kind. field: the column to blame where it can't be said which."""

    field: str

    def read(self, row: Row) -> tuple[list[Conversation], dict[str, Any]]:
        """Whole conversations, in the order of the example's completions, and what else the example has.

        Raises DataError.
        """


class _Sides:
    """Reads the prompt and answers of the rows of one type."""

    def __init__(self, reader: Reader, type: str):
        self.reader = reader
        self.options = reader.options
        self.explicit = "field_messages" in self.options.model_fields_set
        self.prompts = (INPUT,) if type.startswith("bradley_terry.") else (reader.field, PROMPT)

    def prompt(self, row: Row) -> tuple[str, list[Message]] | None:
        """The column of the prompt and its messages; None where a row has no such column."""
        if self.explicit and self.prompts[0] not in row:
            row.require(self.prompts[0], list)
        column = next((name for name in self.prompts if row.get(name) is not None), None)
        if column is None:
            return None
        if isinstance(row[column], list):
            return column, self.reader.messages(row, column, row[column])[0]
        return column, [{"role": "user", "content": row.require(column)}]

    def answer(self, row: Row, column: str) -> list[Message]:
        """An answer: a text, a message, messages, or a whole conversation."""
        value = row.get(column)
        if isinstance(value, Mapping):
            return [self.reader.message.read(row, column, value)[0]]
        if isinstance(value, list):
            return self.reader.messages(row, column, value)[0]
        return [{"role": "assistant", "content": row.require(column)}]

    def whole(self, row: Row, column: str) -> tuple[list[Message], int | None]:
        """The conversation up to and with an answer, and where the answer begins if a prompt beside it says so."""
        answer = self.answer(row, column)
        alone = answer[0]["role"] not in ("assistant", "tool")
        prompt = None if alone and not self.explicit else self.prompt(row)
        if not alone:
            if prompt is None:
                names = " or ".join(self.prompts)
                found = ", ".join(map(str, row))
                raise row.error(
                    column, f"begins with the answer, and no column has the prompt ({names}); found: {found}"
                )
            if prompt[1][-1]["role"] == "assistant":
                help = "field_messages: names the column with the messages before the answer"
                raise row.error(prompt[0], "ends with what the assistant says, and the answer comes after it", help)
            return self.opened(row, [*prompt[1], *answer]), len(self.opened(row, prompt[1]))
        if prompt is not None and answer[: len(prompt[1])] != prompt[1]:
            raise row.error(column, f"is a whole conversation, which does not begin with {prompt[0]}")
        return self.opened(row, answer), None

    def opened(self, row: Row, messages: list[Message]) -> list[Message]:
        """The messages after the system's text, where the row has a column for that."""
        if messages[0]["role"] == "system" or row.get(SYSTEM) in (None, ""):
            return messages
        return [{"role": "system", "content": row.require(SYSTEM)}, *messages]

    def trained_from(self, row: Row, column: str, messages: list[Message], first: int) -> Conversation:
        """A conversation of which the answer, from message `first` on, is trained. Raises DataError."""
        if first == 0 or messages[first]["role"] != "assistant":
            who = messages[first]["role"]
            problem = "has nothing before the answer" if first == 0 else f"has {who} where the answer should begin"
            raise row.error(column, problem, "a prompt comes before what the assistant says")
        plans = [NOT_TRAINED] * first + [None] * (len(messages) - first)
        return self.reader.conversation(row, column, messages, plans)


class Pairs:
    """Rows with a better and a worse answer, and perhaps by how much it is better (column margin)."""

    def __init__(self, reader: Reader, type: str):
        self._sides = _Sides(reader, type)
        self.columns = (reader.options.field_chosen, reader.options.field_rejected)
        self.field = self.columns[0]
        self._margins: bool | None = None

    def read(self, row: Row) -> tuple[list[Conversation], dict[str, Any]]:
        (chosen, first), (rejected, second) = (self._sides.whole(row, column) for column in self.columns)
        if first is None or second is None:
            common = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
            # Where one is the beginning of the other, or its equal, the last message of the shorter is the answer
            first = second = min(len(chosen), len(rejected)) - 1 if common is None else common
            if common is not None and not chosen[common]["role"] == rejected[common]["role"] == "assistant":
                what = f"{self.columns[1]}: differs from {self.columns[0]} before what the assistant answers"
                raise DataError(what, where=row.where, code="row", help="only the answers of a pair may differ")
        check_answer(row, self.columns[0], chosen[first:])
        check_answer(row, self.columns[1], rejected[second:])
        if chosen == rejected:
            what = f"{self.columns[1]}: says the same as {self.columns[0]}, and there is nothing to prefer"
            raise DataError(what, where=row.where, code="chosen-is-rejected", help=HELP)
        chats = [
            self._sides.trained_from(row, column, messages, start)
            for column, messages, start in zip(self.columns, (chosen, rejected), (first, second), strict=True)
        ]
        return chats, {"columns": self._margin(row)}

    def _margin(self, row: Row) -> dict[str, float]:
        margin = row.get("margin")
        if self._margins is None:
            self._margins = margin is not None
        if (margin is not None) != self._margins:
            others = "the rows before have one" if self._margins else "the rows before have none"
            raise row.error("margin", f"is {'missing' if margin is None else 'there'}, and {others}")
        if margin is None:
            return {}
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
            raise row.error("margin", f"is {str(margin)[:40]!r}, not a number")
        return {"margin": float(margin)}


class Labelled:
    """Rows with one answer and whether it is good."""

    def __init__(self, reader: Reader, type: str):
        self._sides = _Sides(reader, type)
        self.field, self._label = reader.options.field_completion, reader.options.field_label

    def read(self, row: Row) -> tuple[list[Conversation], dict[str, Any]]:
        messages, first = self._sides.whole(row, self.field)
        first = len(messages) - 1 if first is None else first
        check_answer(row, self.field, messages[first:])
        chat = self._sides.trained_from(row, self.field, messages, first)
        if self._label not in row:
            row.require(self._label, bool)
        label = row[self._label]
        if label not in (0, 1) or not isinstance(label, bool | int):
            shown = "null" if label is None else f"{str(label)[:40]!r}"
            raise row.error(self._label, f"is {shown}, not true or false")
        return [chat], {"columns": {"label": float(label)}}


class Prompts:
    """Rows that a model is to answer: the conversation up to the last turn of the user, and what rewards need."""

    def __init__(self, reader: Reader, type: str):
        self._sides = _Sides(reader, type)
        self.field = reader.field

    def read(self, row: Row) -> tuple[list[Conversation], dict[str, Any]]:
        found = self._sides.prompt(row)
        if found is None:
            row.require(self.field, list)
            raise AssertionError
        column, messages = found
        last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
        if last is None:
            raise row.error(column, "has no message of the user")
        chat = self._sides.reader.conversation(row, column, self._sides.opened(row, messages[: last + 1]))
        used = {column, SYSTEM, self._sides.reader.field_tools}
        fields = {key: value for key, value in row.items() if key not in used}
        for key, value in fields.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise row.error(key, f"can't be kept for the rewards: {error}", "JSON values can") from error
        return [chat], {"fields": fields}
