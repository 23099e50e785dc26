"""Define errors: the problem, its place (file:line:column), and what to type to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tunesmith.printable import printable

LONGEST = 2_000
"""Most characters of a message. A name or a value from a file may have a million."""


def visible(text: str) -> str:
    """Return a text with control characters escaped, without the middle of more than LONGEST characters."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST * 3 // 4]} ... {text[-LONGEST // 5 :]}"
    return printable(text)


@dataclass(frozen=True)
class Problem:
    """A problem to fix.

    Args:
        message: the problem, without its place.
        where: "file:line:column", "file:line", "command line (key)" or another name of a place.
        code: a stable name of the kind of problem, for `tunesmith explain`.
        help: what to write instead.

    Invisible characters in them are escaped, and the middle of very long ones is left out.
    """

    message: str
    where: str | None = None
    code: str = "error"
    help: str | None = None

    def __post_init__(self) -> None:
        for name in ("message", "where", "help"):
            if text := getattr(self, name):
                object.__setattr__(self, name, visible(text))

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f"\n  help: {self.help}" if self.help else ""
        return f"{place}error[{self.code}]: {self.message}{advice}"


class TunesmithError(Exception):
    """Base class of the errors that Tunesmith raises deliberately; the command line exits with `exit_code`.

    It has one problem, given by its message, place, help and code; or several, given as an iterable of Problem.
    """

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
    """The YAML or the command line is invalid.

    `config` is the Config without the keys that the error is about, if nothing reads these keys. Then it can be checked
    further, to report all problems together.
    """

    exit_code = 2
    code = "config"
    config: Any = None


class DataError(TunesmithError):
    """A data file, or a row in it, can't be used."""

    exit_code = 3
    code = "data"


class ModelError(TunesmithError):
    """Files of a model, tokenizer, adapter or checkpoint are missing or damaged."""

    exit_code = 4
    code = "model"


class EnvironmentProblem(TunesmithError):
    """Something is missing on the machine: a package, a device, disk space, a permission."""

    exit_code = 5
    code = "environment"


class PluginError(TunesmithError):
    """A plugin is missing, broken or incompatible, or one of its hooks failed."""

    exit_code = 6
    code = "plugin"


class NumericalError(TunesmithError):
    """A loss or gradient is not finite, or a check of `verify` failed."""

    exit_code = 7
    code = "numbers"


class ProcessLost(TunesmithError):
    """A process of the run is gone, so the others can't continue."""

    exit_code = 8
    code = "process-lost"


class SafetyError(TunesmithError):
    """The request was refused, because it could run code or open a file format that can run code."""

    exit_code = 9
    code = "safety"


def errors_of(checks: Iterable[Callable[[], object]]) -> list[TunesmithError]:
    """Run all checks and return the errors that they raise."""
    errors = []
    for check in checks:
        try:
            check()
        except TunesmithError as error:
            errors.append(error)
    return errors


def raise_together(errors: list[TunesmithError]) -> None:
    """Raise one error with the problems of all: a SafetyError if there is one, otherwise of the class of the first."""
    if errors:
        most_severe = next((e for e in errors if isinstance(e, SafetyError)), errors[0])
        raise type(most_severe)([problem for error in errors for problem in error.problems])
