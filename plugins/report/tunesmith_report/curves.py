"""The metrics of a run as curves: which belong together, and fewer points that still show every peak."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from tunesmith_report.words import HUGE

LOSS = "loss"
HEALTH = ("grad_norm", "learning_rate", "tokens_per_second")
NO_CURVES = {"step", "epoch", "tokens"}
HELD_OUT = "eval_"
MOST = 48  # curves on the page
NOISY = 150, 4.0  # points from which a mean is drawn over a curve, if its ups and downs are so many times its range


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
    """A metric as trained on and as held out."""

    name: str
    train: Series = field(default_factory=Series)
    held: Series = field(default_factory=Series)


def metrics_of(lines: Iterable[dict[str, Any]]) -> dict[str, Metric]:
    """Name -> metric, in the order of their first lines; "eval_loss" is what "loss" is on held-out examples."""
    found: dict[str, Series] = {}
    for line in lines:
        step = line["step"]
        for name, value in line.items():
            series = found.get(name)
            if series is None:
                series = found[name] = Series()
            if (type(value) is float or type(value) is int) and -HUGE < value < HUGE:
                series.steps.append(step)
                series.values.append(float(value))
            elif value is None or type(value) is float:  # JSON has no NaN: it is null
                series.missing.append(step)
    metrics: dict[str, Metric] = {}
    for name, series in found.items():
        held = name.startswith(HELD_OUT)
        short = name.removeprefix(HELD_OUT)
        if series and short not in NO_CURVES:
            metric = metrics.setdefault(short, Metric(short))
            setattr(metric, "held" if held else "train", series)
    return metrics


def groups(metrics: dict[str, Metric]) -> tuple[list[tuple[str, list[Metric]]], int]:
    """(heading, metrics) without the loss, and how many are left out: the step's health first, then what the method
    and others log, by what stands before a "/"."""
    found: dict[str, list[Metric]] = {"": [metrics[name] for name in HEALTH if name in metrics]}
    rest = [metric for name, metric in metrics.items() if name not in (LOSS, *HEALTH)]
    alone: list[Metric] = []
    for metric in rest[:MOST]:
        prefix, slash, _ = metric.name.partition("/")
        (found.setdefault(prefix, []) if slash else alone).append(metric)
    headed = [*found.items(), ("other metrics", alone)]
    return [(heading, members) for heading, members in headed if members], len(rest[MOST:])


def thin(steps: Sequence[int], values: Sequence[float], most: int) -> tuple[list[int], list[float]]:
    """At most about `most` points: the first, the last, and of each stretch between them the lowest and the highest."""
    number = len(steps)
    if number <= most:
        return list(steps), list(values)
    stretches = max(1, most // 2)
    kept = {0, number - 1}
    for index in range(stretches):
        places = range(index * number // stretches, (index + 1) * number // stretches)
        kept |= {min(places, key=values.__getitem__), max(places, key=values.__getitem__)}
    chosen = sorted(kept)
    return [steps[i] for i in chosen], [values[i] for i in chosen]


def mean_window(values: Sequence[float]) -> int:
    """How many points the mean over a curve takes together, about a fortieth of them; 0 where it needs none."""
    points, times = NOISY
    if len(values) < points:
        return 0
    up_and_down = sum(abs(after - before) for before, after in pairwise(values))
    return 2 * (len(values) // 80) + 1 if up_and_down > times * (max(values) - min(values)) else 0


def smooth(values: Sequence[float], window: int) -> list[float]:
    """The mean of the `window` points around each, of fewer at the ends."""
    sums = [0.0, *accumulate(values)]
    half, number = window // 2, len(values)
    edges = ((max(0, i - half), min(number, i + half + 1)) for i in range(number))
    return [(sums[end] - sums[start]) / (end - start) for start, end in edges]
