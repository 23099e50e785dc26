"""What goes wrong, said so that the reader can mend it: what, where (file:line:column), and what to type next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing to mend.

    `where` is "file:line:column", "file:line" or the name of a key; `code` is a stable slug for searching the docs;
    `help` says what to write instead.
    """

    message: str
    where: str | None = None
    code: str = "error"
    help: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f"\n  help: {self.help}" if self.help else ""
        return f"{place}error[{self.code}]: {self.message}{advice}"


class TunesmithError(Exception):
    """Base of every error that Tunesmith raises on purpose. `exit_code` is what the command line exits with."""

    exit_code = 1
    code = "error"

    def __init__(
        self,
        message: str | Iterable[Problem],
        *,
        where: str | None = None,
        help: str | None = None,
        code: str | None = None,
    ):
        if isinstance(message, str):
            self.problems = [Problem(message, where, code or self.code, help)]
        else:
            self.problems = list(message)
        super().__init__("\n".join(map(str, self.problems)))


class ConfigError(TunesmithError):
    """The YAML, or what was said on the command line, can't be run."""

    exit_code = 2
    code = "config"


class DataError(TunesmithError):
    """A data file or a row of it can't be used."""

    exit_code = 3
    code = "data"


class ModelError(TunesmithError):
    """Files of a model, tokenizer, adapter or checkpoint are missing or damaged."""

    exit_code = 4
    code = "model"


class EnvironmentProblem(TunesmithError):
    """The machine lacks something: a package, a device, disk space, a permission."""

    exit_code = 5
    code = "environment"


class PluginError(TunesmithError):
    """A plugin is missing, broken, incompatible, or failed in one of its hooks."""

    exit_code = 6
    code = "plugin"


class NumericalError(TunesmithError):
    """A loss or gradient is not finite, or a check of `verify` does not hold."""

    exit_code = 7
    code = "numbers"


class SafetyError(TunesmithError):
    """Refused because it could run code or open a file format that runs code."""

    exit_code = 9
    code = "safety"


def errors_of(checks: Iterable[Callable[[], object]]) -> list[TunesmithError]:
    """Run every check and give the errors that they raise."""
    found = []
    for check in checks:
        try:
            check()
        except TunesmithError as error:
            found.append(error)
    return found


def raise_together(errors: list[TunesmithError]) -> None:
    """Raise the gravest of some errors with the problems of all: a refusal for safety, else the first."""
    if errors:
        gravest = next((e for e in errors if isinstance(e, SafetyError)), errors[0])
        raise type(gravest)([problem for error in errors for problem in error.problems])
