"""The schedules: the learning rate of each step as a share of its peak. This file imports no torch.

A step is counted from 0. After a warm-up of w steps, progress p goes from 0 at step w to 1 at `total`, which is after
the last step, so the last step has a rate above the end of its schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Schedule:
    """A schedule of a run.

    Args:
        shape: the value of lr_scheduler.
        total: optimizer steps of the run.
        warmup: steps of the warm-up.
        floor: the end of the decay, as a share of the peak.
        constant_from: the share of all steps after which a cosine stays at its end; 0 for none.
        quadratic: True for a warm-up that rises with the square of the step.
        options: lr_scheduler_kwargs.
        restarts: steps between restarts, steps of the warm-up after each, and steps of the anneal before it.
    """

    shape: str
    total: int
    warmup: int = 0
    floor: float = 0.0
    constant_from: float = 0.0
    quadratic: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    restarts: tuple[int, int, int] | None = None

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step as a share of its peak.

        In a warm-up of w steps, step s has the factor (s + 1) / (w + 1), so no step has a rate of 0, and step w is the
        first at the peak.
        """
        if step < self.warmup and self.shape != "one_cycle":
            rise = (step + 1) / (self.warmup + 1)
            value = rise * rise if self.quadratic else rise
        else:
            value = SHAPES[self.shape](self, step)
        return value * self.jag(step)

    def jag(self, step: int) -> float:
        """Return the factor of restarts: it falls to `LOW` before each restart, and rises after it.

        The learning rates of ReLoRA (arXiv 2307.05695) have this form.
        """
        if self.restarts is None:
            return 1.0
        every, warmup, anneal = self.restarts
        since = step % every
        rise = (since + 1) / (warmup + 1) if step >= every and since < warmup else 1.0
        fall = (every - since) / (anneal + 1) if since >= every - anneal else 1.0
        return LOW + (1 - LOW) * min(rise, fall)

    def progress(self, step: int, end: float | None = None) -> float:
        return min(1.0, (step - self.warmup) / max(1, (self.total if end is None else end) - self.warmup))

    def option(self, name: str) -> Any:
        return self.options.get(name, OPTIONS[self.shape][name])


LOW = 0.001
"""The learning rate at a restart, as a share of what it would be without."""


def _constant(schedule: Schedule, step: int) -> float:
    return 1.0


def _linear(schedule: Schedule, step: int) -> float:
    return 1 - schedule.progress(step)


def _cosine(schedule: Schedule, step: int) -> float:
    """Return floor + (1 - floor) (1 + cos 2 pi c p) / 2 with c = num_cycles, half a wave by default (1608.03983)."""
    end = int(schedule.total * schedule.constant_from) if schedule.constant_from else schedule.total
    wave = math.cos(2 * math.pi * schedule.option("num_cycles") * schedule.progress(step, end))
    return schedule.floor + (1 - schedule.floor) * max(0.0, 0.5 * (1 + wave))


def _restarts(schedule: Schedule, step: int) -> float:
    """Return a cosine that starts again num_cycles times in all."""
    progress = schedule.progress(step)
    if progress >= 1:
        return schedule.floor
    wave = math.cos(math.pi * (schedule.option("num_cycles") * progress % 1))
    return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + wave)


def _polynomial(schedule: Schedule, step: int) -> float:
    return schedule.floor + (1 - schedule.floor) * (1 - schedule.progress(step)) ** schedule.option("power")


def _inverse_sqrt(schedule: Schedule, step: int) -> float:
    """Return sqrt(t / (t + s)) for s steps after the warm-up; t is timescale, by default the warm-up or 10,000."""
    timescale = schedule.option("timescale") or schedule.warmup or 10_000
    return math.sqrt(timescale / (timescale + step - schedule.warmup))


def _rex(schedule: Schedule, step: int) -> float:
    """Return the reflected exponential z / (1 - b + b z) with z = 1 - p (arXiv 2107.04197, where b is 0.5)."""
    left, beta = 1 - schedule.progress(step), schedule.option("beta")
    return schedule.floor + (1 - schedule.floor) * left / (1 - beta + beta * left)


