"""Write docs/config.md: every key of the core and of the plugins of this repository, each with an anchor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pieces import metadata, page, points, table

from tunesmith import resume_rules
from tunesmith.config import keys
from tunesmith.config.type_errors import bound_text
from tunesmith.plugins import discovery

Schema = dict[str, Any]

CONFIG_HEAD = """
This page lists every key of the core and of the plugins in this repository. `tunesmith config-schema` prints the same
for all installed plugins as a JSON schema, for editors.

`null` means that a key is not set. In a path, `~` and `$NAME` are errors: a config has the same meaning everywhere.
Top-level keys that begin with `x-` or `_` hold YAML anchors, and are ignored. If a key belongs to a plugin that nothing
selects, it is an error, and the message names what would select the plugin.
[keys-from-elsewhere.md](keys-from-elsewhere.md) lists keys of other tools.

The column *on resume* shows if the value may differ from the checkpoint that a run resumes from:

- `free`: it may.
- `accept`: it may, if `accept_changes` names the key.
- `if packs stay`: it may, as long as a step has as many packs over all processes as before.
- `by content`: what the key refers to is compared instead, as `data` or `plugins`.
- empty: it may not.

[resume.md](resume.md) has the details.
"""

ON_RESUME: dict[str, str] = {
    **resume_rules.rules(()),
    **{key: rule for info in metadata().values() for key, rule in info["on_resume"].items()},
    **dict.fromkeys(resume_rules.BY_CONTENT, "by content"),
    **dict.fromkeys(resume_rules.IF_ROWS_STAY, "if packs stay"),
}
WORDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true, false", "object": "mapping"}
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}


def resolve(root: Schema, schema: Schema) -> Schema:
    """Return the schema that a $ref points to, or the schema itself."""
    name = schema.get("$ref", "").rpartition("/")[2]
    target: Schema = root["$defs"][name] if name else schema
    return target


def type_of(root: Schema, schema: Schema) -> str:
    """Return the type that a JSON schema describes, in words."""
    if "anyOf" in schema:
        return ", ".join(type_of(root, option) for option in schema["anyOf"] if option.get("type") != "null")
    schema = resolve(root, schema)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {type_of(root, schema['items'])}s".replace("texts", "text")
    if "properties" in schema:
        return "group"
    if schema.get("format") == "path":
        return "path"
    return " ".join(
        [WORDS[schema["type"]], *(f"{word} {bound_text(schema[key])}" for key, word in BOUNDS.items() if key in schema)]
    )


def default_of(root: Schema, schema: Schema) -> str:
    """Return the default value of a key, in words."""
    value = schema.get("default")
    if value in (None, {}) or "properties" in resolve(root, schema):
        return "not set"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def key_rows(root: Schema, group: Schema, above: str = "") -> Iterator[list[str]]:
    """Yield a row (key, type, default, on resume, meaning) for each property; those of a group follow the group."""
    for name, schema in group.get("properties", {}).items():
        default = "required" if name in group.get("required", []) else default_of(root, schema)
        rule = ON_RESUME.get((above + name).partition(".")[0], "")
        yield [f"{above}{name}", type_of(root, schema), default, rule, schema.get("description", "")]
        for option in schema.get("anyOf", [schema]):
            yield from key_rows(root, resolve(root, option), f"{above}{name}.")


def keys_table(schema: Schema, prefix: str, plugin: str = "") -> str:
    """Return the table of the keys of a schema. Each row has an anchor, which is also the link of its key.

    Args:
        prefix: the beginning of the anchors: "" at the top level, "datasets." in an entry.
        plugin: the plugin that owns the keys; its name is part of the anchor of a key that several plugins own.
    """
    rows = []
    for name, *cells in key_rows(schema, schema):
        anchor = prefix + name
        if plugin and len(owners(anchor)) > 1:
            anchor = f"{plugin}.{anchor}"
        rows.append([f'<a id="{anchor}"></a>[`{name}`](#{anchor})', *cells])
    return table(["key", "type", "default", "on resume", "meaning"], rows)


def owners(anchor: str) -> list[str]:
    """Return the plugins that own a key, which is `key` or `datasets.key`."""
    prefix, _, key = anchor.partition(".")
    field, key = ("dataset_schema", key) if prefix == "datasets" else ("schema", anchor)
    names = [name for name, info in metadata().items() if key.partition(".")[0] in info[field].get("properties", {})]
    core = keys.dataset_schema() if field == "dataset_schema" else keys.core_schema()
    return names + (["core"] if key in core["properties"] else [])


def ways(info: Schema) -> dict[str, str]:
    """Return what selects a plugin: facts for a list."""
    selectors = [f"`{key}: {value}`" for key, values in info["answers"].items() for value in values]
    selectors += ["an entry of `datasets:` with one of its types"] if info["strategies"] else []
    selectors += ["an entry of `datasets:` with a path of its kind"] if info["sources"] else []
    selectors += [f"`{switch}`" if ": " in switch else f"`{switch}:`" for switch in info["switches"]]
    default = any(row["plugin"] == info["name"] for row in discovery.defaults())
    types = dict.fromkeys(name for names in info["strategies"].values() for name in names)
    return {
        "Selected by": "; ".join([*selectors, f"`plugins: [{info['name']}]`"])
        + ("; active by default" if default else ""),
        "Types": ", ".join(f"`{name}`" for name in types),
        "Paths": ", ".join(f"`{source}`" for source in info["sources"]),
    }


def config_page() -> str:
    """Return docs/config.md."""
    entries = (
        "Keys of an entry of `datasets:`, `pretraining_dataset:` or `test_datasets:`. Its `type` adds further keys."
    )
    parts = [f"## Core\n\n{keys_table(keys.core_schema(), '')}"]
    parts += [f"## Entries of datasets\n\n{entries}\n\n{keys_table(keys.dataset_schema(), 'datasets.')}"]
    for name, info in metadata().items():
        own, entry = info["schema"], info["dataset_schema"]
        if own or entry:
            parts += [f"## {name}\n\n{info['summary']}\n\n{points(ways(info))}"]
            parts += [keys_table(own, "", name)] if own else []
            parts += [f"In an entry whose type selects it:\n\n{keys_table(entry, 'datasets.', name)}"] if entry else []
    return page("Config reference", CONFIG_HEAD, *parts)
