"""Entries of the dataset lists: where they stand, what their `type:` says, and which plugin answers it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from tunesmith.config.yamlfile import Document
from tunesmith.plugins.discovery import Candidate, defaults

DATASET_KEYS = ("datasets", "pretraining_dataset", "test_datasets")
USER_DEFINED, FUNCTION = "user_defined", "function"
"""The types that an entry says without their word: by a mapping, and by the path of a function."""
_FUNCTION = re.compile(r"(.+\.py):([A-Za-z_]\w*)")
_MODULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)[.:]([A-Za-z_]\w*)")


def entries_of(document: Document, key: str) -> dict[int, dict[str, Any]]:
    """The entries of a dataset list as they stand in the YAML, without those of a wrong type."""
    entries = document.values.get(key)
    return {i: entry for i, entry in enumerate(entries) if isinstance(entry, dict)} if isinstance(entries, list) else {}


def type_of(value: Any, known: Collection[str]) -> str:
    """Return the name that strategies answer to, for the `type:` of an entry.

    A function is named by the path of its file: `./rows.py:name`. No other name is ever imported.
    """
    if isinstance(value, Mapping):
        return USER_DEFINED
    name = str(value)
    return FUNCTION if name not in known and _FUNCTION.fullmatch(name) else name


def split_function(value: str) -> tuple[str, str] | None:
    """Return the file and the name of a function written as `./rows.py:name`; None for anything else."""
    match = _FUNCTION.fullmatch(value)
    return (match[1], match[2]) if match else None


def function_path(value: str, base: Path) -> str | None:
    """Return the path to write instead of `module:name` or `module.name`; None if the value has neither shape.

    Nothing is imported. The path is that of a file that exists in `base`, or of the first one that could.
    """
    match = _MODULE.fullmatch(value)
    if not match:
        return None
    path = match[1].replace(".", "/")
    package = not (base / f"{path}.py").is_file() and (base / path / "__init__.py").is_file()
    return f"./{path}/__init__.py:{match[2]}" if package else f"./{path}.py:{match[2]}"


def types_of(info: Mapping[str, Any], kinds: Collection[str] | None = None) -> list[str]:
    """The types that a plugin's strategies answer to, of some row kinds or of all."""
    strategies = info["strategies"].items()
    return [name for kind, names in strategies if kinds is None or kind in kinds for name in names]


def strategies_for(name: str, candidates: Iterable[Candidate], kinds: Collection[str]) -> list[Candidate]:
    """The plugins that make rows of these kinds from a type; where none does, those that make any."""
    found = [c for c in candidates if name in types_of(c.info)]
    return [c for c in found if name in types_of(c.info, kinds)] or found


def kinds_of(active: Mapping[str, Candidate], available: Mapping[str, Candidate]) -> tuple[str, ...]:
    """The row kinds of the method that is active, or else of the default one; none where there is none."""
    standard = {row["plugin"] for row in defaults() if row["hook"] == "compute_loss"}
    methods = [c for c in active.values() if c.info["method"] and c.name not in standard]
    methods += [c for name, c in available.items() if name in standard and c.info["method"]]
    return tuple(methods[0].info["method"]["rows"]) if methods else ()
