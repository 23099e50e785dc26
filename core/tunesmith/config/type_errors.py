"""Convert validation errors of pydantic to problems: what a value must be, what it is, and what to write instead."""

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
"""Strings that are meant as booleans -> the boolean: those of YAML 1.1, and quoted ones."""


def problems(error: ValidationError, document: Document, base: KeyPath) -> list[Problem]:
    """Return one problem, with its place, for each wrong value and each missing key of the model at `base`."""
    items_by_path: dict[KeyPath, list[Any]] = {}
    for item in error.errors(include_url=False):
        if item["type"] != "extra_forbidden":  # keys.py reports unknown keys
            items_by_path.setdefault(_path(item["loc"], document, base), []).append(item)
    # For a union such as `list[str] | str`, pydantic reports the value (not a str) and the wrong element of the list.
    # The innermost path is the most specific, so problems of the paths above it are left out.
    parents = {path[:end] for path in items_by_path for end in range(len(path))}
    return [_problem(items, document, path) for path, items in items_by_path.items() if path not in parents]


def _path(loc: tuple[str | int, ...], document: Document, base: KeyPath) -> KeyPath:
    """Return the path of a key in the YAML; pydantic's path also contains the branches of unions."""
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
    """Return the problem of one value from all errors that pydantic reports for it."""
    name = ".".join(map(str, path))
    if items[0]["type"] == "missing":
        return Problem(f"{name} is missing", document.where(path), "missing-key", f"write {path[-1]}: ...")
    value, where = items[0]["input"], document.where(path, value=True)
    hide = isinstance(value, dict | list) or is_secret(path, value)
    actual = "" if hide else f", got {json.dumps(value, default=str)[:60]}"
    if value is True and where.startswith("command line"):  # `--key` without a value sets true
        help: str | None = f"give it a value: --{name} VALUE"
    else:
        help = next((advice for item in items if (advice := _advice(item))), None)
    return Problem(f"{name} {_requirement(items)}{actual}", where, "wrong-type", help)


def _requirement(items: list[Any]) -> str:
    """Return what a value must be, as "must be ... or ..." over the branches of a union."""
    start = "Input should be "
    options = []
    for item in items:
        if item["type"] in ("model_type", "dict_type"):
            options.append("a group of keys")
        elif item["msg"].startswith(start):
            options.append(item["msg"].removeprefix(start).replace("a valid i", "an i").replace("a valid ", "a "))
        else:
            return f"is invalid: {item['msg']}"
    return f"must be {' or '.join(dict.fromkeys(options))}"


def _advice(item: Any) -> str | None:
    """Return what to write instead, if the input shows what was meant."""
    kind, value = item["type"], item["input"]
    if kind == "bool_type":
        return f"write {BOOLEANS.get(str(value).lower(), 'true or false')}"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return _number(value.strip(), integer=kind == "int_type")
    if kind == "string_type" and isinstance(value, int | float):
        return f'write "{value}", in quotes'
    if kind == "list_type" and isinstance(value, str | int | float):
        return f"write [{value}]"
    if kind == "literal_error" and isinstance(value, str):
        choices = item["ctx"]["expected"].replace(" or ", ", ").split(",")  # pydantic writes "'a', 'b' or 'c'"
        close = nearest(value, [choice.strip(" '") for choice in choices])
        return f"did you mean {close!r}?" if close else None
    return None


def _number(text: str, integer: bool) -> str | None:
    """Return how to write a number that has quotes, thousands separators, or a percent sign."""
    if re.fullmatch(r"[+-]?\d{1,3}([,_' ]\d{3})+", text):
        return "write " + re.sub(r"[,_' ]", "", text)
    if not integer and re.fullmatch(r"\d+(\.\d+)?\s*%", text):
        return f"write {float(text.rstrip('% ')) / 100:g}"
    if isinstance(scalar(text), int if integer else int | float):
        return f"write {text}, without quotes"
    return None
