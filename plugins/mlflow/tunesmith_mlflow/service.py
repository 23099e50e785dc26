"""The process that calls the library of MLflow: its client, which has no global run and prints nothing."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.tracking_service import Service

LONGEST = 6000
"""Characters of a parameter that MLflow takes."""
BATCH = 100
"""Parameters of one request."""
STATUS = {"done": "FINISHED", "failed": "FAILED"}


class MlflowService(Service):
    """One run in a store of MLflow."""

    name = "mlflow"

    def load(self) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient, entities

        self.client_of, self.entities = MlflowClient, entities

    def open(self) -> None:
        """Continue the run of output_dir, or create one, with the config as its parameters."""
        self.client: Any = self.client_of(tracking_uri=self.options["uri"])
        uri = self.client.tracking_uri
        self.reply(later="metrics.jsonl in output_dir has every step; a resumed run continues the run in MLflow")
        run_id = self.known.get("id")
        if run_id:
            self.client.update_run(run_id, status="RUNNING")
            self.run = run_id
            self.keep(step=max(self.known.get("step", -1), *self.logged_steps()))
        else:
            self.create()
        self.reply(about=f"run {self.run} in {uri}")

    def create(self) -> None:
        facts = self.facts()
        name = self.options["experiment"]
        experiment = self.client.get_experiment_by_name(name) if name else None
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name) if name else "0"
        tags = {"mlflow.source.name": "tunesmith", "mlflow.source.type": "LOCAL"}
        tags |= {f"version.{package}": version for package, version in facts["versions"].items()}
        self.run = self.client.create_run(experiment_id, run_name=self.options["name"], tags=tags).info.run_id
        self.keep(id=self.run)
        params = [self.entities.Param(key, str(value)[:LONGEST]) for key, value in flat(facts["config"])]
        for start in range(0, len(params), BATCH):
            self.client.log_batch(self.run, params=params[start : start + BATCH])

    def logged_steps(self) -> list[int]:
        """Return the last steps that the store has: a kill may have come before they were noted here."""
        histories = [self.client.get_metric_history(self.run, name) for name in ("train/epoch", "eval/loss")]
        return [max((metric.step for metric in history), default=-1) for history in histories]

    def log(self, step: int, scalars: dict[str, float], record: dict[str, Any]) -> None:
        now = int(time.time() * 1000)
        metrics = [self.entities.Metric(metric_name(name), value, now, step) for name, value in scalars.items()]
        for name, numbers in record["histograms"].items():  # MLflow has no histograms
            for kind, value in (("mean", sum(numbers) / len(numbers)), ("min", min(numbers)), ("max", max(numbers))):
                metrics.append(self.entities.Metric(metric_name(f"{name}/{kind}"), value, now, step))
        if metrics:
            self.client.log_batch(self.run, metrics=metrics)
        for name, rows in record["tables"].items():
            columns = ["step", *dict.fromkeys(column for row in rows for column in row)]
            data = {column: [step if column == "step" else row.get(column) for row in rows] for column in columns}
            self.client.log_table(self.run, data, f"{re.sub(r'[^0-9A-Za-z_.-]', '_', name)}.json")

    def page(self, path: Path) -> None:
        self.client.log_artifact(self.run, str(path))

    def model(self, name: str, files: list[Path]) -> None:
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # a checkpoint that was deleted meanwhile
                self.client.log_artifact(self.run, str(file), name)

    def end(self, status: str) -> None:
        self.client.set_terminated(self.run, STATUS.get(status, "KILLED"))


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of everything in nested groups; a list is one value."""
    if value and isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, metric_name(f"{path}.{key}" if path else str(key)))
    else:
        yield path, value


def metric_name(name: str) -> str:
    """Replace the characters that MLflow refuses in a name."""
    return re.sub(r"[^\w\-. /]", "_", name)


if __name__ == "__main__":
    MlflowService().serve()
