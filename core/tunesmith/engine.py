"""The way from the core to the engine, which is a distribution of its own and needs torch."""

from __future__ import annotations

import importlib
from typing import Any

from tunesmith.errors import EnvironmentProblem

PACKAGE = "tunesmith_engine"


def engine(module: str) -> Any:
    """A module of the engine. Raises EnvironmentProblem where the engine is not installed."""
    try:
        return importlib.import_module(f"{PACKAGE}.{module}")
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise
        raise EnvironmentProblem("this needs the engine", help="pip install tunesmith-engine") from None
