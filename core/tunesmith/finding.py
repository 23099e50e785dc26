"""What `doctor` finds on a machine: that something a run stands on is there, or is not, and then what to type."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal

from tunesmith.errors import EnvironmentProblem, TunesmithError


@dataclass(frozen=True)
class Finding:
    """One thing that a run stands on.

    `what` is its name, `help` says what to type where it is not as it should be. A warning does not keep a run from
    starting; a problem does, and `exit_code` is what doctor ends with if this is the gravest.
    """

    what: str
    status: Literal["ok", "warning", "problem"]
    detail: str
    help: str | None = None
    exit_code: int = EnvironmentProblem.exit_code

    @classmethod
    def of(cls, error: TunesmithError, what: str | None = None) -> list[Finding]:
        """The problems of an error, each with its place."""
        what = what or error.code
        told = [(f"{p.where}: {p.message}" if p.where else p.message, p.help) for p in error.problems]
        return [cls(what, "problem", detail, help, error.exit_code) for detail, help in told]

    @classmethod
    def of_module(cls, name: str, help: str | None = None) -> Finding:
        """Whether a module can be imported, found out by importing it."""
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            return cls(name, "problem", f"can't be imported: {type(error).__name__}: {error}", help)
        return cls(name, "ok", "can be imported")


def size(number: float) -> str:
    """A number of bytes in words: 1.5 GB."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        del units[0]
    return f"{number:.3g} {units[0]}"
