"""Find keys that no active plugin owns: unknown, misspelled, refused or orphaned, from static metadata alone."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunesmith.config import foreign
from tunesmith.config.datasets import DATASET_KEYS, types_of
from tunesmith.config.endings import is_ending
from tunesmith.config.secrets import is_secret
from tunesmith.config.selection import Selection
from tunesmith.config.settings import CoreSettings, DatasetSettings
from tunesmith.config.switches import SELECTORS, is_known_off, is_on
from tunesmith.config.translation import Translated
from tunesmith.config.yamlfile import Document, KeyPath
from tunesmith.errors import Problem
from tunesmith.files.paths import FILE, HUB
from tunesmith.plugins.discovery import Candidate, catalogue
from tunesmith.plugins.metadata import shape
from tunesmith.spelling import nearest

UNREAD = {"unknown-key", "refused-key", "foreign-key", "orphaned-key", "ownerless-key"}
"""Codes of problems with a key that nothing reads. The config without these keys can be used."""
HOLDERS = ("x-", "_")
"""Beginnings of top-level keys that only hold YAML anchors, for `*aliases` further down."""


@functools.cache
def core_schema() -> dict[str, Any]:
    return CoreSettings.model_json_schema()


@functools.cache
def dataset_schema() -> dict[str, Any]:
    return DatasetSettings.model_json_schema()


def owners(available: Mapping[str, Candidate], field: str) -> dict[str, list[str]]:
    """Return the installed plugins that own each key; `field` is "schema" or "dataset_schema"."""
    names: dict[str, list[str]] = {}
    for name, candidate in available.items():
        for key in candidate.info[field].get("properties", {}):
            names.setdefault(key, []).append(name)
    return names


def check(
    document: Document, available: dict[str, Candidate], selection: Selection
) -> tuple[list[Problem], list[Translated]]:
    """Return a problem for every key that nothing would read, with what to write instead.

    Some keys of plugins that are not selected are accepted, as other tools accept them; each gets a note.
    """
    checker = _Checker(document, available, selection)
    return [*checker.top(), *checker.datasets(), *checker.idle(), *checker.shared()], checker.unused


class _Checker:
    def __init__(self, document: Document, available: dict[str, Candidate], selection: Selection):
        self.document = document
        self.available = available
        self.active = selection.active
        self.entries = selection.entries
        self.off = selection.off
        self.unanswered = selection.unanswered
        self.unused: list[Translated] = []
        self.lost_plugins = any(p.code.startswith("plugin-") for p in selection.problems)

    def top(self) -> Iterator[Problem]:
        core = core_schema()["properties"]
        owned = owners(self.available, "schema")
        active = {key: self.available[name] for key, names in owned.items() for name in names if name in self.active}
        for key, value in self.document.values.items():
            if key in core:
                yield from self.below(core_schema(), core[key], value, (key,))
            elif key in active:
                schema = active[key].info["schema"]
                yield from self.below(schema, schema["properties"][key], value, (key,))
            elif is_known_off(key, value) or (key in owned and (value is None or self.switched_off(owned[key][0]))):
                continue
            elif not self.holds_anchors(key, value) and not self.follows(owned.get(key, [])):
                yield from self.lost((key,), set(core), owned, "schema")

    def holds_anchors(self, key: str, value: Any) -> bool:
        """Return True for `x-...` and `_...`, unless it is a plain value without an anchor, which nothing could use."""
        return key.startswith(HOLDERS) and (isinstance(value, dict | list) or (key,) in self.document.anchored)

    def follows(self, owners: list[str]) -> bool:
        """Return True if a key has no owner only because no plugin answers the value of a selector.

        With `adapter: qlora`, the keys of adapters would all be reported, and the cause would drown among them.
        """
        return bool(owners) and all(self.unanswered & set(self.available[owner].info["answers"]) for owner in owners)

    def idle(self) -> Iterator[Problem]:
        """Yield a problem for each plugin in `plugins:` whose own switches leave it without effect."""
        names = self.document.values.get("plugins")
        for index, name in enumerate(names if isinstance(names, list) else []):
            known = isinstance(name, str) and name in self.active
            switches = self.active[name].info["switches"] if known else []
            if switches and not any(is_on(switch, self.document.values) for switch in switches):
                where = self.document.where(("plugins", index))
                message = f"plugin {name!r} has no effect: its switch is not set"
                yield Problem(message, where, "idle-plugin", selects(self.active[name].info))

    def shared(self) -> Iterator[Problem]:
        """Yield a problem for each key that several active plugins own, unless all share it with one type."""
        for key, names in owners(self.active, "schema").items():
            infos = [self.active[name].info for name in names]
            if len(infos) == 1:
                continue
            same = all(shape(info["schema"])[key] == shape(infos[0]["schema"])[key] for info in infos)
            if same and all(key in info["shared"] for info in infos):
                continue
            why = "" if same else ", with different types or defaults"
            message = f"key {key} belongs to {' and '.join(str(self.active[name]) for name in names)}{why}"
            help = "keep one of the plugins, or rename the key in one of them"
            help += f'; if they mean the same by it, both declare Plugin(shared=("{key}",))' if same else ""
            yield Problem(message, self.document.where((key,)), "plugin-shared-key", help)

    def switched_off(self, name: str) -> bool:
        """Return True if a plugin is off by `-name` or by a switch that is false: its keys may stay in the YAML."""
        return name in self.off or any(
            self.document.values.get(switch) is False for switch in self.available[name].info["switches"]
        )

    def datasets(self) -> Iterator[Problem]:
        core = dataset_schema()["properties"]
        owned = owners(self.available, "dataset_schema")
        for entry in self.entries:
            schema = entry.strategy.info["dataset_schema"] if entry.strategy else {}
            options = schema.get("properties", {})
            if entry.strategy and isinstance(entry.values.get("type"), dict):
                for key, value in entry.values["type"].items():
                    path: KeyPath = (*entry.path, "type", key)
                    if key in options:
                        yield from self.below(schema, options[key], value, path)
                    else:
                        yield from self.unknown(path, set(options), f"known: {', '.join(options)}")
                options = {}
            for key, value in entry.values.items():
                path = (*entry.path, key)
                if key in core:
                    yield from self.below(dataset_schema(), core[key], value, path)
                elif key in options:
                    yield from self.below(schema, options[key], value, path)
                elif entry.strategy or key not in owned:
                    yield from self.lost(path, {*core, *options}, owned, "dataset_schema")

    def lost(self, path: KeyPath, core: set[str], owned: dict[str, list[str]], field: str) -> Iterator[Problem]:
        """Yield the problem of a key that no active plugin owns."""
        key, where = str(path[-1]), self.document.where(path)
        name = ".".join(map(str, path))
        note = foreign.note_if_unused(name, self.document.values.get(name), {entry.type for entry in self.entries})
        if note:
            self.unused.append(Translated(name, where, "", "", note))
            return
        if key in owned:
            plugins = [self.available[owner] for owner in owned[key]]
            names = " and ".join(map(str, plugins))
            message = f"{name} belongs to {names}, which {'are' if len(plugins) > 1 else 'is'} not selected"
            ways = [selects(plugin.info).removesuffix(DROP).removeprefix("write ") for plugin in plugins]
            yield Problem(message, where, "orphaned-key", f"write {' or '.join(ways)}{DROP}")
            return
        for extra, info in catalogue().items():
            if key in info[field] and extra not in self.available:
                message = f"{name} belongs to the plugin {extra!r}, which is not installed"
                yield Problem(message, where, "ownerless-key", f'pip install "tunesmith[{extra}]"')
                return
        yield from self.unknown(path, core | set(owned), "`tunesmith config-schema` lists all keys")

    def unknown(self, path: KeyPath, known: set[str], otherwise: str) -> Iterator[Problem]:
        """Yield the problem of an unknown key; `otherwise` is the help if no spelling is close.

        A key that exists elsewhere, in another group, another type or another tool, is not a misspelling: it gets no
        suggestion.
        """
        key, where, name = str(path[-1]), self.document.where(path), ".".join(map(str, path))
        value: Any = self.document.values
        for part in path:
            value = value[part]
        message, help = f"unknown key: {name}", otherwise
        if is_secret(path, value):
            help = "drop it: a secret belongs in an environment variable"
        elif entry := foreign.find_key(path):
            if entry.follows not in self.unanswered:
                yield entry.problem(name, value, where)
            return
        elif home := self.home(path, known):
            message, help = f"misplaced key: {name}", f"it belongs {home}"
        elif path in self.document.anchored:
            help = f"write x-{key} or _{key}: a key that only holds an anchor begins with x- or _"
        elif key not in foreign.all_names() and (close := nearest(key, known)):
            help = f"did you mean {close!r}?"
        elif self.lost_plugins and len(path) == 1:
            help = "if it is a key of a plugin that can't be used, fix the plugin first"
        yield Problem(message, where, "unknown-key", help)

    def home(self, path: KeyPath, known: Iterable[str]) -> str | None:
        """Return where a key belongs, if it exists at another depth of the YAML. `known`: the keys at its own."""
        key = str(path[-1])
        if len(path) > 1 and (key in core_schema()["properties"] or key in owners(self.available, "schema")):
            return "at the top level"
        entry = {*dataset_schema()["properties"], *owners(self.available, "dataset_schema")}
        if path[0] not in DATASET_KEYS and key in entry:
            return "inside an entry of datasets:"
        schemas = [core_schema(), *(candidate.info["schema"] for candidate in self.available.values())]
        for schema in () if nearest(key, known) else schemas:  # a misspelling is more likely than another group
            for group, sub in schema.get("properties", {}).items():
                if group != path[0] and key in _keys_of(_options(schema, sub)):
                    return f"inside {group}:"
        return None

    def below(self, root: dict[str, Any], schema: dict[str, Any], value: Any, path: KeyPath) -> Iterator[Problem]:
        """Yield a problem for each unknown key below a key, by its JSON schema."""
        options = _options(root, schema)
        if isinstance(value, dict):
            known = _keys_of(options)
            for key, item in value.items() if known else ():
                if key in known:
                    yield from self.below(root, known[key], item, (*path, key))
                else:
                    yield from self.unknown((*path, key), set(known), f"known: {', '.join(known)}")
        elif isinstance(value, list):
            items = next((option["items"] for option in options if isinstance(option.get("items"), dict)), None)
            for index, item in enumerate(value if items else []):
                yield from self.below(root, items or {}, item, (*path, index))


DROP = ", or drop the key"


def selects(info: Mapping[str, Any]) -> str:
    """Return what to write to activate a plugin."""
    ways = [f"{key}: {' | '.join(values)}" for key, values in info["answers"].items()]
    types = list(dict.fromkeys(types_of(info)))
    ways += [f"type: {name} in datasets" for name in types[:3]]
    ways += [f"another of its {len(types)} types"] if len(types) > 3 else []
    ways += [f"path: ...{source} in datasets" for source in info["sources"] if is_ending(source)][:1]
    schemes = (source for source in info["sources"] if source not in (FILE, HUB) and not is_ending(source))
    ways += [f"path: {source}://... in datasets" for source in schemes][:1]
    ways += [_example(info, switch) for switch in info["switches"]]
    ways = ways or [f"plugins: [{info['name']}]"]
    return f"write {' or '.join(ways)}{DROP}"


def _example(info: Mapping[str, Any], switch: str) -> str:
    if ": " in switch:
        return switch
    return f"{switch}: true" if "boolean" in str(info["schema"]["properties"].get(switch, {})) else f"{switch}: ..."


def _options(root: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the schemas that a value may follow."""
    return [_resolve(root, option) for option in schema.get("anyOf", [schema])]


