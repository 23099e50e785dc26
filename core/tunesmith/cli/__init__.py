"""The command line: commands, tables, `doctor`, `explain`. No other part of the core imports it."""

from tunesmith.cli.main import main

__all__ = ["main"]
