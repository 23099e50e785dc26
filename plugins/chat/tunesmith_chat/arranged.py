"""Give a row the columns of other rows of its kind: from exchanges, a prompt and completion, ranks, choices, scores."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from typing import Any

from tunesmith import Row
from tunesmith_chat import COMPLETION, DIALOGUE, EXCHANGES, ChatDataset
from tunesmith_chat.calls import wrapped
from tunesmith_chat.roles import role_names

EXCHANGE_COLUMN, PROMPT = "conversation", "prompt"
"""Columns that are read if field_messages is not set: of type chat_template.exchanges, and of the others."""


def arranged(row: Row, type: str, kind: str, options: ChatDataset) -> Row:
    """Return the row with the columns that the readers of its kind read. Raise DataError.

    The result keeps the place of the row. A row that needs no change is returned as it is.
    """
    if type == EXCHANGES:
        return _with_exchanges(row, options)
    if type == COMPLETION:
        return _with_completion(row, options)
    if kind == "pair" and options.field_ranked is not None:
        return _with_ranked(row, type, options.field_ranked, options)
    if kind == "pair" and options.field_better is not None:
        return _with_better_first(row, options.field_better, options)
    if kind == "labelled" and options.label_threshold is not None:
        return _changed(row, {options.field_label: _number(row, options.field_label) >= options.label_threshold})
    return row


def _with_exchanges(row: Row, options: ChatDataset) -> Row:
    """Return the row with a list of messages in place of a list of exchanges, each of which has several turns."""
    column = _column(options, EXCHANGE_COLUMN)
    role, content = _properties(options)
    messages = []
    for index, exchange in enumerate(row.require(column, list)):
        place = f"{column}[{index}]"
        if not isinstance(exchange, Mapping):
            raise row.error(place, f"must be a mapping of turns, got {_kind(exchange)}")
        for name, key in options.exchange_turns.items():
            if not isinstance(exchange.get(key), str):
                names = ", ".join(map(str, exchange)) or "none"
                problem = f"must be a string, got {_kind(exchange[key])}" if key in exchange else "is missing"
                help = f"the exchange has {names}; write exchange_turns: {{user: ..., assistant: ...}}"
                raise row.error(f"{place}.{key}", problem, help)
            messages.append({role: name, content: exchange[key]})
    return _changed(row, {options.field_messages: messages}, column)


def _with_completion(row: Row, options: ChatDataset) -> Row:
    """Return the row with a list of messages in place of a prompt and its completion.

    Messages of the assistant in the prompt get `weight: 0`, because only the completion is trained.
    """
    role, content = _properties(options)
    column = _column(options, PROMPT)
    prompt = row.get(column)
    messages = (
        [{role: "user", content: row.require(column)}]
        if not isinstance(prompt, list)
        else [_untrained(row, message, role, f"{column}[{index}]", options) for index, message in enumerate(prompt)]
    )
    messages += _completion(row, options, role, content)
    return _changed(row, {options.field_messages: messages}, column)


def _completion(row: Row, options: ChatDataset, role: str, content: str) -> list[Any]:
    """Return the messages of the completion: a text, a message or messages, or the tool calls of one message."""
    if options.field_tool_calls is None:
        value = row.get(options.field_completion)
        if isinstance(value, list | Mapping):
            return list(value) if isinstance(value, list) else [value]
        return [{role: "assistant", content: row.require(options.field_completion)}]
    column = options.field_tool_calls
    calls = row.get(column)
    if isinstance(calls, str):
        try:
            calls = json.loads(calls)
        except (ValueError, RecursionError) as error:
            raise row.error(column, f"is not valid JSON: {error}") from error
    if not isinstance(calls, list):
        raise row.missing(column) if column not in row else row.error(column, f"must be a list, got {_kind(calls)}")
    message = {
        role: "assistant",
        options.message_property_mappings.get("tool_calls", "tool_calls"): list(map(wrapped, calls)),
    }
    text = row.get(options.field_completion)
    if isinstance(text, str):
        message[content] = text
    elif not calls:
        raise row.error(column, "has no calls", f"write an answer into the column {options.field_completion}")
    return [message]


def _with_ranked(row: Row, type: str, column: str, options: ChatDataset) -> Row:
    """Return the row with the best of its ranked answers as the chosen and the worst as the rejected one.

    In a dialogue, which is one text, the answers follow the text of the prompt.
    """
    ranked = []
    for index, entry in enumerate(row.require(column, list)):
        place = f"{column}[{index}]"
        if not isinstance(entry, Mapping):
            raise row.error(place, f"must be a mapping of rank and answer, got {_kind(entry)}")
        parts = Row({f"{place}.{key}": entry[key] for key in ("rank", "answer") if key in entry}, row.where)
        ranked.append((_number(parts, f"{place}.rank"), parts.require(f"{place}.answer")))
    ranked.sort(key=lambda answer: answer[0])
    if len(ranked) < 2 or ranked[0][0] == ranked[-1][0]:
        problem = (
            f"must have answers of two ranks, got {len(ranked)} of rank {ranked[0][0]:g}" if ranked else "is empty"
        )
        raise row.error(column, problem, "remove the row")
    if len(ranked) > 2:
        row.notice(f"{column}: answers between the best and the worst are not read")
    chosen, rejected = ranked[0][1], ranked[-1][1]
    if type == DIALOGUE:
        prompt = _column(options, PROMPT)
        text = row.require(prompt)
        return _changed(row, {options.field_chosen: text + chosen, options.field_rejected: text + rejected}, prompt)
    return _changed(row, {options.field_chosen: chosen, options.field_rejected: rejected})


def _with_better_first(row: Row, column: str, options: ChatDataset) -> Row:
    """Return the row with its two answers exchanged if the column says that the second one is better."""
    better = row.require(column, object)
    if not isinstance(better, int) or better not in (0, 1):
        help = f"write 0 if {options.field_chosen} is better, and 1 if {options.field_rejected} is"
        raise row.error(column, f"must be 0 or 1, got {better!a:.40}", help)
    if not better:
        return row
    for name in (options.field_chosen, options.field_rejected):
        if name not in row:
            raise row.missing(name)
    chosen, rejected = row[options.field_chosen], row[options.field_rejected]
    return _changed(row, {options.field_chosen: rejected, options.field_rejected: chosen})


def _changed(row: Row, columns: Mapping[str, Any], dropped: str | None = None) -> Row:
    """Return a copy of a row with other columns. It has the place of the row, and shares its notices."""
    result = copy.copy(row)
    if dropped is not None:
        del result[dropped]
    result.update(columns)
    return result


def _column(options: ChatDataset, default: str) -> str:
    return options.field_messages if "field_messages" in options.model_fields_set else default


def _properties(options: ChatDataset) -> tuple[str, str]:
    """Return the names of the role and the content of a message in the data."""
    mappings = options.message_property_mappings
    return mappings.get("role", "role"), mappings.get("content", "content")


def _untrained(row: Row, message: Any, role: str, place: str, options: ChatDataset) -> Any:
    """Return a message of a prompt; one of the assistant with the mark that it is not trained."""
    if not isinstance(message, Mapping):
        raise row.error(place, f"must be a mapping, got {_kind(message)}", "write {role: user, content: Hello}")
    names = role_names(options.roles)
    return {**message, "weight": 0} if names.get(str(message.get(role))) == "assistant" else message


def _number(row: Row, column: str) -> float:
    value = row.require(column, object)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise row.error(column, f"must be a number, got {value!a:.40}")
    return float(value)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
