"""Write report.html, a page about the run, into its output folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run


class ReportSettings(Settings):
    """Settings of the HTML report."""

    report: bool = True
    """Write report.html into output_dir when the run ends, for any reason, and from time to time before that."""


HELP = "Write a page about the run in a folder, or one that compares several."
plugin = Plugin(
    settings=ReportSettings, best_effort=True, commands={"report": ("tunesmith_report.command:report", HELP)}
)


@hookimpl(tryfirst=True)  # closed after the objects of other loggers: the page shows what they wrote
def on_start(run: Run) -> None:
    """Create the writer, which writes the page at the end of the run, after run.json has its final status."""
    from tunesmith_report.writer import NAME, Writer

    if run.settings(ReportSettings).report:
        run.outline["report"] = NAME  # for the summary
        if run.world.main:
            run.owned(Writer)


@hookimpl(trylast=True)
def write_log(run: Run) -> None:
    """Refresh the page of a long run, after the loggers, so that it includes this step."""
    from tunesmith_report.writer import Writer

    if run.settings(ReportSettings).report:
        run.owned(Writer).refresh()
