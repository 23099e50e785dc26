"""Export a trained model: merged weights, a GGUF file for llama.cpp, or a folder for Ollama."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Export a trained model: merged weights, GGUF, or Ollama."
plugin = Plugin(
    commands={"export": ("tunesmith_export.command:export", HELP)},
    offers={"next_commands": {"Use it with llama.cpp": "tunesmith_export.next:export_command"}},
)
