"""A page about the run in its folder: report.html."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run, StepRecord
    from tunesmith_report.writer import Writer


class ReportSettings(Settings):
    """Whether the page is written."""

    report: bool = True
    """Write report.html into output_dir: at the end, however the run ends, and now and then before."""


plugin = Plugin(settings=ReportSettings, best_effort=True)
# By id of the run: hooks are functions, and when the page was last written is known between their calls.
_writers: dict[int, Writer] = {}


@hookimpl(tryfirst=True)
def on_start(run: Run) -> None:
    """Have the page written when the run ends: as one of the last things, when run.json says how it ended."""
    from tunesmith_report.writer import Writer

    if run.world.main and run.settings(ReportSettings).report:
        writer = _writers[id(run)] = Writer(run)
        run.closing.append(lambda: _writers.pop(id(run), writer).close())


@hookimpl(trylast=True)
def on_step(run: Run, record: StepRecord) -> None:
    """Let a long run be watched; after the loggers, so that the page has this step."""
    if (record.log or record.evaluation) and id(run) in _writers:
        _writers[id(run)].refresh()
