"""Send metrics, tables, the report and models to Comet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tunesmith import Finding, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunesmith import LogRecord, Run

INSTALL = 'pip install "tunesmith[comet-sdk]"'
OPTIONS = (
    "auto_histogram_activation_logging", "auto_histogram_epoch_rate", "auto_histogram_gradient_logging",
    "auto_histogram_tensorboard_logging", "auto_histogram_weight_logging", "auto_log_co2", "auto_metric_logging",
    "auto_metric_step_rate", "auto_output_logging", "auto_param_logging", "disabled", "display_summary_level",
    "distributed_node_identifier", "log_code", "log_env_cpu", "log_env_details", "log_env_disk", "log_env_gpu",
    "log_env_host", "log_env_network", "log_git_metadata", "log_git_patch", "log_graph", "name", "offline_directory",
    "parse_args", "tags",
)  # fmt: skip
"""Arguments of comet_ml.ExperimentConfig."""
KEYS = ("use_comet", "comet_project_name")


class CometSettings(Settings):
    """Settings of the tracker for Comet."""

    use_comet: bool | None = None
    """Send the run to Comet. The default is true if comet_project_name is set."""
    comet_api_key: str | None = None
    """API key. Set the environment variable COMET_API_KEY instead: this file may be shared."""
    comet_workspace: str | None = None
    """Workspace of the project. The default is that of the API key."""
    comet_project_name: str | None = None
    """Project of the experiment. Setting it selects the plugin."""
    comet_experiment_key: str | None = Field(None, pattern="^[0-9A-Za-z]{32,50}$")
    """Key of the experiment at the service, 32 to 50 letters and digits. A resumed run continues its own without it."""
    comet_mode: Literal["get_or_create", "create", "get"] | None = None
    """create: a new experiment; get: only continue one; get_or_create, the default: what comet_experiment_key needs."""
    comet_online: bool | None = None
    """false: only write an archive, for `comet upload`. The default is COMET_START_ONLINE, or true."""
    comet_experiment_config: dict[str, Any] | None = None
    """Arguments of comet_ml.ExperimentConfig, such as {tags: [a], log_code: true, log_git_metadata: true}."""


plugin = Plugin(settings=CometSettings, switches=KEYS, best_effort=True, synchronous=True)
# write_log only passes the record on, so it may be synchronous: the tracker has a process of its own.


def is_on(run: Run) -> bool:
    """Return False if the config switches the tracker off."""
    return run.settings(CometSettings).use_comet is not False


@hookimpl
def validate(run: Run) -> None:
    settings = run.settings(CometSettings)
    options = settings.comet_experiment_config or {}
    if unknown := sorted(options.keys() - set(OPTIONS)):
        message = f"has an unknown argument of ExperimentConfig: {unknown[0]}"
        raise run.config.error("comet_experiment_config", message, f"known ones: {', '.join(OPTIONS)}")
    if settings.comet_mode == "get" and not settings.comet_experiment_key:
        message = "continues an experiment, but comet_experiment_key does not say which"
        raise run.config.error(
            "comet_mode", message, "set comet_experiment_key, or drop it: a resumed run continues its own"
        )


@hookimpl
def inspect(run: Run) -> None:
    from tunesmith.tracking import check_library

    if is_on(run):
        check_library(run, "comet_ml", INSTALL, KEYS)


@hookimpl
def diagnose(run: Run) -> Iterator[Finding]:
    if is_on(run):
        yield Finding.of_module("comet_ml", INSTALL)


@hookimpl
def on_start(run: Run) -> None:
    from tunesmith_comet.tracker import CometTracker

    if run.world.main and is_on(run):
        run.owned(CometTracker)


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    from tunesmith_comet.tracker import CometTracker

    if is_on(run):
        run.owned(CometTracker).write(record)
