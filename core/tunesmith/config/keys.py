"""Who owns a key: unknown, misspelt, refused, ownerless and orphaned keys, from static metadata alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.config.datasets import DATASET_KEYS, types_of
from tunesmith.config.secrets import is_secret
from tunesmith.config.selection import SELECTORS, Selection
from tunesmith.config.settings import CoreSettings, DatasetSettings
from tunesmith.config.yamlfile import Document, KeyPath
from tunesmith.errors import Problem
from tunesmith.files.paths import FILE, HUB
from tunesmith.plugins.discovery import Candidate, catalogue, data_file
from tunesmith.spelling import nearest


@functools.cache
def core_schema() -> dict[str, Any]:
    return CoreSettings.model_json_schema()


@functools.cache
def dataset_schema() -> dict[str, Any]:
    return DatasetSettings.model_json_schema()


def refused() -> dict[str, dict[str, str]]:
    """Keys of other tools that are not taken: why, and what to write instead."""
    return data_file("refused.json")  # type: ignore[no-any-return]


def owners(available: Mapping[str, Candidate], field: str) -> dict[str, list[str]]:
    """Key -> the installed plugins that own it; `field` is "schema" or "dataset_schema"."""
    found: dict[str, list[str]] = {}
    for name, candidate in available.items():
        for key in candidate.info[field].get("properties", {}):
            found.setdefault(key, []).append(name)
    return found


def check(document: Document, available: dict[str, Candidate], selection: Selection) -> list[Problem]:
    """Every key that nobody will read, each with what to write instead."""
    checker = _Checker(document, available, selection)
    return [*checker.top(), *checker.datasets(), *checker.idle()]


class _Checker:
    def __init__(self, document: Document, available: dict[str, Candidate], selection: Selection):
        self.document = document
        self.available = available
        self.active = selection.active
        self.entries = selection.entries

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
            elif key in owned and (value is None or self.switched_off(owned[key][0])):
                continue
            else:
                yield self.lost((key,), set(core), owned, "schema")

    def idle(self) -> Iterator[Problem]:
        """Plugins that `plugins:` names and whose own switches leave them off."""
        names = self.document.values.get("plugins")
        for index, name in enumerate(names if isinstance(names, list) else []):
            known = isinstance(name, str) and name in self.active
            switches = self.active[name].info["switches"] if known else []
            if switches and all(self.document.values.get(switch) in (None, False) for switch in switches):
                where = self.document.where(("plugins", index))
                yield Problem(
                    f"plugin {name!r} has no effect as it is", where, "idle-plugin", selects(self.active[name].info)
                )

    def switched_off(self, name: str) -> bool:
        """Whether a plugin's switch says false: its other keys wait for it to be turned on again."""
        return any(self.document.values.get(switch) is False for switch in self.available[name].info["switches"])

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
                        yield self.unknown(path, set(options), f"known: {', '.join(options)}")
                options = {}
            for key, value in entry.values.items():
                path = (*entry.path, key)
                if key in core:
                    yield from self.below(dataset_schema(), core[key], value, path)
                elif key in options:
                    yield from self.below(schema, options[key], value, path)
                elif entry.strategy or key not in owned:
                    yield self.lost(path, {*core, *options}, owned, "dataset_schema")

    def lost(self, path: KeyPath, core: set[str], owned: dict[str, list[str]], field: str) -> Problem:
        """What to say of a key that no active plugin owns."""
        key, where = str(path[-1]), self.document.where(path)
        name = ".".join(map(str, path))
        if key in owned:
            homes = [self.available[word] for word in owned[key]]
            said = (
                f"the plugin {homes[0]}, which is" if len(homes) == 1 else f"{' and '.join(map(str, homes))}, which are"
            )
            ways = [selects(home.info).removesuffix(DROP).removeprefix("write ") for home in homes]
            return Problem(
                f"{name} belongs to {said} not selected", where, "orphaned-key", f"write {' or '.join(ways)}{DROP}"
            )
        if key in refused() and len(path) == 1:
            entry = refused()[key]
            return Problem(f"{name} is not taken: {entry['reason']}", where, "refused-key", entry["write"])
        for extra, info in catalogue().items():
            if key in info[field].get("properties", {}) and extra not in self.available:
                help = f'pip install "tunesmith[{extra}]"'
                return Problem(
                    f"{name} belongs to the plugin {extra!r}, which is not installed", where, "ownerless-key", help
                )
        known = core | set(owned) | (set(refused()) if len(path) == 1 else set())
        return self.unknown(path, known, "tunesmith config-schema lists all")

    def unknown(self, path: KeyPath, known: set[str], otherwise: str) -> Problem:
        """What to say of a key that nobody has there; `otherwise` is the help where no spelling is close."""
        key, where, name = str(path[-1]), self.document.where(path), ".".join(map(str, path))
        value: Any = self.document.values
        for part in path:
            value = value[part]
        if is_secret(path, value):
            help = "drop it: a secret belongs in an environment variable"
        elif home := self.home(path):
            return Problem(f"{name} is no key here", where, "unknown-key", f"it belongs {home}")
        else:
            close = nearest(key, known)
            help = f"did you mean {close!r}?" if close else otherwise
        return Problem(f"{name} is no key", where, "unknown-key", help)

    def home(self, path: KeyPath) -> str | None:
        """Where a key belongs that stands too deep or too shallow."""
        key = str(path[-1])
        if len(path) > 1 and (key in core_schema()["properties"] or key in owners(self.available, "schema")):
            return "at the top level"
        entry = {*dataset_schema()["properties"], *owners(self.available, "dataset_schema")}
        if path[0] not in DATASET_KEYS and key in entry:
            return "inside an entry of datasets:"
        schemas = [core_schema(), *(candidate.info["schema"] for candidate in self.available.values())]
        for schema in schemas:
            for group, sub in schema.get("properties", {}).items():
                if group != path[0] and key in _keys_of(_options(schema, sub)):
                    return f"inside {group}:"
        return None

    def below(self, root: dict[str, Any], schema: dict[str, Any], value: Any, path: KeyPath) -> Iterator[Problem]:
        """Unknown keys below a key, by its JSON schema."""
        options = _options(root, schema)
        if isinstance(value, dict):
            known = _keys_of(options)
            for key, item in value.items() if known else ():
                if key in known:
                    yield from self.below(root, known[key], item, (*path, key))
                else:
                    yield self.unknown((*path, key), set(known), f"known: {', '.join(known)}")
        elif isinstance(value, list):
            items = next((option["items"] for option in options if isinstance(option.get("items"), dict)), None)
            for index, item in enumerate(value if items else []):
                yield from self.below(root, items or {}, item, (*path, index))


