"""Looks at model folders and data files before anything heavy is loaded: neither torch nor network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith import ConfigError, DataError, ModelError, Problem, Run, SafetyError
from tunesmith_hf.rows import data_files, is_hub_id

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def inspect_model(run: Run, from_scratch: bool) -> None:
    """Raise ModelError or SafetyError for a local model folder that can't or shouldn't be loaded."""
    where = run.config.document.where(("base_model",), value=True)
    folder = Path(run.core.base_model)
    if not folder.exists():
        if is_hub_id(run.core.base_model):
            return
        near = sorted(p.name for p in folder.parent.iterdir() if p.is_dir())[:5] if folder.parent.is_dir() else []
        help = f"folders in {folder.parent}: {', '.join(near)}" if near else None
        raise ModelError(f"base_model {folder}: no such folder", where=where, help=help)
    config = read_json(folder / "config.json", where)
    if config.get("auto_map"):
        raise SafetyError(f"{folder}/config.json asks for code that comes with the model (auto_map)", where=where)
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and run.core.sequence_len > positions:
        run.note("sequence_len", f"{run.core.sequence_len:,} is more than the {positions:,} positions of the model")
    if from_scratch:
        return
    if not list(folder.glob("*.safetensors")):
        pickles = [p.name for pattern in PICKLES for p in folder.glob(pattern)]
        if pickles:
            help = "convert them to safetensors in a place that may run their code"
            raise SafetyError(f"{folder} has weights as pickles only: {', '.join(pickles[:3])}", where=where, help=help)
        help = "reinit_weights: true trains from scratch"
        raise ModelError(f"{folder} has no .safetensors weights", where=where, help=help)


def read_json(path: Path, where: str) -> dict[str, Any]:
    """A JSON object of a model folder. Raises ModelError with the place in it."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing", where=where, help="a model folder has a config.json") from None
    except json.JSONDecodeError as error:
        raise ModelError(f"{path}:{error.lineno}:{error.colno}: {error.msg}", where=where) from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object", where=where)
    return content


def inspect_data(run: Run) -> None:
    """Raise one DataError for every local dataset that is not there."""
    problems: list[Problem] = []
    for spec in [*run.config.datasets, *run.config.pretraining]:
        try:
            data_files(run, spec)
        except (DataError, ConfigError) as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
