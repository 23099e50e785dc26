"""Read YAML 1.2 and record the place of every key: `2e-4` and `10_000` are numbers, `yes` is a string."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunesmith.config.yaml_errors import at, at_byte, syntax_error
from tunesmith.errors import ConfigError, Problem, SafetyError

KeyPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_NODES = 10_000
"""Most values of a config. Those under an alias count once for each use."""
MAX_DEPTH = 64
MAX_DIGITS = 1_000
"""Longest integer that is read as a number. Python's int() raises ValueError above 4,300 digits."""
ROWS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX = "tag:yaml.org,2002:"
_TAGS = {
    _PREFIX + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge", "timestamp", "value")
}
_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}
_SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}


@dataclass
class Document:
    """The values of a YAML file, with the place of each key and of each value."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    keys: dict[KeyPath, str] = field(default_factory=dict)
    """Path of a key or list element -> its place."""
    places: dict[KeyPath, str] = field(default_factory=dict)
    """Path of a key or list element -> the place of its value."""
    anchored: set[KeyPath] = field(default_factory=set)
    """Paths of keys whose value has an anchor (`&name`) of its own."""
    has_lines: bool = True
    """False for a document that was not read from a file."""

    def where(self, path: Sequence[str | int], value: bool = False) -> str:
        """Return file:line:column of a key, or of its value; if there is none, that of the nearest key above it."""
        for end in range(len(path), 0, -1):
            key = tuple(path[:end])
            if value and end == len(path) and key in self.places:
                return self.places[key]
            if key in self.keys:
                return self.keys[key]
        return f"{self.name}:1:1" if self.has_lines else self.name

    def override(self, text: str) -> None:
        """Apply one `key=value` of the command line.

        `group.key=value` sets a nested key, and `list.0=value` the first element of a list. Raises ConfigError or
        SafetyError with the place "command line (key)".
        """
        name, equals, value = text.partition("=")
        if not equals:
            help = "write learning_rate=1e-4 or --learning_rate 1e-4"
            message = f"{text!r} is not of the form key=value"
            raise ConfigError(message, where="command line", help=help, code="override")
        name = name.lstrip("-")
        if re.search(r"\[\w+\]", name):
            dotted = re.sub(r"\[(\w+)\]", r".\1", name)
            message, help = f"unknown key: {name}", f"write {dotted}={value}"
            raise ConfigError(message, where=f"command line ({name})", help=help, code="override")
        place = f"command line ({name})"
        node = _compose(value, place)
        if node is None:
            help = f"give it a value, or write {name}=null"
            raise ConfigError(f"{name} has no value", where=place, help=help, code="override")
        self.assign(name, lambda: _Builder(Document(place)).build(node, ()), place)

    def assign(self, name: str, build: Callable[[], Any], place: str) -> None:
        """Set the key `name`, in which dots separate nested keys, to what `build` returns. Raises ConfigError."""
        path = tuple(int(part) if part.isdecimal() else part for part in name.split("."))

        def no_element(depth: int) -> ConfigError:
            parent = ".".join(map(str, path[:depth]))
            return ConfigError(f"{parent} has no element {path[depth]!r}", where=place, code="override")

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
                raise no_element(depth - 1)
        try:
            target[path[-1]] = build()
        except (IndexError, TypeError):
            raise no_element(len(path) - 1) from None
        # The value replaces everything below it, so the places of nested keys in the file no longer apply.
        for places in (self.keys, self.places):
            for nested in [key for key in places if key[: len(path)] == path]:
                del places[nested]
        self.keys[path] = self.places[path] = place

    def remove(self, path: KeyPath) -> Any:
        """Take a key or list element out of the values, and return its value. Later elements of a list move up."""
        *above, last = path
        target: Any = self.values
        for part in above:
            target = target[part]
        value = target.pop(last)
        self._move_places(path, None)
        if isinstance(target, list):
            for index in range(int(last), len(target)):
                self._move_places((*above, index + 1), (*above, index))
        return value

    def move(self, path: KeyPath, to: KeyPath) -> None:
        """Give a value another key, with the places of the old one. Groups above the new key are created."""
        keys, places = self.keys.get(path), self.places.get(path)
        self.put(to, self.remove(path), self.where(path))
        for places_of, place in ((self.keys, keys), (self.places, places)):
            if place is not None:
                places_of[to] = place

    def put(self, path: KeyPath, value: Any, place: str) -> None:
        """Set a key to a value at a place of the file; groups above it are created, null counting as an empty one."""
        target: Any = self.values
        for depth, part in enumerate(path[:-1], 1):
            if isinstance(target, dict) and target.get(part) is None:
                target[part] = {}
                self.keys.setdefault(path[:depth], place)
            target = target[part]
        target[path[-1]] = value
        self.keys[path] = self.places[path] = place

    def _move_places(self, path: KeyPath, to: KeyPath | None) -> None:
        for places in (self.keys, self.places):
            for nested in [key for key in places if key[: len(path)] == path]:
                place = places.pop(nested)
                if to is not None:
                    places[(*to, *nested[len(path) :])] = place


def read(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Read a YAML file, and apply overrides. Raises what `parse` raises, and SafetyError for more than MAX_BYTES."""
    name = str(path)
    if name.endswith(ROWS):
        help = "name the YAML file of a run, with this file in datasets: [{path: ..., type: chat_template}]"
        raise ConfigError("is a file of rows, not a config", where=name, help=help, code="no-config")
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            message = f"the file is too large: {size:,} bytes, but a config may have {MAX_BYTES:,}"
            raise SafetyError(message, where=name, code="yaml-size")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        nearby = sorted(p.name for p in path.parent.glob("*.y*ml"))[:5] if path.parent.is_dir() else []
        help = f"YAML files here: {', '.join(nearby)}" if nearby else "the path is relative to the working folder"
        raise ConfigError("no such file", where=name, help=help, code="no-config") from None
    except IsADirectoryError:
        raise ConfigError("is a folder, not a YAML file", where=name, code="no-config") from None
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", where=name, code="no-config") from None
    except UnicodeDecodeError as error:
        where = at_byte(name, error.object, error.start)
        message, help = f"is not UTF-8: byte {error.start}", "save the file as UTF-8"
        raise ConfigError(message, where=where, help=help, code="yaml-encoding") from None
    return parse(text, name, overrides)


