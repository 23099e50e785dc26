"""Tell which keys load a saved adapter on its base model."""

from __future__ import annotations

from typing import Any

from tunesmith import SavedModel
from tunesmith_adapters.settings import TYPES


def keys(saved: SavedModel) -> dict[str, Any] | None:
    """Return the keys that load the adapter in a folder; None for another folder, and for LoRA."""
    name = str(saved.peft_config.get("peft_type")).lower()
    return saved.adapter_keys(name, "adapter_model_dir") if name in TYPES else None
