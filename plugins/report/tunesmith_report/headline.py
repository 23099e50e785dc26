"""Summarize how the run ended, and its key numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tunesmith_report.curves import LOSS, Metric, Series
from tunesmith_report.folder import Folder
from tunesmith_report.formatting import duration, finite, number, percent, share, short
from tunesmith_report.trained import best_of

TUNESMITH_ERROR = re.compile(r"^tunesmith\.\w+\.\w+: ")
STATES = {"done": "done", "interrupted": "interrupted", "failed": "failed", "running": "running"}


@dataclass
class Status:
    """The state of the run: a label, the reason why it ended, and its progress in percent of the steps."""

    kind: str
    label: str
    reason: str
    progress: float


@dataclass
class Tile:
    """A key number with its label and a line of details."""

    label: str
    value: str
    details: str = ""


def status_of(folder: Folder) -> Status:
    record = folder.record
    kind = STATES.get(str(record.get("status")), "unknown")
    label, reason = kind, str(record.get("stopped") or "")
    if kind == "running" and record.get("over"):  # the process ended before run.json got another status
        kind, label = "failed", "aborted"
        reason = reason or "The process ended before it could record a reason."
    if kind == "done" and reason:
        label = "stopped early"
    if kind == "failed" and folder.crash:
        reason = next((line for line in folder.crash if "error[" in line), folder.crash[-1]).strip()
        reason = TUNESMITH_ERROR.sub("", reason)
    done, total = finite(record.get("step")), finite(record.get("total_steps"))
    return Status(kind, label, reason, share(done or 0, total or 0))


def tiles(folder: Folder, metrics: dict[str, Metric], now: float) -> list[Tile]:
    """Return the tiles for loss, evaluation loss, steps, time, tokens and speed, as far as they are known."""
    record, loss = folder.record, metrics.get(LOSS, Metric(LOSS))
    result = []
    if "reward_std" in metrics:  # an online method, whose loss does not tell how well it learns
        reward = metrics.get("reward", Metric("reward"))
        result += [*_loss("eval reward", reward.held, ""), *_loss("reward", reward.train, "")]
    result += [*_loss("eval loss", loss.held, "lowest"), *_loss("training loss", loss.train, "")]
    result += _best(folder, metrics)
    step, total = finite(record.get("step")), finite(record.get("total_steps"))
    last = folder.metrics[-1] if folder.metrics else {}
    if step is not None:
        epochs = finite(last.get("epoch"))
        progress = f"{number(round(epochs, 2))} {'epoch' if epochs == 1 else 'epochs'}" if epochs else ""
        result.append(Tile("steps", number(step), _join(f"of {number(total)}" if total else "", progress)))
    seconds = elapsed(folder, now)
    if seconds is not None:
        resumed = "resumed from" in folder.mapping("notes")
        result.append(Tile("time", duration(seconds), "since the run was resumed" if resumed else ""))
    tokens = finite(last.get("tokens"))
    if tokens:
        result.append(Tile("tokens", short(tokens), "" if "reward_std" in metrics else _trained(folder)))
    speeds = sorted(metrics["tokens_per_second"].train.values) if "tokens_per_second" in metrics else []
    if speeds:
        result.append(Tile("speed", short(round(speeds[len(speeds) // 2])), "median tokens per second"))
    used = sorted(metrics["speed/mfu"].train.values) if "speed/mfu" in metrics else []
    if used:
        result.append(Tile("MFU", percent(used[len(used) // 2], 1), "median, of the card's peak in bfloat16"))
    return result


def elapsed(folder: Folder, now: float) -> float | None:
    """Return the seconds that the run took or has been running, or None if unknown."""
    started, seconds = finite(folder.record.get("started")), finite(folder.record.get("seconds"))
    running = folder.record.get("status") == "running"
    return max(0.0, now - started) if running and started is not None else seconds


def _loss(label: str, series: Series, extreme: str) -> list[Tile]:
    if not series.values:
        return [Tile(label, "not finite")] if series.missing else []
    first, last, low = series.values[0], series.values[-1], min(series.values)
    details = [f"from {number(first)} at step {series.steps[0]:,}"] if len(series.values) > 1 else []
    if extreme and low < last:
        details.append(f"{extreme} {number(low)} at step {series.steps[series.values.index(low)]:,}")
    return [Tile(label, number(last), _join(*details))]


def _join(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _best(folder: Folder, metrics: dict[str, Metric]) -> list[Tile]:
    """Return a tile for `metric_for_best_model`, unless that is the evaluation loss."""
    best = best_of(folder, metrics)
    if best is None or best.metric == LOSS:
        return []
    where = f"best {number(best.value)} at step {best.step:,}"
    return [Tile(best.metric.replace("_", " "), number(metrics[best.metric].held.values[-1]), where)]


def _trained(folder: Folder) -> str:
    counts: list[dict[str, Any]] = [c for c in folder.mapping("data").values() if isinstance(c, dict)]
    tokens = sum(finite(c.get("tokens")) or 0 for c in counts)
    trained = sum(finite(c.get("trained_tokens")) or 0 for c in counts)
    return f"{percent(trained, tokens)} trained, the rest is context" if tokens else ""
