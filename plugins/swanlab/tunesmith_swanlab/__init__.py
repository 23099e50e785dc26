"""Send metrics, tables, the report and models to SwanLab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from tunesmith import Finding, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunesmith import LogRecord, Run

INSTALL = 'pip install "tunesmith[swanlab-sdk]"'
KEYS = ("use_swanlab", "swanlab_project")


class SwanLabSettings(Settings):
    """Settings of the tracker for SwanLab."""

    use_swanlab: bool = True
    """Send the run to SwanLab, if `use_swanlab`, `swanlab_project` or `plugins:` selects the plugin."""
    swanlab_project: str | None = None
    """Project of the run. Setting it selects the plugin. The default is the name of the working folder."""
    swanlab_experiment_name: str | None = None
    """Name of the run. The default is the name of output_dir."""
    swanlab_description: str | None = None
    """Description of the run."""
    swanlab_mode: Literal["cloud", "local", "offline", "disabled"] | None = None
    """offline: only write files, for `swanlab sync`; local: for a board on this machine. The default is that of the
    library: SWANLAB_MODE, or cloud."""
    swanlab_workspace: str | None = None
    """User or organization that the project belongs to."""
    swanlab_api_key: str | None = None
    """API key. Set the environment variable SWANLAB_API_KEY instead: this file may be shared."""
    swanlab_log_model: bool = False
    """Upload the final model."""
    swanlab_web_host: str | None = None
    """Address of the pages of a private SwanLab."""
    swanlab_api_host: str | None = None
    """Address of the API of a private SwanLab."""
    swanlab_lark_webhook_url: str | None = None
    """Webhook of a Lark (Feishu) bot, which gets a message when the run ends."""
    swanlab_lark_secret: str | None = None
    """Secret of the Lark bot, if it checks signatures."""
    swanlab_log_completions: bool = True
    """Send tables of samples and completions."""
    swanlab_completion_log_interval: PositiveInt = 100
    """Steps between two tables of completions. Those of evaluations are sent at once."""
    swanlab_completion_max_buffer: PositiveInt = 128
    """Newest rows of completions to keep for the next table."""


plugin = Plugin(settings=SwanLabSettings, switches=KEYS, best_effort=True, synchronous=True)
# write_log only passes the record on, so it may be synchronous: the tracker has a process of its own.


def is_on(run: Run) -> bool:
    """Return False if the config switches the tracker off."""
    settings = run.settings(SwanLabSettings)
    return settings.use_swanlab and settings.swanlab_mode != "disabled"


@hookimpl
def validate(run: Run) -> None:
    settings = run.settings(SwanLabSettings)
    if settings.swanlab_lark_secret and not settings.swanlab_lark_webhook_url:
        message = "has no effect without swanlab_lark_webhook_url"
        raise run.config.error("swanlab_lark_secret", message, "set swanlab_lark_webhook_url, or drop it")
    for key in ("swanlab_completion_log_interval", "swanlab_completion_max_buffer"):
        if not settings.swanlab_log_completions and key in settings.model_fields_set:
            raise run.config.error(key, "has no effect with swanlab_log_completions: false", "drop one of the two keys")


@hookimpl
def inspect(run: Run) -> None:
    from tunesmith.tracking import check_library

    if is_on(run):
        check_library(run, "swanlab", INSTALL, KEYS)


@hookimpl
def diagnose(run: Run) -> Iterator[Finding]:
    if is_on(run):
        yield Finding.of_module("swanlab", INSTALL)


@hookimpl
def on_start(run: Run) -> None:
    from tunesmith_swanlab.tracker import SwanLabTracker

    if run.world.main and is_on(run):
        run.owned(SwanLabTracker)


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    from tunesmith_swanlab.tracker import SwanLabTracker

    if is_on(run):
        run.owned(SwanLabTracker).write(record)
