"""Write the paths of message trees as conversations: one row for each leaf."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import ConfigError, DataError
from tunesmith_starter.data import read_rows

if TYPE_CHECKING:
    from tunesmith import Row

ASSISTANT = "assistant"
ROLES = {"prompter": "user", "user": "user", "human": "user", ASSISTANT: ASSISTANT, "system": "system"}
"""Name of a role in trees -> its usual name."""
DEEPEST = 1000
"""Most messages of a path. A longer one is a cycle."""


def write_conversations(path: str, target: Path, force: bool) -> str:
    """Write a row {"messages": [...]} for each leaf of the trees, and return a line about their number.

    A path ends at its last answer. Raise ConfigError if the file exists, DataError for a message that can't be used.
    """
    where = "command line (--linearize)"
    if target.exists() and not force:
        raise ConfigError(f"{target} exists", where=where, help="add --force, or name another file", code="usage")
    rows = read_rows(path, None)
    nested = isinstance(rows[0].get("prompt"), Mapping)
    paths = list(_nested_paths(rows) if nested else _flat_paths(rows))
    answered = [dialogue for dialogue in map(_to_last_answer, paths) if dialogue]
    unique = list({json.dumps(dialogue, ensure_ascii=False): dialogue for dialogue in answered}.values())
    if not unique:
        raise DataError(f"{path}: no message of the trees is an answer", where=where, code="no-layout")
    text = "".join(json.dumps({"messages": dialogue}, ensure_ascii=False) + "\n" for dialogue in unique)
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror}", where=where, help="name another file", code="usage") from error
    lost = len(paths) - len(answered)
    without = f", {lost:,} without an answer left out" if lost else ""
    same = f", {len(answered) - len(unique):,} repeated once more" if len(answered) > len(unique) else ""
    return f"{target}: {len(unique):,} conversations from {len(paths):,} paths{without}{same}"


def _flat_paths(rows: Sequence[Row]) -> Iterator[list[dict[str, str]]]:
    """Yield the messages from a root to each message that has no reply. Each row is a message."""
    by_id: dict[str, Row] = {}
    for row in rows:
        if (id := row.require("message_id")) in by_id:
            raise row.error("message_id", f"is that of {by_id[id].where}, too", "remove one of the rows")
        by_id[id] = row
    parents = {_parent(row) for row in rows}
    for row in rows:
        if row["message_id"] in parents:
            continue
        chain, current = [row], row
        while (parent := _parent(current)) is not None:
            if parent not in by_id or len(chain) > DEEPEST:
                problem = "is not the message_id of a row" if parent not in by_id else "leads around in a circle"
                raise current.error("parent_id", f"{problem}: {parent!a:.40}", "use the file with all messages")
            current = by_id[parent]
            chain.append(current)
        yield [_message(message, message) for message in reversed(chain)]


def _parent(row: Row) -> str | None:
    return None if row.get("parent_id") is None else str(row.require("parent_id"))


def _nested_paths(rows: Sequence[Row]) -> Iterator[list[dict[str, str]]]:
    """Yield the messages from a root to each message that has no reply. Each row is a tree."""
    for row in rows:
        waiting: list[tuple[list[dict[str, str]], Any]] = [([], row.require("prompt", dict))]
        while waiting:
            before, message = waiting.pop()
            if not isinstance(message, Mapping):
                raise row.error("prompt", f"has a reply that is not a mapping: {type(message).__name__}")
            chain = [*before, _message(row, message)]
            replies = message.get("replies") or []
            if not isinstance(replies, list):
                raise row.error("prompt", f"has replies that are not a list: {type(replies).__name__}")
            if not replies:
                yield chain
            waiting += [(chain, reply) for reply in reversed(replies)]


def _message(row: Row, message: Mapping[str, Any]) -> dict[str, str]:
    role, text = message.get("role"), message.get("text")
    if not isinstance(role, str) or role not in ROLES or not isinstance(text, str):
        if isinstance(role, str) and role in ROLES:
            raise row.error("text", "must be a text")
        raise row.error("role", f"unknown role {role!a:.40}", f"roles are {', '.join(ROLES)}")
    return {"role": ROLES[role], "content": text}


def _to_last_answer(dialogue: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return a dialogue up to its last answer; [] if it has none."""
    last = max((i for i, message in enumerate(dialogue) if message["role"] == ASSISTANT), default=-1)
    return dialogue[: last + 1]
