"""Define a trial: its values, its folder and its state."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

PENDING, RUNNING, FINISHED, PRUNED, INTERRUPTED, FAILED = (
    "pending", "running", "finished", "pruned", "interrupted", "failed",
)  # fmt: skip
OVER = (FINISHED, PRUNED)
"""States of trials that have a result and are not started again."""
LONGEST_NAME = 60


@dataclass
class Trial:
    """A trial of a sweep.

    Args:
        number: from 1.
        name: of its folder in that of the sweep.
        params: key of the config -> value.
        value: the metric of the model that the trial saved; of a pruned trial, that at which it was ended.
        step: the step that `value` belongs to.
        values: (step, value) of each evaluation, for pruning.
        reason: why it failed or was ended.
        seconds: time that its processes ran, over all attempts.
    """

    number: int
    params: dict[str, Any]
    name: str = ""
    state: str = PENDING
    value: float | None = None
    step: int | None = None
    total_steps: int | None = None
    values: list[tuple[int, float]] = field(default_factory=list)
    reason: str | None = None
    seconds: float = 0.0
    attempts: int = 0

    def __post_init__(self) -> None:
        self.name = self.name or name_of(self.number, self.params)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        """Return the trial of an entry of sweep.json. Raises TypeError or KeyError for a damaged one."""
        known = {one.name for one in fields(cls)}
        trial = cls(**{key: value for key, value in values.items() if key in known})
        trial.values = [(int(step), float(value)) for step, value in trial.values]
        return trial


def name_of(number: int, params: Mapping[str, Any]) -> str:
    """Return the name of a trial's folder: its number, and the last part of each key with the value."""
    parts = [f"{key.rpartition('.')[2]}-{text_of(value)}" for key, value in params.items()]
    name = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-.")
    return f"{number:04d}-{name}"[:LONGEST_NAME].rstrip("-.")


def text_of(value: Any) -> str:
    """Return a value in a few characters, for names and tables."""
    if isinstance(value, float):
        digits = f"{value:.4g}"
        return re.sub(r"e([-+])0*(\d)", r"e\1\2", digits).replace("e+", "e")
    return value if isinstance(value, str) else json.dumps(value)


def override(key: str, value: Any) -> str:
    """Return `key=value` of the command line. JSON is YAML, and keeps strings such as "yes" or "1e-4" strings."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"
