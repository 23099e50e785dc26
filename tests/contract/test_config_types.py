"""A value of a wrong type is an error at the place of its key, for every installed key at any depth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.contract.fakes import BASE, error_of, problems_of, write
from tunesmith.config import keys
from tunesmith.config.load import load_config
from tunesmith.plugins import discovery

Schema = dict[str, Any]
INSTALLED = discovery.installed()
VALUES: dict[str, list[Any]] = {
    "string": ["word", "1,000", "true"],
    "integer": [0, 3],
    "number": [0.5],
    "boolean": [True, False],
    "array": [[], ["a"]],
    "object": [{}, {"a": 1}],
}
"""Values of each JSON type except null, which means that a key is not set."""


@dataclass(frozen=True)
class Key:
    """A key, its owner ("" for the core) and its parent: "" for the top level, a group, or `datasets.0`."""

    name: str
    owner: str
    parent: str
    schema: str

    def __str__(self) -> str:
        return f"{self.parent}.{self.name}" if self.parent else self.name

    def types(self) -> set[str]:
        """Return the JSON types that the key accepts."""
        return set(_types(json.loads(self.schema)))


def config_of(keys: list[Key], value: Any) -> tuple[str, dict[Key, int]]:
    """Return a config with a value of some keys of one owner and one parent, and the number of the line of each."""
    first, shown = keys[0], json.dumps(value)
    names = {str(key) for key in keys}
    lines = ["base_model: nobody/nothing"] if "base_model" not in names else []
    if first.owner and "plugins" not in names:
        lines += [f"plugins: [{first.owner}]"]
    indent = ""
    if first.parent == "datasets.0":
        strategies = INSTALLED[first.owner or "chat"].info["strategies"].values()
        entry = {"path": "a/b", "type": next(name for names in strategies for name in names)}
        given = {key.name for key in keys}
        lines += ["datasets:", "  -"] + [f"    {k}: {v}" for k, v in entry.items() if k not in given]
        indent = "    "
    elif first.parent:
        lines += [f"{first.parent}:"]
        indent = "  "
    places = {key: len(lines) + number for number, key in enumerate(keys, 1)}
    return "\n".join([*lines, *(f"{indent}{key.name}: {shown}" for key in keys), ""]), places


def _types(schema: Schema) -> Iterator[str]:
    for option in schema.get("anyOf", [schema]):
        yield "object" if "$ref" in option else option["type"]
        if option.get("type") == "number":
            yield "integer"


def all_keys() -> list[Key]:
    """Return the keys of the core and of all installed plugins."""
    result = []
    for field, parent, core in (
        ("schema", "", keys.core_schema()), ("dataset_schema", "datasets.0", keys.dataset_schema())
    ):  # fmt: skip
        plugins = {name: candidate.info[field] for name, candidate in INSTALLED.items()}
        for owner, root in {"": core, **plugins}.items():
            for name, schema in root.get("properties", {}).items():
                result.append(Key(name, owner, parent, json.dumps(schema)))
                for option in schema.get("anyOf", [schema]):
                    if group := option.get("$ref", "").rpartition("/")[2]:
                        result += [
                            Key(below, owner, name, json.dumps(sub))
                            for below, sub in root["$defs"][group]["properties"].items()
                        ]
    return result


KEYS = all_keys()
KINDS = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}


@pytest.fixture(autouse=True)
def discover_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discover the installed plugins only once, because discovery takes most of the time of reading a config."""
    monkeypatch.setattr(discovery, "installed", lambda: dict(INSTALLED))


def check(folder: Path, keys: list[Key], value: Any) -> None:
    """Check that a value is reported as a wrong type on the line of each key."""
    text, places = config_of(keys, value)
    path = write(folder, text)
    error = error_of(load_config, path)
    assert error.exit_code == 2, (keys, value)
    problems = [(int(where.partition(":")[0]), p) for where, p in problems_of(error, path) if p.code == "wrong-type"]
    for key, line in places.items():
        own = [p for number, p in problems if number == line]
        assert own and all(p.message.startswith(str(key)) for p in own), (key, value, error.problems)


def by_owner() -> dict[str, list[Key]]:
    """Return the keys to check together: those of a plugin with one parent, and each key of the core alone."""
    groups: dict[str, list[Key]] = {}
    for key in KEYS:
        groups.setdefault(f"{key.owner}:{key.parent}" if key.owner else str(key), []).append(key)
    return groups


GROUPS = by_owner()


@pytest.mark.parametrize("group", GROUPS)
def test_no_key_accepts_a_value_of_a_wrong_type(group: str, tmp_path: Path) -> None:
    assert all(key.types() <= {*VALUES, "null"} for key in GROUPS[group])
    for kind, values in VALUES.items():
        wrong = [key for key in GROUPS[group] if kind not in key.types()]
        for value in values if wrong else []:
            check(tmp_path, wrong, value)


@pytest.mark.slow
def test_random_values_of_a_wrong_type_are_errors(tmp_path: Path) -> None:
    text = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), max_size=8)
    scalars = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
    anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner))

    @hypothesis.settings(max_examples=200, deadline=None, database=None)
    @hypothesis.given(st.sampled_from(KEYS), anything)
    def replace(key: Key, value: Any) -> None:
        kind = next(k for k, python in KINDS.items() if type(value) is python)
        hypothesis.assume(kind not in key.types())
        check(tmp_path, [key], value)

    replace()


def test_keys_of_all_installed_plugins_are_tested() -> None:
    names = {str(key) for key in KEYS}
    assert {"fsdp_config.offload_params", "lora_r", "datasets.0.field_messages", "special_tokens.eos_token"} <= names
    assert len(KEYS) > 100


def test_items_of_lists_and_groups_are_reported_at_their_own_place(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "plugins: [lora, 3]\ndatasets: [{path: x, type: alpaca, data_files: [a, {}]}]\n")
    places = [where for where, p in problems_of(error_of(load_config, path), path) if p.code == "wrong-type"]
    assert places == ["2:17", "3:52"]
