"""Pass the settings of the run to the process of the tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.tracking import Tracker
from tunesmith_wandb import WandbSettings

if TYPE_CHECKING:
    from tunesmith import Run


class WandbTracker(Tracker):
    name, service = "wandb", "tunesmith_wandb.service"

    def settings(self, run: Run) -> dict[str, Any]:
        settings = run.settings(WandbSettings)
        model = settings.wandb_log_model
        return {
            "project": settings.wandb_project,
            "entity": settings.wandb_entity,
            "name": settings.wandb_name or run.output_dir.absolute().name,
            "id": settings.wandb_run_id,
            "mode": "offline" if settings.wandb_mode == "dryrun" else settings.wandb_mode,
            "model": model if model in ("checkpoint", "end") else None,
        }
