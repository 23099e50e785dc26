"""A progress bar on a terminal, plain lines elsewhere, and the summary of a run."""

from __future__ import annotations

import atexit
import time
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from tunesmith.redact import redact

if TYPE_CHECKING:
    from tunesmith import Run, StepRecord

FORMATS = {
    "loss": "loss {:.4g}",
    "grad_norm": "grad_norm {:.3g}",
    "learning_rate": "lr {:.1e}",
    "tokens_per_second": "{:.0f} tok/s",
}
BAR_LEAVES_OUT = ("grad_norm",)  # so that the rest fits in 80 columns
REFRESH = 0.1  # seconds between two drawings of the bar; fast steps would spend their time on it


def line(numbers: Mapping[str, float], left_out: Container[str] = ()) -> str:
    """The numbers of a step that people watch, in one order: loss, gradient norm, learning rate, speed."""
    shown = (key for key in FORMATS if key in numbers and key not in left_out)
    return "  ".join(FORMATS[key].format(numbers[key]) for key in shown)


def summary(run: Run) -> str:
    """What is to be known of a run that ended: notes, plugins that failed, why it stopped, where its files are."""
    lines = [f"{run.step} of {run.total_steps} steps done", *(f"{name}: {value}" for name, value in run.notes.items())]
    lines += [f"plugin {name} failed and was muted in {why}" for name, why in run.hooks.muted.items()]
    lines += [f"stopped early: {run.stopped}"] if run.stopped else []
    return "\n".join(["summary", *(f"  {text}" for text in lines), f"  output: {run.output_dir}"])


class Display:
    """Shows the steps of one run on a console; `done` of `total` steps lie behind it when it starts."""

    def __init__(self, total: int, done: int = 0, console: Console | None = None):
        self.console = console or Console()
        self.total = total
        self.drawn = 0.0
        self.progress: Progress | None = None
        if done:
            self.say(f"going on after step {done}")
        if self.console.is_terminal:
            self._start(done)

    def _start(self, done: int) -> None:
        self.progress = Progress(
            BarColumn(bar_width=None, table_column=Column(ratio=1)),  # the first to give way on a narrow terminal
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
            auto_refresh=False,  # no thread of its own beside those of the training
        )
        self.task = self.progress.add_task("", total=self.total, completed=done, numbers="")
        self.progress.start()
        atexit.register(self.close)  # on_end isn't called after a crash, and the cursor would stay hidden

    def step(self, record: StepRecord) -> None:
        """Show a step: move the bar, or write a line if the step is one to log; and a line for an evaluation."""
        numbers = line(record.scalars(), BAR_LEAVES_OUT if self.progress else ()) if record.log else None
        if self.progress:
            fields: dict[str, Any] = {} if numbers is None else {"numbers": numbers}
            self.progress.update(self.task, completed=record.step, **fields)
            if time.monotonic() - self.drawn > REFRESH or record.step >= self.total:
                self.progress.refresh()
                self.drawn = time.monotonic()
        elif numbers is not None:
            self.say(f"step {record.step}/{self.total}  {numbers}")
        if record.evaluation:
            values = "  ".join(f"{name} {value:.4g}" for name, value in record.evaluation.items())
            self.say(f"eval  step {record.step}  {values}")
        if record.step >= self.total:
            self.close()

    def close(self) -> None:
        """Leave the bar as it stands; what is said from now on comes below it."""
        if self.progress:
            self.progress.stop()
            self.progress = None
            atexit.unregister(self.close)

    def say(self, text: str) -> None:
        """Write text as it is but for secrets, above the bar where there is one."""
        self.console.print(redact(text), markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()  # a log file that is followed shows the step when it is done
