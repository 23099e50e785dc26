"""Write report.html, a page about the run, into its output folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run, StepRecord
    from tunesmith_report.writer import Writer


class ReportSettings(Settings):
    """Settings of the HTML report."""

    report: bool = True
    """Write report.html into output_dir when the run ends, for any reason, and from time to time before that."""


plugin = Plugin(settings=ReportSettings, best_effort=True)
# Writers by id of the run, because hooks are functions and a writer keeps the time of the last page between calls.
_writers: dict[int, Writer] = {}


@hookimpl(tryfirst=True)
def on_start(run: Run) -> None:
    """Register the page to be written at the end of the run, after run.json has its final status."""
    from tunesmith_report.writer import Writer

    if run.world.main and run.settings(ReportSettings).report:
        writer = _writers[id(run)] = Writer(run)
        run.closing.append(lambda: _writers.pop(id(run), writer).close())


@hookimpl(trylast=True)
def on_step(run: Run, record: StepRecord) -> None:
    """Refresh the page of a long run, after the loggers, so that it includes this step."""
    if (record.log or record.evaluation) and id(run) in _writers:
        _writers[id(run)].refresh()
