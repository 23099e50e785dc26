"""Tell what to type after a command: lines for a shell that exist today, for people to copy."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from tunesmith.config.yamlfile import Document
from tunesmith.plugins.discovery import installed

TASKS = {"ForCausalLM": "text-generation", "ForSequenceClassification": "text-classification",
         "ForTokenClassification": "token-classification"}  # fmt: skip
"""The end of an architecture's name in config.json -> the pipeline of transformers that runs it."""
MERGE = "merge-lora"
"""The command that merges an adapter, if a plugin with it is installed."""
CALL = 'python -c "from transformers import pipeline; print(pipeline({task!r}, {folder!r})({text}))"'


def train_command(document: Document, **keys: str) -> str:
    """Return `tunesmith train` with the config of a document, its overrides on the command line, and further keys."""
    overrides = {}
    for path, place in document.keys.items():
        if place == f"command line ({'.'.join(map(str, path))})" and path[0] not in keys:
            value: Any = document.values
            for part in path:
                value = value[part]
            overrides[".".join(map(str, path))] = value if isinstance(value, str) else json.dumps(value)
    words = [f"{key}={value}" for key, value in (overrides | keys).items()]
    return shlex.join(["tunesmith", "train", document.name, *words])


def load_command(folder: Path) -> str | None:
    """Return a command that runs the model in a folder, in the layout of transformers or peft; None for another one."""
    if any(not character.isalnum() and character not in "/._-+" for character in str(folder)):
        return None  # a quoted path in a quoted program: people would have to check it first
    if (folder / "adapter_config.json").is_file():
        task = {"CAUSAL_LM": "text-generation"}.get(str(_json(folder / "adapter_config.json").get("task_type")))
    else:
        architectures = _json(folder / "config.json").get("architectures") or [""]
        task = next((task for end, task in TASKS.items() if str(architectures[0]).endswith(end)), None)
    chat = (folder / "chat_template.jinja").is_file() and task == "text-generation"
    text = "[{'role': 'user', 'content': 'Hello'}]" if chat else "'Hello'"
    return CALL.format(task=task, folder=str(folder), text=text) if task else None


def merge_command(folder: Path) -> str | None:
    """Return the command that merges the LoRA adapter in a folder into its base model.

    Return None if there is no such adapter, if no installed plugin has the command, or if the command would refuse it:
    replicated layers have an update for each copy, and a base that is quantized on disk has no weights to add it to.
    """
    config = _json(folder / "adapter_config.json")
    base = Path(str(config.get("base_model_name_or_path")))
    quantized = "quantization_config" in _json(base / "config.json")
    if config.get("peft_type") != "LORA" or config.get("layer_replication") or quantized:
        return None
    if not any(MERGE in candidate.info["commands"] for candidate in installed().values()):
        return None
    return shlex.join(["tunesmith", MERGE, str(folder)])


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
