"""Show a run on a console: phases on stderr, then a bar on a terminal or plain lines elsewhere, then a summary."""

from __future__ import annotations

import textwrap
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from tunesmith.finding import size
from tunesmith.printable import printable
from tunesmith.redact import redact
from tunesmith_console.closing import Measured, closing
from tunesmith_console.opening import notes, opening
from tunesmith_console.texts import clock, items, worth_a_line, wrapped

if TYPE_CHECKING:
    from tunesmith import LogRecord, Run, StepRecord

REFRESH = 0.1  # least seconds between two drawings of the bar, which would take a notable share of fast steps
QUIET = 10.0  # seconds between two plain lines of one phase
RECENT = 0.05  # weight of the latest step in the mean time of a step, from which the time left is estimated
UNBROKEN: Any = {"break_long_words": False, "break_on_hyphens": False}  # so that a path can be copied


class Bar(Progress):
    """A bar with the steps, the time and the time left, and a second line with the last numbers."""

    numbers, width = "", 80

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        # Cut one column before the edge: a line that fills the terminal may wrap, and is not erased as a whole then.
        yield Text(self.numbers[: self.width - 1], style="dim", no_wrap=True)


class Display:
    """The display of a run. The training thread reports phases and steps, that of the loggers writes records."""

    def __init__(self, run: Run, console: Console | None = None, errors: Console | None = None):
        self.run = run
        self.console = console or Console()
        self.errors = errors or Console(stderr=True)
        self.bar: Bar | None = None
        self.draws = self.console.is_terminal and not self.console.is_dumb_terminal
        self.phase, self.phase_printed = "", 0.0
        self.line_open = False  # a phase is shown on a line of stderr that is not ended yet
        self.started: float | None = None
        self.ended = False
        self.last_drawn = self.last_step = 0.0
        self.step_seconds: float | None = None
        self.losses: Any = None  # the sum of the losses since the last line: a tensor, until it is read
        self.number = 0
        self.means: dict[int, tuple[float, int]] = {}
        self.measured = Measured()
        self.notes: dict[str, Any] = {}
        self.lock = threading.RLock()

    # phases

    def report(self, phase: str, done: int | None, total: int | None) -> None:
        """Show a phase: in the bar, on one line of a terminal that is overwritten, or as a plain line."""
        of = f" of {total:,}" if total else ""
        text = printable(redact(f"{phase}: {done:,}{of}" if done else f"{phase} ..."))
        run = self.run
        with self.lock:
            if run.interrupted or run.stopped or run.step >= run.total_steps > 0:
                self.close()  # no step follows, and other plugins may print
            if not phase:
                self._end_phase()
            elif self.bar:
                self._draw(text)
            elif self.errors.is_terminal and not self.errors.is_dumb_terminal:
                self.errors.file.write(f"\r\x1b[2K{text[: self.errors.width - 1]}")
                self.errors.file.flush()
                self.line_open = True
            elif self.started is None or self.ended:  # between steps, a log file would get a line for each evaluation
                now = time.monotonic()
                if phase != self.phase or now - self.phase_printed > QUIET:
                    self._plain(self.errors, text)
                    self.phase_printed = now
            self.phase = phase

    def _end_phase(self) -> None:
        """Erase the line of the phase that is over."""
        if self.line_open:
            self.errors.file.write("\r\x1b[2K")
            self.errors.file.flush()
            self.line_open = False

    # the run

    def begin(self) -> None:
        """Print what the run trains, and its notes so far; on a terminal, start the bar."""
        with self.lock:
            self._end_phase()
            width = self.console.width if self.console.is_terminal else None
            for name, text in opening(self.run) if self.run.outline else ():
                self.print(textwrap.fill(f"{name:<8}{text}", width or 10**4, subsequent_indent=" " * 8, **UNBROKEN))
            self.notes = dict(self.run.notes)
            for note in notes(self.run):
                self.print(note)
            if self.run.step:
                self.print(f"resuming after step {self.run.step}")
            self.started = self.last_step = time.monotonic()
            if self.draws:
                self._start()

    def _start(self) -> None:
        self.bar = Bar(
            BarColumn(bar_width=None, table_column=Column(ratio=1)),  # shrinks first on a narrow terminal
            TextColumn("step {task.completed}/{task.total}  {task.fields[times]}"),
            console=self.console,
            expand=True,
            transient=True,  # it leaves no bar behind, however the run ends
            auto_refresh=False,  # no refresh thread next to the training
        )
        self.task = self.bar.add_task("", total=self.run.total_steps, completed=self.run.step, times="")
        self.bar.start()

    def advance(self, record: StepRecord) -> None:
        """Add a step to the mean of the loss and, if there is a bar, draw it unless that was done a moment ago."""
        now = time.monotonic()
        seconds, self.last_step = now - self.last_step, now
        self.step_seconds = seconds if self.step_seconds is None else (
            (1 - RECENT) * self.step_seconds + RECENT * seconds
        )  # fmt: skip
        if (loss := record.metrics.get("loss")) is not None:
            self.losses = loss if self.losses is None else self.losses + loss
            self.number += 1
            if record.log:
                self.means[record.step] = (float(self.losses) / self.number, self.number)
                self.losses, self.number = None, 0
        if self.bar:
            left = (self.run.total_steps - record.step) * self.step_seconds
            times = f"{clock(now - (self.started or now))} ETA {clock(left)}"
            self.bar.update(self.task, completed=record.step, times=times)
            if now - self.last_drawn > REFRESH:
                with self.lock:
                    self._draw()

    def _draw(self, phase: str = "") -> None:
        if self.bar is None:  # closed meanwhile, by the thread of the loggers
            return
        if phase:
            self.bar.numbers = phase
        self.bar.width = self.console.width  # it may have changed
        self.bar.refresh()
        self.last_drawn = time.monotonic()

    def write(self, record: LogRecord) -> None:
        """Write the numbers of a logged step into the bar, or print them as a line. Print a line for an evaluation."""
        self.measured.add(record, "resumed from" in self.run.notes)
        numbers = dict(record.metrics)
        if mean := self.means.pop(record.step, None):
            self.measured.loss = mean
            numbers["loss"] = mean[0]
        parts = items(numbers)
        with self.lock:
            if self.bar and parts:
                self.bar.numbers = "  ".join(self._epoch(record) + [p for p in parts if "grad_norm" not in p])
                peak = self.run.memory_used.peak if self.run.memory_used else None
                self.bar.numbers += f"  {size(peak)}" if peak else ""
            elif parts and not (self.draws and self.ended):  # the bar showed them, or the summary will
                self.print(wrapped([f"step {record.step}/{self.run.total_steps}", *self._epoch(record), *parts], None))
            if record.evaluation:
                values = [f"{name} {value:.4g}" for name, value in record.evaluation.items() if worth_a_line(name)]
                width = self.console.width if self.console.is_terminal else None
                self.print(wrapped(["eval", f"step {record.step}", *values], width, "      "))
            if record.step >= self.run.total_steps:
                self.close()

    def _epoch(self, record: LogRecord) -> list[str]:
        epochs = self.run.outline.get("epochs")
        return [f"epoch {record.epoch:.2f}/{epochs:.4g}"] if epochs else []

    def end(self) -> None:
        """Print the summary."""
        self.close()
        seconds = time.monotonic() - (self.started or time.monotonic())
        self.print(closing(self.run, self.measured, seconds, self.notes))

    def close(self) -> None:
        """Remove the bar and the line of a phase. Later output is printed in their place."""
        with self.lock:
            self._end_phase()
            self.ended = self.started is not None
            if self.bar:
                self.bar.stop()
                self.bar = None

    def print(self, text: str) -> None:
        """Print text, with secrets replaced, above the bar if there is one."""
        self._end_phase()
        self._plain(self.console, printable(redact(text)))

    def _plain(self, console: Console, text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.file.flush()  # so that `tail -f` on a log file shows each step at once
