"""What to say of a value that pydantic refuses: what it has to be, what it is, and often what to write instead."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from tunesmith.config.secrets import is_secret
from tunesmith.config.yamlfile import Document, KeyPath, scalar
from tunesmith.errors import Problem
from tunesmith.spelling import nearest

BOOLEANS = {"true": "true", "yes": "true", "on": "true", "y": "true",
            "false": "false", "no": "false", "off": "false", "n": "false"}  # fmt: skip
"""Words that are meant as booleans: those of YAML 1.1, and quoted ones."""


def problems(error: ValidationError, document: Document, base: KeyPath) -> list[Problem]:
    """One problem for each wrong value and each missing key, with its place."""
    found: dict[KeyPath, list[Any]] = {}
    for item in error.errors(include_url=False):
        if item["type"] != "extra_forbidden":  # keys.py tells those
            found.setdefault(_path(item["loc"], document, base), []).append(item)
    # of a value that may be one thing or another, the part that is wrong says more than the whole
    whole = {path[:end] for path in found for end in range(len(path))}
    return [_problem(items, document, path) for path, items in found.items() if path not in whole]


def _path(loc: tuple[str | int, ...], document: Document, base: KeyPath) -> KeyPath:
    """The path of a key from pydantic's, which names the branches of unions too."""
    path = base
    for part in loc:
        if (*path, part) in document.keys or not _is_union_branch(part):
            path = (*path, part)
    return path


def _is_union_branch(part: Any) -> bool:
    return isinstance(part, str) and (
        part in ("bool", "int", "float", "str", "none")
        or part.startswith(("literal[", "list[", "dict["))
        or part[:1].isupper()
    )


def _problem(items: list[Any], document: Document, path: KeyPath) -> Problem:
    """What is wrong with one value."""
    name = ".".join(map(str, path))
    if items[0]["type"] == "missing":
        return Problem(f"{name} is missing", document.where(path), "missing-key", f"write {path[-1]}: ...")
    given, where = items[0]["input"], document.where(path, value=True)
    shown = "" if isinstance(given, dict | list) else f", not {json.dumps(given, default=str)[:60]}"
    if is_secret(path, given):
        shown = ""
    help = _flag(given, where, name) or next((advice for item in items if (advice := _advice(item))), None)
    return Problem(f"{name} {_wanted(items)}{shown}", where, "wrong-type", help)


def _wanted(items: list[Any]) -> str:
    """What a value has to be, in words, by everything that it could have been."""
    start = "Input should be "
    wanted = []
    for item in items:
        if item["type"] in ("model_type", "dict_type"):
            wanted.append("a group of keys")
        elif item["msg"].startswith(start):
            wanted.append(item["msg"].removeprefix(start).replace("a valid i", "an i").replace("a valid ", "a "))
        else:
            return f"is refused: {item['msg']}"
    return f"has to be {' or '.join(dict.fromkeys(wanted))}"


def _flag(given: Any, where: str, name: str) -> str | None:
    """Advice on a word of the command line that stands without a value, which makes it true."""
    return f"give it a value: --{name} VALUE" if given is True and where.startswith("command line") else None


def _advice(item: Any) -> str | None:
    """What to write instead, where that can be guessed from what was written."""
    kind, given = item["type"], item["input"]
    if kind == "bool_type":
        return f"write {BOOLEANS.get(str(given).lower(), 'true or false')}"
    if kind in ("int_type", "float_type") and isinstance(given, str):
        return _number(given.strip(), whole=kind == "int_type")
    if kind == "string_type" and isinstance(given, int | float):
        return f'write "{given}", in quotes'
    if kind == "list_type" and isinstance(given, str | int | float):
        return f"write [{given}]"
    if kind == "literal_error" and isinstance(given, str):
        close = nearest(given, _words(item["ctx"]["expected"]))
        return f"did you mean {close!r}?" if close else None
    return None


def _words(expected: str) -> list[str]:
    """The words of pydantic's "'a', 'b' or 'c'"."""
    return [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")]


def _number(text: str, whole: bool) -> str | None:
    """The number that a text was meant to be: quoted, with separators of thousands, or a percentage."""
    if re.fullmatch(r"[+-]?\d{1,3}([,_' ]\d{3})+", text):
        return "write " + re.sub(r"[,_' ]", "", text)
    if not whole and re.fullmatch(r"\d+(\.\d+)?\s*%", text):
        return f"write {float(text.rstrip('% ')) / 100:g}"
    if isinstance(scalar(text), int if whole else int | float):
        return f"write {text}, without quotes"
    return None
