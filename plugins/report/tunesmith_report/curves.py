"""Turn logged metrics into curves: group them, thin out their points, and smooth them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from tunesmith_report.formatting import HUGE

LOSS = "loss"
HEALTH = ("grad_norm", "learning_rate", "tokens_per_second")
NO_CURVES = {"step", "epoch", "tokens"}
HELD_OUT = "eval_"
MAX_CURVES = 48  # on the page, without the loss and HEALTH
NOISY_POINTS, NOISY_VARIATION = 16, 2.0
"""A mean is drawn over a curve with at least this many points and a total variation of more than this many times its
range."""


@dataclass
class Series:
    """The finite values of a metric with their steps, and the steps at which it was not finite."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.steps or self.missing)


@dataclass
class Metric:
    """A metric on the training examples and on the held-out examples."""

    name: str
    train: Series = field(default_factory=Series)
    held: Series = field(default_factory=Series)
    spread: Series | None = None
    """The standard deviation that belongs to a mean."""


def metrics_of(lines: Iterable[dict[str, Any]]) -> dict[str, Metric]:
    """Return a dictionary from name to metric, in the order of first appearance.

    A metric such as "eval_loss" is the held-out series of the metric "loss".
    """
    all_series: dict[str, Series] = {}
    for line in lines:
        step = line["step"]
        for name, value in line.items():
            series = all_series.get(name)
            if series is None:
                series = all_series[name] = Series()
            if (type(value) is float or type(value) is int) and -HUGE < value < HUGE:
                series.steps.append(step)
                series.values.append(float(value))
            elif value is None or type(value) is float:  # JSON has no NaN; it is logged as null
                series.missing.append(step)
    metrics: dict[str, Metric] = {}
    for name, series in all_series.items():
        held = name.startswith(HELD_OUT)
        short = name.removeprefix(HELD_OUT)
        if series and short not in NO_CURVES:
            metric = metrics.setdefault(short, Metric(short))
            setattr(metric, "held" if held else "train", series)
    return metrics


def groups(metrics: dict[str, Metric]) -> tuple[list[tuple[str, list[Metric]]], int]:
    """Group metrics except the loss under headings. Return the groups and the number of metrics left out.

    The metrics in HEALTH come first. Other metrics are grouped by the part of their name before a "/".
    """
    by_prefix: dict[str, list[Metric]] = {"": [metrics[name] for name in HEALTH if name in metrics]}
    rest = [metric for name, metric in metrics.items() if name not in (LOSS, *HEALTH)]
    ungrouped: list[Metric] = []
    for metric in rest[:MAX_CURVES]:
        prefix, slash, _ = metric.name.partition("/")
        (by_prefix.setdefault(prefix, []) if slash else ungrouped).append(metric)
    with_heading = [*by_prefix.items(), ("other metrics", ungrouped)]
    return [(heading, members) for heading, members in with_heading if members], len(rest[MAX_CURVES:])


def rewards(metrics: dict[str, Metric]) -> list[Metric]:
    """Return the rewards of an online method, which are the means that have a standard deviation, with their spread."""
    result = []
    for name, metric in metrics.items():
        spread = "reward_std" if name == "reward" else f"{name[:-4]}std" if name.endswith("/mean") else ""
        if name.startswith("reward") and spread in metrics:
            result.append(Metric(name, metric.train, metric.held, metrics[spread].train))
    return result


def thin(steps: Sequence[int], values: Sequence[float], limit: int) -> tuple[list[int], list[float]]:
    """Reduce a curve to about `limit` points: the first, the last, and the lowest and highest of each interval."""
    number = len(steps)
    if number <= limit:
        return list(steps), list(values)
    intervals = max(1, limit // 2)
    kept = {0, number - 1}
    for index in range(intervals):
        places = range(index * number // intervals, (index + 1) * number // intervals)
        kept |= {min(places, key=values.__getitem__), max(places, key=values.__getitem__)}
    chosen = sorted(kept)
    return [steps[i] for i in chosen], [values[i] for i in chosen]


def mean_window(values: Sequence[float]) -> int:
    """Return the number of points to average, a fortieth of them but five at least, or 0 if the curve is not noisy."""
    if len(values) < NOISY_POINTS:
        return 0
    variation = sum(abs(after - before) for before, after in pairwise(values))
    return 2 * max(2, len(values) // 80) + 1 if variation > NOISY_VARIATION * (max(values) - min(values)) else 0


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the moving average over `window` points centered at each point, over fewer at the ends."""
    sums = [0.0, *accumulate(values)]
    half, number = window // 2, len(values)
    edges = ((max(0, i - half), min(number, i + half + 1)) for i in range(number))
    return [(sums[end] - sums[start]) / (end - start) for start, end in edges]
