"""Time competitors in turn, and compute the ratio of their CPU seconds with a confidence interval."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence

quick = False
"""Set by `run.py --quick`: at most two rounds, for a rough figure."""


def in_turn(competitors: Mapping[str, Callable[[], float]], rounds: int, warm: bool = True) -> dict[str, list[float]]:
    """Time each competitor once per round, and return the seconds of each by round.

    The order of the competitors rotates from round to round. With `warm`, an additional first round does not count.
    """
    names = list(competitors)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    rounds = min(rounds, 2) if quick else rounds
    for index in range(-int(warm), rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            value = competitors[name]()
            if index >= 0:
                seconds[name].append(value)
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the median over rounds of the ratio ours / theirs, and its 95 % bootstrap interval (median, low, high)."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[1949]


def compare(name: str, ours: Callable[[], float], theirs: Callable[[], float], pairs: int, bar: str) -> float:
    """Time two programs in turn. Print and return the median ratio ours / theirs, with its 95 % bootstrap interval."""
    seconds = in_turn({"ours": ours, "theirs": theirs}, pairs)
    median, low, high = ratio(seconds["ours"], seconds["theirs"])
    times = f"{statistics.median(seconds['ours']):.3f} s against {statistics.median(seconds['theirs']):.3f} s"
    number = len(seconds["ours"])
    print(f"{name}: {median:.3f} [{low:.3f}, {high:.3f}] ({times}, {number} pairs; bar {bar})", flush=True)
    return median
