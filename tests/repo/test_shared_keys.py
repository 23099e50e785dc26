"""A key that several plugins declare is one key: the same type, default and bounds."""

from __future__ import annotations

import json

import pytest

from tests.repo.source import ROOT


def declared() -> dict[str, dict[str, dict[str, object]]]:
    """Key -> plugin -> its schema without the description, for keys of the top level."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for path in sorted((ROOT / "plugins").glob("*/tunesmith.json")):
        info = json.loads(path.read_text("utf-8"))
        for key, schema in info["schema"].get("properties", {}).items():
            found.setdefault(key, {})[info["name"]] = {
                k: v for k, v in schema.items() if k not in ("description", "title")
            }
    return {key: owners for key, owners in found.items() if len(owners) > 1}


SHARED = declared()


def test_some_keys_are_shared() -> None:
    assert {"train_on_inputs", "rl_beta"} <= set(SHARED)


@pytest.mark.parametrize("key", sorted(SHARED))
def test_a_shared_key_has_one_type_and_default(key: str) -> None:
    schemas = list(SHARED[key].values())
    assert all(schema == schemas[0] for schema in schemas), SHARED[key]
