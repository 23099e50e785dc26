"""Convert errors of the YAML parser to errors with the place to fix and what to write there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from tunesmith.errors import ConfigError

QUOTE = "put the value in quotes"
SAME_COLUMN = "begin all keys of a group in the same column; only lines below a `key:` are indented further"


def syntax_error(error: yaml.MarkedYAMLError, text: str, name: str, open_collections: Sequence[Any]) -> ConfigError:
    """Return the error to raise for a YAML text that can't be parsed.

    Args:
        text: the text of the file.
        name: the file.
        open_collections: the events of the lists and mappings that were open at the error, the innermost last.
    """
    problem, context = error.problem or "", error.context or ""
    mark = error.problem_mark or error.context_mark
    # The parser notices an unclosed quote or bracket lines later. Report the place where it was opened.
    start = error.context_mark if "unexpected end" in problem else None
    if "flow" in context and open_collections and open_collections[-1].flow_style:
        start = open_collections[-1].start_mark
    message, help = f"{context} {problem}".strip(), None
    if mark and not start:
        message, help = _advice(message, text.splitlines(), mark)
    elif start and mark:
        message += f" by line {mark.line + 1}"
        help = "close the quote, or the bracket, that is opened here"
    return ConfigError(message, where=at(name, start or mark) if start or mark else name, help=help, code="yaml-syntax")


def at(name: str, mark: Any) -> str:
    """Return file:line:column of a mark of the parser."""
    return f"{name}:{mark.line + 1}:{mark.column + 1}"


def _advice(message: str, lines: list[str], mark: Any) -> tuple[str, str | None]:
    """Return the message and the help of a common mistake at a mark."""
    line = lines[mark.line] if mark.line < len(lines) else ""
    before, character = line[: mark.column], line[mark.column : mark.column + 1]
    if "found a tab character" in message:
        return "a tab is not allowed as indentation", "indent with spaces"
    if "cannot start any token" in message:
        if character == "\t":
            return "a tab is not allowed as indentation", "indent with spaces"
        return f"{message}: {character!r}", QUOTE
    if "mapping values are not allowed" in message:
        if re.search(r":\s", before):
            return "a value contains ': ', which begins another key", f"{QUOTE}, or begin a new line"
        above = lines[mark.line - 1].strip() if mark.line else ""
        if above and not before.startswith((" ", "-")) and re.match(r"[\w.]+:\S", above):
            return f"the line above, {above!r}, has no space after the colon", "write 'key: value'"
        return "the key is indented further than the line above allows", SAME_COLUMN
    if re.search("did not find expected (key|'-' indicator)", message) or "could not find expected ':'" in message:
        return message, SAME_COLUMN
    if "alias" in message or "anchor" in message:
        return message, "put a value that begins with * or & in quotes"
    if "escape" in message:
        return message, "write single quotes, in which a backslash is a backslash"
    return message, None


def at_byte(name: str, content: bytes, offset: int) -> str:
    """Return file:line:column of a byte; columns are counted in bytes."""
    line = content.count(b"\n", 0, offset) + 1
    column = offset - content.rfind(b"\n", 0, offset)
    return f"{name}:{line}:{column}"
