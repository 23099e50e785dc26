"""Serve a trained model with vLLM, SGLang, transformers, llama.cpp or Ollama: print the command, and run it."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Serve a trained model with vLLM, SGLang, transformers, llama.cpp or Ollama."
plugin = Plugin(commands={"serve": ("tunesmith_serve.command:serve", HELP)})
