"""Types of values that many keys share: paths, and limits for numbers without a limit of their own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError, PydanticKnownError

from tunesmith.files.paths import unexpanded

LARGEST_INTEGER = 2**63 - 1
LARGEST_NUMBER = 1e15
"""Limits of every number. A greater one is a mistake, and overflows sooner or later: 1e300 epochs, 1e38 as a rate."""


def _usable(path: str) -> str:
    """Return a path, or raise an error for one that no file can have or that only a shell understands."""
    if not path.strip():
        raise PydanticCustomError("path", "is empty")
    if "\0" in path:
        raise PydanticCustomError("path", "contains the character U+0000, which no path can have")
    if variable := unexpanded(path):
        raise PydanticCustomError("unexpanded", "contains {variable}", {"variable": variable})
    return path


PathText = Annotated[str, AfterValidator(_usable), Field(json_schema_extra={"format": "path"})]
"""The type of a key whose value is a path (or a hub id, or a URL). `~` and `$NAME` are refused: a config has the same
meaning for every user and in every shell, and a folder named `$HOME` is never what was meant."""


def whole_or_share(steps: float) -> float:
    """Return a number of steps, or a share of all steps. Raises an error for a number above 1 that is not whole."""
    if steps >= 1 and steps != int(steps):
        raise PydanticCustomError("interval", "must be a whole number of steps, or a share of all steps below 1")
    return int(steps) if steps >= 1 else steps


def within_limits(value: Any) -> Any:
    """Return the value of a key, or raise an error for a number beyond the limits of every number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        limit = LARGEST_INTEGER if isinstance(value, int) else LARGEST_NUMBER
        if value > limit:
            raise PydanticKnownError("less_than_equal", {"le": limit})
        if value < -limit:
            raise PydanticKnownError("greater_than_equal", {"ge": -limit})
    return value
