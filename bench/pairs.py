"""Interleaved pairs and their ratio, with an interval."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable


def compare(name: str, ours: Callable[[], float], theirs: Callable[[], float], pairs: int, bar: str) -> float:
    """Time two things in turn; print the median ratio ours / theirs and its 95 % bootstrap interval."""
    ratios, seconds = [], ([], [])
    for index in range(pairs + 1):
        order = (ours, theirs) if index % 2 else (theirs, ours)
        first, second = order[0](), order[1]()
        mine, other = (first, second) if index % 2 else (second, first)
        if index:  # the first pair warms up
            ratios.append(mine / other)
            seconds[0].append(mine)
            seconds[1].append(other)
    middle = statistics.median(ratios)
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    low, high = medians[50], medians[1949]
    times = f"{statistics.median(seconds[0]):.3f} s against {statistics.median(seconds[1]):.3f} s"
    print(f"{name}: {middle:.3f} [{low:.3f}, {high:.3f}] ({times}, {pairs} pairs; bar {bar})")
    return middle
