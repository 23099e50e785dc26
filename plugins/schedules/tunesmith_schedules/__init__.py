"""Learning-rate schedules, each after a warm-up: cosine, linear, constant, restarts, REX, warm-up-stable-decay, ..."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator

from tunesmith import ConfigError, Plugin, Settings, hookimpl
from tunesmith_schedules.shapes import SHAPES

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from tunesmith import Run


class ScheduleSettings(Settings):
    """Keys of learning-rate schedules."""

    warmup_ratio: float | None = Field(None, ge=0, le=1)
    """Warm-up as a share of all steps, rounded up. The default without warmup_steps is 3%, but at most 100 steps."""
    warmup_steps: NonNegativeFloat | None = None
    """Warm-up in optimizer steps; 0 for none. A number below 1 is a share of all steps."""
    lr_quadratic_warmup: bool = False
    """Let the warm-up rise with the square of the step, so that the first steps are smaller."""
    cosine_min_lr_ratio: float = Field(0.0, ge=0, le=1)
    """Final learning rate of a cosine, of REX and of warm-up-stable-decay, as a share of learning_rate."""
    cosine_constant_lr_ratio: float = Field(0.0, ge=0, le=1)
    """Share of all steps after which the cosine stays at cosine_min_lr_ratio; 0 for none."""
    lr_scheduler_kwargs: dict[str, int | float | str | None] = {}
    """Options of the schedule, such as {num_cycles: 3}; the README of tunesmith-schedules lists them."""
    jagged_restart_steps: PositiveInt | None = None
    """Let the learning rate fall to 0.1% and rise again every so many steps, in any schedule (arXiv 2307.05695)."""
    jagged_restart_warmup_steps: NonNegativeInt | None = None
    """Steps of the rise after a restart; by default 10."""
    jagged_restart_anneal_steps: NonNegativeInt | None = None
    """Steps of the fall before a restart; by default 1."""

    @field_validator("warmup_steps")
    @classmethod
    def _steps_or_share(cls, value: float | None) -> float | None:
        if value is None or value < 1:
            return value
        if value != int(value):
            raise ValueError("must be a whole number, or a share of all steps below 1")
        return int(value)


plugin = Plugin(
    settings=ScheduleSettings,
    answers={"lr_scheduler": tuple(SHAPES)},
    on_resume=dict.fromkeys(ScheduleSettings.model_fields, "accept"),
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_schedules.problems import problems

    core, settings = run.core, run.settings(ScheduleSettings)
    wrong = problems(core.lr_scheduler, settings, core.learning_rate, core.max_steps)
    errors = [run.config.error(key, message, help=help) for key, message, help in wrong]
    if errors:
        raise ConfigError(problem for error in errors for problem in error.problems)


@hookimpl
def build_scheduler(run: Run, optimizer: Optimizer, total_steps: int) -> LRScheduler:
    from torch.optim.lr_scheduler import LambdaLR

    from tunesmith_schedules.problems import schedule_of

    schedule = schedule_of(run.core.lr_scheduler, run.settings(ScheduleSettings), run.core.learning_rate, total_steps)
    if schedule.warmup >= total_steps:
        run.note("warm-up", f"{schedule.warmup} steps, but training has {total_steps}: learning_rate is never reached")
    decay = schedule.options.get("num_decay_steps") or 0
    if schedule.warmup + int(decay) > total_steps:
        run.note("schedule", f"the decay of {decay} steps does not fit: training has {total_steps} steps")
    # LambdaLR saves a callable object, but no function: so its state contains numbers only, and fits a JSON checkpoint.
    return LambdaLR(optimizer, lambda step: schedule(step))  # noqa: PLW0108
