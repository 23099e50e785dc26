"""Translate the keys and values of other tools that have a meaning here, before anything reads a config.

The data files in data/foreign/ decide what is translated. What they refuse stays in the document, and config/keys.py
reports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.config import foreign
from tunesmith.config.foreign import DROP, Action
from tunesmith.config.yamlfile import Document, KeyPath
from tunesmith.errors import Problem
from tunesmith.plugins.discovery import Candidate


@dataclass(frozen=True)
class Translated:
    """A key or a value of another tool that is accepted.

    Args:
        key: its name, with those of the groups above it.
        where: file:line:column.
        tool: the tool that has the key; "" if the key exists here and only its value is from another tool.
        written: what the config has then, such as "lora_r: 8"; "" if the key is left out.
        note: what the user should know.
        speed: True if only the speed, or the memory, differs from that in the other tool.
    """

    key: str
    where: str
    tool: str
    written: str
    note: str
    speed: bool = False

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.written, self.note)))


def translate(
    document: Document, available: Mapping[str, Candidate], tool: str = foreign.TOOLS[0]
) -> tuple[list[Translated], list[Problem]]:
    """Translate a document in place. Return what was translated, and a problem for each contradiction.

    A key that an installed plugin owns, and a value that one answers, are not translated. A key that several tools have
    is taken for that of `tool`.
    """
    translator = _Translator(document, available, tool)
    for path in list(_paths(document.values)):
        if translator.exists(path):
            translator.translate(path)
    return translator.results, translator.problems


class _Translator:
    def __init__(self, document: Document, available: Mapping[str, Candidate], tool: str):
        self.document = document
        self.tool = tool
        self.results: list[Translated] = []
        self.problems: list[Problem] = []
        self.removed: set[KeyPath] = set()
        self.owned = {
            prefix + key
            for candidate in available.values()
            for prefix, field in (("", "schema"), ("datasets.", "dataset_schema"))
            for key in candidate.info[field].get("properties", {})
        }
        self.answered = {
            (key, value) for c in available.values() for key, values in c.info["answers"].items() for value in values
        }

    def exists(self, path: KeyPath) -> bool:
        """Return True unless an earlier translation took the key out, or a group above it."""
        return not any(path[:end] in self.removed for end in range(1, len(path) + 1))

    def translate(self, path: KeyPath) -> None:
        value, name = self.value_at(path), foreign.name_of(path)
        key = None if name in self.owned or isinstance(path[-1], int) else foreign.find_key(path, self.tool)
        if key is None:
            answered = isinstance(value, str) and (name, value) in self.answered
            action = None if answered else foreign.action_for(path, value, self.tool)
            if action and not (action.if_missing and Path(value).is_file()):
                self.apply(path, value, action, "")
        elif key.divided_by and (quotient := self.quotient(key, value)) is not None:
            action = Action(set={f"/{key.gives}": quotient}, note=f"{path[-1]} / {key.divided_by}")
            self.apply(path, value, action, key.tool)
        elif action := key.action(value):
            self.apply(path, value, action, key.tool)
        elif key.alias and self.fits((*path[:-1], *key.alias.split("."))):
            self.rename(path, key)

    def apply(self, path: KeyPath, value: Any, action: Action, tool: str) -> None:
        """Replace a value or take it out, and set the keys that express it."""
        where = self.document.where(path)
        written = []
        if action.to is DROP:
            self.take_out(path)
        else:
            self.document.put(path, action.to, self.document.where(path, value=True))
            written.append(f"{path[-1]}: {foreign.as_text(action.to)}")
        for name, other in action.set.items():
            above = () if name.startswith("/") else path[:-1]
            target = (*above, *name.lstrip("/").split("."))
            if self.fits(target) and self.value_at(target) in (None, False):
                self.document.put(target, other, where)
                written.append(f"{'.'.join(map(str, target))}: {foreign.as_text(other) if other != {} else '{}'}")
        if written or action.note:
            name = self.name(path) if action.to is DROP and tool else f"{self.name(path)}: {foreign.as_text(value)}"
            self.results.append(Translated(name, where, tool, ", ".join(written), action.note, action.speed))

    def rename(self, path: KeyPath, key: foreign.ForeignKey) -> None:
        """Write a key under its name here. It is a problem if the config has both with different values."""
        target = (*path[:-1], *key.alias.split("."))
        value, where = self.value_at(path), self.document.where(path)
        other = self.value_at(target)
        if other is not None and other != value:
            message = f"{self.name(path)} and {self.name(target)} are the same setting with different values"
            self.problems.append(Problem(message, where, "foreign-key", f"keep {key.alias}"))
        if other is not None:
            self.take_out(path)
        else:
            self.document.move(path, target)
            self.removed.add(path)
        self.results.append(Translated(self.name(path), where, key.tool, f"{key.alias}: {foreign.as_text(value)}", ""))
        self.translate(target)  # its value may be one of the other tool

    def quotient(self, key: foreign.ForeignKey, value: Any) -> float | None:
        """Return the value of the key that expresses a quotient, or None if it is not one or is set already."""
        divisor = self.value_at((key.divided_by,))
        numbers = all(type(n) in (int, float) and n > 0 for n in (value, divisor))
        if not numbers or self.value_at((key.gives,)) is not None:
            return None
        exact: float = value / divisor
        return int(exact) if exact == int(exact) else exact

    def take_out(self, path: KeyPath) -> None:
        self.document.remove(path)
        if isinstance(path[-1], str):  # the positions before an element of a list stay the same, and come later
            self.removed.add(path)

    def fits(self, path: KeyPath) -> bool:
        """Return True if all that is above a path is a group, or does not exist."""
        return all(isinstance(self.value_at(path[:end]), dict | list | None) for end in range(1, len(path)))

    def value_at(self, path: KeyPath) -> Any:
        """Return the value at a path; None if there is none."""
        value: Any = self.document.values
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    @staticmethod
    def name(path: KeyPath) -> str:
        return ".".join(map(str, path))


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the paths of all keys and list elements, those inside a group before the group, lists from their end."""
    items = value.items() if isinstance(value, dict) else reversed(list(enumerate(value)))
    for key, item in items:
        if isinstance(item, dict | list):
            yield from _paths(item, (*path, key))
        yield (*path, key)
