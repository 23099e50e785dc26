"""Draw a metric as a chart: SVG paths that stretch to any width, ticks in percent, and points for the readout."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith_report.curves import Metric, Series, mean_window, smooth, thin
from tunesmith_report.formatting import number, short

WIDTH, HEIGHT = 1000, 400  # SVG units; the page stretches both
LOG_FROM = 20.0  # ratio of the highest and the lowest value from which a logarithmic axis is available
TITLES = {
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens per second",
    "speed/mfu": "MFU",
    "speed/data_wait": "share of waiting for data",
    "speed/gradient_exchange": "share of exchanging gradients",
}


@dataclass
class Plot:
    """A drawing of a chart with a linear or logarithmic axis. Ticks are (percent from the bottom, label)."""

    kind: str
    ticks: list[tuple[float, str]]
    grid: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    """(CSS class, SVG path) of each line, in drawing order."""


@dataclass
class Chart:
    """The drawings of a metric, its points for the readout, and its description in words."""

    name: str
    title: str
    plots: list[Plot]
    ticks: list[tuple[float, str]]
    points: dict[str, Any]
    latest: list[tuple[str, str, str]]
    """(CSS class, label, last value) of each series."""
    summary: str
    averaged: bool = False


def chart(
    metric: Metric,
    span: tuple[int, int],
    limit: int,
    ticks: int,
    best: tuple[int, float] | None = None,
    ranges: Sequence[tuple[str, int, int]] = (),
) -> Chart:
    """Draw a metric over the steps in `span`, with about `limit` points per series and about `ticks` step labels.

    best: step and value of the best evaluation, which is marked. ranges: (CSS class, first, last) of steps to shade.
    """
    candidates = (("train", "training", metric.train), ("held", "held out", metric.held))
    named = [(kind, label, series) for kind, label, series in candidates if series]
    values = [value for _, _, series in named for value in series.values]
    thinned = {kind: thin(series.steps, series.values, limit) for kind, _, series in named}
    lines = [(kind, series, *thinned[kind]) for kind, _, series in named]
    window = mean_window(metric.train.values)
    if window:
        mean = thin(metric.train.steps, smooth(metric.train.values, window), limit)
        lines = [("raw", *lines[0][1:]), ("train", metric.train, *mean), *lines[1:]]
    if best:
        lines.append(("best", Series([best[0]], [best[1]]), [best[0]], [best[1]]))
    edges = band(metric, window, limit) if metric.spread else []
    shown = named + ([("spread", "±", metric.spread)] if metric.spread and edges else [])
    thinned |= {kind: thin(series.steps, series.values, limit) for kind, _, series in shown if kind == "spread"}
    scales = [linear([*values, *(value for edge in edges for value in edge[1:])])] if values else []
    if values and not edges and min(values) > 0 and max(values) / min(values) >= LOG_FROM:
        scales.append(logarithmic(values))
    return Chart(
        metric.name,
        title_of(metric),
        [plot(scale, lines, span, edges, ranges) for scale in scales],
        [(100 * x_of(tick, span) / WIDTH, step_label(tick)) for tick in step_ticks(*span, ticks)],
        {"span": list(span), "series": [readout(kind, label, *thinned[kind]) for kind, label, _ in shown]},
        [(kind, label, number(series.values[-1]) if series.values else "not finite") for kind, label, series in shown]
        + ([("best", f"best, at step {best[0]:,}", number(best[1]))] if best else []),
        "; ".join(describe(label, series) for _, label, series in named),
        bool(window),
    )


def title_of(metric: Metric) -> str:
    if metric.spread and metric.name.endswith("/mean"):
        return metric.name.split("/", 1)[1].removesuffix("/mean")
    return TITLES.get(metric.name) or metric.name.partition("/")[2] or metric.name


def band(metric: Metric, window: int, limit: int) -> list[tuple[int, float, float]]:
    """Return (step, mean minus spread, mean plus spread) of about `limit` steps, averaged as the mean is."""
    assert metric.spread is not None
    spread = dict(zip(metric.spread.steps, metric.spread.values, strict=True))
    pairs = [(s, v, spread[s]) for s, v in zip(metric.train.steps, metric.train.values, strict=True) if s in spread]
    if not pairs:
        return []
    steps, means, spreads = zip(*pairs, strict=True)
    if window:
        means, spreads = tuple(smooth(means, window)), tuple(smooth(spreads, window))
    width = dict(zip(steps, spreads, strict=True))
    return [(s, value - width[s], value + width[s]) for s, value in zip(*thin(steps, means, limit), strict=True)]


def overlay(title: str, runs: Sequence[tuple[str, str, Series]], limit: int, ticks: int) -> Chart:
    """Draw the same metric of several runs over each other: (CSS class, name, series) of each; noisy ones averaged."""
    shown = [run for run in runs if run[2].values]
    steps = [step for _, _, series in shown for step in (series.steps[0], series.steps[-1])]
    span = (min(steps), max(steps))
    averages = [smooth(s.values, window) if (window := mean_window(s.values)) else s.values for _, _, s in shown]
    lines = [
        (kind, series, *thin(series.steps, values, limit))
        for (kind, _, series), values in zip(shown, averages, strict=True)
    ]
    values = [value for average in averages for value in average]
    scale = linear(values)
    return Chart(
        title,
        title,
        [plot(scale, lines, span)],
        [(100 * x_of(tick, span) / WIDTH, step_label(tick)) for tick in step_ticks(*span, ticks)],
        {
            "span": list(span),
            "series": [readout(line[0], run[1], *line[2:]) for line, run in zip(lines, shown, strict=True)],
        },
        [(kind, label, number(series.values[-1])) for kind, label, series in shown],
        "; ".join(describe(label, series) for _, label, series in shown),
    )


def step_label(step: int) -> str:
    return f"{step:,}" if abs(step) < 10**6 else short(step)


def readout(kind: str, label: str, steps: list[int], values: list[float]) -> dict[str, Any]:
    """Return the points of a series for the readout, with five significant digits."""
    return {"kind": kind, "label": label, "steps": steps, "values": [float(f"{value:.5g}") for value in values]}


def describe(label: str, series: Series) -> str:
    """Describe a series in words, for screen readers."""
    if not series.values:
        return f"{label}: never finite"
    first, last = (f"{number(series.values[i])} at step {series.steps[i]:,}" for i in (0, -1))
    return f"{label}: from {first} to {last}, lowest {number(min(series.values))}, highest {number(max(series.values))}"


# Scales


@dataclass
class Scale:
    """A vertical axis: the position of a value, from 0 at the bottom to 1 at the top, and its ticks."""

    kind: str
    position: Callable[[float], float]
    ticks: list[float]


def linear(values: Sequence[float]) -> Scale:
    """Return a linear axis that starts at 0 if the values come near it, otherwise slightly below the lowest value."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    bottom = 0.0 if 0 <= low <= 0.4 * high or low == high == 0 else low - room
    top = high + room
    ticks = list(round_numbers(bottom, top, 5))
    return Scale("linear", lambda value: (value - bottom) / (top - bottom), ticks)


