"""Who may answer a hook, and the decorator that says so of a function in hookspecs.py.

Arity, checked before anything heavy is loaded:
  one    exactly one plugin answers; two are an error that names both. Wrappers may surround it.
  keyed  one answer per key; plugins with other keys stay silent.
  chain  every answer gets what the one before it returned, in call order; no wrappers.
  all    everyone is called; what they return is gathered in a list, or ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import pluggy

F = TypeVar("F", bound=Callable[..., Any])
_marker = pluggy.HookspecMarker("tunesmith")


def spec(arity: Literal["one", "keyed", "chain", "all"]) -> Callable[[F], F]:
    """Make a function the specification of the hook of its name."""

    def mark(function: F) -> F:
        function.arity = arity  # type: ignore[attr-defined]
        return _marker(function, firstresult=arity in ("one", "keyed"))

    return mark