def _stable(schedule: Schedule, step: int) -> float:
    """Return the peak, and in the last num_decay_steps a decay to the floor (arXiv 2404.06395)."""
    decay = schedule.option("num_decay_steps") or max(1, schedule.total // 10)
    stable = schedule.option("num_stable_steps")
    begin = max(schedule.warmup, schedule.total - decay if stable is None else schedule.warmup + stable)
    progress = min(1.0, max(0.0, (step - begin) / decay))
    kind = schedule.option("decay_type")
    left = {"linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}.get(kind, 1 - progress**0.5)
    return schedule.floor + (1 - schedule.floor) * left


def _one_cycle(schedule: Schedule, step: int) -> float:
    """Return a half cosine up to the peak, and one down from it (arXiv 1708.07120), as torch's OneCycleLR does.

    The rate begins at 1 / div_factor and ends at 1 / (div_factor final_div_factor). A warm-up is the length of the
    rise; without one it takes pct_start of all steps.
    """
    low = 1 / schedule.option("div_factor")
    end = low / schedule.option("final_div_factor")
    last = max(1, schedule.total - 1)
    top = schedule.warmup or schedule.option("pct_start") * schedule.total - 1
    if step <= top:
        return _between(low, 1.0, step / top if top > 0 else 1.0)
    return _between(1.0, end, min(1.0, (step - top) / max(1e-9, last - top)))


def _between(begin: float, end: float, share: float) -> float:
    """Return the value on a half cosine from `begin` at 0 to `end` at 1."""
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * share))


SHAPES: dict[str, Callable[[Schedule, int], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "constant_with_warmup": _constant,
    "cosine_with_restarts": _restarts,
    "cosine_with_min_lr": _cosine,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "one_cycle": _one_cycle,
    "rex": _rex,
    "warmup_stable_decay": _stable,
    "wsd": _stable,
}
_WSD: dict[str, Any] = {"num_decay_steps": None, "num_stable_steps": None, "decay_type": "cosine", "min_lr_ratio": 0.0}
OPTIONS: dict[str, dict[str, Any]] = {
    "cosine": {"num_cycles": 0.5},
    "cosine_with_restarts": {"num_cycles": 1},
    "cosine_with_min_lr": {"num_cycles": 0.5, "min_lr": None, "min_lr_rate": 0.1},
    "polynomial": {"power": 1.0, "lr_end": 1e-7},
    "inverse_sqrt": {"timescale": None},
    "one_cycle": {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4},
    "rex": {"beta": 0.9},
    "warmup_stable_decay": _WSD,
    "wsd": _WSD,
}
"""lr_scheduler -> the names in lr_scheduler_kwargs, with their defaults; None depends on the run."""
WHOLE = {"timescale", "num_decay_steps", "num_stable_steps"}
"""Options that are whole numbers of steps; cycles of cosine_with_restarts are whole too."""
DECAYS = ("cosine", "linear", "1-sqrt")
FLOORS = ("cosine", "cosine_with_min_lr", "cosine_with_restarts", "rex", "warmup_stable_decay", "wsd")
"""Schedules that end at cosine_min_lr_ratio."""


def warmup_length(total: int, steps: float | None, ratio: float | None) -> int:
    """Return the number of warm-up steps out of `total` optimizer steps.

    It is `steps`, or the share of all steps if that is below 1, or else the share `ratio`, or else 3% rounded down, but
    at most 100. Shares are rounded up.
    """
    if steps is not None and (steps >= 1 or steps == 0):
        return int(steps)
    ratio = steps if steps is not None else ratio
    if ratio is not None:
        return math.ceil(round(ratio * total, 6))  # 0.07 * 100 is 7.000000000000001, which must give 7
    return min(total * 3 // 100, 100)


def floor_of(shape: str, rate: float, ratio: float | None, options: Mapping[str, Any]) -> float:
    """Return the end of a decay as a share of the peak, from cosine_min_lr_ratio or the options of a schedule.

    `ratio` is None if cosine_min_lr_ratio is not set.
    """
    known = {**OPTIONS.get(shape, {}), **options}
    for name in ("lr_end", "min_lr"):
        if known.get(name) is not None:
            return float(known[name]) / rate
    if ratio is not None:
        return ratio
    return float(known.get("min_lr_rate") or known.get("min_lr_ratio") or 0.0)
