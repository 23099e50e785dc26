"""Tunesmith: fine-tune language models from one YAML file.

What plugins and notebooks use, imported only when asked for, so that the command line starts without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.api import plan, prepare, train, verify
    from tunesmith.batch import Batch, collate
    from tunesmith.config import Config, DatasetSpec, load_config
    from tunesmith.errors import (
        ConfigError,
        DataError,
        EnvironmentProblem,
        ModelError,
        NumericalError,
        PluginError,
        Problem,
        SafetyError,
        TunesmithError,
    )
    from tunesmith.examples import Example, Row, Segment, segment
    from tunesmith.layout import Layout
    from tunesmith.plugin import Method, Needs, Plugin, Settings, hookimpl
    from tunesmith.policy import Backbone, Hidden, Output, Policy
    from tunesmith.run import Adapter, Run
    from tunesmith.step import StepRecord, Term

_HOMES = {
    "api": ("plan", "prepare", "train", "verify"),
    "layout": ("Layout",),
    "batch": ("Batch", "collate"),
    "config": ("Config", "DatasetSpec", "load_config"),
    "errors": (
        "ConfigError", "DataError", "EnvironmentProblem", "ModelError", "NumericalError", "PluginError", "Problem",
        "SafetyError", "TunesmithError",
    ),
    "examples": ("Example", "Row", "Segment", "segment"),
    "plugin": ("Method", "Needs", "Plugin", "Settings", "hookimpl"),
    "policy": ("Backbone", "Hidden", "Output", "Policy"),
    "run": ("Adapter", "Run"),
    "step": ("StepRecord", "Term"),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tunesmith.{_HOME[name]}"), name)
    globals()[name] = value
    return value
