"""Show a run as a progress bar on a terminal and as plain lines elsewhere, and print its summary."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from tunesmith.printable import printable
from tunesmith.redact import redact

if TYPE_CHECKING:
    from tunesmith import LogRecord, Run

FORMATS = {
    "loss": "loss {:.4g}",
    "grad_norm": "grad_norm {:.3g}",
    "learning_rate": "lr {:.1e}",
    "tokens_per_second": "{:.0f} tok/s",
}
NOT_IN_BAR = ("grad_norm",)  # so that the other numbers fit in 80 columns
REFRESH = 0.1  # least seconds between two drawings of the bar, which would take a notable share of fast steps


def line(numbers: Mapping[str, float], exclude: Container[str] = ()) -> str:
    """Format the loss, gradient norm, learning rate and speed of a step, in this order."""
    shown = (key for key in FORMATS if key in numbers and key not in exclude)
    return "  ".join(FORMATS[key].format(numbers[key]) for key in shown)


def summary(run: Run) -> str:
    """Return the summary of a run: notes, plugins that failed, why it stopped early, and its output folder."""
    lines = [f"{run.step} of {run.total_steps} steps done", *(f"{name}: {value}" for name, value in run.notes.items())]
    lines += [f"plugin {name} was muted: it failed in {failure}" for name, failure in run.hooks.muted.items()]
    lines += [f"stopped early: {run.stopped}"] if run.stopped else []
    return "\n".join(["summary", *(f"  {text}" for text in lines), f"  output: {run.output_dir}"])


class Display:
    """A display of a run's steps on a console: the training thread advances it, that of the loggers writes records."""

    def __init__(self, run: Run, console: Console | None = None):
        self.console = console or Console()
        self.total = run.total_steps
        self.last_drawn = 0.0
        self.progress: Progress | None = None
        if run.step:
            self.print(f"resuming after step {run.step}")
        if self.console.is_terminal:
            self._start(run.step)

    def _start(self, done: int) -> None:
        self.progress = Progress(
            BarColumn(bar_width=None, table_column=Column(ratio=1)),  # shrinks first on a narrow terminal
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
            auto_refresh=False,  # no refresh thread next to the training
        )
        self.task = self.progress.add_task("", total=self.total, completed=done, numbers="")
        self.progress.start()

    def advance(self, step: int) -> None:
        """Advance the bar, if there is one, and draw it unless that was done a moment ago."""
        if progress := self.progress:
            progress.update(self.task, completed=step)
            if time.monotonic() - self.last_drawn > REFRESH:
                progress.refresh()
                self.last_drawn = time.monotonic()

    def write(self, record: LogRecord) -> None:
        """Write the numbers of a logged step into the bar, or print them as a line. Print a line for an evaluation."""
        numbers = line(record.metrics, NOT_IN_BAR if self.progress else ())
        if self.progress and numbers:
            self.progress.update(self.task, numbers=numbers)
        elif numbers:
            self.print(f"step {record.step}/{self.total}  {numbers}")
        if record.evaluation:
            values = "  ".join(f"{name} {value:.4g}" for name, value in record.evaluation.items())
            self.print(f"eval  step {record.step}  {values}")
        if record.step >= self.total:
            self.close()

    def close(self) -> None:
        """Stop the bar and leave it visible. Later output is printed below it."""
        if self.progress:
            self.progress.refresh()
            self.progress.stop()
            self.progress = None

    def print(self, text: str) -> None:
        """Print text, with secrets replaced, above the bar if there is one."""
        self.console.print(printable(redact(text)), markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()  # so that `tail -f` on a log file shows each step at once
