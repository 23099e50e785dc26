"""Measure a metric over several logged steps, so that no rule depends on a single noisy one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tunesmith_diagnosis.history import Series

Statistic = Literal["median", "first", "rise", "distance", "not finite"]
Side = Literal["above", "below"]
BASES = {
    "start": "its median at the start",
    "before": "its median before that",
    "lowest": "its lowest value",
    "ln_vocabulary": "the loss of random predictions, ln V for V tokens",
    "max_grad_norm": "max_grad_norm",
    "max_new_tokens": "the longest allowed completion",
}
"""Divisors of a median, by name. The last three are numbers of the run."""


@dataclass(frozen=True)
class Measure:
    """A number about a metric.

    Args:
        metric: the name of the metric; `*` stands for any text.
        statistic: "median" of the last values; "first", the lowest of the first ones, measured once; "rise", the mean
            of the last minus that of the first values, in standard errors; "distance" of the mean from `reference`, in
            standard errors; "not finite", the number of such values among the last.
        window: the number of logged values.
        of: what the median is divided by, a key of BASES; with "lowest", the lowest value of the window is divided.
        start: values at the start that "start" is the median of; as many as the window by default.
    """

    metric: str
    statistic: Statistic = "median"
    window: int = 10
    of: str = ""
    reference: float = 0.0
    start: int | None = None

    def value(self, series: Series, numbers: Mapping[str, float | None]) -> float | None:
        """Return the number, or None if it is not known (yet). numbers: those of the run, by the names in BASES."""
        if self.statistic == "rise":
            return series.rise(self.window)
        if self.statistic == "distance":
            return series.distance(self.window, self.reference)
        if self.statistic == "not finite":
            return series.not_finite(self.window)
        if series.count < self.window or (self.statistic == "first" and series.count > self.window):
            return None
        value = (min if self.takes_lowest else median)(series.window(self.window))
        if not self.of:
            return value
        base = self._base(series, numbers)
        return None if base is None or base <= 0 else value / base

    @property
    def takes_lowest(self) -> bool:
        """True if the lowest value of the window is measured, and not the median.

        A series that still falls is at its lowest value. A run that diverges at once has begun with its lowest one.
        """
        return self.of == "lowest" or self.statistic == "first"

    def _base(self, series: Series, numbers: Mapping[str, float | None]) -> float | None:
        if self.of == "start":
            start = self.start or self.window
            return series.start(start) if series.count >= start + self.window else None
        if self.of == "before":
            return series.before(self.window)
        return series.lowest if self.of == "lowest" else numbers.get(self.of)

    def describe(self) -> str:
        """Return the measure in words, for the page about the rules."""
        metric, number = f"`{self.metric}`", self.window
        if self.statistic == "rise":
            return f"rise of {metric}: mean of the last {number} minus that of the first {number}, in standard errors"
        if self.statistic == "distance":
            minus = f" minus {self.reference:g}" if self.reference else ""
            return f"mean of the last {number} {metric}{minus}, in standard errors"
        if self.statistic == "not finite":
            return f"values of {metric} that are not finite, of the last {number}"
        which = "first" if self.statistic == "first" else "last"
        text = f"{'lowest' if self.takes_lowest else 'median'} of the {which} {number} {metric}"
        return f"{text} / {BASES[self.of]}" if self.of else text


@dataclass(frozen=True)
class Condition:
    """A measure that has to be above or below a limit."""

    measure: Measure
    side: Side
    limit: float

    def holds(self, series: Series | None, numbers: Mapping[str, float | None]) -> bool:
        value = None if series is None else self.measure.value(series, numbers)
        return value is not None and exceeds(value, self.side, self.limit)

    def describe(self) -> str:
        return f"{self.measure.describe()} is {self.side} {self.limit:g}"


def exceeds(value: float, side: Side, limit: float) -> bool:
    return value > limit if side == "above" else value < limit
