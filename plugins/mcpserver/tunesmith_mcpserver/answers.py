"""Answer each tool, in the process of a call and under its guard."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunesmith.config.keys import DROP, core_schema, dataset_schema, json_schema, selects
from tunesmith.errors import ConfigError, EnvironmentProblem
from tunesmith.plugins.discovery import installed
from tunesmith.plugins.offers import find, offers
from tunesmith.run import Run
from tunesmith.spelling import nearest
from tunesmith_mcpserver import runs as of_runs
from tunesmith_mcpserver.configs import IN_MEMORY, below, open_config

DOCS = "agent_docs"
available = functools.cache(installed)
"""The installed plugins, found once: a process answers one call."""


def check(
    roots: Sequence[Path], path: str | None = None, yaml: str | None = None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what `tunesmith check --json` prints."""
    run = open_config(roots, path, yaml, overrides)
    return {
        "exit_code": 0,
        "problems": [],
        "warnings": [f"{name}: {value}" for name, value in run.notes.items()],
        "plugins": [plugin.name for plugin in run.hooks.plugins],
        "accepted": [dataclasses.asdict(one) for one in run.config.translated],
    }


def plan(
    roots: Sequence[Path], path: str | None = None, yaml: str | None = None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what `tunesmith plan --json` prints. Data is prepared in memory."""
    from tunesmith.api import plan as make_plan
    from tunesmith.api import prepare

    return dict(make_plan(prepare(open_config(roots, path, yaml, [*overrides, *IN_MEMORY]))))


def lint(
    roots: Sequence[Path],
    path: str | None = None,
    yaml: str | None = None,
    overrides: Sequence[str] = (),
    off: Sequence[str] = (),
    rows: int = 10_000,
) -> dict[str, Any]:
    """Return what `tunesmith lint --json` prints."""
    offer = find(available(), "linters", "lint")
    if offer is None:
        raise EnvironmentProblem("no plugin lints", code="plugin-missing", help='pip install "tunesmith[lint]"')
    run = open_config(roots, path, yaml, [*overrides, *IN_MEMORY], check_rows=False)
    return dict(offer.load()(run, tuple(off), rows).as_json())


def schema(roots: Sequence[Path], name: str = "") -> dict[str, Any]:
    """Return the names of all keys, or the schemas of a section, of a key, or of everything."""
    sections = sections_of_keys()
    if not name:
        return {section: sorted(one["properties"]) for section, one in sections.items()}
    if name == "all":
        return json_schema(available())
    matches = [{"section": s, **selected(s), "schema": sub} for s, sub in owners(name, sections)]
    if name in sections:
        return {"section": name, **selected(name), "schema": sections[name], **({"keys": matches} if matches else {})}
    if not matches:
        raise unknown(name, {*sections, *key_names(sections)}, "the tool schema without a name lists all keys")
    return {"name": name, "owners": matches}


def sections_of_keys() -> dict[str, dict[str, Any]]:
    """Return section -> its JSON schema: core, datasets, each plugin, and its keys of datasets as `NAME.datasets`."""
    sections = {"core": core_schema(), "datasets": dataset_schema()}
    for name, candidate in available().items():
        for field, section in (("schema", name), ("dataset_schema", f"{name}.datasets")):
            if candidate.info[field].get("properties"):
                sections[section] = candidate.info[field]
    return sections


def selected(section: str) -> dict[str, str]:
    """Return what selects the plugin of a section; nothing for the core."""
    candidate = available().get(section.partition(".")[0])
    return {"plugin": str(candidate), "selected_by": selects(candidate.info).removesuffix(DROP)} if candidate else {}


def owners(name: str, sections: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return (section, schema) of each key with a name: key, group.key or datasets.key."""
    of_entries, parts = name.startswith("datasets."), name.removeprefix("datasets.").split(".")
    matches = []
    for section, root in sections.items():
        if (section == "datasets" or section.endswith(".datasets")) != of_entries:
            continue
        place: dict[str, Any] | None = root
        for part in parts:
            place = child(root, place, part)
        if place is not None:
            matches.append((section, place | ({"$defs": root["$defs"]} if "$ref" in str(place) else {})))
    return matches


def child(root: dict[str, Any], group: dict[str, Any] | None, key: str) -> dict[str, Any] | None:
    """Return the schema of a key in a group of a schema, or None."""
    for option in (group or {}).get("anyOf", [group or {}]):
        reference = option.get("$ref", "").rpartition("/")[2]
        properties = (root["$defs"][reference] if reference else option).get("properties", {})
        if key in properties:
            return properties[key]  # type: ignore[no-any-return]
    return None


def key_names(sections: dict[str, dict[str, Any]]) -> set[str]:
    """Return the names of all keys at the top level and in dataset entries."""
    entries = {"datasets", *(section for section in sections if section.endswith(".datasets"))}
    return {f"datasets.{key}" if s in entries else key for s, one in sections.items() for key in one["properties"]}


def unknown(name: str, known: set[str], otherwise: str) -> ConfigError:
    close = nearest(name, known)
    help = f"did you mean {close!r}?" if close else otherwise
    return ConfigError(f"unknown name {name!r}", where="name", code="unknown-value", help=help)


def explain(
    roots: Sequence[Path],
    name: str,
    path: str | None = None,
    yaml: str | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Return everything that has a name: an error code, a key, a hook, a plugin; with a config, what they are in it."""
    from tunesmith.cli.explain import catalogue
    from tunesmith.plugins.hookspecs import HOOKS

    sections, plugins, codes = sections_of_keys(), available(), catalogue()["codes"]
    parts: dict[str, Any] = {}
    if name in codes:
        parts["error"] = codes[name]
    if matches := owners(name, sections):
        parts["key"] = [{"section": s, **selected(s), "schema": sub} for s, sub in matches]
    if name in HOOKS:
        parts["hook"] = {"arity": HOOKS[name].arity, "doc": HOOKS[name].__doc__}
    if name in plugins:
        info = plugins[name].info
        kept = {field: info[field] for field in ("summary", "answers", "strategies", "hooks", "offers", "metrics")}
        parts["plugin"] = {"version": str(plugins[name]), "selected_by": selects(info).removesuffix(DROP), **kept}
    if not parts:
        raise unknown(name, {*codes, *key_names(sections), *HOOKS, *plugins}, "a code, a key, a hook or a plugin")
    if path is not None or yaml is not None:
        parts["in_config"] = in_config(open_config(roots, path, yaml, overrides, check_rows=False), name)
    return parts


def in_config(run: Run, name: str) -> dict[str, Any]:
    """Return the value of a key and its place, the answers of a hook, or whether a plugin acts."""
    from tunesmith.cli.show import hook_rows

    keys = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
    document = run.config.document
    rows = [row for row in hook_rows(run) if row["hook"] == name]
    value: Any = document.values
    for part in keys:
        value = element(value, part)
    result: dict[str, Any] = {"answers": rows[0]["calls"]} if rows else {}
    if keys in document.keys:
        result |= {"value": value, "set_at": document.where(keys, value=True)}
    elif not rows:
        result |= {"set_at": "not in the file: the default applies"}
    active = {plugin.name: list(plugin.selected_by) for plugin in run.hooks.plugins}
    return result | ({"active_because_of": active[name]} if name in active else {})


def element(value: Any, part: str | int) -> Any:
    """Return the value of a key or an index; None if there is none."""
    if isinstance(value, list):
        return value[part] if isinstance(part, int) and part < len(value) else None
    return value.get(part) if isinstance(value, dict) else None


def runs(roots: Sequence[Path], folder: str = ".") -> dict[str, Any]:
    """Return the runs below a folder."""
    target = below(folder, roots)
    if not target.is_dir():
        raise ConfigError(f"{folder}: no such folder", where="folder", code="no-folder")
    return of_runs.runs(target, roots[0])


def agent_docs(roots: Sequence[Path], topic: str = "overview") -> dict[str, Any]:
    """Return the page of a topic."""
    offer = find(available(), DOCS, topic.replace("-", "_"))
    if offer is None:
        raise unknown(topic, set(topics(roots)), f"topics: {', '.join(topics(roots))}")
    return {"topic": offer.name, "text": str(offer.load()())}


def topics(roots: Sequence[Path]) -> dict[str, Any]:
    """Return topic -> the plugin that has it."""
    return {name: f"from {offer.plugin}" for name, (offer, *_) in offers(available(), DOCS).items()}


ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {
    "agent_docs": agent_docs, "check": check, "explain": explain, "lint": lint, "plan": plan, "runs": runs,
    "schema": schema, "topics": topics,
}  # fmt: skip
"""Name of a tool -> the function that answers it."""
