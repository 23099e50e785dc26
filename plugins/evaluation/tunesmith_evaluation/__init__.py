"""Evaluate a trained model without training, with the command evaluate."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Evaluate a trained model on held-out rows and benchmarks."
plugin = Plugin(commands={"evaluate": ("tunesmith_evaluation.command:evaluate", HELP)})
