"""Keep what rules need of each metric: its first values, its latest values, and its lowest one."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

FIRST, LATEST = 20, 48
"""Values kept from the start and from the end of a series; no window of a rule is longer."""
BEFORE = 20
"""Values before a window that it is compared with."""
MOST = 99.0
"""Largest number of standard errors, for series without noise."""
OF_A_ROUND = ("reward", "rewards/", "frac_reward", "completions/", "rollout/")
"""Prefixes of metrics that an online method logs once for a round, and repeats in each of its steps."""
ROUND = "rollout/sequences"


@dataclass
class Series:
    """The values of a metric at logged steps. A value that is not finite is None.

    count: finite values so far. first: the first of them. latest: the last (step, value), also those not finite.
    """

    count: int = 0
    first: list[float] = field(default_factory=list)
    latest: deque[tuple[int, float | None]] = field(default_factory=lambda: deque(maxlen=LATEST))
    lowest: float = math.inf

    def add(self, step: int, value: float) -> None:
        finite = math.isfinite(value)
        self.latest.append((step, value if finite else None))
        if finite:
            self.count += 1
            self.lowest = min(self.lowest, value)
            if len(self.first) < FIRST:
                self.first.append(value)

    def window(self, size: int) -> list[float]:
        """Return the last finite values, fewer if there are not as many."""
        return [value for _, value in self.latest if value is not None][-size:]

    def first_step(self, size: int) -> int:
        """Return the step of the first value in the window."""
        steps = [step for step, value in self.latest if value is not None][-size:]
        return steps[0] if steps else self.latest[0][0]

    def start(self, size: int) -> float | None:
        """Return the median of the first values, or None if the window still overlaps them or they are gone."""
        return median(self.first[:size]) if len(self.first) >= size else None

    def before(self, size: int) -> float | None:
        """Return the median of the values before the window, or None if there are too few."""
        values = self.window(size + BEFORE)[:-size]
        return median(values) if len(values) >= BEFORE else None

    def rise(self, size: int) -> float | None:
        """Return how far the mean of the window is above that of the first values, in standard errors."""
        if self.count < 2 * size or len(self.first) < size:
            return None
        first, last = self.first[:size], self.window(size)
        return _errors(fmean(last) - fmean(first), (_variance(first) + _variance(last)) / size)

    def distance(self, size: int, reference: float) -> float | None:
        """Return how far the mean of the window is above a number, in standard errors."""
        last = self.window(size)
        return _errors(fmean(last) - reference, _variance(last) / size) if len(last) >= size else None

    def not_finite(self, size: int) -> int:
        return sum(value is None for _, value in list(self.latest)[-size:])

    def state_dict(self) -> dict[str, Any]:
        lowest = self.lowest if math.isfinite(self.lowest) else None
        return {
            "count": self.count,
            "first": self.first,
            "latest": [list(one) for one in self.latest],
            "lowest": lowest,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Series:
        latest = deque(((step, value) for step, value in state["latest"]), maxlen=LATEST)
        lowest = math.inf if state["lowest"] is None else state["lowest"]
        return cls(state["count"], list(state["first"]), latest, lowest)


def _variance(values: list[float]) -> float:
    """Return the sample variance. That of the standard library adds fractions, and takes 20 times as long."""
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _errors(difference: float, squared_error: float) -> float:
    if squared_error <= 0:
        return math.copysign(MOST, difference) if difference else 0.0
    return max(-MOST, min(MOST, difference / math.sqrt(squared_error)))


class History:
    """The series of all metrics that a rule reads."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self.sequences: float | None = None  # sampled so far, at the last record

    def add(self, step: int, metrics: Mapping[str, float]) -> list[str]:
        """Add the metrics of a step, and return the names of those that are new values.

        A round of several steps counts once, so that one unlucky round does not fill a window.
        """
        sequences = metrics.get(ROUND)
        again = sequences is not None and sequences == self.sequences
        self.sequences = sequences if sequences is not None else self.sequences
        new = [name for name in metrics if not (again and name.startswith(OF_A_ROUND))]
        for name in new:
            if name not in self.series:
                self.series[name] = Series()
            self.series[name].add(step, metrics[name])
        return new

    def state_dict(self) -> dict[str, Any]:
        series = {name: one.state_dict() for name, one in self.series.items()}
        return {"series": series, "sequences": self.sequences}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.series = {name: Series.of(one) for name, one in state["series"].items()}
        self.sequences = state["sequences"]
