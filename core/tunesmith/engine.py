"""Import modules of the engine, which is a separate distribution and needs torch."""

from __future__ import annotations

import importlib
from typing import Any

from tunesmith.errors import EnvironmentProblem

PACKAGE = "tunesmith_engine"


def engine(module: str) -> Any:
    """Import and return a module of the engine. Raises EnvironmentProblem if the engine is not installed."""
    try:
        return importlib.import_module(f"{PACKAGE}.{module}")
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise
        raise EnvironmentProblem("the engine is not installed", help="pip install tunesmith-engine") from None
