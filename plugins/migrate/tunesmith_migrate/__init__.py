"""`tunesmith migrate`: rewrite a config of another tool as one of Tunesmith."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Rewrite a config of Axolotl or another tool, with comments that say what changed."

plugin = Plugin(commands={"migrate": ("tunesmith_migrate.command:migrate", HELP)})
