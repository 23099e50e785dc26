"""Keep libraries that are installed, and that a run does not use, from being imported by other libraries.

transformers and peft import torchao and bitsandbytes whenever they are installed. That takes seconds, prints warnings,
and would make an extra change runs that do not select it. A command hides them until a plugin asks for one.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def library(name: str) -> Any:
    """Import a library that may be hidden, and return it. Raises what its import raises.

    A plugin that needs such a library calls this before another library looks for it: in `configure` if the model is
    loaded with it.
    """
    show(name)
    return importlib.import_module(name)


def hide(*names: str) -> None:
    """Hide libraries that are not imported yet, in a process of the command line: importing one fails."""
    if is_command():
        for name in names:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # the mark for a module that does not exist


def show(*names: str) -> None:
    """Stop hiding libraries."""
    for name in names:
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]


def is_command() -> bool:
    """Return True in a process of the command line, which is for one run. A notebook may train several."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", "") == "tunesmith.__main__" or Path(sys.argv[0]).name == "tunesmith"
