"""Read rows with a prompt and its answers: pairs, labeled answers, and prompts alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from tunesmith import DataError, Row
from tunesmith_chat.conversation import Conversation, Reader
from tunesmith_chat.marks import NOT_TRAINED
from tunesmith_chat.messages import Message

PROMPT, INPUT = "prompt", "input"
"""Columns with plain text: the user message, and the user message in rows for reward models."""

HELP = "tunesmith lint names all such rows: fix or remove them"


def check_answer(row: Row, column: str, answer: list[Message]) -> None:
    """Raise DataError if the assistant messages of an answer have neither text nor tool calls."""
    own = [message for message in answer if message["role"] == "assistant"]
    if own and not any(str(value).strip() for m in own for key, value in m.items() if key != "role" and value):
        message = f"{column}: is empty or white space"
        raise DataError(message, where=row.where, code="empty-answer", help=HELP)


def _asked(row: Row, column: str) -> list[Message]:
    """Return the text of a column as a message of the user."""
    return [{"role": "user", "content": row.require(column)}]


def _same(some: list[Message], others: list[Message]) -> bool:
    """Return True if messages are the same, apart from white space around their content."""
    return [{**m, "content": str(m.get("content")).strip()} for m in some] == [
        {**m, "content": str(m.get("content")).strip()} for m in others
    ]


def contains(messages: list[Message], part: list[Message]) -> bool:
    """Return True if a part follows somewhere in a list of messages."""
    return any(_same(messages[start : start + len(part)], part) for start in range(len(messages) - len(part) + 1))


class RowReader(Protocol):
    """A reader of rows of one kind. field: the column to name in errors that belong to no other column."""

    field: str

    def read(self, row: Row) -> tuple[list[Conversation], dict[str, Any]]:
        """Return a conversation for each completion of the example, and further attributes of the example.

        Raise DataError for a row that can't be used.
        """


class _AnswerReader:
    """A reader of the prompt and the answers of rows of one type."""

    def __init__(self, reader: Reader, type: str):
        self.reader = reader
        self.options = reader.options
        self.explicit = "field_messages" in self.options.model_fields_set
        self.prompts = (INPUT,) if type.startswith("bradley_terry.") else (reader.field, PROMPT)

    def prompt(self, row: Row) -> tuple[str, list[Message]] | None:
        """Return the column of the prompt and its messages, or None if the row has no such column."""
        if self.explicit and self.prompts[0] not in row:
            row.require(self.prompts[0], list)
        column = next((name for name in self.prompts if row.get(name) is not None), None)
        if column is None:
            return None
        if isinstance(row[column], list):
            return column, self._unmarked(row, *self.reader.messages(row, column, row[column]))
        return column, _asked(row, column)

    def _unmarked(self, row: Row, messages: list[Message], plans: Any) -> list[Message]:
        """Return the messages. Marks of what to train in them have no effect, because an answer is trained whole."""
        if plans:
            row.notice("messages: marks of what to train are not read, because answers are trained whole")
        return messages

    def answer(self, row: Row, column: str) -> list[Message]:
        """Return the messages of an answer, which is a text, a message, a list of messages, or a whole conversation."""
        value = row.get(column)
        if isinstance(value, Mapping):
            message, plan = self.reader.message.read(row, column, value)
            return self._unmarked(row, [message], plan)
        if isinstance(value, list):
            return self._unmarked(row, *self.reader.messages(row, column, value))
        return [{"role": "assistant", "content": row.require(column)}]

    def conversation(self, row: Row, column: str) -> tuple[list[Message], int | None]:
        """Return the conversation including the answer, and the index of the answer's first message.

        The index is None if the column is a whole conversation, which does not mark where the answer begins. Raise
        DataError if there is no prompt, or if it does not fit the answer.
        """
        answer = self.answer(row, column)
        has_prompt = answer[0]["role"] not in ("assistant", "tool")
        prompt = None if has_prompt and not self.explicit else self.prompt(row)
        if not has_prompt:
            if prompt is None:
                names, columns = " or ".join(self.prompts), ", ".join(map(str, row))
                raise row.error(
                    column,
                    f"has only the answer, and there is no column with the prompt ({names}); found: {columns}",
                    "if the text is a dialogue with a marker before each turn, write type: chat_template.dialogue",
                )
            if prompt[1][-1]["role"] == "assistant":
                help = "set field_messages: to the column with the messages before the answer"
                raise row.error(prompt[0], "ends with an assistant message, but the answer comes after it", help)
            return self.with_system(row, [*prompt[1], *answer]), len(self.with_system(row, prompt[1]))
        prompts = [prompt] if prompt else self._other_prompts(row)
        for name, messages in prompts:
            answer = self._joined(row, column, answer, name, messages)
        return self.with_system(row, answer), None

    def _other_prompts(self, row: Row) -> Iterator[tuple[str, list[Message]]]:
        """Yield the columns that may have the prompt of whole conversations, although no key names them."""
        for name in self.prompts:
            if row.get(name) is not None:
                value = row[name]
                read = self.reader.messages(row, name, value)[0] if isinstance(value, list) else _asked(row, name)
                yield name, read

    def _joined(self, row: Row, column: str, answer: list[Message], name: str, prompt: list[Message]) -> list[Message]:
        """Return a whole conversation, preceded by those messages of its prompt that it does not have.

        It may begin with the last messages of the prompt, such as the user's after a system message. Raise DataError
        for any other prompt that is not a part of the conversation, because it would be lost.
        """
        size = len(prompt)
        if contains(answer, prompt):
            return answer
        for common in range(min(size, len(answer)), 0, -1):
            if _same(prompt[-common:], answer[:common]):
                return [*prompt[:-common], *answer]
        if name == self.reader.field and not self.explicit:  # for example the conversation that was rated
            row.notice(f"column {name!r} is not read: {column} does not contain it")
            return answer
        help = f"write the answer alone in {column}, or remove the column {name}"
        problem = f"is a whole conversation, but does not begin with {name} or with the end of it"
        raise row.error(column, problem, help)

    def with_system(self, row: Row, messages: list[Message]) -> list[Message]:
        """Return the messages, preceded by the text of the system column if the row has one."""
        system = self.reader.system(row) if messages[0]["role"] != "system" else None
        return [system, *messages] if system else messages

    def trained_from(self, row: Row, column: str, messages: list[Message], first: int) -> Conversation:
        """Return a conversation in which only the answer, from message `first` on, is trained. Raise DataError."""
        if first == 0 or messages[first]["role"] != "assistant":
            role = messages[first]["role"]
            problem = "has no prompt before the answer" if first == 0 else f"has a {role} message instead of the answer"
            raise row.error(column, problem, "write the prompt before the assistant message")
        plans = [NOT_TRAINED] * first + [None] * (len(messages) - first)
        return self.reader.conversation(row, column, messages, plans)


class Pairs:
    """A reader of rows with a chosen and a rejected answer, and an optional column `margin` between them."""

    def __init__(self, reader: Reader, type: str):
        self._answers = _AnswerReader(reader, type)
        self.columns = (reader.options.field_chosen, reader.options.field_rejected)
        self.field = self.columns[0]
        self._margins: bool | None = None

    def read(self, row: Row) -> tuple[list[Conversation], dict[str, Any]]:
        (chosen, first), (rejected, second) = (self._answers.conversation(row, column) for column in self.columns)
        if first is None or second is None:
            common = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
            # If one conversation is a prefix of the other, the last message of the shorter one is the answer
            first = second = min(len(chosen), len(rejected)) - 1 if common is None else common
            if common is not None and not chosen[common]["role"] == rejected[common]["role"] == "assistant":
                message = f"{self.columns[1]}: differs from {self.columns[0]} before the assistant's answer"
                raise DataError(message, where=row.where, code="row", help="only the answers of a pair may differ")
        check_answer(row, self.columns[0], chosen[first:])
        check_answer(row, self.columns[1], rejected[second:])
        if chosen == rejected:
            message = f"{self.columns[1]}: is the same as {self.columns[0]}, so neither is preferred"
            raise DataError(message, where=row.where, code="chosen-is-rejected", help=HELP)
        chats = [
            self._answers.trained_from(row, column, messages, start)
            for column, messages, start in zip(self.columns, (chosen, rejected), (first, second), strict=True)
        ]
        return chats, {"columns": self._margin(row)}

    def _margin(self, row: Row) -> dict[str, float]:
        margin = row.get("margin")
        if self._margins is None:
            self._margins = margin is not None
        if (margin is not None) != self._margins:
            previous = "have one" if self._margins else "have none"
            raise row.error("margin", f"is {'missing' if margin is None else 'set'}, but the rows before {previous}")
        if margin is None:
            return {}
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
            raise row.error("margin", f"must be a finite number, got {str(margin)[:40]!r}")
        return {"margin": float(margin)}


class Labelled:
    """A reader of rows with one answer and its label: true if it is good, false if not."""

    def __init__(self, reader: Reader, type: str):
        self._answers = _AnswerReader(reader, type)
        self.field, self._label = reader.options.field_completion, reader.options.field_label

    def read(self, row: Row) -> tuple[list[Conversation], dict[str, Any]]:
        messages, first = self._answers.conversation(row, self.field)
        first = len(messages) - 1 if first is None else first
        check_answer(row, self.field, messages[first:])
        chat = self._answers.trained_from(row, self.field, messages, first)
        if self._label not in row:
            row.require(self._label, bool)
        label = row[self._label]
        if label not in (0, 1) or not isinstance(label, bool | int):
            actual = "null" if label is None else f"{str(label)[:40]!r}"
            raise row.error(self._label, f"must be true or false, got {actual}")
        return [chat], {"columns": {"label": float(label)}}


class Prompts:
    """A reader of prompts: the conversation up to the last user message, and the other columns for rewards."""

    def __init__(self, reader: Reader, type: str):
        self._answers = _AnswerReader(reader, type)
        self.field = reader.field

    def read(self, row: Row) -> tuple[list[Conversation], dict[str, Any]]:
        prompt = self._answers.prompt(row)
        if prompt is None:
            row.require(self.field, list)
            raise AssertionError
        column, messages = prompt
        last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
        if last is None:
            raise row.error(column, "has no user message")
        chat = self._answers.reader.conversation(row, column, self._answers.with_system(row, messages[: last + 1]))
        used = {column, self._answers.reader.field_system, self._answers.reader.field_tools}
        fields = {key: row[key] for key in row if key not in used}
        if column != PROMPT and isinstance(fields.get(PROMPT), str | list) and not self._has(row, messages):
            row.notice(f"column {PROMPT!r} is not read as the prompt, because {column} is; rewards get it")
        for key, value in fields.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise row.error(key, f"can't be passed to rewards: {error}", "columns must be JSON values") from error
        fields.setdefault(PROMPT, chat.messages)  # rewards get messages, as with type: prompt
        return [chat], {"fields": fields}

    def _has(self, row: Row, messages: list[Message]) -> bool:
        """Return True if the messages contain those of the column `prompt`."""
        value = row[PROMPT]
        prompt = (
            self._answers.reader.messages(row, PROMPT, value)[0] if isinstance(value, list) else _asked(row, PROMPT)
        )
        return contains(messages, prompt)
