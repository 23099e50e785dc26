"""A value of another type is an error at the place of its key: for every key of everything installed, at any depth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.contract.fakes import BASE, found, refusal, write
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
"""Values of each type of JSON. null is left out: it means that a key is not set."""


@dataclass(frozen=True)
class Key:
    """A key, the plugin that owns it (the core: ""), and where it stands: at the top, in a group, or in an entry."""

    name: str
    owner: str
    above: str
    schema: str

    def __str__(self) -> str:
        return f"{self.above}.{self.name}" if self.above else self.name

    def types(self) -> set[str]:
        """The types of JSON that it takes."""
        return set(_types(json.loads(self.schema)))

    def config(self, value: Any) -> tuple[str, int]:
        """A config with that value, and the line that it stands in."""
        shown = json.dumps(value)
        lines = ["base_model: nobody/nothing"] if str(self) != "base_model" else []
        if self.owner and self.name != "plugins":
            lines += [f"plugins: [{self.owner}]"]
        if self.above == "datasets.0":
            strategies = INSTALLED[self.owner or "chat"].info["strategies"].values()
            entry = {"path": "a/b", "type": next(name for names in strategies for name in names)}
            lines += ["datasets:", "  -"] + [f"    {k}: {v}" for k, v in entry.items() if k != self.name]
            return "\n".join([*lines, f"    {self.name}: {shown}", ""]), len(lines) + 1
        lines += [f"{self.above}:"] if self.above else []
        return "\n".join([*lines, f"{'  ' if self.above else ''}{self.name}: {shown}", ""]), len(lines) + 1


def _types(schema: Schema) -> Iterator[str]:
    for option in schema.get("anyOf", [schema]):
        yield "object" if "$ref" in option else option["type"]
        if option.get("type") == "number":
            yield "integer"


def all_keys() -> list[Key]:
    found = []
    for field, above, core in (
        ("schema", "", keys.core_schema()), ("dataset_schema", "datasets.0", keys.dataset_schema())
    ):  # fmt: skip
        plugins = {name: candidate.info[field] for name, candidate in INSTALLED.items()}
        for owner, root in {"": core, **plugins}.items():
            for name, schema in root.get("properties", {}).items():
                found.append(Key(name, owner, above, json.dumps(schema)))
                for option in schema.get("anyOf", [schema]):
                    if group := option.get("$ref", "").rpartition("/")[2]:
                        found += [
                            Key(below, owner, name, json.dumps(sub))
                            for below, sub in root["$defs"][group]["properties"].items()
                        ]
    return found


KEYS = all_keys()
KINDS = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}


@pytest.fixture(autouse=True)
def found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for what is installed takes most of the time of reading a config."""
    monkeypatch.setattr(discovery, "installed", lambda: dict(INSTALLED))


def check(folder: Path, key: Key, value: Any) -> None:
    text, line = key.config(value)
    path = write(folder, text)
    error = refusal(load_config, path)
    assert error.exit_code == 2, (key, value)
    mine = [p for where, p in found(error, path) if where.startswith(f"{line}:") and p.code == "wrong-type"]
    assert mine and all(p.message.startswith(str(key)) for p in mine), (key, value, error.problems)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_no_key_takes_a_value_of_another_type(key: Key, tmp_path: Path) -> None:
    types = key.types()
    assert types <= {*VALUES, "null"}
    for kind, values in VALUES.items():
        for value in values if kind not in types else []:
            check(tmp_path, key, value)


def test_no_value_that_anyone_may_think_of_is_taken_or_ends_in_anything_but_an_error(tmp_path: Path) -> None:
    text = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), max_size=8)
    scalars = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
    anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner))

    @hypothesis.settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.sampled_from(KEYS), anything)
    def replace(key: Key, value: Any) -> None:
        kind = next(k for k, python in KINDS.items() if type(value) is python)
        hypothesis.assume(kind not in key.types())
        check(tmp_path, key, value)

    replace()


def test_the_keys_of_everything_installed_are_tried() -> None:
    names = {str(key) for key in KEYS}
    assert {"fsdp_config.offload_params", "lora_r", "datasets.0.field_messages", "special_tokens.eos_token"} <= names
    assert len(KEYS) > 100


def test_items_of_lists_and_groups_have_their_own_place(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "plugins: [lora, 3]\ndatasets: [{path: x, type: alpaca, data_files: [a, {}]}]\n")
    places = [where for where, p in found(refusal(load_config, path), path) if p.code == "wrong-type"]
    assert places == ["2:17", "3:52"]
