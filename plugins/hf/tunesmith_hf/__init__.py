"""Models and tokenizers by transformers; rows from local files, or from the hub by datasets.

The default answer to load_rows, load_tokenizer and load_model, and the one who writes the model folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import Plugin, SafetyError, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunesmith import Backbone, DatasetSpec, Policy, Row, Run


class HFSettings(Settings):
    """Keys of the hf plugin."""

    reinit_weights: bool = False
    """Start from random weights of the model's config.json: train from scratch. No weight files are needed."""
    revision_of_model: str | None = None
    """Revision of base_model on the hub: a branch, tag or commit."""
    trust_remote_code: bool = False
    """Refused when true: code that comes with a model is not run."""


plugin = Plugin(settings=HFSettings)


@hookimpl
def validate(run: Run) -> None:
    if run.settings(HFSettings).trust_remote_code:
        where = run.config.document.where(("trust_remote_code",), value=True)
        help = "drop it; models whose code is in transformers need no remote code"
        raise SafetyError("trust_remote_code: true would run code that comes with the model", where=where, help=help)


@hookimpl
def inspect(run: Run) -> None:
    from tunesmith_hf.files import inspect_data, inspect_model

    if run.given_model is None:
        inspect_model(run, run.settings(HFSettings).reinit_weights)
    inspect_data(run)


@hookimpl
def load_rows(run: Run, spec: DatasetSpec) -> Iterable[Row]:
    from tunesmith_hf.rows import rows_of

    return rows_of(run, spec)


@hookimpl
def load_tokenizer(run: Run) -> Any:
    from tunesmith_hf.tokenizer import load

    return load(run, run.settings(HFSettings))


@hookimpl
def load_model(run: Run, role: str) -> Backbone:
    from tunesmith_hf.model import load

    return load(run, role, run.settings(HFSettings))


@hookimpl
def save_model(run: Run, policy: Policy, path: Path) -> None:
    """The model as transformers writes it, unless an adapter writes itself; and the tokenizer."""
    if run.adapter is None:
        state = policy.state_dict()
        if run.world.main:
            policy.bare.save_pretrained(path, state_dict=state)  # type: ignore[operator]
    if run.world.main and run.tokenizer is not None:
        run.tokenizer.save_pretrained(path)
