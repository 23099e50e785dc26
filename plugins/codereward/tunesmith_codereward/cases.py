"""Read the tests of a row."""

from __future__ import annotations

import ast
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
    """Return the tests in a column's value; None if there are none. Raise ValueError if it can't be read."""
    if value is None or value in ("", []):
        return None
    if isinstance(value, str):
        return RowTests(asserts=statements(value))
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list | tuple) and all(isinstance(test, str) for test in value):
        return RowTests(asserts=tuple(value))
    if isinstance(value, list | tuple) and all(isinstance(test, Mapping) for test in value):
        return RowTests(cases=tuple(case(test) for test in value))
    raise ValueError(f"tests {value!r:.80} can't be read: {EXPECTED}")


def statements(text: str) -> tuple[str, ...]:
    """Return the assert statements of a text, each as a test; or the text as one test, if it has other statements.

    Raise ValueError if it is not valid Python.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"tests {text!r:.80} are not valid Python: {error}") from error
    if not all(isinstance(node, ast.Assert) for node in body):
        return (text,)
    return tuple(ast.unparse(node) for node in body)


def case(test: Mapping[str, Any]) -> tuple[str, str]:
    """Return the input and the expected output of a case. Raise ValueError without an output."""
    if "output" not in test or test["output"] is None:
        raise ValueError(f"case {dict(test)!r:.80} has no output: {EXPECTED}")
    given = test.get("input")
    return "" if given is None else str(given), str(test["output"])
