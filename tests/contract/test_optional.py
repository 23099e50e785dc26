"""A library that is installed, and that the run does not use, is not imported in a process of the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from tunesmith.optional import hide, library, show
sys.argv[0] = {command!r}
hide("colorsys")
print(sys.modules.get("colorsys", "free"))
try:
    import colorsys
    print("imported")
except ModuleNotFoundError:
    print("hidden")
print(library("colorsys").__name__)
hide("colorsys")
print(sys.modules["colorsys"].__name__)
"""


@pytest.mark.parametrize(("command", "expected"), [
    ("/usr/bin/tunesmith", ["None", "hidden", "colorsys", "colorsys"]),
    ("notebook", ["free", "imported", "colorsys", "colorsys"]),
])  # fmt: skip
def test_hidden_library_can_be_imported_only_by_the_plugin_that_needs_it(command: str, expected: list[str]) -> None:
    program = [sys.executable, "-c", PROGRAM.format(command=command)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.stdout.split() == expected, done.stderr
