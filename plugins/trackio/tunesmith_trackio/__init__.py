"""Log metrics, tables and the report with Trackio, locally or to a Space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Finding, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunesmith import LogRecord, Run

INSTALL = 'pip install "tunesmith[trackio-sdk]"'
KEYS = ("use_trackio", "trackio_project_name")


class TrackioSettings(Settings):
    """Settings of the tracker for Trackio."""

    use_trackio: bool | None = None
    """Log the run with Trackio. The default is true if trackio_project_name is set."""
    trackio_project_name: str | None = None
    """Project of the run, "tunesmith" by default. Setting it selects the plugin."""
    trackio_run_name: str | None = None
    """Name of the run. The default is the name of output_dir."""
    trackio_space_id: str | None = None
    """Space of the hub that shows the runs: user/name. Without it, runs stay in the folder TRACKIO_DIR."""


plugin = Plugin(settings=TrackioSettings, switches=KEYS, best_effort=True, synchronous=True)
# write_log only passes the record on, so it may be synchronous: the tracker has a process of its own.


def is_on(run: Run) -> bool:
    """Return False if the config switches the tracker off."""
    return run.settings(TrackioSettings).use_trackio is not False


@hookimpl
def inspect(run: Run) -> None:
    from tunesmith.tracking import check_library

    if is_on(run):
        check_library(run, "trackio", INSTALL, KEYS)


@hookimpl
def diagnose(run: Run) -> Iterator[Finding]:
    if is_on(run):
        yield Finding.of_module("trackio", INSTALL)


@hookimpl
def on_start(run: Run) -> None:
    from tunesmith_trackio.tracker import TrackioTracker

    if run.world.main and is_on(run):
        run.owned(TrackioTracker)


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    from tunesmith_trackio.tracker import TrackioTracker

    if is_on(run):
        run.owned(TrackioTracker).write(record)
