"""Summarize a run at its end, and name the next line to type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.finding import size
from tunesmith.next_command import load_command, plugin_commands, train_command
from tunesmith.outline import duration

if TYPE_CHECKING:
    from tunesmith import LogRecord, Run

FINDINGS = "findings"
"""The note in which the plugin diagnosis lists what the metrics most likely mean."""


@dataclass
class Measured:
    """Totals over the logged steps and evaluations of this process.

    loss: the last mean, and the number of steps it is over. tokens: of the steps whose time is known.
    """

    tokens: float = 0.0
    seconds: float = 0.0
    loss: tuple[float, int] | None = None
    evaluations: int = 0
    last: tuple[int, Mapping[str, float]] | None = None
    _before: float | None = field(default=None)

    def add(self, record: LogRecord, resumed: bool) -> None:
        total, speed = record.metrics.get("tokens"), record.metrics.get("tokens_per_second")
        if total is not None and speed:
            # A resumed run does not know the tokens before its first line, so its speed counts from the second on.
            if self._before is not None or not resumed:
                self.tokens += total - (self._before or 0.0)
                self.seconds += (total - (self._before or 0.0)) / speed
            self._before = total
        if record.evaluation:
            self.evaluations += 1
            self.last = record.step, record.evaluation


def closing(run: Run, measured: Measured, seconds: float, earlier: Mapping[str, Any]) -> str:
    """Return the summary: steps, time, losses, new notes, failed plugins, output, and the next line to type.

    seconds: the time since on_start. earlier: the notes that were printed then.
    """
    parts = [f"in {duration(seconds)}", f"{measured.tokens / measured.seconds:,.0f} tok/s" if measured.seconds else ""]
    peak = run.memory_used.peak if run.memory_used else None
    parts += [f"{size(peak)} at the peak" if peak else ""]
    lines = [f"{run.step} of {run.total_steps} steps done {', '.join(filter(None, parts))}"]
    if measured.loss:
        loss, number = measured.loss
        lines.append(
            f"loss {loss:.4g}, {'that of the last step' if number == 1 else f'the mean of the last {number} steps'}"
        )
    lines += _evaluations(run, measured)
    lines += [
        f"{name}: {value}" for name, value in run.notes.items() if earlier.get(name) != value and name != FINDINGS
    ]
    lines += [f"plugin {name} was muted: it failed in {failure}" for name, failure in run.hooks.muted.items()]
    lines += findings(run.notes.get(FINDINGS))
    lines += [f"stopped early: {run.stopped}"] if run.stopped else []
    lines += [f"output: {run.output_dir}"]
    lines += [f"report: {run.output_dir / report}"] if (report := run.outline.get("report")) else []
    return "\n".join(["summary", *(f"  {line}" for line in lines), *(f"next: {one}" for one in next_commands(run))])


def _evaluations(run: Run, measured: Measured) -> list[str]:
    """Return the line of the last evaluation, and that of the best one if it is another."""
    if measured.last is None:
        return []
    step, values = measured.last
    metric = run.core.metric_for_best_model
    key = metric if metric in values else next(iter(values))
    line = f"{key} {values[key]:.4g} at step {step}"
    if run.best is None or key != metric:
        return [line]
    if run.best[0] == step:
        return [f"{line}, the best" if measured.evaluations > 1 else line]
    return [f"{line}; the best was {run.best[1]:.4g} at step {run.best[0]}"]


def findings(note: Any) -> list[str]:
    """Return two lines for each finding in the note, what was seen and the advice; a note of another form as a line."""
    if not isinstance(note, list) or not all(isinstance(one, dict) and {"id", "advice"} <= one.keys() for one in note):
        return [f"{FINDINGS}: {note}"] if note else []
    lines = [f"{len(note)} {'finding' if len(note) == 1 else 'findings'} in the metrics:"]
    for one in note:
        first, last = one.get("steps", ("?", "?"))
        lines.append(f"  {one.get('severity')} {one['id']}, steps {first} to {last}: {one.get('message')}")
        lines.append(f"    {one['advice']}")
    return lines


def next_commands(run: Run) -> list[str]:
    """Return the command that resumes an interrupted run, or those that use the model of a finished run."""
    if run.interrupted:
        return [train_command(run.config.document, resume_from_checkpoint="auto")]
    offered = [*plugin_commands(run.output_dir).values()]
    load = None if offered else load_command(run.output_dir)
    return offered or ([load] if load else [])
