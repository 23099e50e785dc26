"""Describe the keys and values of other tools: what they are here, or what to write instead.

data/foreign/ has one file per tool. Each key is one of: the same setting under another name (`alias`), a setting that
other keys express (`set`), a key that changes nothing (`note`), a key that changes only the speed (`speed`), or a key
that is refused (`reason` and `write`). config/translation.py applies the accepted ones to a config; the others are
problems. A listed key never gets a spelling suggestion. `peft_init_lora_weights` is close to `reinit_weights`, which
trains from random weights. A key that an extra would bring is not listed: the catalogue names the extra.
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from typing import Any

from tunesmith.config.yamlfile import KeyPath
from tunesmith.errors import Problem

TOOLS = ("axolotl", "transformers", "llamafactory", "unsloth", "torchtune", "peft")
"""Names of the data files."""
LISTS = ("pretraining_dataset", "test_datasets")
"""Lists whose entries have the keys of `datasets:`, under which the data files list them."""
DROP = object()
"""The value of an action that takes a value out of the config, instead of writing another one."""


@dataclass(frozen=True)
class Action:
    """The change to make for an accepted key, or for an accepted value of a key.

    Args:
        to: the value to write instead. DROP takes the key, or the element of a list, out of the config.
        set: further keys to set, relative to the group of the key, or to the top level with a `/` before the name. A
            key that the config sets itself keeps its value, unless that is false or null.
        note: what the user should know.
        speed: True if only the speed, or the memory, differs from that in the other tool.
        if_missing: True to keep a value that is the path of a file which exists.
    """

    to: Any = DROP
    set: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    speed: bool = False
    if_missing: bool = False


@dataclass(frozen=True)
class ForeignKey:
    """A key of another tool that does not exist here.

    Args:
        tool: the tool that has it.
        alias: the key here with the same meaning and the same values. Dots separate the groups that contain it.
        set: the keys that express any of its values except false and null.
        note: why it changes nothing here.
        speed: what happens instead, if it changes only the speed or the memory.
        reason: why it is refused.
        write: what to write instead, whatever its value is.
        values: what to write instead of some of its values; or, as a mapping, the action for the value.
        default: the values that ask for what happens here anyway, so that the key may stay.
        follows: the selector that the key belongs to. The key is not reported if no plugin answers its value.
        divided_by: a number of the config. Its quotient with the value is that of the key `gives`, if that is not set.
        gives: see divided_by.
    """

    tool: str
    alias: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    speed: str = ""
    reason: str = ""
    write: str = ""
    values: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    default: tuple[Any, ...] = ()
    follows: str = ""
    divided_by: str = ""
    gives: str = ""

    def action(self, value: Any) -> Action | None:
        """Return the action for a value; None if the key is an alias, or is refused with this value."""
        listed = _listed(self.values, value)
        if isinstance(listed, Mapping):
            return Action(**listed)
        accepted = listed is None and bool(self.note or self.speed)
        stays = any(type(value) is type(one) and value == one for one in self.default)
        if value is None or stays or (accepted and value is False):
            return Action()
        return Action(set=self.set, note=self.note or self.speed, speed=bool(self.speed)) if accepted else None

    def problem(self, name: str, value: Any, where: str) -> Problem:
        """Return the problem of a key that is refused with a value."""
        advice = _listed(self.values, value)
        help = advice if isinstance(advice, str) else self.write
        return Problem(f"{name} is not supported: {self.reason}", where, "refused-key", help)


@functools.cache
def foreign_keys(tool: str = TOOLS[0]) -> dict[str, ForeignKey]:
    """Return the keys of other tools by name; those in a group or in an entry of datasets: as `group.key`.

    If several tools have a key, it is the one of `tool`, or else of the first file.
    """
    keys: dict[str, ForeignKey] = {}
    for content in _files(tool):
        for entry in content["keys"]:
            options = {name: value for name, value in entry.items() if name not in ("names", "default")}
            key = ForeignKey(content["tool"], default=tuple(entry.get("default", ())), **options)
            keys |= {name: key for name in entry["names"] if name not in keys}
    return keys


@functools.cache
def foreign_values(tool: str = TOOLS[0]) -> dict[str, dict[str, str | Mapping[str, Any]]]:
    """Return key -> value of another tool -> what to write instead, or the action, for keys that exist here."""
    values: dict[str, dict[str, str | Mapping[str, Any]]] = {}
    for content in _files(tool):
        for key, advice in content.get("values", {}).items():
            values[key] = {**advice, **values.get(key, {})}
    return values


@functools.cache
def unused_keys() -> dict[str, dict[str, Any]]:
    """Return the keys that other tools accept where nothing reads them: key -> its note, and the values, if not any.

    `also` lists further values that are accepted if every entry of the datasets has one of some types.
    """
    return {key: entry for content in _files() for key, entry in content.get("unused", {}).items()}


def note_if_unused(key: str, value: Any, types: Collection[str]) -> str | None:
    """Return the note of a key that nothing reads, or None if it is not accepted. `types` are those of the entries."""
    entry = unused_keys().get(key)
    if entry is None:
        return None
    also = entry.get("also", {"types": (), "values": ()})
    of_types = bool(types) and set(types) <= set(also["types"])
    accepted = value in entry.get("values", (value,)) or (of_types and value in also["values"])
    return str(entry["note"]) if accepted else None


def find_key(path: KeyPath, tool: str = TOOLS[0]) -> ForeignKey | None:
    """Return the key of another tool at a path in the YAML, or None."""
    return foreign_keys(tool).get(name_of(path))


def advice_for(path: KeyPath, value: Any) -> str | None:
    """Return what to write instead of a value that another tool has for a key; None if it is not known."""
    advice = _listed(foreign_values().get(name_of(path), {}), value)
    return advice if isinstance(advice, str) else None


def action_for(path: KeyPath, value: Any, tool: str = TOOLS[0]) -> Action | None:
    """Return the action for a value of another tool that is accepted for a key of this one, or None."""
    action = _listed(foreign_values(tool).get(name_of(path), {}), value)
    return Action(**action) if isinstance(action, Mapping) else None


def _listed(values: Mapping[str, str | Mapping[str, Any]], value: Any) -> str | Mapping[str, Any] | None:
    """Return the entry for a value. An entry may be a pattern: `kernels-community/*`."""
    text = as_text(value)
    for name in (text, text.lower().replace("-", "_")):
        if name in values:
            return values[name]
    return next((entry for name, entry in values.items() if name.endswith("*") and fnmatchcase(text, name)), None)


@functools.cache
def all_names() -> frozenset[str]:
    """Return the names of all foreign keys without the groups that contain them."""
    return frozenset(name.rpartition(".")[2] for name in foreign_keys())


def _files(tool: str = TOOLS[0]) -> list[dict[str, Any]]:
    return [_file(name) for name in dict.fromkeys((tool, *TOOLS))]


@functools.cache
def _file(name: str) -> dict[str, Any]:
    path = resources.files("tunesmith").joinpath("data", "foreign", f"{name}.toml")
    return tomllib.loads(path.read_text("utf-8"))


def name_of(path: KeyPath) -> str:
    """Return a path as the data files write it: without positions in lists, and `datasets` for each dataset list."""
    names = [part for part in path if isinstance(part, str)]
    if names and names[0] in LISTS:
        names[0] = "datasets"
    return ".".join(names)


def as_text(value: Any) -> str:
    """Return a value as it is written in YAML; "..." for a group, a list or a long text."""
    if isinstance(value, str) and len(value) <= 200 and value.isprintable():
        return value
    is_number = isinstance(value, int | float) and -1e30 < value < 1e30  # also without nan and infinity
    return json.dumps(value) if is_number else "..."
