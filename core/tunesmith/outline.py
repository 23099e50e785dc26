"""Describe in words what a run trains, from `run.outline`: for the console, `plan` and pages about a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) of the model, the method, the data and the steps."""
    return [("model", _model(facts)), ("method", _method(facts)), ("data", _data(facts)), ("steps", _steps(facts))]


def _model(facts: Mapping[str, Any]) -> str:
    total, trained = facts["parameters"], facts["trained_parameters"]
    part = "all trained" if trained == total else f"{count(trained)} trained ({share(trained, total)})"
    return f"{facts['model']}: {count(total)} parameters, {part}"


def _method(facts: Mapping[str, Any]) -> str:
    adapter = f" with a {facts['adapter']} adapter" if facts["adapter"] else ""
    return f"{facts['method']}{adapter}; {facts['processes']}"


def _data(facts: Mapping[str, Any]) -> str:
    if facts["train_examples"] is None:
        return "rows are streamed, and counted at the end"
    dropped = facts["rows"] - facts["rows_kept"]
    rows = f"{facts['rows']:,} rows, {f'{dropped:,} dropped, ' if dropped else ''}{facts['eval_examples']:,} held out"
    if not facts["trained_tokens"]:
        return f"{rows}; {count(facts['tokens'])} tokens of prompts"
    return f"{rows}; {count(facts['tokens'])} tokens, {share(facts['trained_tokens'], facts['tokens'])} of them trained"


def _steps(facts: Mapping[str, Any]) -> str:
    epochs, packs, tokens = facts["epochs"], facts["packs_per_step"], facts["tokens_per_step"]
    length = f" ({epochs:.4g} epoch{'' if epochs == 1 else 's'})" if epochs else ""
    unit = "completion" if tokens is None else "pack" if facts["packed"] else "example"
    step = f"{packs:,} {unit}{'' if packs == 1 else 's'}"
    about = "about" if facts["steps_per_epoch"] else "up to"  # the packs of a stream are not known in advance
    step += "" if tokens is None else f", {about} {tokens:,} tokens"
    return f"{facts['steps']:,}{length}; each {step}"


def count(number: float) -> str:
    """Format a large count in a few characters: 984k, 1.24B."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number / 1e3:.3g}k" if number >= 1e4 else f"{number:,.0f}"


def share(part: float, total: float) -> str:
    """Format a share in percent, without rounding a small one to none or a large one to all."""
    percent = 100 * part / total if total else 0.0
    if 1 <= percent <= 99 or percent in (0, 100):
        return f"{percent:.0f} %"
    return f"{percent:.2g} %" if percent < 1 else f"{min(percent, 99.9):.1f} %"


def duration(seconds: float) -> str:
    """Format seconds: 0.4 s, 41 s, 3 min 12 s, 2 h 5 min, 3 d 4 h."""
    rounded = round(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if rounded >= size:
            return f"{rounded // size} {unit} {rounded % size // below} {small}"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{rounded} s"