def _keys_of(options: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the keys of a group, with their schemas."""
    return {key: sub for option in options for key, sub in option.get("properties", {}).items()}


def _resolve(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return root["$defs"][reference.rpartition("/")[2]] if reference else schema


def json_schema(available: Mapping[str, Candidate]) -> dict[str, Any]:
    """Return one JSON schema of the core and all installed plugins, for editors."""
    properties, definitions = dict(core_schema()["properties"]), dict(core_schema().get("$defs", {}))
    entry = {**dataset_schema(), "properties": dict(dataset_schema()["properties"])}
    for name, candidate in available.items():
        for key, sub in candidate.info["schema"].get("properties", {}).items():
            properties[key] = {**sub, "x-plugin": name}
        for key, sub in candidate.info["dataset_schema"].get("properties", {}).items():
            entry["properties"][key] = {**sub, "x-plugin": name}
        for field in ("schema", "dataset_schema"):
            definitions |= candidate.info[field].get("$defs", {})
    types = sorted({name for candidate in available.values() for name in types_of(candidate.info)})
    forms = [{"enum": types}, {"type": "string", "pattern": r"\.py:"}, {"type": "object"}]
    entry["properties"]["type"] = {"description": entry["properties"]["type"]["description"], "anyOf": forms}
    for key in SELECTORS:
        values = sorted({v for c in available.values() for v in c.info["answers"].get(key, [])})
        properties[key] = {**properties[key], "examples": values}
    definitions["DatasetSettings"] = entry
    for key in DATASET_KEYS:
        properties[key] = {**properties[key], "items": {"$ref": "#/$defs/DatasetSettings"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tunesmith run",
        "type": "object",
        "properties": dict(sorted(properties.items())),
        "required": core_schema()["required"],
        "patternProperties": {f"^({'|'.join(HOLDERS)})": {}},
        "additionalProperties": False,
        "$defs": definitions,
    }
