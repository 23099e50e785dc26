"""Pass the settings of the run to the process of the tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.tracking import Tracker
from tunesmith_swanlab import SwanLabSettings

if TYPE_CHECKING:
    from tunesmith import Run


class SwanLabTracker(Tracker):
    name, service = "swanlab", "tunesmith_swanlab.service"

    def settings(self, run: Run) -> dict[str, Any]:
        settings = run.settings(SwanLabSettings)
        return {
            "project": settings.swanlab_project,
            "name": settings.swanlab_experiment_name or run.output_dir.absolute().name,
            "description": settings.swanlab_description,
            "mode": "online" if settings.swanlab_mode == "cloud" else settings.swanlab_mode,
            "workspace": settings.swanlab_workspace,
            "api_key": settings.swanlab_api_key,
            "api_host": settings.swanlab_api_host,
            "web_host": settings.swanlab_web_host,
            "webhook": settings.swanlab_lark_webhook_url,
            "webhook_secret": settings.swanlab_lark_secret,
            "tables": settings.swanlab_log_completions,
            "interval": settings.swanlab_completion_log_interval,
            "buffer": settings.swanlab_completion_max_buffer,
            "model": "end" if settings.swanlab_log_model else None,
        }
