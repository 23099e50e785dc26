"""Describe a plugin as static metadata, and compare the metadata of a distribution with its modules."""

from __future__ import annotations

import dataclasses
import inspect
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.plugins.plugin import Plugin, Settings, declared_hooks, implemented_hooks, rules_of

TEXTS = ("name", "module", "summary")
"""Fields that change nothing that the core decides, so that a difference in them is not an error."""
SCHEMAS = ("schema", "dataset_schema")
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
LABELS = {"schema": "settings", "dataset_schema": "dataset_settings"}
"""Field of the metadata -> field of Plugin, where they have different names."""


def error_codes(module: Any) -> dict[str, dict[str, Any]]:
    """Return the error codes in the `errors.toml` of a plugin's package; none for a plugin in a single file."""
    folder = next(iter(getattr(module, "__path__", ())), None)
    path = Path(folder) / "errors.toml" if folder else None
    codes: dict[str, dict[str, Any]] = (
        tomllib.loads(path.read_text("utf-8"))["codes"] if path and path.is_file() else {}
    )
    return codes


def describe(name: str, module: Any) -> dict[str, Any]:
    """Return the static metadata of a plugin as a JSON object: an entry of its `tunesmith.json`."""
    plugin: Plugin = module.plugin

    def schema(model: type[Settings] | None) -> dict[str, Any]:
        return model.model_json_schema() if model else {}

    return {
        "name": name,
        "module": getattr(module, "__name__", name),
        "summary": (module.__doc__ or "").strip().split("\n")[0],
        "answers": {key: list(values) for key, values in plugin.answers.items()},
        "strategies": {kind: list(types) for kind, types in plugin.strategies.items()},
        "sources": list(plugin.sources),
        "models": list(plugin.models),
        "switches": list(plugin.switches),
        "shared": list(plugin.shared),
        "commands": {command: list(target) for command, target in plugin.commands.items()},
        "on_resume": rules_of(plugin),
        "metrics": None if plugin.metrics is None or callable(plugin.metrics) else list(plugin.metrics),
        "method": dataclasses.asdict(plugin.method) if plugin.method else None,
        "heads": {name: {**dataclasses.asdict(head), "names": list(head.names)} for name, head in plugin.heads.items()},
        "provides": dict(plugin.provides),
        "hooks": implemented_hooks(module),
        "hookspecs": {name: _described(function) for name, function in declared_hooks(plugin).items()},
        "offers": {kind: dict(names) for kind, names in plugin.offers.items()},
        "errors": error_codes(module),
        "schema": schema(plugin.settings),
        "dataset_schema": schema(plugin.dataset_settings),
    }


def _described(function: Any) -> dict[str, Any]:
    """Return the metadata of a hook that a plugin declares."""
    parameters = list(inspect.signature(function).parameters)
    summary = (inspect.getdoc(function) or "").split("\n")[0]
    return {"arity": function.arity, "keys": function.keys, "parameters": parameters, "summary": summary}


def text_of(plugins: dict[str, dict[str, Any]]) -> str:
    """Return the text of `tunesmith.json` for the metadata of some plugins by name."""
    return json.dumps(plugins, indent=2, sort_keys=True) + "\n"


def outline(info: dict[str, Any]) -> dict[str, Any]:
    """Return what the core's catalogue keeps of a plugin's metadata: enough to name the extra that a YAML needs."""
    short = {field: info[field] for field in ("answers", "strategies", "sources", "models", "switches")}
    short |= {field: sorted(info[field]) for field in ("commands", "hookspecs")}
    short |= {"offers": {kind: sorted(names) for kind, names in info["offers"].items()}}
    short |= {field: sorted(info[field].get("properties", ())) for field in ("schema", "dataset_schema")}
    return {field: value for field, value in short.items() if value}


def differences(static: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Return what differs between the metadata of a distribution and that of its module, one text for each field.

    Descriptions are not compared, and of a JSON schema only names, types, values and defaults, since its wording
    depends on the version of pydantic that built the distribution.
    """
    texts = []
    for field in current.keys() - set(TEXTS):
        before, now = (shape(i[field]) if field in SCHEMAS else _flat(i[field]) for i in (static, current))
        if before == now:
            continue
        parts = []
        for word, names in (
            ("only in tunesmith.json:", before.keys() - now.keys()),
            ("only in the module:", now.keys() - before.keys()),
            ("changed:", {name for name in before.keys() & now.keys() if before[name] != now[name]}),
        ):
            parts += [f"{word} {', '.join(sorted(names))}"] if names else []
        texts.append(f"{LABELS.get(field, field)} ({'; '.join(parts)})")
    return sorted(texts)


def shape(schema: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the keys of a JSON schema, those in groups as group.key, each with types, values, bounds and default."""
    return dict(_shape(schema, schema))


def _shape(root: dict[str, Any], group: dict[str, Any], above: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    for key, sub in group.get("properties", {}).items():
        options = [_target(root, option) for option in sub.get("anyOf", [sub])]
        types = sorted(str(option.get("type")) for option in options)
        values = [option.get("enum", option.get("const")) for option in options]
        bounds = [option.get(bound) for option in options for bound in BOUNDS]
        yield above + key, (types, values, bounds, sub.get("default"))
        for option in options:
            yield from _shape(root, option, f"{above}{key}.")


def _target(root: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return root["$defs"][name] if name else schema


def _flat(value: Any) -> dict[str, Any]:
    """Return the parts of a field by name: the items of a mapping, or the elements of a list."""
    if isinstance(value, dict):
        return {str(key): list(item) if isinstance(item, tuple) else item for key, item in value.items()}
    return dict.fromkeys(value or ())
