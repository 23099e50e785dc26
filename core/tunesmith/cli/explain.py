"""What the code of an error means and what to do about it: data/errors.toml, for people."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TypedDict

from tunesmith.errors import ConfigError, Problem
from tunesmith.spelling import nearest

COMMAND = "tunesmith explain"


class Entry(TypedDict):
    """One code: its usual exit code, one line of what it means, what to do, and an example of wrong and right."""

    exit: int
    means: str
    do: str
    wrong: str
    right: str


class Catalogue(TypedDict):
    """Every code that the core, the engine and the plugins of this repository raise; and what exit codes mean."""

    exits: dict[str, str]
    codes: dict[str, Entry]


@functools.cache
def catalogue() -> Catalogue:
    text = resources.files("tunesmith").joinpath("data", "errors.toml").read_text("utf-8")
    return tomllib.loads(text)  # type: ignore[return-value]


def command_for(codes: Iterable[str]) -> str | None:
    """What to type to learn more about the codes of some problems, if anything is known of them."""
    known = [code for code in dict.fromkeys(codes) if code in catalogue()["codes"]]
    return f"{COMMAND} {' '.join(known)}" if known else None


def listing() -> str:
    """Every code with its meaning, by exit code."""
    codes = catalogue()["codes"]
    width = max(map(len, codes))
    lines = []
    for number, meaning in catalogue()["exits"].items():
        mine = [f"  {name:{width}}  {entry['means']}" for name, entry in codes.items() if str(entry["exit"]) == number]
        lines += [f"exit {number}: {meaning}", *mine] if mine else []
    return "\n".join(lines)


def explain(codes: Sequence[str]) -> str:
    """The entries of some codes. Raises ConfigError for each that is not known, with the nearest spelling."""
    known = catalogue()["codes"]
    problems = []
    for code in codes:
        if code not in known:
            close = nearest(code, set(known))
            help = f"did you mean {close!r}?" if close else f"{COMMAND} alone lists them"
            problems.append(Problem(f"no error has the code {code!r}", "command line", "unknown-code", help))
    if problems:
        raise ConfigError(problems)
    return "\n\n".join(_entry(code, known[code]) for code in dict.fromkeys(codes))


def _entry(code: str, entry: Entry) -> str:
    return f"{code} (exit {entry['exit']}): {entry['means']}\n{entry['do']}\n{example(entry)}"


def example(entry: Entry) -> str:
    """What is wrong, and how it is right."""
    return f"wrong:\n{_indented(entry['wrong'])}\nright:\n{_indented(entry['right'])}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.strip("\n").split("\n"))
