"""Pass the settings of the run to the process of the tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.tracking import Tracker
from tunesmith_trackio import TrackioSettings

if TYPE_CHECKING:
    from tunesmith import Run


class TrackioTracker(Tracker):
    name, service = "trackio", "tunesmith_trackio.service"

    def settings(self, run: Run) -> dict[str, Any]:
        settings = run.settings(TrackioSettings)
        return {
            "project": settings.trackio_project_name or "tunesmith",
            "name": settings.trackio_run_name or run.output_dir.absolute().name,
            "space": settings.trackio_space_id,
        }
