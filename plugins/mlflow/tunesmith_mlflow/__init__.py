"""Log metrics, tables, the report and models to MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Finding, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunesmith import LogRecord, Run

INSTALL = 'pip install "tunesmith[mlflow-sdk]"'
KEYS = ("use_mlflow", "mlflow_experiment_name")


class MlflowSettings(Settings):
    """Settings of the tracker for MLflow."""

    use_mlflow: bool | None = None
    """Log the run to MLflow. The default is true if mlflow_experiment_name is set."""
    mlflow_tracking_uri: str | None = None
    """Where runs are kept: sqlite:///mlflow.db, or the address of a server. The default is MLFLOW_TRACKING_URI."""
    mlflow_experiment_name: str | None = None
    """Experiment that the run belongs to. Setting it selects the plugin."""
    mlflow_run_name: str | None = None
    """Name of the run. The default is the name of output_dir."""
    hf_mlflow_log_artifacts: bool = False
    """Upload the final model and each checkpoint's model as artifacts."""


plugin = Plugin(settings=MlflowSettings, switches=KEYS, best_effort=True, synchronous=True)
# write_log only passes the record on, so it may be synchronous: the tracker has a process of its own.


def is_on(run: Run) -> bool:
    """Return False if the config switches the tracker off."""
    return run.settings(MlflowSettings).use_mlflow is not False


@hookimpl
def inspect(run: Run) -> None:
    from tunesmith.tracking import check_library

    if is_on(run):
        check_library(run, "mlflow", INSTALL, KEYS)


@hookimpl
def diagnose(run: Run) -> Iterator[Finding]:
    if is_on(run):
        yield Finding.of_module("mlflow", INSTALL)


@hookimpl
def on_start(run: Run) -> None:
    from tunesmith_mlflow.tracker import MlflowTracker

    if run.world.main and is_on(run):
        run.owned(MlflowTracker)


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    from tunesmith_mlflow.tracker import MlflowTracker

    if is_on(run):
        run.owned(MlflowTracker).write(record)
