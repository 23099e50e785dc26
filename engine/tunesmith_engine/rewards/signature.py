"""Check the options of a reward function against its signature, before it is called."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from tunesmith.plugins.rewards import GIVEN
from tunesmith.spelling import nearest

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
SIMPLE = (str, int, float, bool, list, dict, types.NoneType)


class NotCallable(Exception):
    """An object is not a function, or not one that takes its arguments by name."""


def describe(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters of a function as JSON values: all names, those without a default, and if it takes any.

    column: the default of its option `column`, which names a column of the rows, or None.

    Raises NotCallable for an object that can't be called with arguments by name.
    """
    if not callable(function):
        raise NotCallable(f"it is not a function but {type(function).__name__}")
    try:
        parameters = inspect.signature(function).parameters
    except ValueError as error:
        raise NotCallable(f"it has no signature: {error}") from None
    if fixed := [p.name for p in parameters.values() if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]:
        raise NotCallable(f"{fixed[0]} is positional only; arguments are passed by name")
    named = [p for p in parameters.values() if p.kind in BY_NAME]
    return {
        "names": [p.name for p in named],
        "required": [p.name for p in named if p.default is p.empty],
        "any": any(p.kind is p.VAR_KEYWORD for p in parameters.values()),
        "column": next((p.default for p in named if p.name == "column" and isinstance(p.default, str)), None),
    }


def problems(function: Callable[..., Any], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (message, help) for each option that a function does not take, or whose value has another type.

    A function that takes any argument by name takes columns that way; its options are those that it names.
    """
    names = [name for name in describe(function)["names"] if name not in GIVEN]
    hints = _hints(function)
    for name, value in options.items():
        if name in GIVEN:
            yield f"has the option {name!r}, which is an argument that every reward gets", "choose another name for it"
        elif name not in names:
            close = nearest(name, names)
            known = f"its options: {', '.join(names) or 'none'}"
            help = f"did you mean {close!r}?" if close else f"{known}; an option is a named parameter of the function"
            yield f"has an unknown option: {name}", help
        elif (expected := hints.get(name)) is not None and not fits(value, expected):
            yield f"has {name}: {value!r}, which is not {_name(expected)}", f"write {name}: {_example(expected)}"


def missing(signature: Mapping[str, Any], columns: Collection[str], options: Mapping[str, Any]) -> list[str]:
    """Return the required parameters of a function that nothing provides."""
    return [name for name in signature["required"] if name not in GIVEN and name not in columns and name not in options]


def mentions_option(error: ValueError, signature: Mapping[str, Any], options: Collection[str]) -> bool:
    """Return True if an error names an option of a function, or a parameter with a default."""
    names = {*options, *signature["names"]} - ({*signature["required"]} - {*options}) - {*GIVEN}
    return not names.isdisjoint(re.findall(r"\w+", str(error)))


def fits(value: Any, expected: Any) -> bool:
    """Return True if a value has an annotated type, or if the annotation is not a simple one."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    kind = origin or expected
    if kind not in SIMPLE:
        return True
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of parameters that are annotated; nothing if an annotation can't be resolved."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that only a type checker imports, or an object without annotations
        return {}


def _name(expected: Any) -> str:
    if typing.get_origin(expected) is typing.Literal:
        return f"one of {', '.join(map(repr, typing.get_args(expected)))}"
    return f"of type {expected.__name__ if isinstance(expected, type) else expected}"


def _example(expected: Any) -> str:
    if typing.get_origin(expected) is typing.Literal:
        return str(typing.get_args(expected)[0])
    examples = {str: "text", int: "1", float: "0.5", bool: "true"}
    return next((text for kind, text in examples.items() if expected is kind), "a value of that type")
