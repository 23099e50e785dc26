"""Describe what a run trains, in six lines, and what may be a mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.finding import size
from tunesmith_console.texts import count, share

if TYPE_CHECKING:
    from tunesmith import Run


def opening(run: Run) -> list[tuple[str, str]]:
    """Return (name, text) of each line: model, method, data, steps, memory, output."""
    facts = run.outline
    lines = [("model", _model(facts)), ("method", _method(facts)), ("data", _data(facts)), ("steps", _steps(run))]
    return [*lines, ("memory", _memory(facts["memory"])), ("output", _output(run))]


def _model(facts: dict[str, Any]) -> str:
    total, trained = facts["parameters"], facts["trained_parameters"]
    part = "all trained" if trained == total else f"{count(trained)} trained ({share(trained, total)})"
    return f"{facts['model']}: {count(total)} parameters, {part}"


def _method(facts: dict[str, Any]) -> str:
    adapter = f" with a {facts['adapter']} adapter" if facts["adapter"] else ""
    return f"{facts['method']}{adapter}; {facts['processes']}"


def _data(facts: dict[str, Any]) -> str:
    if facts["train_examples"] is None:
        return "rows are streamed, and counted at the end"
    dropped = facts["rows"] - facts["rows_kept"]
    parts = [
        f"{facts['rows']:,} rows",
        f"{dropped:,} dropped" if dropped else "",
        f"{facts['eval_examples']:,} held out",
    ]
    trained = f"{count(facts['tokens'])} tokens, {share(facts['trained_tokens'], facts['tokens'])} of them trained"
    return f"{', '.join(filter(None, parts))}; {trained}" if facts["trained_tokens"] else ", ".join(filter(None, parts))


def _steps(run: Run) -> str:
    facts, after = run.outline, f"from step {run.step:,} to " if run.step else ""
    epochs = facts["epochs"]
    length = f" ({epochs:.4g} epoch{'' if epochs == 1 else 's'})" if epochs else ""
    packs, tokens = facts["packs_per_step"], facts["tokens_per_step"]
    each = "pack" if facts["packed"] else "example"
    step = f"{packs:,} {each}{'' if packs == 1 else 's'}" if tokens is not None else f"{packs:,} prompts"
    step += f", {'about ' if facts['steps_per_epoch'] else 'up to '}{tokens:,} tokens" if tokens is not None else ""
    return f"{after}{run.total_steps:,}{length}; each {step}"


def _memory(memory: dict[str, int]) -> str:
    if "measured" in memory:
        return f"{size(memory['measured'])} at the peak of the last run of this config"
    parts = [name for name in ("weights", "gradients", "optimizer") if name in memory]
    known = f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{size(sum(memory[name] for name in parts))} for {known}, activations not counted"


def _output(run: Run) -> str:
    report = run.outline.get("report")
    return f"{run.output_dir}{f', {report}' if report else ''}"


def notes(run: Run) -> list[str]:
    """Return the notes so far: what `check` warns of, dropped rows, fallbacks."""
    return [f"note: {name}: {value}" for name, value in run.notes.items()]
