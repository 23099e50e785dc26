"""Read the texts that a format needs from a row."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from tunesmith import Row
from tunesmith.files.row import flaw, without_padding


def optional(row: Row, name: str) -> str:
    """Return the text of a column, or "" if it is missing or null."""
    return "" if row.get(name) is None else str(row.require(name))


def choices(row: Row, name: str) -> str:
    """Return a list of texts as lines of quoted texts."""
    texts = row.require(name, list)
    if not texts:
        raise row.error(name, "has no choices")
    for index, choice in enumerate(texts):
        if not isinstance(choice, str):
            kind = "null" if choice is None else type(choice).__name__
            raise row.error(f"{name}[{index}]", f"must be a string, got {kind}")
        if why := flaw(choice):
            raise row.error(f"{name}[{index}]", why)
    return "\n".join(f'- "{choice}"' for choice in texts)


def solution(row: Row, name: str) -> str:
    """Return the solution, or the explanation if the row has no solution."""
    if row.get(name) in (None, "") and row.get("explanation") is not None:
        name = "explanation"
    return str(row.require(name))


def evaluation(row: Row, name: str) -> str:
    """Return scores and critiques as YAML, in the form that the prompt asks for."""
    return "\n".join(_yaml(row, part) for part in ("scores", "critiques"))


def _yaml(row: Row, name: str) -> str:
    value: Any = row.get(name)
    if not isinstance(value, Mapping):
        text: str = row.require(name).strip("\n")
        return text if text.startswith(f"{name}:") else f"{name}:\n{textwrap.indent(text, '  ')}"
    try:
        value = without_padding(value) if row.padded else value
        dumped: str = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=float("inf"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise row.error(name, f"can't be written as YAML: {type(error).__name__}") from error
    return dumped.rstrip("\n")


READERS: dict[str, Callable[[Row, str], str]] = {
    "input": optional,
    "choices": choices,
    "solution": solution,
    "evaluation": evaluation,
}
"""Name in a template -> its reader, for names that are not simply the text of a column."""


def read(row: Row, name: str) -> str:
    """Return the text for a name in a template. Raise DataError if the row does not have it."""
    reader = READERS.get(name)
    return reader(row, name) if reader else str(row.require(name))
