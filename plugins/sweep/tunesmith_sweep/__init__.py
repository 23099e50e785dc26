"""`tunesmith sweep` trains a config with many values of its keys, and compares the results."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Train a config with many values of its keys, and compare the results."
plugin = Plugin(commands={"sweep": ("tunesmith_sweep.command:sweep", HELP)})
