"""The command line: commands, tables, `doctor`, `explain`. The kernel knows nothing of it."""

from tunesmith.cli.main import main

__all__ = ["main"]
