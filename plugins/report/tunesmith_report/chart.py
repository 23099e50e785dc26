"""A metric as a chart: lines of an SVG that stretches to any width, ticks in percent of it, and its points."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith_report.curves import Metric, Series, mean_window, smooth, thin
from tunesmith_report.words import number, short

WIDTH, HEIGHT = 1000, 400  # of the SVG's own units; the page stretches both
LOG_FROM = 20.0  # highest over lowest value from which a logarithmic axis is offered
TITLES = {"grad_norm": "gradient norm", "learning_rate": "learning rate", "tokens_per_second": "tokens per second"}


@dataclass
class Plot:
    """One drawing of a chart, linear or logarithmic. Ticks are (percent from the bottom, label)."""

    kind: str
    ticks: list[tuple[float, str]]
    grid: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    """(class, path) of each line, drawn in this order."""


@dataclass
class Chart:
    """A metric's drawings, its points for the read-out, and what is said about it in words."""

    name: str
    title: str
    plots: list[Plot]
    ticks: list[tuple[float, str]]
    points: dict[str, Any]
    latest: list[tuple[str, str, str]]
    """(class, label, last value) of each series."""
    summary: str
    averaged: bool = False


def chart(metric: Metric, span: tuple[int, int], most: int, ticks: int) -> Chart:
    """Draw a metric over the steps of `span`, each series with about `most` points; about `ticks` steps are named."""
    both = (("train", "training", metric.train), ("held", "held out", metric.held))
    series = [(kind, label, one) for kind, label, one in both if one]
    values = [value for _, _, one in series for value in one.values]
    thinned = {kind: thin(one.steps, one.values, most) for kind, _, one in series}
    lines = [(kind, one, *thinned[kind]) for kind, _, one in series]
    window = mean_window(metric.train.values)
    if window:
        mean = thin(metric.train.steps, smooth(metric.train.values, window), most)
        lines = [("raw", *lines[0][1:]), ("train", metric.train, *mean), *lines[1:]]
    scales = [linear(values)] if values else []
    if values and min(values) > 0 and max(values) / min(values) >= LOG_FROM:
        scales.append(logarithmic(values))
    return Chart(
        metric.name,
        TITLES.get(metric.name) or metric.name.partition("/")[2] or metric.name,
        [plot(scale, lines, span) for scale in scales],
        [(100 * across(tick, span) / WIDTH, named(tick)) for tick in whole_ticks(*span, ticks)],
        {"span": list(span), "series": [points(kind, label, *thinned[kind]) for kind, label, _ in series]},
        [(kind, label, number(one.values[-1]) if one.values else "not finite") for kind, label, one in series],
        "; ".join(said(label, one) for _, label, one in series),
        bool(window),
    )


def named(step: int) -> str:
    return f"{step:,}" if abs(step) < 10**6 else short(step)


def points(kind: str, label: str, steps: list[int], values: list[float]) -> dict[str, Any]:
    """What the read-out says of a series: its values with five digits."""
    return {"kind": kind, "label": label, "steps": steps, "values": [float(f"{value:.5g}") for value in values]}


def said(label: str, series: Series) -> str:
    """A series in words, for those who do not see it."""
    if not series.values:
        return f"{label}: never finite"
    first, last = (f"{number(series.values[i])} at step {series.steps[i]:,}" for i in (0, -1))
    return f"{label}: from {first} to {last}, lowest {number(min(series.values))}, highest {number(max(series.values))}"


# scales


@dataclass
class Scale:
    """A vertical axis: where a value stands, from 0 at the bottom to 1, and its ticks."""

    kind: str
    place: Callable[[float], float]
    ticks: list[float]


def linear(values: Sequence[float]) -> Scale:
    """From 0 where the values come near it, else from a little below the lowest."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    bottom = 0.0 if 0 <= low <= 0.4 * high or low == high == 0 else low - room
    top = high + room
    ticks = list(nice(bottom, top, 5))
    return Scale("linear", lambda value: (value - bottom) / (top - bottom), ticks)


def logarithmic(values: Sequence[float]) -> Scale:
    low, high = math.log10(min(values)), math.log10(max(values))
    room = 0.05 * (high - low)
    bottom, top = low - room, high + room
    parts = (1, 2, 5) if top - bottom < 2 else (1, 3) if top - bottom < 3.5 else (1,)
    every = max(1, round((top - bottom) / 5))
    powers = range(math.floor(bottom), math.ceil(top) + 1)
    ticks = [part * 10.0**power for power in powers if power % every == 0 for part in parts]
    shown = [tick for tick in ticks if bottom <= math.log10(tick) <= top]
    return Scale("log", lambda value: (math.log10(value) - bottom) / (top - bottom), shown)


def nice(low: float, high: float, about: int) -> Iterator[float]:
    """About so many round numbers between two others."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(part * power for part in (1, 2, 2.5, 5, 10) if part * power >= rough * 0.999)
    for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield index * step


def whole_ticks(first: int, last: int, about: int) -> list[int]:
    ticks = sorted({round(tick) for tick in nice(first, last, about)}) if last > first else [first]
    return [tick for tick in ticks if first <= tick <= last]


def across(step: float, span: tuple[int, int]) -> float:
    first, last = span
    return WIDTH * (step - first) / (last - first) if last > first else WIDTH / 2


# lines


def plot(scale: Scale, lines: Sequence[tuple[str, Series, list[int], list[float]]], span: tuple[int, int]) -> Plot:
    ticks = [(100 * scale.place(tick), short(tick)) for tick in scale.ticks]
    grid = "".join(f"M0 {HEIGHT * (1 - percent / 100):.1f}H{WIDTH}" for percent, _ in ticks)
    made = Plot(scale.kind, ticks, grid)
    for kind, series, steps, values in lines:
        points = [(across(s, span), HEIGHT * (1 - scale.place(v))) for s, v in zip(steps, values, strict=True)]
        breaks = {i for i in range(1, len(steps)) if between(series.missing, steps[i - 1], steps[i])}
        made.lines.append((f"line {kind}", path(points, breaks)))
        if kind == "held" or len(points) == 1:
            made.lines.append((f"dots {kind}", "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)))
        if kind != "raw" and series.missing:
            few, _ = thin(series.missing, [0.0] * len(series.missing), 200)
            made.lines.append(("missing", "".join(f"M{across(s, span):.1f} {HEIGHT}v-24" for s in few)))
    return made


def between(missing: Sequence[int], first: int, last: int) -> bool:
    """Whether one of the steps at which a metric was not finite lies between two others."""
    place = bisect_left(missing, first)
    return place < len(missing) and missing[place] <= last


def path(points: Sequence[tuple[float, float]], breaks: set[int]) -> str:
    return "".join(f"{'M' if i == 0 or i in breaks else 'L'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