def logarithmic(values: Sequence[float]) -> Scale:
    low, high = math.log10(min(values)), math.log10(max(values))
    room = 0.05 * (high - low)
    bottom, top = low - room, high + room
    parts = (1, 2, 5) if top - bottom < 2 else (1, 3) if top - bottom < 3.5 else (1,)
    every = max(1, round((top - bottom) / 5))
    powers = range(math.floor(bottom), math.ceil(top) + 1)
    ticks = [part * 10.0**power for power in powers if power % every == 0 for part in parts]
    visible = [tick for tick in ticks if bottom <= math.log10(tick) <= top]
    return Scale("log", lambda value: (math.log10(value) - bottom) / (top - bottom), visible)


def round_numbers(low: float, high: float, number: int) -> Iterator[float]:
    """Yield about `number` evenly spaced round numbers between `low` and `high`."""
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(part * power for part in (1, 2, 2.5, 5, 10) if part * power >= rough * 0.999)
    for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield index * step


def step_ticks(first: int, last: int, number: int) -> list[int]:
    ticks = sorted({round(tick) for tick in round_numbers(first, last, number)}) if last > first else [first]
    return [tick for tick in ticks if first <= tick <= last]


def x_of(step: float, span: tuple[int, int]) -> float:
    first, last = span
    return WIDTH * (step - first) / (last - first) if last > first else WIDTH / 2


# Lines


def plot(
    scale: Scale,
    lines: Sequence[tuple[str, Series, list[int], list[float]]],
    span: tuple[int, int],
    edges: Sequence[tuple[int, float, float]] = (),
    ranges: Sequence[tuple[str, int, int]] = (),
) -> Plot:
    ticks = [(100 * scale.position(tick), short(tick)) for tick in scale.ticks]
    grid = "".join(f"M0 {HEIGHT * (1 - percent / 100):.1f}H{WIDTH}" for percent, _ in ticks)
    result = Plot(scale.kind, ticks, grid)
    for kind, first, last in ranges:
        left, right = (min(WIDTH, max(0.0, x_of(step, span))) for step in (first, last))
        result.lines.append((f"shade {kind}", f"M{left:.1f} 0H{max(right, left + 2):.1f}V{HEIGHT}H{left:.1f}Z"))
    if edges:
        above = [(x_of(s, span), HEIGHT * (1 - scale.position(high))) for s, _, high in edges]
        below = [(x_of(s, span), HEIGHT * (1 - scale.position(low))) for s, low, _ in reversed(edges)]
        result.lines.append(("band", f"{path([*above, *below], set())}Z"))
    for kind, series, steps, values in lines:
        points = [(x_of(s, span), HEIGHT * (1 - scale.position(v))) for s, v in zip(steps, values, strict=True)]
        breaks = {i for i in range(1, len(steps)) if has_missing(series.missing, steps[i - 1], steps[i])}
        result.lines.append((f"line {kind}", path(points, breaks)))
        if kind in ("held", "best") or len(points) == 1:
            result.lines.append((f"dots {kind}", "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)))
        if kind != "raw" and series.missing:
            shown, _ = thin(series.missing, [0.0] * len(series.missing), 200)
            result.lines.append(("missing", "".join(f"M{x_of(s, span):.1f} {HEIGHT}v-24" for s in shown)))
    return result


def has_missing(missing: Sequence[int], first: int, last: int) -> bool:
    """Return True if the metric was not finite at a step between `first` and `last`."""
    place = bisect_left(missing, first)
    return place < len(missing) and missing[place] <= last


def path(points: Sequence[tuple[float, float]], breaks: set[int]) -> str:
    return "".join(f"{'M' if i == 0 or i in breaks else 'L'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
