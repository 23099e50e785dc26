"""`tunesmith lint`: find rows that train the wrong thing, or nothing, before a run uses them."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Check all data for rows that train the wrong thing, or nothing."

plugin = Plugin(
    commands={"lint": ("tunesmith_lint.command:lint", HELP)},
    offers={"linters": {"lint": "tunesmith_lint.linter:lint"}},
)
