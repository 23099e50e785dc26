"""Send metrics, tables, the report and models to Weights & Biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationInfo, field_validator

from tunesmith import Finding, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunesmith import LogRecord, Policy, Run

INSTALL = 'pip install "tunesmith[wandb-sdk]"'


class WandbSettings(Settings):
    """Settings of the tracker for Weights & Biases."""

    use_wandb: bool | None = None
    """Send the run to Weights & Biases. The default is true if wandb_project is set."""
    wandb_project: str | None = None
    """Project of the run. Setting it selects the plugin."""
    wandb_entity: str | None = None
    """User or team that the project belongs to. The default is that of the API key."""
    wandb_name: str | None = None
    """Name of the run. The default is the name of output_dir."""
    wandb_run_id: str | None = None
    """Id of the run at the service, to continue one. A resumed run continues its own without it."""
    wandb_mode: Literal["online", "offline", "dryrun", "disabled"] | None = None
    """offline (or dryrun): only write files, for `wandb sync`. The default is WANDB_MODE, or online."""
    wandb_watch: Literal["gradients", "parameters", "all", "false"] | bool | None = None
    """Send histograms of gradients, of parameters, or of both, at the first step and at every hundredth."""
    wandb_log_model: Literal["checkpoint", "end", "false"] | bool | None = None
    """Upload the final model (end), or also each checkpoint's model (checkpoint), as artifacts."""

    @field_validator("wandb_watch", "wandb_log_model")
    @classmethod
    def _says_what(cls, value: Any, info: ValidationInfo) -> Any:
        if value is True:
            choices = "gradients, parameters or all" if info.field_name == "wandb_watch" else "checkpoint or end"
            raise ValueError(f"must be {choices}, or false")
        return value


plugin = Plugin(
    settings=WandbSettings, switches=("use_wandb", "wandb_project"), best_effort=True, synchronous=True
)  # write_log only passes the record on: the tracker has a process of its own


def is_on(run: Run) -> bool:
    """Return False if the config names a project and switches the tracker off."""
    settings = run.settings(WandbSettings)
    return settings.use_wandb is not False and settings.wandb_mode != "disabled"


@hookimpl
def inspect(run: Run) -> None:
    from tunesmith.tracking import check_library

    if is_on(run):
        check_library(run, "wandb", INSTALL, ("use_wandb", "wandb_project"))


@hookimpl
def diagnose(run: Run) -> Iterator[Finding]:
    if is_on(run):
        yield Finding.of_module("wandb", INSTALL)


@hookimpl
def on_start(run: Run, policy: Policy) -> None:
    from tunesmith_wandb.tracker import WandbTracker
    from tunesmith_wandb.watch import Watch

    if run.world.main and is_on(run):
        run.owned(WandbTracker)
        run.owned(Watch).watch(policy)


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    from tunesmith_wandb.tracker import WandbTracker
    from tunesmith_wandb.watch import Watch

    if is_on(run):
        run.owned(WandbTracker).write(record, bins=run.owned(Watch).take())
