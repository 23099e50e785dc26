"""Tell that a saved model scores answers."""

from __future__ import annotations

from typing import Any

from tunesmith import SavedModel
from tunesmith.files.untrusted import read_json

CLASSIFIER = "ForSequenceClassification"


def keys(saved: SavedModel) -> dict[str, Any] | None:
    """Return the key that loads a classifier of sequences, from a run or another tool; None for another model."""
    if saved.peft_config:
        classifies = saved.peft_config.get("task_type") == "SEQ_CLS" and not saved.get("process_reward_model")
        return {"reward_model": True} if classifies else None
    path = saved.folder / "config.json"
    names = read_json(path).get("architectures") if path.is_file() else None
    return {"reward_model": True} if names and str(names[0]).endswith(CLASSIFIER) else None
