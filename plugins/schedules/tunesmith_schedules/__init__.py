"""Learning-rate schedules: cosine, linear and constant, each after a warm-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pydantic import Field, NonNegativeInt

from tunesmith import ConfigError, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from tunesmith import Run
    from tunesmith_schedules.curve import Shape


class ScheduleSettings(Settings):
    """Keys of learning-rate schedules."""

    warmup_ratio: float | None = Field(None, ge=0, le=1)
    """Warm-up as a share of all steps, rounded up. The default without warmup_steps is 3%, but at most 100 steps."""
    warmup_steps: NonNegativeInt | None = None
    """Warm-up in optimizer steps; 0 for none."""
    cosine_min_lr_ratio: float = Field(0.0, ge=0, le=1)
    """Final learning rate of the cosine schedule, as a share of learning_rate."""


plugin = Plugin(
    settings=ScheduleSettings,
    answers={"lr_scheduler": ("cosine", "linear", "constant")},
    on_resume=dict.fromkeys(ScheduleSettings.model_fields, "accept"),
)


@hookimpl
def validate(run: Run) -> None:
    settings, max_steps = run.settings(ScheduleSettings), run.core.max_steps
    errors = []
    if settings.warmup_ratio is not None and settings.warmup_steps is not None:
        errors.append(run.config.error("warmup_ratio", "and warmup_steps are both set", help="keep one of them"))
    if max_steps is not None and (settings.warmup_steps or 0) > max_steps:
        message = f"is longer than training, which ends at max_steps: {max_steps}"
        errors.append(run.config.error("warmup_steps", message, help=f"write at most {max_steps}"))
    if "cosine_min_lr_ratio" in settings.model_fields_set and run.core.lr_scheduler != "cosine":
        message = f"has no effect with lr_scheduler: {run.core.lr_scheduler}"
        errors.append(run.config.error("cosine_min_lr_ratio", message, help="drop it, or write lr_scheduler: cosine"))
    if errors:
        raise ConfigError(problem for error in errors for problem in error.problems)


@hookimpl
def build_scheduler(run: Run, optimizer: Optimizer, total_steps: int) -> LRScheduler:
    from tunesmith_schedules.curve import schedule, warmup_length

    settings = run.settings(ScheduleSettings)
    warmup = warmup_length(total_steps, settings.warmup_steps, settings.warmup_ratio)
    if warmup >= total_steps:
        run.note("warm-up", f"{warmup} steps, but training has {total_steps}: learning_rate is never reached")
    shape = cast("Shape", run.core.lr_scheduler)
    return schedule(optimizer, shape, total_steps, warmup, settings.cosine_min_lr_ratio)
