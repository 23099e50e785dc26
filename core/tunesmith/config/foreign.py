"""Look up keys and values of other tools: what to write here instead. One file per tool in data/foreign/.

A key in these files never gets a spelling suggestion. `peft_init_lora_weights` is close to `reinit_weights`, which
trains from random weights. A key that an extra would bring is not listed here: the catalogue names the extra.
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from tunesmith.config.yamlfile import KeyPath
from tunesmith.errors import Problem

TOOLS = ("axolotl", "transformers", "llamafactory", "unsloth", "torchtune", "peft")
"""Names of the data files. If several tools have a key, the first file decides what to write."""
LISTS = ("pretraining_dataset", "test_datasets")
"""Lists whose entries have the keys of `datasets:`, under which the data files list them."""


@dataclass(frozen=True)
class ForeignKey:
    """A key of another tool that does not exist here. It has an alias, or a reason and what to write instead.

    Args:
        tool: the tool that has it.
        alias: the key here with the same meaning and the same values.
        reason: why it does not exist here.
        write: what to write instead, whatever its value is.
        values: what to write instead of some of its values.
        default: the values that ask for what happens here anyway, so that the key may stay.
    """

    tool: str
    alias: str = ""
    reason: str = ""
    write: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    default: tuple[Any, ...] = ()

    def allows(self, value: Any) -> bool:
        """Return True if the key may stay with this value: null, or what happens anyway."""
        return value is None or any(type(value) is type(one) and value == one for one in self.default)

    def problem(self, name: str, value: Any, where: str) -> Problem:
        """Return the problem of a key with a value that asks for something."""
        if self.alias:
            message = f"{name} is a key of {self.tool}; here it is {self.alias}"
            return Problem(message, where, "foreign-key", f"write {self.alias}: {as_text(value)}")
        help = self.values.get(as_text(value), self.write)
        return Problem(f"{name} is not supported: {self.reason}", where, "refused-key", help)


@functools.cache
def foreign_keys() -> dict[str, ForeignKey]:
    """Return the keys of other tools by name; those in a group or in an entry of datasets: as `group.key`."""
    keys: dict[str, ForeignKey] = {}
    for content in _files():
        for entry in content["keys"]:
            options = {name: value for name, value in entry.items() if name not in ("names", "default")}
            key = ForeignKey(content["tool"], default=tuple(entry.get("default", ())), **options)
            keys |= {name: key for name in entry["names"] if name not in keys}
    return keys


@functools.cache
def foreign_values() -> dict[str, dict[str, str]]:
    """Return key -> value of another tool -> what to write instead, for keys that exist here."""
    values: dict[str, dict[str, str]] = {}
    for content in _files():
        for key, advice in content.get("values", {}).items():
            values[key] = {**advice, **values.get(key, {})}
    return values


def find_key(path: KeyPath) -> ForeignKey | None:
    """Return the key of another tool at a path in the YAML, or None."""
    return foreign_keys().get(_name(path))


def advice_for(path: KeyPath, value: Any) -> str | None:
    """Return what to write instead of a value that another tool has for a key; None if it is not known."""
    advice = foreign_values().get(_name(path), {})
    text = as_text(value)
    return advice.get(text) or advice.get(text.lower().replace("-", "_"))


@functools.cache
def all_names() -> frozenset[str]:
    """Return the names of all foreign keys without the groups that contain them."""
    return frozenset(name.rpartition(".")[2] for name in foreign_keys())


def _files() -> list[dict[str, Any]]:
    folder = resources.files("tunesmith").joinpath("data", "foreign")
    return [tomllib.loads(folder.joinpath(f"{tool}.toml").read_text("utf-8")) for tool in TOOLS]


def _name(path: KeyPath) -> str:
    """Return a path as the data files write it: without positions in lists, and `datasets` for each dataset list."""
    names = [part for part in path if isinstance(part, str)]
    if names and names[0] in LISTS:
        names[0] = "datasets"
    return ".".join(names)


def as_text(value: Any) -> str:
    """Return a value as it is written in YAML; "..." for a group, a list or a long text."""
    if isinstance(value, str) and len(value) <= 60 and value.isprintable():
        return value
    is_number = isinstance(value, int | float) and -1e30 < value < 1e30  # also without nan and infinity
    return json.dumps(value) if is_number else "..."
