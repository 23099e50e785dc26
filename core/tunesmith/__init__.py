"""Tunesmith: fine-tune language models from one YAML file.

What plugins and notebooks use, from the core and from the engine, imported only when asked for: the core alone checks
a config, and the command line starts without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith_engine.batch import Batch, collate
    from tunesmith_engine.examples import Example, Segment, segment
    from tunesmith_engine.layout import Layout
    from tunesmith_engine.pairs import chosen_tokens, pair_metrics
    from tunesmith_engine.policy import Backbone, Head, Hidden, Output, Policy
    from tunesmith_engine.prompts import Piece, tokenized
    from tunesmith_engine.setup import build_policy
    from tunesmith_engine.step import StepRecord, Term

    from tunesmith.api import plan, prepare, start, train, verify
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
    from tunesmith.finding import Finding
    from tunesmith.plugin import Method, Needs, Plugin, Settings, hookimpl
    from tunesmith.row import Row
    from tunesmith.run import Adapter, Run
    from tunesmith.source import Source

_HOMES = {
    "tunesmith.api": ("plan", "prepare", "start", "train", "verify"),
    "tunesmith_engine.layout": ("Layout",),
    "tunesmith_engine.batch": ("Batch", "collate"),
    "tunesmith.config": ("Config", "DatasetSpec", "load_config"),
    "tunesmith.errors": (
        "ConfigError", "DataError", "EnvironmentProblem", "ModelError", "NumericalError", "PluginError", "Problem",
        "SafetyError", "TunesmithError",
    ),
    "tunesmith.finding": ("Finding",),
    "tunesmith.row": ("Row",),
    "tunesmith_engine.examples": ("Example", "Segment", "segment"),
    "tunesmith.plugin": ("Method", "Needs", "Plugin", "Settings", "hookimpl"),
    "tunesmith_engine.policy": ("Backbone", "Head", "Hidden", "Output", "Policy"),
    "tunesmith_engine.pairs": ("chosen_tokens", "pair_metrics"),
    "tunesmith_engine.prompts": ("Piece", "tokenized"),
    "tunesmith.run": ("Adapter", "Run"),
    "tunesmith.source": ("Source",),
    "tunesmith_engine.setup": ("build_policy",),
    "tunesmith_engine.step": ("StepRecord", "Term"),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    package, _, module = _HOME[name].partition(".")
    if package == "tunesmith":
        home = importlib.import_module(_HOME[name])
    else:
        from tunesmith.engine import engine

        home = engine(module)
    value = getattr(home, name)
    globals()[name] = value
    return value
