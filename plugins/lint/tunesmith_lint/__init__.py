"""Finds rows that teach nothing, or the wrong thing, before a run is trained on them: `tunesmith lint`."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Look through all data for what is trained wrongly, or not at all."

plugin = Plugin(commands={"lint": ("tunesmith_lint.command:lint", HELP)})
