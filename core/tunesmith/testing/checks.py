"""Register the conformance checks: functions of a plugin that raise Failure with what to change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.testing.subject import Subject


class Failure(AssertionError):
    """A plugin breaks a promise. The message names the promise, the place, and what to change."""

    def __init__(self, message: str, change: str):
        super().__init__(f"{message}\n  change: {change}")


class NotApplicable(Exception):
    """A check can't be made here. The message has the reason."""


@dataclass(frozen=True)
class Check:
    """A promise of plugins.

    Args:
        name: the name of the function, which is also the id of the test.
        promise: the sentence of its docstring, without "Check that".
        run: the function. It raises Failure, or NotApplicable.
        kind: the kind of plugin that it is for; see Subject.kinds.
        slow: True if it needs several processes or an adapter.
    """

    name: str
    promise: str
    run: Callable[[Subject], None]
    kind: str
    slow: bool = False

    def why_not(self, subject: Subject) -> str | None:
        """Return why the check does not apply to a plugin, or None if it does."""
        if self.kind not in subject.kinds:
            return f"only for plugins that {KINDS[self.kind]}"
        return subject.setup.skip.get(self.name) or (subject.setup.no_run if self.kind not in STATIC else None)


KINDS = {
    "any": "are plugins",
    "packaged": "are installed from a distribution",
    "settings": "declare settings",
    "loss": "answer or wrap compute_loss",
    "strategy": "answer build_dataset",
    "adapter": "answer a value of adapter:",
    "optimizer": "answer a value of optimizer: or lr_scheduler:",
    "observer": "only watch a run: on_start, on_step, on_end",
    "runnable": "take part in a run with more than their rows",
}
"""Kinds of plugins -> what such a plugin does. A plugin can be of several kinds."""
STATIC = ("any", "packaged", "settings")
"""Kinds whose checks train nothing."""
CHECKS: dict[str, Check] = {}
"""Every check by name, in the order in which they run."""


def check(kind: str, slow: bool = False) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Register a function as a check of a kind of plugin."""

    def register(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        promise = " ".join((function.__doc__ or "").split()).removeprefix("Check that ")
        if promise.partition(" ")[0].isalpha():  # not the name of a file or a function
            promise = promise[0].upper() + promise[1:]
        CHECKS[function.__name__] = Check(function.__name__, promise, function, kind, slow)
        return function

    return register
