"""Save a checkpoint when a file appears, and after the first step."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from tunesmith import PathText, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run, StepRecord

FILE = "save_checkpoint"


class DynamicCheckpoint(Settings):
    """Options of checkpoints on demand."""

    enabled: bool = False
    """Save a checkpoint when the trigger file exists."""
    check_interval: PositiveInt = 10
    """Optimizer steps between two looks at the trigger file."""
    trigger_file_path: PathText = FILE
    """The trigger file, an empty file in output_dir. It is deleted when the checkpoint is requested."""


class TriggerSettings(Settings):
    """Checkpoints besides those at intervals."""

    dynamic_checkpoint: DynamicCheckpoint | None = None
    """Save a checkpoint when somebody creates a file: `touch OUTPUT_DIR/save_checkpoint`."""
    save_first_step: bool = False
    """Save a checkpoint after the first step, to find out early whether saving works."""


plugin = Plugin(
    settings=TriggerSettings,
    switches=("dynamic_checkpoint", "save_first_step"),
    on_resume=dict.fromkeys(TriggerSettings.model_fields, "free"),
)


@hookimpl
def validate(run: Run) -> None:
    options = run.settings(TriggerSettings).dynamic_checkpoint
    if options is None:
        return
    if not options.enabled and "enabled" not in options.model_fields_set:
        help = "write enabled: true in it, or drop it"
        raise run.config.error("dynamic_checkpoint", "has no effect without enabled", help)
    # A trigger file is deleted, so it can't be just any file.
    inside = os.path.normpath(os.path.join(os.path.abspath(run.output_dir), options.trigger_file_path))
    if os.path.dirname(inside) != os.path.abspath(run.output_dir):
        path = ("dynamic_checkpoint", "trigger_file_path")
        raise run.config.error(path, "must be a file in output_dir", f"write its name, such as {FILE}")


@hookimpl
def on_step(run: Run, record: StepRecord) -> None:
    settings = run.settings(TriggerSettings)
    if settings.save_first_step and record.step == 1:
        run.request_checkpoint()
    options = settings.dynamic_checkpoint
    if options is not None and options.enabled and record.step % options.check_interval == 0:
        from tunesmith_trigger.file import taken

        path = run.output_dir / options.trigger_file_path
        if run.world.maximum(taken(run, path) if run.world.main else 0):  # the same answer on all processes
            run.request_checkpoint()
