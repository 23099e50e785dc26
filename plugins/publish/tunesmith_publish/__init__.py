"""Upload a trained model to the hub: the command push, and uploads while a run trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tunesmith import Finding, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunesmith import Run


class PublishSettings(Settings):
    """Keys of uploads to the hub."""

    hub_model_id: str | None = None
    """Repository of the hub to upload the model to: NAME or OWNER/NAME. It is created if it does not exist."""
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = "every_save"
    """Models to upload: the final one (end); each saved model in place of the one before (every_save); each one also in
    last-checkpoint (checkpoint) or in checkpoint-N (all_checkpoints)."""
    hub_private_repo: bool | None = None
    """Create the repository as a private one. Default: what the account sets. An existing one is not changed."""
    hub_revision: str | None = None
    """Branch to upload to. It is created if it does not exist. Default: main."""


HELP = "Upload a trained model to the hub, with its model card."
plugin = Plugin(
    settings=PublishSettings,
    switches=("hub_model_id",),
    commands={"push": ("tunesmith_publish.command:push", HELP)},
    best_effort=True,
    before=("report",),
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_publish.uploader import check

    check(run, run.settings(PublishSettings))


@hookimpl
def diagnose(run: Run) -> Iterator[Finding]:
    from tunesmith_publish.uploader import token_finding

    yield token_finding()


@hookimpl
def on_start(run: Run) -> None:
    """Start the thread that uploads what is saved."""
    from tunesmith_publish.uploader import Uploader

    if run.world.main:
        run.owned(Uploader).start()


@hookimpl
def on_step(run: Run) -> None:
    """Upload checkpoints that were saved since the last step."""
    from tunesmith_publish.uploader import Uploader

    if run.world.main:
        run.owned(Uploader).upload_saved()


@hookimpl(trylast=True)
def on_end(run: Run) -> None:
    """Upload the final model, and wait for all uploads."""
    from tunesmith_publish.uploader import Uploader

    if run.world.main:
        run.owned(Uploader).complete()
