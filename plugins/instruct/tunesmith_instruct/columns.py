"""From a row to the texts that a format asks for."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from tunesmith import Row
from tunesmith.files.row import flaw


def given(row: Row, name: str) -> str:
    """A text that may be missing, null or empty."""
    return "" if row.get(name) is None else str(row.require(name))


def choices(row: Row, name: str) -> str:
    """A list of texts, one quoted on each line."""
    found = row.require(name, list)
    if not found:
        raise row.error(name, "has no choices")
    for index, choice in enumerate(found):
        if not isinstance(choice, str):
            kind = "null" if choice is None else type(choice).__name__
            raise row.error(f"{name}[{index}]", f"is {kind}, not a text")
        if why := flaw(choice):
            raise row.error(f"{name}[{index}]", why)
    return "\n".join(f'- "{choice}"' for choice in found)


def solution(row: Row, name: str) -> str:
    """The solution, or the explanation of a row that has none."""
    if row.get(name) in (None, "") and row.get("explanation") is not None:
        name = "explanation"
    return str(row.require(name))


def evaluation(row: Row, name: str) -> str:
    """Scores and critiques as YAML, in the form that the prompt asks for."""
    return "\n".join(_yaml(row, part) for part in ("scores", "critiques"))


def _yaml(row: Row, name: str) -> str:
    value: Any = row.get(name)
    if not isinstance(value, Mapping):
        text: str = row.require(name).strip("\n")
        return text if text.startswith(f"{name}:") else f"{name}:\n{textwrap.indent(text, '  ')}"
    try:
        dumped: str = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=float("inf"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise row.error(name, f"can't be written as YAML: {type(error).__name__}") from error
    return dumped.rstrip("\n")


READERS: dict[str, Callable[[Row, str], str]] = {
    "input": given,
    "choices": choices,
    "solution": solution,
    "evaluation": evaluation,
}
"""How a name in a template is read, where that is not simply the text in the column of that name."""


def read(row: Row, name: str) -> str:
    """The text for a name in a template. Raises DataError."""
    reader = READERS.get(name)
    return reader(row, name) if reader else str(row.require(name))
