"""Evaluate methods that compare the model with the one that training started from, such as DPO.

A saved model does not contain its reference: on a loaded adapter, or in place of base_model, it would be compared with
itself. So the run's own config is used, with the weights of the checkpoint that became the final model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tunesmith import Config, ConfigError, Run, SavedModel, load_config
from tunesmith.files.record import last_record


def needs_reference(config: Config) -> bool:
    """Return True if a plugin of a config reads values of a reference model."""
    return Run(config, config.hooks()).needs.reference


def with_reference(saved: SavedModel, overrides: Sequence[str]) -> Config:
    """Return the run's config with the weights of the checkpoint of its final model.

    Raises ConfigError without the YAML of the run, or if the checkpoint is gone.
    """
    if saved.config is None or saved.config.origin is None:
        message = f"{saved.path}: the method compares the model with the one that its training started from"
        help = "name the YAML of the run, which says what that was"
        raise ConfigError(message, where="command line", help=help, code="usage")
    checkpoint = final_checkpoint(saved.folder)
    if not checkpoint.is_dir():
        message = f"{checkpoint} is gone, and the method needs it beside the model that training started from"
        raise ConfigError(message, where="command line", help="name rows and rl: sft, or train again", code="usage")
    origin = saved.config.origin
    keys = {**origin.keys, "resume_from_checkpoint": str(checkpoint)}
    return load_config(origin.source, (*origin.overrides, *overrides), **keys)


def final_checkpoint(folder: Path) -> Path:
    """Return the checkpoint with the weights of the final model: that of the last step, or the best one."""
    record = last_record(folder)
    notes = record.get("notes")
    best = re.match(r"that of step (\d+)\b", str(notes.get("final model", ""))) if isinstance(notes, dict) else None
    return folder / f"checkpoint-{best[1] if best else record.get('step')}"
