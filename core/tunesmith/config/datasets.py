"""Read the entries of the dataset lists, and find the plugins that answer their `type:`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.config.yamlfile import Document, KeyPath
from tunesmith.plugins.discovery import Candidate, defaults
from tunesmith.plugins.plugin import Settings

DATASET_KEYS = ("datasets", "pretraining_dataset", "test_datasets")
USER_DEFINED, FUNCTION = "user_defined", "function"
"""The type names of an entry whose `type:` is a mapping, and of one whose `type:` is the path of a function."""
_FUNCTION = re.compile(r".+\.py:[A-Za-z_]\w*")
_MODULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)[.:]([A-Za-z_]\w*)")


@dataclass
class Entry:
    """An entry of a dataset list: its raw values, and what is resolved from them and the plugins' metadata.

    Args:
        group: the list that it is in, such as datasets.
        index: its position in the list.
        values: its raw keys and values.
        type: the name that its strategy answers.
        source: the kind of place that its path names: file, hub, or the scheme of a URL.
        strategy: the plugin that builds examples from its rows. None if there is none, which is a problem.
        reader: the plugin that reads its rows. None if there is none, which is a problem.
        settings: its validated keys of the core.
        options: its validated keys of the strategy.
    """

    group: str
    index: int
    values: dict[str, Any]
    type: str = ""
    source: str = ""
    strategy: Candidate | None = None
    reader: Candidate | None = None
    settings: Settings | None = None
    options: Settings | None = None

    @property
    def path(self) -> KeyPath:
        """The path of the entry in the YAML, such as ("datasets", 0)."""
        return (self.group, self.index)


def entries_of(document: Document) -> list[Entry]:
    """Return the entries of all dataset lists. Validation reports values of a wrong type later."""
    entries = []
    for group in DATASET_KEYS:
        values = document.values.get(group)
        for index, entry in enumerate(values if isinstance(values, list) else []):
            if isinstance(entry, dict):
                if group == "pretraining_dataset":
                    entry.setdefault("type", "pretrain")
                entries.append(Entry(group, index, entry))
    return entries


def type_of(value: Any, known: Collection[str]) -> str:
    """Return the name that a strategy answers, for the `type:` of an entry.

    `known` are the names that plugins answer. A function is written as the path of its file: `./rows.py:name`. No other
    value is imported.
    """
    if isinstance(value, Mapping):
        return USER_DEFINED
    name = str(value)
    return FUNCTION if name not in known and _FUNCTION.fullmatch(name) else name


def function_path(value: str, base: Path) -> str | None:
    """Return the path to write instead of `module:name` or `module.name`; None if the value has neither form.

    Nothing is imported. The path is that of a package if `base` contains the package and no module of that name;
    otherwise it is that of a module, which may not exist.
    """
    match = _MODULE.fullmatch(value)
    if not match:
        return None
    path = match[1].replace(".", "/")
    package = not (base / f"{path}.py").is_file() and (base / path / "__init__.py").is_file()
    return f"./{path}/__init__.py:{match[2]}" if package else f"./{path}.py:{match[2]}"


def types_of(info: Mapping[str, Any], kinds: Collection[str] | None = None) -> list[str]:
    """Return the types that a plugin's strategies answer, for some row kinds or, with None, for all."""
    strategies = info["strategies"].items()
    return [name for kind, names in strategies if kinds is None or kind in kinds for name in names]


def strategies_for(name: str, candidates: Iterable[Candidate], kinds: Collection[str]) -> list[Candidate]:
    """Return the plugins that answer a type for one of the row kinds, or for any row kind if there is none."""
    answering = [c for c in candidates if name in types_of(c.info)]
    return [c for c in answering if name in types_of(c.info, kinds)] or answering


def kinds_of(active: Mapping[str, Candidate], available: Mapping[str, Candidate]) -> tuple[str, ...]:
    """Return the row kinds of the active method, or of the default method if no other is active."""
    default_names = {row["plugin"] for row in defaults() if row["hook"] == "compute_loss"}
    methods = [c for c in active.values() if c.info["method"] and c.name not in default_names]
    methods += [c for name, c in available.items() if name in default_names and c.info["method"]]
    return tuple(methods[0].info["method"]["rows"]) if methods else ()
