"""Name the command that talks to the model of a finished run."""

from __future__ import annotations

import shlex
from pathlib import Path

from tunesmith.files.record import json_object

TASKS = ("CAUSAL_LM", None)
"""The task types of adapters that generate text; an adapter of a run without a head may name none."""


def chat_command(folder: Path) -> str | None:
    """Return the command that talks to the model in a folder; None if there is none, or if it generates no text.

    An adapter of a model that the run initialized at random is not talked to either: its base has no weights.
    """
    adapter, config = json_object(folder / "adapter_config.json"), json_object(folder / "config.json")
    if adapter:
        base = Path(str(adapter.get("base_model_name_or_path")))
        talks = adapter.get("task_type") in TASKS and (not base.is_dir() or any(base.glob("*.safetensors")))
    else:
        architectures = config.get("architectures") or [""]
        talks = str(architectures[0]).endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
    scores = any(folder.glob("*_head.safetensors"))
    return shlex.join(["tunesmith", "chat", str(folder)]) if talks and not scores else None
