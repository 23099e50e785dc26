"""Generate completions of the prompts in a file, with the commands generate and inference."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Complete the prompts in a file with a trained model, and write a JSON Lines file."
plugin = Plugin(
    commands={
        "generate": ("tunesmith_inference.command:generate", HELP),
        "inference": ("tunesmith_inference.command:generate", "The same as generate."),
    }
)