DROP = ", or drop the key"


def selects(info: Mapping[str, Any]) -> str:
    """What one writes to activate a plugin."""
    ways = [f"{key}: {' | '.join(values)}" for key, values in info["answers"].items()]
    types = list(dict.fromkeys(types_of(info)))
    ways += [f"type: {name} in datasets" for name in types[:3]]
    ways += [f"another of its {len(types)} types"] if len(types) > 3 else []
    ways += [f"path: {source}://... in datasets" for source in info["sources"] if source not in (FILE, HUB)][:1]
    ways += [f"{switch}: true" if _is_flag(info, switch) else f"{switch}: ..." for switch in info["switches"]]
    ways = ways or [f"plugins: [{info['name']}]"]
    return f"write {' or '.join(ways)}{DROP}"


def _is_flag(info: Mapping[str, Any], key: str) -> bool:
    return "boolean" in str(info["schema"]["properties"].get(key, {}))


def _options(root: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas that a value may follow."""
    return [_resolve(root, option) for option in schema.get("anyOf", [schema])]


def _keys_of(options: list[dict[str, Any]]) -> dict[str, Any]:
    """The keys of a group, with their schemas."""
    return {key: sub for option in options for key, sub in option.get("properties", {}).items()}


def _resolve(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return root["$defs"][reference.rpartition("/")[2]] if reference else schema


def json_schema(available: Mapping[str, Candidate]) -> dict[str, Any]:
    """One JSON schema of the core and everything installed, for editors."""
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
        "additionalProperties": False,
        "$defs": definitions,
    }
