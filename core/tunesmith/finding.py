"""Define a finding of `doctor`: whether something that a run needs is there, and if not, what to type."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal

from tunesmith.errors import EnvironmentProblem, TunesmithError
from tunesmith.printable import printable


@dataclass(frozen=True)
class Finding:
    """The state of one thing that a run needs.

    Args:
        what: the name of the thing.
        status: a run can start with warnings, but not with problems.
        detail: what was found, such as a version.
        help: what to type to fix it.
        exit_code: the exit code of `doctor` if this is its first problem.
    """

    what: str
    status: Literal["ok", "warning", "problem"]
    detail: str
    help: str | None = None
    exit_code: int = EnvironmentProblem.exit_code

    def __post_init__(self) -> None:
        for name in ("what", "detail", "help"):  # they may quote a file
            text = getattr(self, name)
            object.__setattr__(self, name, text and printable(text))

    @classmethod
    def of(cls, error: TunesmithError, what: str | None = None) -> list[Finding]:
        """Return one finding for each problem of an error, with its place. `what` is by default the error's code."""
        details = [(f"{p.where}: {p.message}" if p.where else p.message, p.help) for p in error.problems]
        return [cls(what or error.code, "problem", detail, help, error.exit_code) for detail, help in details]

    @classmethod
    def of_module(cls, name: str, help: str | None = None) -> Finding:
        """Import a module, and return a finding that reports if that works."""
        try:
            importlib.import_module(name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return cls(name, "problem", f"can't be imported: {type(error).__name__}: {error}", help)
        return cls(name, "ok", "can be imported")


def size(number: float) -> str:
    """Format a number of bytes with three digits and a decimal unit: 1.5 GB."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        del units[0]
    return f"{number:.3g} {units[0]}"
