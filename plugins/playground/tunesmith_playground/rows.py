"""Append conversations to a file of training data, and read one from it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith import ConfigError
from tunesmith_playground.conversation import Answer, Conversation, Turn


def append_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to a file in JSON Lines, which is created if it does not exist. Raises ConfigError."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                text = "\n" + text  # the last line of the file has no end
            file.write(text.encode("utf-8", "replace"))
    except OSError as error:
        message = f"{path}: can't be written: {error.strerror}"
        raise ConfigError(message, where="save", help="name another file", code="usage") from error


def read_conversation(path: Path, sides: int) -> Conversation:
    """Return the conversation in the last row of a file. Raises ConfigError if there is none."""
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        messages = json.loads(lines[-1])["messages"]
        conversation, rest = Conversation(), [(str(m["role"]), str(m["content"])) for m in messages]
    except OSError as error:
        message, help = f"{path}: can't be read: {error.strerror}", "name a file that /save wrote"
        raise ConfigError(message, where="load", help=help, code="usage") from error
    except (ValueError, LookupError, TypeError) as error:
        message, help = f"{path}: the last line is not a row with messages", 'write {"messages": [...]} on each line'
        raise ConfigError(message, where="load", help=help, code="usage") from error
    if rest and rest[0][0] == "system":
        conversation.system = rest.pop(0)[1]
    if [role for role, _ in rest] != ["user", "assistant"] * (len(rest) // 2):
        message = f"{path}: the conversation is not one of a user and an assistant in turns"
        raise ConfigError(message, where="load", help="name a file that /save wrote", code="usage")
    for (_, user), (_, text) in zip(rest[::2], rest[1::2], strict=True):
        conversation.turns.append(Turn(user, [Answer(text, ending="stop") for _ in range(sides)]))
    return conversation
