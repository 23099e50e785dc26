"""Explain error codes: what they mean and what to do."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TypedDict

from tunesmith.errors import ConfigError, PluginError, Problem, TunesmithError
from tunesmith.spelling import nearest

COMMAND = "tunesmith explain"


class Entry(TypedDict):
    """An error code: its exit code, its meaning in one line, what to do, and an example of wrong and right."""

    exit: int
    means: str
    do: str
    wrong: str
    right: str


class Catalogue(TypedDict):
    """Every known error code, and the meaning of exit codes."""

    exits: dict[str, str]
    codes: dict[str, Entry]


@functools.cache
def core_catalogue() -> Catalogue:
    """Return the codes of the core and the engine."""
    text = resources.files("tunesmith").joinpath("data", "errors.toml").read_text("utf-8")
    return tomllib.loads(text)  # type: ignore[return-value]


def catalogue() -> Catalogue:
    """Return the codes of the core and the engine, and those in the metadata of the installed plugins.

    A code with several meanings is left out.
    """
    codes = {code: next(iter(meanings.values())) for code, meanings in by_owner().items() if len(meanings) == 1}
    return {"exits": core_catalogue()["exits"], "codes": codes}


def by_owner() -> dict[str, dict[str, Entry]]:
    """Return code -> owner -> meaning. The core and each installed plugin own codes; no plugin is imported."""
    from tunesmith.plugins.discovery import CORE, core_version, installed

    core = f"{CORE} {core_version()}"
    owners: dict[str, dict[str, Entry]] = {}
    try:
        for plugin in installed().values():
            for code, entry in plugin.info["errors"].items():
                owners.setdefault(code, {})[f"plugin {plugin}"] = entry
    except TunesmithError:
        pass  # damaged metadata is reported by the command itself
    for code, entry in core_catalogue()["codes"].items():
        owners.setdefault(code, {})[core] = entry
    return owners


def command_for(codes: Iterable[str]) -> str | None:
    """Return the command that explains the codes of some problems; None if all are unknown."""
    explained = catalogue()["codes"]
    known = [code for code in dict.fromkeys(codes) if code in explained]
    return f"{COMMAND} {' '.join(known)}" if known else None


def listing() -> str:
    """Return every code with its meaning, by exit code."""
    codes = catalogue()["codes"]
    width = max(map(len, codes))
    lines = []
    for number, meaning in catalogue()["exits"].items():
        names = [name for name, entry in codes.items() if str(entry["exit"]) == number]
        lines += [f"exit {number}: {meaning}"] if names else []
        lines += [f"  {name:{width}}  {codes[name]['means']}" for name in names]
    return "\n".join(lines)


def explain(codes: Sequence[str]) -> str:
    """Return the entries of these codes.

    Raises ConfigError for unknown codes, with the nearest spelling, and PluginError for codes that several plugins own.
    """
    owners = by_owner()
    known = catalogue()["codes"]
    problems = []
    for code in codes:
        if len(owners.get(code, ())) > 1:
            message = f"error code {code!r} belongs to {' and '.join(owners[code])}"
            help = "begin the codes of a plugin with its name, in its errors.toml"
            problems.append(Problem(message, "command line", "plugin-duplicate", help))
        elif code not in known:
            close = nearest(code, set(known))
            help = f"did you mean {close!r}?" if close else f"{COMMAND} without a code lists them"
            problems.append(Problem(f"unknown error code: {code!r}", "command line", "unknown-code", help))
    if problems:
        raise (PluginError if any(p.code == "plugin-duplicate" for p in problems) else ConfigError)(problems)
    return "\n\n".join(_entry(code, known[code]) for code in dict.fromkeys(codes))


def _entry(code: str, entry: Entry) -> str:
    return f"{code} (exit {entry['exit']}): {entry['means']}\n{entry['do']}\n{example(entry)}"


def example(entry: Entry) -> str:
    """Return the example of an entry: wrong, then right."""
    return f"wrong:\n{_indented(entry['wrong'])}\nright:\n{_indented(entry['right'])}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.strip("\n").split("\n"))
