"""Serve the newest metrics to Prometheus, on an HTTP endpoint of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import LogRecord, Run


class OtelSettings(Settings):
    """Settings of the endpoint for Prometheus."""

    use_otel_metrics: bool = False
    """Serve loss, evaluation loss, learning rate, epoch, step, gradient norm and memory at /metrics."""
    otel_metrics_host: str = "localhost"
    """Address to listen on. Any other than localhost shows the metrics to that network, without a password."""
    otel_metrics_port: int = Field(8000, ge=1, le=65535)
    """Port to listen on."""


plugin = Plugin(settings=OtelSettings, switches=("use_otel_metrics",), best_effort=True, synchronous=True)
# write_log only passes the record on, so it may be synchronous: the endpoint has a process of its own.


@hookimpl
def on_start(run: Run) -> None:
    from tunesmith_otel.tracker import OtelTracker

    if run.world.main:
        run.owned(OtelTracker)


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    from tunesmith_otel.tracker import OtelTracker

    memory = run.memory_used.peak if run.memory_used else None
    run.owned(OtelTracker).write(record, memory=memory)
