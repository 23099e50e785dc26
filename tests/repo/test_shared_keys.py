"""A key that several plugins declare has the same type, default and bounds in all of them."""

from __future__ import annotations

import json

import pytest

from tests.repo.source import ROOT


def declared() -> dict[str, dict[str, dict[str, object]]]:
    """Return key -> plugin -> schema without descriptions, for the top-level keys that several plugins declare."""
    owners_of: dict[str, dict[str, dict[str, object]]] = {}
    for path in sorted((ROOT / "plugins").glob("*/tunesmith.json")):
        info = json.loads(path.read_text("utf-8"))
        for key, schema in info["schema"].get("properties", {}).items():
            owners_of.setdefault(key, {})[info["name"]] = {
                k: v for k, v in schema.items() if k not in ("description", "title")
            }
    return {key: owners for key, owners in owners_of.items() if len(owners) > 1}


SHARED = declared()


def test_shared_keys_exist() -> None:
    assert {"train_on_inputs", "rl_beta"} <= set(SHARED)


@pytest.mark.parametrize("key", sorted(SHARED))
def test_shared_key_has_one_schema(key: str) -> None:
    schemas = list(SHARED[key].values())
    assert all(schema == schemas[0] for schema in schemas), SHARED[key]
