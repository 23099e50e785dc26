"""Write the keys of a schema as lines of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tunesmith.config.type_errors import bound_text

Schema = dict[str, Any]
WORDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "object": "mapping"}
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "up to", "exclusiveMaximum": "below"}
LONGEST = 300
"""Characters of the meaning of a key, from its first sentence."""


def first_sentence(text: str) -> str:
    """Return the first sentence of a text on one line, cut after LONGEST characters."""
    line = re.split(r"(?<=[a-z0-9`)])\.(?= [A-Z])", " ".join(text.split()))[0].rstrip(".")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3].rpartition(' ')[0]}..."


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    if not lines:
        return "None is installed."
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines])


def resolve(root: Schema, schema: Schema) -> Schema:
    """Return the schema that a $ref points to, or the schema itself."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return root["$defs"][name] if name else schema  # type: ignore[no-any-return]


def type_of(root: Schema, schema: Schema) -> str:
    """Return the type that a JSON schema describes, in words."""
    if "anyOf" in schema:
        options = [type_of(root, option) for option in schema["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(options))
    schema = resolve(root, schema)
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {type_of(root, schema['items'])}" if "items" in schema else "list"
    if "properties" in schema:
        return "group"
    bounds = [f"{word} {bound_text(schema[key])}" for key, word in BOUNDS.items() if key in schema]
    return " ".join([WORDS.get(schema.get("type", ""), "any"), *bounds])


def key_lines(root: Schema, group: Schema, prefix: str = "", only: Sequence[str] = ()) -> Iterator[str]:
    """Yield a line for each key of a schema: its name, type, default and meaning. Keys of a group follow it."""
    for name, schema in group.get("properties", {}).items():
        if only and name not in only:
            continue
        default = schema.get("default")
        shown = "required" if name in group.get("required", ()) else f"default {default!r}".replace("'", "")
        shown = {"default True": "default true", "default False": "default false"}.get(shown, shown)
        kind = type_of(root, schema)
        facts = [kind] if (default in (None, {}, []) and shown != "required") or kind == "group" else [kind, shown]
        yield f"- `{prefix}{name}` ({'; '.join(facts)}): {first_sentence(schema.get('description', ''))}"
        for option in schema.get("anyOf", [schema]):
            yield from key_lines(root, resolve(root, option), f"{prefix}{name}.")