def parse(text: str, name: str, overrides: Sequence[str] = ()) -> Document:
    """Return the document of a YAML text, with overrides (`key=value`) applied. `name` is the file in its places.

    Raises ConfigError with the place of the error. Raises SafetyError for tags, and for a text that expands to more
    than MAX_NODES values or MAX_DEPTH levels.
    """
    document = Document(name)
    anchors: set[int] = set()
    node = _compose(text, name, anchors)
    if node is None:
        help = "docs/start.md shows a first config"
        raise ConfigError("the file is empty", where=f"{name}:1:1", help=help, code="yaml-empty")
    values = _Builder(document, anchors).build(node, ())
    if not isinstance(values, dict):
        raise ConfigError("the top level must be a mapping (key: value)", where=f"{name}:1:1", code="yaml-syntax")
    document.values = values
    for override in overrides:
        document.override(override)
    return document


def _compose(text: str, name: str, anchors: set[int] | None = None) -> Any:
    """Return the tree of nodes of a YAML text, or None if it is empty; add the offsets of its anchors to `anchors`."""
    open_collections: list[Any] = []
    try:
        # Composing recurses on the C stack, so 200,000 brackets would end the process with a segmentation fault.
        # Parsing does not recurse: measure the depth on its events first.
        for event in yaml.parse(text, Loader=_Loader):
            if anchors is not None and isinstance(event, yaml.NodeEvent) and event.anchor and event.start_mark:
                anchors.add(event.start_mark.index)
            if isinstance(event, yaml.CollectionStartEvent):
                open_collections.append(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                open_collections.pop()
            if len(open_collections) > MAX_DEPTH + 1:
                where = at(name, event.start_mark)
                raise SafetyError(f"expands to more than {MAX_DEPTH} levels", where=where, code="yaml-bomb")
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise syntax_error(error, text, name, open_collections) from None
    except yaml.reader.ReaderError as error:
        where = at_byte(name, text.encode(), error.position)
        message = f"the character U+{error.character:04X} is not allowed"
        raise ConfigError(message, where=where, help="save the file as UTF-8 text", code="yaml-encoding") from None


class _Builder:
    """Converts YAML nodes to values and records their places; rejects other tags, bombs and duplicate keys."""

    def __init__(self, document: Document, anchors: Collection[int] = ()):
        self.document = document
        self.anchors = anchors
        self.nodes = 0

    def place(self, node: Any) -> str:
        return at(self.document.name, node.start_mark)

    def build(self, node: Any, path: KeyPath) -> Any:
        self.nodes += 1  # an alias counts each time that it is used, so a bomb reaches the limit
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
            raise SafetyError(f"the tag {node.tag!r} is not allowed", where=self.place(node), code="yaml-tag")

    def mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        # Merges (<<) come first, so that the places of the mapping's own keys overwrite those of merged keys.
        for key_node, value_node in sorted(node.value, key=lambda pair: not _is_merge(pair[0])):
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be a string", where=self.place(key_node), code="yaml-syntax")
            self.check_tag(key_node)
            key = key_node.value
            if _is_merge(key_node):
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for source in reversed(sources):  # the first source has precedence
                    if not isinstance(source, yaml.MappingNode):
                        message = "the value of << must be a mapping or a list of mappings"
                        raise ConfigError(message, where=self.place(source), code="yaml-syntax")
                    merged |= self.build(source, path)
                continue
            if key in values:
                first = self.document.keys[(*path, key)]
                message = f"duplicate key {key!r}; first at {first}"
                raise ConfigError([Problem(message, self.place(key_node), "duplicate-key", "keep one")])
            self.document.keys[(*path, key)] = self.place(key_node)
            self.document.places.pop((*path, key), None)
            if value_node.start_mark.index in self.anchors and value_node.start_mark.index > key_node.start_mark.index:
                self.document.anchored.add((*path, key))  # not an alias, whose node is further up
            values[key] = self.build(value_node, (*path, key))
        return {**merged, **values}


def _is_merge(node: Any) -> bool:
    return bool(node.tag == _PREFIX + "merge")


def scalar(text: str) -> Any:
    """Return the value of an unquoted scalar by the core schema (yaml.org/spec/1.2.2/#103-core-schema)."""
    if text.lower() in _CONSTANTS and text in (text.lower(), text.upper(), text.capitalize()):
        return _CONSTANTS[text.lower()]
    if _INT.fullmatch(text) and len(text) <= MAX_DIGITS:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _SPECIAL.get(text.lower(), text)
