"""A key that several plugins declare is shared by all of them, with one type, default and bounds."""

from __future__ import annotations

import pytest

from tests.repo.source import plugin_metadata
from tunesmith.online import BLOCK


def declared() -> dict[str, dict[str, dict[str, object]]]:
    """Return key -> plugin -> schema without descriptions, for the top-level keys that several plugins declare.

    The block of online methods is left out: one method is active at a time, and each adds its own keys to the block.
    """
    owners_of: dict[str, dict[str, dict[str, object]]] = {}
    for info in plugin_metadata().values():
        for key, schema in info["schema"].get("properties", {}).items():
            if key == BLOCK and info["answers"].get("rl"):
                continue
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


@pytest.mark.parametrize("key", sorted(SHARED))
def test_shared_key_is_declared_as_shared(key: str) -> None:
    assert all(key in plugin_metadata()[name]["shared"] for name in SHARED[key])
