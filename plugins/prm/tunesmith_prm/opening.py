"""Tell that a saved model judges the steps of a solution."""

from __future__ import annotations

from typing import Any

from tunesmith import SavedModel
from tunesmith.files.untrusted import read_json

CLASSIFIER = "ForTokenClassification"


def keys(saved: SavedModel) -> dict[str, Any] | None:
    """Return the key that loads a classifier of tokens, as a run saved it; None for another model."""
    if saved.peft_config:
        return {"process_reward_model": True} if saved.get("process_reward_model") else None
    path = saved.folder / "config.json"
    names = read_json(path).get("architectures") if path.is_file() else None
    return {"process_reward_model": True} if names and str(names[0]).endswith(CLASSIFIER) else None
