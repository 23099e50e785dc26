"""Test a plugin: rows, a tiny model, and the conformance checks, which `pytest --tunesmith-plugin NAME` runs.

docs/conformance.md lists the checks. This module imports neither torch nor pytest; `tunesmith.testing.conformance` is
the part that needs pytest.
"""

from __future__ import annotations

from tunesmith.testing.checks import CHECKS, Check, Failure
from tunesmith.testing.model import write_model
from tunesmith.testing.rows import KINDS, rows, sentence, write_rows
from tunesmith.testing.subject import Setup, Subject

__all__ = [
    "CHECKS",
    "KINDS",
    "Check",
    "Failure",
    "Setup",
    "Subject",
    "rows",
    "sentence",
    "worker",
    "write_model",
    "write_rows",
]
