"""Read the tests of a row."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EXPECTED = 'write assert statements, as a text or a list of texts, or cases: [{"input": "1 2", "output": "3"}, ...]'


@dataclass(frozen=True)
class RowTests:
    """The tests of a row: either statements that fail with an exception, or pairs of input and expected output."""

    asserts: tuple[str, ...] = ()
    cases: tuple[tuple[str, str], ...] = ()


def read_tests(value: Any) -> RowTests | None:
    """Return the tests in a column's value; None if there are none. Raise ValueError if it can't be read.

    A text that is a list or a mapping in JSON stands for it, because tables have columns of texts.
    """
    if isinstance(value, str):
        value = _from_json(value.strip())
    if value is None or value in ("", []):
        return None
    if isinstance(value, str):
        return RowTests(asserts=statements(value))
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list | tuple) and all(isinstance(test, str) for test in value):
        for test in value:
            check_can_fail(test)
        return RowTests(asserts=tuple(value))
    if isinstance(value, list | tuple) and all(isinstance(test, Mapping) for test in value):
        return RowTests(cases=tuple(case(test) for test in value))
    raise ValueError(f"tests {value!r:.80} can't be read: {EXPECTED}")


def _from_json(text: str) -> Any:
    """Return the list or mapping that a text is in JSON, and any other text unchanged."""
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # it may be Python
    return text


def statements(text: str) -> tuple[str, ...]:
    """Return the assert statements of a text, each as a test; or the text as one test, if it has other statements.

    Raise ValueError if it is not valid Python, or can't fail.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"tests {text!r:.80} are not valid Python: {error}") from error
    check_can_fail(text)
    if not all(isinstance(node, ast.Assert) for node in body):
        return (text,)
    return tuple(ast.unparse(node) for node in body)


def check_can_fail(test: str) -> None:
    """Raise ValueError for a test that any code would pass: one of comments, literals or comparisons without assert."""
    try:
        body = ast.parse(test).body
    except (SyntaxError, ValueError):
        return  # it fails when it runs
    if all(isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call | ast.Await) for node in body):
        raise ValueError(f"test {test!r:.80} checks nothing, so any code would pass it: {EXPECTED}")


def case(test: Mapping[str, Any]) -> tuple[str, str]:
    """Return the input and the expected output of a case. Raise ValueError without an output, or for another type."""
    if test.get("output") is None:
        raise ValueError(f"case {dict(test)!r:.80} has no output: {EXPECTED}")
    values = "" if test.get("input") is None else test["input"], test["output"]
    for name, value in zip(("input", "output"), values, strict=True):
        if not isinstance(value, str | int | float):
            kind = type(value).__name__
            raise ValueError(f"the {name} of case {dict(test)!r:.80} must be a text, got {kind}: {EXPECTED}")
    return str(values[0]), str(values[1])
