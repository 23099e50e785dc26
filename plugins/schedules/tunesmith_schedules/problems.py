"""Find settings of schedules that are wrong or have no effect, and build the schedule. This file imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunesmith.spelling import suggestion
from tunesmith_schedules.shapes import DECAYS, FLOORS, OPTIONS, WHOLE, Schedule, floor_of, warmup_length

if TYPE_CHECKING:
    from tunesmith_schedules import ScheduleSettings

Problem = tuple[str, str, str]
"""The key, the message, and what to write."""
RESTART_WARMUP, RESTART_ANNEAL = 10, 1


def schedule_of(shape: str, settings: ScheduleSettings, rate: float, total: int) -> Schedule:
    """Return the schedule of a run with a number of steps, whose learning rate is `rate` at the peak."""
    explicit = settings.warmup_steps is not None or settings.warmup_ratio is not None
    warmup = warmup_length(total, settings.warmup_steps, settings.warmup_ratio)
    ratio_is_set = "cosine_min_lr_ratio" in settings.model_fields_set
    restarts = None
    if settings.jagged_restart_steps is not None:
        own = (settings.jagged_restart_warmup_steps, settings.jagged_restart_anneal_steps)
        rise, fall = (d if v is None else v for v, d in zip(own, (RESTART_WARMUP, RESTART_ANNEAL), strict=True))
        restarts = (settings.jagged_restart_steps, rise, fall)
    return Schedule(
        shape,
        total,
        warmup if explicit or shape != "one_cycle" else 0,
        floor_of(shape, rate, settings.cosine_min_lr_ratio if ratio_is_set else None, settings.lr_scheduler_kwargs),
        settings.cosine_constant_lr_ratio,
        settings.lr_quadratic_warmup,
        settings.lr_scheduler_kwargs,
        restarts,
    )


def problems(shape: str, settings: ScheduleSettings, rate: float, max_steps: int | None) -> Iterator[Problem]:
    """Yield the problems of the settings for a value of lr_scheduler."""
    steps = settings.warmup_steps
    if settings.warmup_ratio is not None and steps is not None:
        yield "warmup_ratio", "and warmup_steps are both set", "keep one of them"
    if max_steps is not None and (steps or 0) > max_steps:
        yield (
            "warmup_steps",
            f"is longer than training, which ends at max_steps: {max_steps}",
            f"write at most {max_steps}",
        )
    if settings.lr_quadratic_warmup and shape == "one_cycle":
        yield "lr_quadratic_warmup", "has no effect with lr_scheduler: one_cycle, which rises as a cosine", "drop it"
    yield from _ends(shape, settings)
    yield from _jagged(settings)
    for name, value in settings.lr_scheduler_kwargs.items():
        yield from _option(shape, name, value, rate)


def _ends(shape: str, settings: ScheduleSettings) -> Iterator[Problem]:
    ratio = settings.cosine_min_lr_ratio
    if "cosine_min_lr_ratio" in settings.model_fields_set and shape not in FLOORS:
        help = "drop it, or write lr_scheduler: cosine"
        yield "cosine_min_lr_ratio", f"has no effect with lr_scheduler: {shape}", help
    for name in ("min_lr", "min_lr_rate", "min_lr_ratio"):
        if ratio and settings.lr_scheduler_kwargs.get(name) is not None:
            yield "cosine_min_lr_ratio", f"and lr_scheduler_kwargs.{name} both set the end", "keep one of them"
    if settings.cosine_constant_lr_ratio and shape not in ("cosine", "cosine_with_min_lr"):
        help = "drop it, or write lr_scheduler: cosine"
        yield "cosine_constant_lr_ratio", f"has no effect with lr_scheduler: {shape}", help
    elif settings.cosine_constant_lr_ratio and shape == "cosine" and not ratio:
        help = "write cosine_min_lr_ratio: 0.1, or another end"
        yield "cosine_constant_lr_ratio", "leaves the last steps with a learning rate of 0", help


def _jagged(settings: ScheduleSettings) -> Iterator[Problem]:
    every = settings.jagged_restart_steps
    rise, fall = settings.jagged_restart_warmup_steps, settings.jagged_restart_anneal_steps
    for key, value in (("jagged_restart_warmup_steps", rise), ("jagged_restart_anneal_steps", fall)):
        if every is None and value is not None:
            yield key, "has no effect without jagged_restart_steps", "write jagged_restart_steps: ..., or drop it"
    length = (RESTART_WARMUP if rise is None else rise) + (RESTART_ANNEAL if fall is None else fall)
    if every is not None and length >= every:
        help = "write more than the steps of jagged_restart_warmup_steps and jagged_restart_anneal_steps together"
        yield "jagged_restart_steps", f"leaves no step at the full rate: rise and fall take {length} steps", help


def _option(shape: str, name: str, value: Any, rate: float) -> Iterator[Problem]:
    """Yield the problem of an entry of lr_scheduler_kwargs, if it has one."""
    key, known = "lr_scheduler_kwargs", OPTIONS.get(shape, {})
    if name not in known:
        help = suggestion(name, known, "the README of tunesmith-schedules") if known else "drop it"
        yield key, f"has an unknown option for lr_scheduler: {shape}: {name}", help
    elif value is None and known[name] is None:
        return
    elif name == "decay_type":
        if value not in DECAYS:
            yield key, f"has decay_type: {value!r}", f"write one of {', '.join(DECAYS)}"
    elif isinstance(value, str | None):
        yield key, f"has {name}: {value!r}, which is not a number", "write a number"
    elif name in WHOLE or (name == "num_cycles" and shape == "cosine_with_restarts"):
        least = 0 if name == "num_stable_steps" else 1
        if value != int(value) or value < least:
            help = f"write a whole number, {least} or more"
            yield key, f"has {name}: {value!r}, which is not a whole number from {least} on", help
    elif name in ("min_lr", "lr_end"):
        if not 0 <= value <= rate:
            yield key, f"has {name}: {value!r}, which is not between 0 and learning_rate: {rate}", "write a lower one"
    elif name in ("min_lr_rate", "min_lr_ratio", "pct_start", "beta"):
        if not 0 <= value <= 1 or (name == "beta" and value == 1):
            yield key, f"has {name}: {value!r}, which is not a share", "write a number from 0 to 1"
    elif value <= 0:
        yield key, f"has {name}: {value!r}, which is not above 0", "write a number above 0"
