"""Define the parameters of a sweep: the values or the range of one key, or of several that vary together."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

PAIRS = "_"
"""The key of combinations: a list of mappings whose keys vary together."""


@dataclass(frozen=True)
class Choice:
    """A list of options. Each option is the values of some keys.

    name: the key, or PAIRS. options: key -> value of each. places: key -> place in the sweep file, of each.
    """

    name: str
    options: tuple[dict[str, Any], ...]
    places: tuple[dict[str, str], ...] = field(repr=False, compare=False)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key for option in self.options for key in option))

    def draw(self, source: random.Random) -> dict[str, Any]:
        return source.choice(self.options)

    def samples(self) -> list[dict[str, Any]]:
        """Return the options that a check has to cover: all."""
        return list(self.options)

    def place(self, key: str, value: Any) -> str | None:
        """Return the place of a value of a key in the sweep file."""
        pairs = zip(self.options, self.places, strict=True)
        return next((places[key] for option, places in pairs if option.get(key) == value and key in places), None)


@dataclass(frozen=True)
class Range:
    """A range of numbers, both ends included."""

    name: str
    kind: Literal["uniform", "loguniform", "int"]
    low: float
    high: float
    step: int = 1
    where: str = field(default="", repr=False, compare=False)

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.name,)

    def draw(self, source: random.Random) -> dict[str, Any]:
        if self.kind == "int":
            return {self.name: source.randrange(int(self.low), int(self.high) + 1, self.step)}
        if self.kind == "uniform":
            return {self.name: source.uniform(self.low, self.high)}
        value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        return {self.name: min(self.high, max(self.low, value))}  # exp(log(x)) may leave the range by a rounding error

    def samples(self) -> list[dict[str, Any]]:
        """Return the values that a check has to cover: both ends."""
        return [{self.name: self.low}, {self.name: self.high}]

    def place(self, key: str, value: Any) -> str | None:
        return self.where


Parameter = Choice | Range


def grid(parameters: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """Yield every combination of options; the last parameter varies fastest."""
    for options in itertools.product(*(parameter.samples() for parameter in parameters)):
        yield {key: value for option in options for key, value in option.items()}


def draws(parameters: Sequence[Parameter], seed: int, trials: int) -> Iterator[dict[str, Any]]:
    """Yield random combinations. Each depends on the seed and its number only, so that more trials keep the first."""
    for number in range(1, trials + 1):
        source = random.Random(f"{seed} {number}")
        yield {key: value for parameter in parameters for key, value in parameter.draw(source).items()}


def corners(parameters: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """Yield combinations in which each option and each end of a range occurs at least once."""
    samples = [parameter.samples() for parameter in parameters]
    for index in range(max(map(len, samples))):
        chosen = [options[min(index, len(options) - 1)] for options in samples]
        yield {key: value for option in chosen for key, value in option.items()}
