"""Settings of sampling, as options of the command, as `/set` has them, and as the page sends them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith import ConfigError, Sampling
from tunesmith.spelling import suggestion

LONGEST = 1024
"""New tokens of an answer at most, unless max_new_tokens says otherwise."""
RANGES: dict[str, tuple[type, float, float, str]] = {
    "temperature": (float, 0, math.inf, "a number of at least 0; 0 takes the likeliest token"),
    "top_p": (float, 0, 1, "a number above 0 and up to 1; 1 keeps all tokens"),
    "top_k": (int, 0, math.inf, "a whole number of at least 0; 0 keeps all tokens"),
    "min_p": (float, 0, 1, "a number from 0 to 1; 0 keeps all tokens"),
    "max_new_tokens": (int, 1, math.inf, f"a whole number of at least 1, or auto: up to {LONGEST:,}, if there is room"),
    "seed": (int, 0, 2**63 - 1, "a whole number of at least 0"),
}
"""Key -> type, least and largest value, and what to write."""
AUTO = "auto"


@dataclass(frozen=True)
class Settings:
    """The settings of sampling.

    max_new_tokens: None for as many as there is room for in the context, up to LONGEST. The others are those of
    `tunesmith.Sampling`. Equal seeds give equal answers to equal conversations.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    max_new_tokens: int | None = None
    seed: int = 0

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.top_k, self.min_p)

    def changed(self, values: Mapping[str, Any]) -> Settings:
        """Return settings with other values, which are numbers or texts. Raises ConfigError."""
        return dataclasses.replace(self, **{key: checked(key, value) for key, value in values.items()})

    def lines(self) -> list[str]:
        """Return a line for each setting."""
        values = dataclasses.asdict(self)
        return [f"{key:<15} {AUTO if value is None else format(value, 'g' if value < 1e6 else '')}"
                for key, value in values.items()]  # fmt: skip


def checked(key: str, value: Any) -> Any:
    """Return the value of a setting, from a number or its text. Raises ConfigError."""
    if key not in RANGES:
        help = suggestion(key, RANGES, "/set")
        raise ConfigError(f"unknown setting: {key}", where="settings", code="usage", help=help)
    kind, least, largest, help = RANGES[key]
    if key == "max_new_tokens" and value in (None, AUTO, ""):
        return None
    try:
        number = kind(value) if isinstance(value, str) else value
        valid = type(number) in (int, kind) and least <= number <= largest and (key, number) != ("top_p", 0)
        valid = valid and math.isfinite(number)
    except (ValueError, OverflowError):
        valid = False
    if not valid:
        message = f"{key}: not a valid value: {value!r}"
        raise ConfigError(message, where="settings", code="usage", help=f"write {help}")
    return kind(number)
