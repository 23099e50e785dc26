"""Competitors in turn, and the ratio of their CPU seconds with an interval."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence

quick = False
"""Set by `run.py --quick`: a few pairs, for a look."""


def in_turn(competitors: Mapping[str, Callable[[], float]], rounds: int, warm: bool = True) -> dict[str, list[float]]:
    """Time each competitor once a round, in an order that turns from round to round; with `warm`, one round more that
    does not count. Gives the figures of each, in the order of the rounds."""
    names = list(competitors)
    found: dict[str, list[float]] = {name: [] for name in names}
    rounds = min(rounds, 2) if quick else rounds
    for index in range(-int(warm), rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            figure = competitors[name]()
            if index >= 0:
                found[name].append(figure)
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The median of the ratios ours / theirs of each round, and its 95 % bootstrap interval."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[1949]


def compare(name: str, ours: Callable[[], float], theirs: Callable[[], float], pairs: int, bar: str) -> float:
    """Time two things in turn; print the median ratio ours / theirs and its 95 % bootstrap interval."""
    found = in_turn({"ours": ours, "theirs": theirs}, pairs)
    middle, low, high = ratio(found["ours"], found["theirs"])
    times = f"{statistics.median(found['ours']):.3f} s against {statistics.median(found['theirs']):.3f} s"
    number = len(found["ours"])
    print(f"{name}: {middle:.3f} [{low:.3f}, {high:.3f}] ({times}, {number} pairs; bar {bar})", flush=True)
    return middle
