"""Tell how the base model of a saved adapter is quantized when it is loaded."""

from __future__ import annotations

from typing import Any

from tunesmith import SavedModel
from tunesmith_qlora import QLoRASettings


def keys(saved: SavedModel) -> dict[str, Any] | None:
    """Return the keys of the quantization that the adapter in a folder was trained with; None without one."""
    if not saved.peft_config:
        return None
    given = {key: value for key in QLoRASettings.model_fields if (value := saved.get(key)) is not None}
    return QLoRASettings.model_validate(given).model_dump(exclude_defaults=True)  # a record contains the defaults too
