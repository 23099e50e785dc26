"""Convert validation errors of pydantic to problems: what a value must be, what it is, and what to write instead."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydantic import ValidationError

from tunesmith.config.datasets import DATASET_KEYS
from tunesmith.config.foreign import advice_for
from tunesmith.config.secrets import is_secret
from tunesmith.config.yamlfile import Document, KeyPath, scalar
from tunesmith.errors import Problem
from tunesmith.spelling import nearest

BOOLEANS = {"true": "true", "yes": "true", "on": "true", "y": "true",
            "false": "false", "no": "false", "off": "false", "n": "false"}  # fmt: skip
"""Strings that are meant as booleans -> the boolean: those of YAML 1.1, and quoted ones."""

BOUNDS = {
    "exclusiveMinimum": "greater_than", "minimum": "greater_than_equal",
    "exclusiveMaximum": "less_than", "maximum": "less_than_equal",
}  # fmt: skip
"""Bound in a JSON schema -> pydantic's type of the error for a number beyond it."""


def problems(error: ValidationError, document: Document, base: KeyPath, schema: dict[str, Any]) -> list[Problem]:
    """Return one problem, with its place, for each wrong value and each missing key of the model at `base`.

    `schema` is the JSON schema of the model, which has the bounds of each number.
    """
    items_by_path: dict[KeyPath, list[Any]] = {}
    for item in error.errors(include_url=False):
        if item["type"] != "extra_forbidden":  # keys.py reports unknown keys
            items_by_path.setdefault(_path(item["loc"], document, base), []).append(item)
    # For a union such as `list[str] | str`, pydantic reports the value (not a str) and the wrong element of the list.
    # The innermost path is the most specific, so problems of the paths above it are left out.
    parents = {path[:end] for path in items_by_path for end in range(len(path))}
    return [
        _problem(items, document, path, options_at(schema, path[len(base) :]))
        for path, items in items_by_path.items()
        if path not in parents
    ]


def options_at(root: dict[str, Any], path: KeyPath) -> list[dict[str, Any]]:
    """Return the JSON schemas that the value at a path of a model may follow; none for a path that it does not have."""
    schemas = [root]
    for part in path:
        name = "items" if isinstance(part, int) else "properties"
        below = [schema[name] if isinstance(part, int) else schema[name].get(part, {}) for schema in schemas
                 if isinstance(schema.get(name), dict)]  # fmt: skip
        schemas = [_resolved(root, option) for schema in below for option in schema.get("anyOf", [schema])]
    return schemas


def _resolved(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return root["$defs"][name] if name else schema


def unexpanded_problem(name: str, variable: str, where: str) -> Problem:
    """Return the problem of a path that contains `~` or a variable, which only a shell expands."""
    message = f"{name} contains {variable}, which is not expanded"
    in_shell = "$HOME" if variable == "~" else variable  # not every shell expands ~ after `=`
    help = f'write the complete path, or let your shell expand it: "{name}={in_shell}/..." after the YAML file'
    return Problem(message, where, "unexpanded", help)


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
        or part.startswith(("literal[", "list[", "dict[", "function-", "constrained-"))
        or part[:1].isupper()
    )


def _problem(items: list[Any], document: Document, path: KeyPath, options: list[dict[str, Any]]) -> Problem:
    """Return the problem of one value from all errors that pydantic reports for it."""
    name = ".".join(map(str, path))
    if items[0]["type"] == "missing":
        return Problem(f"{name} is missing", document.where(path), "missing-key", f"write {path[-1]}: ...")
    value, where = items[0]["input"], document.where(path, value=True)
    for item in items:
        if item["type"] == "unexpanded":
            return unexpanded_problem(name, item["ctx"]["variable"], where)
    hide = isinstance(value, dict | list) or is_secret(path, value)
    actual = "" if hide else f", got {_written(value)}"
    if value is True and where.startswith("command line"):  # `--key` without a value sets true
        advice: str | None = f"give it a value: --{name} VALUE"
    elif (advice := advice_for(path, value)) is None:
        candidates = (_group_advice(path, value, options), *(_advice(item) for item in items))
        advice = next((text for text in candidates if text), None)
    return Problem(f"{name} {_requirement(items, options)}{actual}", where, "wrong-type", advice)


def _requirement(items: list[Any], schemas: list[dict[str, Any]]) -> str:
    """Return what a value must be, as "must be ... or ..." over the branches of a union."""
    start = "Input should be "
    options = []
    for item in items:
        if item["type"] in ("model_type", "dict_type"):
            options.append("a group of keys")
        elif item["type"] in BOUNDS.values():
            options.append(_range(schemas, item))
        elif item["type"] == "finite_number":
            options.append(f"a finite number {_range(schemas, item)}".rstrip())
        elif item["type"] in ("path", "interval"):
            return str(item["msg"])
        elif item["msg"].startswith(start):
            options.append(item["msg"].removeprefix(start).replace("a valid i", "an i").replace("a valid ", "a "))
        else:
            return f"is invalid: {item['msg']}"
    return f"must be {' or '.join(dict.fromkeys(options))}"


def _range(schemas: list[dict[str, Any]], item: Any) -> str:
    """Return the allowed range of a number, as "greater than 0 and less than or equal to 1,000"."""
    bounds = {bound: schema[bound] for schema in schemas for bound in BOUNDS if bound in schema}
    # The limit of every number is not part of the schema of a key.
    bounds |= {bound: next(iter(item["ctx"].values())) for bound, kind in BOUNDS.items() if kind == item["type"]}
    texts = [f"{kind.replace('_', ' ').replace(' equal', ' or equal to')} {bound_text(bounds[bound])}"
             for bound, kind in BOUNDS.items() if bound in bounds]  # fmt: skip
    return " and ".join(texts)


def bound_text(number: float) -> str:
    """Return a bound as text: 0.5, 1,000,000, 1e+15."""
    if number == int(number) and (isinstance(number, int) or abs(number) < 1e12):
        return f"{int(number):,}"
    return f"{number:g}"


def _written(value: Any) -> str:
    """Return a value as the YAML has it: at most 60 characters, without control characters."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("inf", ".inf").replace("nan", ".nan")
    return json.dumps(value, default=str)[:60]


def _group_advice(path: KeyPath, value: Any, options: list[dict[str, Any]]) -> str | None:
    """Return how to write a list of dataset entries, or which keys a group has."""
    if path[0] in DATASET_KEYS and len(path) == 1:
        if isinstance(value, dict):
            return 'begin the entry with "- ", as an element of a list: "- path: ..."'
        return f"write a list of entries: [{{path: {value}, type: chat_template}}]" if isinstance(value, str) else None
    if path[0] in DATASET_KEYS and len(path) == 2:
        return f"write an entry: {{path: {value}, type: chat_template}}" if isinstance(value, str) else None
    known = [key for option in options for key in option.get("properties", {})]
    if known and not isinstance(value, dict):
        return f"keys of the group: {', '.join(known)}"
    return None


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
