"""The process that answers Prometheus, in its text format (version 0.0.4)."""

from __future__ import annotations

import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tunesmith.tracking_service import Service

GAUGES = {  # gauge -> (name in a record, what it is)
    "tunesmith_train_loss": ("train/loss", "Training loss of the last logged step."),
    "tunesmith_eval_loss": ("eval/loss", "Loss of the last evaluation."),
    "tunesmith_learning_rate": ("train/learning_rate", "Learning rate of the first parameter group."),
    "tunesmith_epoch": ("epoch", "Epochs done."),
    "tunesmith_step": ("step", "Optimizer steps done."),
    "tunesmith_grad_norm": ("train/grad_norm", "Norm of the gradient before clipping."),
    "tunesmith_memory_bytes": ("memory", "Peak memory of the main process, in bytes."),
}
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Handler(BaseHTTPRequestHandler):
    """Answers GET /metrics, and nothing else."""

    server: Endpoint

    def do_GET(self) -> None:
        known = self.path.partition("?")[0] == "/metrics"
        body = self.server.text().encode() if known else b"see /metrics\n"
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


class Endpoint(ThreadingHTTPServer):
    """The newest value of each gauge, at an address."""

    daemon_threads = True

    def __init__(self, host: str, port: int, run: str):
        super().__init__((host, port), Handler)
        escaped = run.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self.label, self.values = f'{{run="{escaped}"}}', dict[str, float]()

    def text(self) -> str:
        """Return the gauges that have a value."""
        lines = []
        for gauge, (name, help) in GAUGES.items():
            if (value := self.values.get(name)) is not None:
                lines += [f"# HELP {gauge} {help}", f"# TYPE {gauge} gauge", f"{gauge}{self.label} {shown(value)}"]
        return "\n".join(lines) + "\n"


class OtelService(Service):
    """An endpoint that lives as long as its run."""

    name = "otel"

    def open(self) -> None:
        self.reply(later="write otel_metrics_port: another port, if this one is in use")
        host = "127.0.0.1" if self.options["host"] == "localhost" else self.options["host"]
        self.endpoint = Endpoint(host, self.options["port"], self.options["name"])
        threading.Thread(target=self.endpoint.serve_forever, daemon=True).start()
        self.known.clear()  # a gauge has no history, so no step is left out after a kill
        address = f"http://{self.options['host']}:{self.options['port']}/metrics"
        self.reply(about=address, later="the summary and metrics.jsonl have every value")

    def log(self, step: int, scalars: dict[str, float], record: dict[str, Any]) -> None:
        names = {name for name, _ in GAUGES.values()}
        values = {"step": step, "epoch": record["epoch"], "memory": record["memory"], **scalars}
        self.endpoint.values |= {name: value for name, value in values.items() if name in names and value is not None}

    def end(self, status: str) -> None:
        self.endpoint.shutdown()
        self.endpoint.server_close()


def shown(value: float) -> str:
    """Format a number as Prometheus reads it."""
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


if __name__ == "__main__":
    OtelService().serve()
