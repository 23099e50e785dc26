"""Tunesmith: fine-tune language models from one YAML file.

This module exports what plugins and notebooks use, from the core and from the engine. A name is imported when it is
first used, so that the core can check a config, and the command line can start, without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith_engine.batch.batch import Batch, collate
    from tunesmith_engine.batch.examples import Example, Segment, segment
    from tunesmith_engine.batch.pairs import chosen_tokens, count_chosen_tokens, pair_metrics, split_pairs
    from tunesmith_engine.batch.terms import StepRecord, Term
    from tunesmith_engine.batch.tree_mask import TreeMask
    from tunesmith_engine.data.tokenize import Piece, tokenized
    from tunesmith_engine.data.workers import ROWS_PER_BLOCK
    from tunesmith_engine.model.build import build_policy
    from tunesmith_engine.model.language_model import Head, Hidden, LanguageModel
    from tunesmith_engine.model.policy import Output, Policy

    from tunesmith.api import plan, prepare, start, train, verify
    from tunesmith.config.load import Config, DatasetSpec, load_config
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
    from tunesmith.files.row import Row, Source
    from tunesmith.finding import Finding
    from tunesmith.plugins.plugin import Method, Needs, Plugin, Settings, hookimpl
    from tunesmith.run import Adapter, Run

_HOMES = {
    "tunesmith.api": ("plan", "prepare", "start", "train", "verify"),
    "tunesmith_engine.batch.tree_mask": ("TreeMask",),
    "tunesmith_engine.batch.batch": ("Batch", "collate"),
    "tunesmith.config.load": ("Config", "DatasetSpec", "load_config"),
    "tunesmith.errors": (
        "ConfigError", "DataError", "EnvironmentProblem", "ModelError", "NumericalError", "PluginError", "Problem",
        "SafetyError", "TunesmithError",
    ),
    "tunesmith.finding": ("Finding",),
    "tunesmith.files.row": ("Row", "Source"),
    "tunesmith_engine.batch.examples": ("Example", "Segment", "segment"),
    "tunesmith.plugins.plugin": ("Method", "Needs", "Plugin", "Settings", "hookimpl"),
    "tunesmith_engine.model.language_model": ("LanguageModel", "Head", "Hidden"),
    "tunesmith_engine.model.policy": ("Output", "Policy"),
    "tunesmith_engine.batch.pairs": ("chosen_tokens", "count_chosen_tokens", "pair_metrics", "split_pairs"),
    "tunesmith_engine.data.tokenize": ("Piece", "tokenized"),
    "tunesmith_engine.data.workers": ("ROWS_PER_BLOCK",),
    "tunesmith.run": ("Adapter", "Run"),
    "tunesmith_engine.model.build": ("build_policy",),
    "tunesmith_engine.batch.terms": ("StepRecord", "Term"),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Import a public name from its module, and keep it as an attribute of this one."""
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
