"""Tunesmith: fine-tune language models from one YAML file.

This module exports what plugins and notebooks use, from the core and from the engine. `__init__.pyi` lists the names. A
name is imported when it is first used, so that the core can check a config, and the command line can start, without
torch.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8"))
_HOMES = {
    alias.name: str(node.module) for node in _STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names
}
__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605


def __dir__() -> list[str]:
    """Return the public names, also those that were not imported yet."""
    return list(__all__)


def __getattr__(name: str) -> Any:
    """Import a public name from its module, and keep it as an attribute of this one."""
    if name == "__version__":
        from tunesmith.plugins.discovery import core_version

        return core_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    package, _, module = _HOMES[name].partition(".")
    if package == "tunesmith":
        home = importlib.import_module(_HOMES[name])
    else:
        from tunesmith.engine import engine

        home = engine(module)
    value = getattr(home, name)
    globals()[name] = value
    return value
