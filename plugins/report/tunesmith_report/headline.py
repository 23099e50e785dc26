"""What is said first: how the run ended, and its few large numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tunesmith_report.curves import LOSS, Metric, Series
from tunesmith_report.folder import Folder
from tunesmith_report.words import duration, finite, number, percent, share, short

OUR_ERROR = re.compile(r"^tunesmith\.\w+\.\w+: ")
STATES = {"done": "done", "interrupted": "interrupted", "failed": "failed", "running": "running"}


@dataclass
class Status:
    """How the run stands: a word, why, and how far it came, in percent of its steps."""

    kind: str
    word: str
    why: str
    progress: float


@dataclass
class Tile:
    """A large number, what it is, and a line below it."""

    label: str
    value: str
    below: str = ""


def status_of(folder: Folder) -> Status:
    record = folder.record
    kind = STATES.get(str(record.get("status")), "unknown")
    word, why = kind, str(record.get("stopped") or "")
    if kind == "running" and record.get("over"):  # neither an error nor a signal that the run could still write down
        kind, word = "failed", "broken off"
        why = why or "The process was ended before it could say why."
    if kind == "done" and why:
        word = "stopped early"
    if kind == "failed" and folder.crash:
        why = next((line for line in folder.crash if "error[" in line), folder.crash[-1]).strip()
        why = OUR_ERROR.sub("", why)
    done, total = finite(record.get("step")), finite(record.get("total_steps"))
    return Status(kind, word, why, share(done or 0, total or 0))


def tiles(folder: Folder, metrics: dict[str, Metric], now: float) -> list[Tile]:
    """Loss and evaluation with where they began, steps, time, tokens, speed: those that are known."""
    record, loss = folder.record, metrics.get(LOSS, Metric(LOSS))
    found = [*_loss("eval loss", loss.held, "lowest"), *_loss("training loss", loss.train, "")]
    found += _best(folder, metrics)
    step, total = finite(record.get("step")), finite(record.get("total_steps"))
    last = folder.metrics[-1] if folder.metrics else {}
    if step is not None:
        epochs = finite(last.get("epoch"))
        passes = f"{number(round(epochs, 2))} {'epoch' if epochs == 1 else 'epochs'}" if epochs else ""
        found.append(Tile("steps", number(step), _and(f"of {number(total)}" if total else "", passes)))
    seconds = elapsed(folder, now)
    if seconds is not None:
        resumed = "resumed from" in folder.mapping("notes")
        found.append(Tile("time", duration(seconds), "since it was resumed" if resumed else ""))
    tokens = finite(last.get("tokens"))
    if tokens:
        found.append(Tile("tokens", short(tokens), _trained(folder)))
    speeds = sorted(metrics["tokens_per_second"].train.values) if "tokens_per_second" in metrics else []
    if speeds:
        found.append(Tile("speed", short(round(speeds[len(speeds) // 2])), "tokens a second, median"))
    return found


def elapsed(folder: Folder, now: float) -> float | None:
    """Seconds that the run took, or has been running."""
    started, seconds = finite(folder.record.get("started")), finite(folder.record.get("seconds"))
    running = folder.record.get("status") == "running"
    return max(0.0, now - started) if running and started is not None else seconds


def _loss(label: str, series: Series, extreme: str) -> list[Tile]:
    if not series.values:
        return [Tile(label, "not finite")] if series.missing else []
    first, last, low = series.values[0], series.values[-1], min(series.values)
    below = [f"from {number(first)} at step {series.steps[0]:,}"] if len(series.values) > 1 else []
    if extreme and low < last:
        below.append(f"{extreme} {number(low)} at step {series.steps[series.values.index(low)]:,}")
    return [Tile(label, number(last), _and(*below))]


def _and(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _best(folder: Folder, metrics: dict[str, Metric]) -> list[Tile]:
    """The measure by which the best checkpoint is chosen, where that is not the loss."""
    name = folder.config.get("metric_for_best_model")
    if not isinstance(name, str) or name == "eval_loss" or name.removeprefix("eval_") not in metrics:
        return []
    series = metrics[name.removeprefix("eval_")].held
    if not series.values:
        return []
    best = (max if folder.config.get("greater_is_better") is True else min)(series.values)
    where = f"best {number(best)} at step {series.steps[series.values.index(best)]:,}"
    return [Tile(name.removeprefix("eval_").replace("_", " "), number(series.values[-1]), where)]


def _trained(folder: Folder) -> str:
    counts: list[dict[str, Any]] = [c for c in folder.mapping("data").values() if isinstance(c, dict)]
    tokens = sum(finite(c.get("tokens")) or 0 for c in counts)
    trained = sum(finite(c.get("trained_tokens")) or 0 for c in counts)
    return f"{percent(trained, tokens)} trained, the rest context" if tokens else ""
