"""Read a YAML file with the place of every key, by YAML 1.2's core rules: `2e-4` is a number, `yes` is a word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunesmith.errors import ConfigError, Problem, SafetyError

KeyPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_NODES = 10_000
MAX_DEPTH = 64
MAX_DIGITS = 1_000  # Python refuses to read integers of more than 4,300
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX = "tag:yaml.org,2002:"
_TAGS = {
    _PREFIX + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge", "timestamp", "value")
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}
_SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}


@dataclass
class Document:
    """The values of a YAML file, and where each key and value stands."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    keys: dict[KeyPath, str] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: Sequence[str | int], value: bool = False) -> str:
        """file:line:column of a key (or of its value), or of the nearest key above it."""
        for end in range(len(path), 0, -1):
            key = tuple(path[:end])
            if value and end == len(path) and key in self.places:
                return self.places[key]
            if key in self.keys:
                return self.keys[key]
        return f"{self.name}:1:1"

    def override(self, text: str) -> None:
        """Apply one `key=value` of the command line; dots reach into groups, numbers into lists."""
        name, equals, value = text.partition("=")
        if not equals:
            help = "write learning_rate=1e-4 or --learning_rate 1e-4"
            raise ConfigError(f"{text!r} is no key=value", where="command line", help=help, code="override")
        name = name.lstrip("-")
        path = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
        place = f"command line ({name})"
        node = _compose(value, place)
        target: Any = self.values
        for depth, part in enumerate(path[:-1], 1):
            if isinstance(target, list) and isinstance(part, int) and part < len(target):
                target = target[part]
            elif isinstance(target, dict):
                if not isinstance(target.get(part), dict | list):
                    target[part] = [] if isinstance(path[depth], int) else {}
                    self.keys[path[:depth]] = self.places[path[:depth]] = place
                target = target[part]
            else:
                raise ConfigError(f"there is no {part!r} to reach into", where=place, code="override")
        try:
            target[path[-1]] = _Builder(Document(place)).build(node, ()) if node else None
        except (IndexError, TypeError):
            raise ConfigError(f"there is no {path[-1]!r} in it", where=place, code="override") from None
        for known in (self.keys, self.places):  # what stood below it in the file is gone
            for below in [key for key in known if key[: len(path)] == path]:
                del known[below]
        self.keys[path] = self.places[path] = place


def read(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Read a YAML file into a Document. Raises ConfigError with the place of what can't be read, SafetyError for tags
    and bombs."""
    name = str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SafetyError(f"{path.stat().st_size:,} bytes are too many for a config", where=name, code="yaml-size")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.y*ml"))[:5] if path.parent.is_dir() else []
        help = f"here: {', '.join(near)}" if near else "the path is relative to the working folder"
        raise ConfigError("no such file", where=name, help=help, code="no-config") from None
    except IsADirectoryError:
        raise ConfigError("is a folder, not a YAML file", where=name, code="no-config") from None
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", where=name, code="no-config") from None
    except UnicodeDecodeError as error:
        where = _at_byte(name, error.object, error.start)
        message, help = f"is not UTF-8: byte {error.start}", "save the file as UTF-8"
        raise ConfigError(message, where=where, help=help, code="yaml-encoding") from None
    document = Document(name)
    node = _compose(text, name)
    if node is None:
        raise ConfigError("is empty", where=f"{name}:1:1", help="docs/start.md has a first config", code="yaml-empty")
    values = _Builder(document).build(node, ())
    if not isinstance(values, dict):
        raise ConfigError("the top level has to be keys and values", where=f"{name}:1:1", code="yaml-syntax")
    document.values = values
    for override in overrides:
        document.override(override)
    return document


def _compose(text: str, name: str) -> Any:
    """The tree of nodes of a YAML text. Its depth is measured first: composing recurses on the C stack."""
    opened: list[Any] = []
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                opened.pop()
            if len(opened) > MAX_DEPTH + 1:
                where = _at(name, event.start_mark)
                raise SafetyError(f"expands to more than {MAX_DEPTH} levels", where=where, code="yaml-bomb")
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        message, mark = f"{error.context or ''} {error.problem or ''}".strip(), error.problem_mark or error.context_mark
        start = error.context_mark if "unexpected end" in (error.problem or "") else None
        if "flow" in (error.context or "") and opened and opened[-1].flow_style:
            start = opened[-1].start_mark
        if start and mark:
            message += f" by line {mark.line + 1}"
        where = _at(name, start or mark) if start or mark else name
        raise ConfigError(message, where=where, code="yaml-syntax") from None
    except yaml.reader.ReaderError as error:
        where = _at_byte(name, text.encode(), error.position)
        message = f"the character U+{error.character:04X} is not allowed"
        raise ConfigError(message, where=where, help="save the file as UTF-8 text", code="yaml-encoding") from None


def _at_byte(name: str, content: bytes, offset: int) -> str:
    """file:line:column of a byte, columns counted in bytes."""
    line = content.count(b"\n", 0, offset) + 1
    column = offset - content.rfind(b"\n", 0, offset)
    return f"{name}:{line}:{column}"


def _at(name: str, mark: Any) -> str:
    return f"{name}:{mark.line + 1}:{mark.column + 1}"


class _Builder:
    """Turns YAML nodes into values, noting places; refuses foreign tags, bombs and doubled keys."""

    def __init__(self, document: Document):
        self.document = document
        self.nodes = 0

    def place(self, node: Any) -> str:
        return _at(self.document.name, node.start_mark)

    def build(self, node: Any, path: KeyPath) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            limit = f"{MAX_NODES:,} values" if self.nodes > MAX_NODES else f"{MAX_DEPTH} levels"
            raise SafetyError(f"expands to more than {limit}", where=self.place(node), code="yaml-bomb")
        self.check_tag(node)
        self.document.places.setdefault(path, self.place(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.document.keys[(*path, index)] = self.place(item)
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return node.value if node.style in ("'", '"', "|", ">") else scalar(node.value)

    def check_tag(self, node: Any) -> None:
        if node.tag not in _TAGS:
            raise SafetyError(f"the tag {node.tag!r} is refused", where=self.place(node), code="yaml-tag")

    def mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in sorted(node.value, key=lambda pair: not _is_merge(pair[0])):
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key has to be a word", where=self.place(key_node), code="yaml-syntax")
            self.check_tag(key_node)
            key = key_node.value
            if _is_merge(key_node):
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in reversed(sources):  # the first of several wins
                    if not isinstance(source, yaml.MappingNode):
                        raise ConfigError("<< takes keys and values", where=self.place(source), code="yaml-syntax")
                    merged |= self.build(source, path)
                continue
            if key in values:
                first = self.document.keys[(*path, key)]
                problem = Problem(
                    f"{key!r} stands twice; first at {first}", self.place(key_node), "duplicate-key", "keep one"
                )
                raise ConfigError([problem])
            self.document.keys[(*path, key)] = self.place(key_node)
            self.document.places.pop((*path, key), None)
            values[key] = self.build(value_node, (*path, key))
        return {**merged, **values}


def _is_merge(node: Any) -> bool:
    return bool(node.tag == _PREFIX + "merge")


def scalar(text: str) -> Any:
    """The value of a plain word by YAML 1.2's core schema."""
    if text.lower() in _WORDS and text in (text.lower(), text.upper(), text.capitalize()):
        return _WORDS[text.lower()]
    if _INT.fullmatch(text) and len(text) <= MAX_DIGITS:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _SPECIAL.get(text.lower(), text)
