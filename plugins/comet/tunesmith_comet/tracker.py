"""Pass the settings of the run to the process of the tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.tracking import Tracker
from tunesmith_comet import CometSettings

if TYPE_CHECKING:
    from tunesmith import Run


class CometTracker(Tracker):
    name, service = "comet", "tunesmith_comet.service"

    def settings(self, run: Run) -> dict[str, Any]:
        settings = run.settings(CometSettings)
        return {
            "api_key": settings.comet_api_key,
            "workspace": settings.comet_workspace,
            "project": settings.comet_project_name,
            "key": settings.comet_experiment_key,
            "mode": settings.comet_mode,
            "online": settings.comet_online,
            "config": settings.comet_experiment_config or {},
            "name": run.output_dir.absolute().name,
        }
