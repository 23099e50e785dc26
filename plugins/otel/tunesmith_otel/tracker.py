"""Pass the settings of the run to the process of the endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.tracking import Tracker
from tunesmith_otel import OtelSettings

if TYPE_CHECKING:
    from tunesmith import Run


class OtelTracker(Tracker):
    name, service = "otel", "tunesmith_otel.service"

    def settings(self, run: Run) -> dict[str, Any]:
        settings = run.settings(OtelSettings)
        return {
            "host": settings.otel_metrics_host,
            "port": settings.otel_metrics_port,
            "name": run.output_dir.absolute().name,
        }
