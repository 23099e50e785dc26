"""Pass the settings of the run to the process of the tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.tracking import Tracker
from tunesmith_mlflow import MlflowSettings

if TYPE_CHECKING:
    from tunesmith import Run


class MlflowTracker(Tracker):
    name, service = "mlflow", "tunesmith_mlflow.service"

    def settings(self, run: Run) -> dict[str, Any]:
        settings = run.settings(MlflowSettings)
        return {
            "uri": settings.mlflow_tracking_uri,
            "experiment": settings.mlflow_experiment_name,
            "name": settings.mlflow_run_name or run.output_dir.absolute().name,
            "model": "checkpoint" if settings.hf_mlflow_log_artifacts else None,
        }
