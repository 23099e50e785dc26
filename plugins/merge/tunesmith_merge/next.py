"""Name the command that merges the adapter of a finished run."""

from __future__ import annotations

import shlex
from pathlib import Path

from tunesmith.files.record import json_object


def merge_command(folder: Path) -> str | None:
    """Return the command that merges the LoRA adapter in a folder into its base model.

    Return None if there is no such adapter, or if the command would refuse it: replicated layers have an update for
    each copy, and a base that is quantized on disk has no weights to add it to.
    """
    config = json_object(folder / "adapter_config.json")
    base = Path(str(config.get("base_model_name_or_path")))
    if config.get("peft_type") != "LORA" or config.get("layer_replication"):
        return None
    if base.is_dir() and not any(base.glob("*.safetensors")):  # random weights, which the run has not saved
        return None
    if "quantization_config" in json_object(base / "config.json"):
        return None
    return shlex.join(["tunesmith", "merge-lora", str(folder)])
