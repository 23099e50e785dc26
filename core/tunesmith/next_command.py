"""Tell what to type after a command: lines for a shell that exist today, for people to copy."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path
from typing import Any

from tunesmith.config.yamlfile import Document
from tunesmith.errors import PluginError
from tunesmith.files.record import json_object
from tunesmith.plugins.discovery import installed
from tunesmith.plugins.offers import offers

TASKS = {"ForCausalLM": "text-generation", "ForSequenceClassification": "text-classification",
         "ForTokenClassification": "token-classification"}  # fmt: skip
"""The end of an architecture's name in config.json -> the pipeline of transformers that runs it."""
KIND = "next_commands"
"""The kind of offers of functions that name a command for the folder of a finished run."""
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
        task = {"CAUSAL_LM": "text-generation"}.get(str(json_object(folder / "adapter_config.json").get("task_type")))
    else:
        architectures = json_object(folder / "config.json").get("architectures") or [""]
        task = next((task for end, task in TASKS.items() if str(architectures[0]).endswith(end)), None)
    chat = (folder / "chat_template.jinja").is_file() and task == "text-generation"
    text = "[{'role': 'user', 'content': 'Hello'}]" if chat else "'Hello'"
    return CALL.format(task=task, folder=str(folder), text=text) if task else None


def plugin_commands(folder: Path) -> dict[str, str]:
    """Return the commands of installed plugins that can be run on the folder of a finished run, sorted by purpose.

    A plugin offers functions (folder) -> command or None: `Plugin(offers={"next_commands": {purpose: function}})`.
    """
    commands = {}
    for purpose, (offer, *_) in sorted(offers(installed(), KIND).items()):
        with contextlib.suppress(PluginError):  # of a plugin that can't be imported
            if command := offer.load()(folder):
                commands[purpose] = command
    return commands
