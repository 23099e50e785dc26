"""Name the commands around an export."""

from __future__ import annotations

import shlex
from pathlib import Path

from tunesmith.files.record import json_object
from tunesmith_export.families import FAMILIES


def export_command(folder: Path) -> str | None:
    """Return the command that exports the LoRA adapter of a finished run for llama.cpp; None if it would be refused.

    After a run that trains all weights, the line that runs the model comes first, so nothing is suggested here.
    """
    adapter = json_object(folder / "adapter_config.json")
    if adapter.get("peft_type") != "LORA" or adapter.get("task_type") not in (None, "CAUSAL_LM"):
        return None
    config = json_object(Path(str(adapter.get("base_model_name_or_path"))) / "config.json")
    family = FAMILIES.get(str((config.get("architectures") or [None])[0]))
    if family is None or not family.readable or "quantization_config" in config or adapter.get("layer_replication"):
        return None
    return shlex.join(["tunesmith", "export", str(folder), "--to", "gguf"])


def after_export(form: str, folder: Path, path: Path) -> str | None:
    """Return the command that uses an export."""
    from tunesmith.next_command import load_command

    if form == "merged":
        return load_command(folder)
    if form == "gguf":
        return shlex.join(["llama-server", "-m", str(path)])
    name = path.name.rpartition("-")[0].lower()
    return shlex.join(["ollama", "create", name, "-f", str(folder / "Modelfile")])
