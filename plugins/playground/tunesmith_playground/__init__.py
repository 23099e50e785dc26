"""Talk to a trained model, in the terminal or on a local page, with the command chat."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Talk to a model: that of a run, a checkpoint, an adapter, or any other."
plugin = Plugin(
    commands={"chat": ("tunesmith_playground.command:chat", HELP)},
    offers={"next_commands": {"Talk to the model": "tunesmith_playground.next:chat_command"}},
)
