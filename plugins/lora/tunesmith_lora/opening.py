"""Tell which keys load a saved LoRA adapter on its base model."""

from __future__ import annotations

from typing import Any

from tunesmith import SavedModel


def keys(saved: SavedModel) -> dict[str, Any] | None:
    """Return the keys that load the LoRA adapter in a folder; None for another folder."""
    if saved.peft_config.get("peft_type") != "LORA":
        return None
    return saved.adapter_keys("qlora" if saved.get("adapter") == "qlora" else "lora", "lora_model_dir")
