"""Read the parameters of a sweep file: each a list of values, or a mapping with one range."""

from __future__ import annotations

from typing import Any

from tunesmith import Problem
from tunesmith.config.yamlfile import Document, KeyPath
from tunesmith.spelling import suggestion
from tunesmith_sweep.space import PAIRS, Choice, Parameter, Range

RANGES = ("uniform", "loguniform", "int")
KINDS = (*RANGES, "choice")
EXAMPLE = "write a list of values, or one of {uniform: [0, 0.1]}, {loguniform: [1e-5, 1e-3]}, {int: [8, 64]}"
OURS = {
    "output_dir": "each trial has a folder in that of the sweep",
    "resume_from_checkpoint": "a trial resumes from its own checkpoint",
}
"""Key that a sweep can't vary -> why."""


class Reader:
    """Reads parameters, and collects the problems with them.

    at: the path of the parameters in the document. lists_only: values are lists, as in a sweep file of Axolotl.
    """

    def __init__(self, document: Document, at: KeyPath, lists_only: bool = False):
        self.document, self.at, self.lists_only = document, at, lists_only
        self.problems: list[Problem] = []
        self._owners: dict[str, str] = {}

    def read(self, values: dict[str, Any]) -> list[Parameter]:
        """Return the parameters, in the order of the file, without those that have problems."""
        parameters = [self._pairs(value) if key == PAIRS else self._one(key, value) for key, value in values.items()]
        return [parameter for parameter in parameters if parameter is not None]

    def _wrong(self, path: KeyPath, message: str, help: str | None = None, value: bool = True) -> None:
        self.problems.append(Problem(message, self.document.where((*self.at, *path), value=value), "sweep-file", help))

    def _own(self, key: str, path: KeyPath) -> None:
        """Check that a key can be varied, and that it is varied in one place."""
        if key in OURS:
            self._wrong(path, f"{key} can't be varied: {OURS[key]}", "drop it", value=False)
        # `group` and `group.key` would overwrite each other.
        other = next((o for o in self._owners if o == key or o.startswith(f"{key}.") or key.startswith(f"{o}.")), None)
        if other is not None and self._owners[other] != path[0]:
            self._wrong(path, f"{key} and {other} set the same value", "keep one of them", value=False)
        self._owners[key] = str(path[0])

    def _one(self, key: str, value: Any) -> Parameter | None:
        self._own(key, (key,))
        if isinstance(value, list):
            return self._choice(key, (key,), value)
        if not isinstance(value, dict) or self.lists_only:
            help = EXAMPLE
            if self.lists_only:
                help = f"write {key}: [{'...' if isinstance(value, dict) else value}], or put it into the config"
            self._wrong((key,), f"{key} must be a list of values", help)
            return None
        kinds = [kind for kind in value if kind in KINDS]
        unknown = [name for name in value if name not in (*KINDS, "step")]
        for name in unknown:
            message = f"{key}: unknown kind of range: {name}"
            self._wrong((key, name), message, suggestion(str(name), KINDS, "docs/sweeps.md"), value=False)
        if len(kinds) != 1:
            if not unknown:
                self._wrong((key,), f"{key} must have exactly one of {', '.join(KINDS)}", EXAMPLE)
            return None
        if "step" in value and kinds != ["int"]:
            self._wrong((key, "step"), f"{key}: step has no effect on {kinds[0]}", "drop it", value=False)
            return None
        return self._ranged(key, kinds[0], value)

    def _ranged(self, key: str, kind: str, value: dict[str, Any]) -> Parameter | None:
        ends, path = value[kind], (key, kind)
        if kind == "choice":
            if isinstance(ends, list):
                return self._choice(key, path, ends)
            self._wrong(path, f"{key}: choice must be a list of values", f"write choice: [{ends}]")
            return None
        numbers = int if kind == "int" else int | float
        valid = isinstance(ends, list) and len(ends) == 2
        if not valid or any(isinstance(end, bool) or not isinstance(end, numbers) for end in ends):
            name = "whole numbers" if kind == "int" else "numbers"
            self._wrong(path, f"{key}: {kind} must be two {name}, the lowest and the highest", EXAMPLE)
            return None
        low, high = ends
        if not low < high:
            self._wrong(path, f"{key}: the lowest value, {low}, must be below the highest, {high}", "swap them")
            return None
        if not float("-inf") < low < high < float("inf"):
            self._wrong(path, f"{key}: the ends of a range must be finite")
            return None
        if kind == "loguniform" and low <= 0:
            self._wrong(path, f"{key}: the ends of loguniform must be above 0, not {low}", "write uniform, or 1e-6")
            return None
        step = value.get("step", 1)
        if "step" in value and (type(step) is not int or not 1 <= step <= high - low):
            self._wrong((key, "step"), f"{key}: step must be a whole number from 1 to {high - low}")
            return None
        place = self.document.where((*self.at, *path), value=True)
        return Range(key, kind, *((low, high) if kind == "int" else (float(low), float(high))), step, place)  # type: ignore[arg-type]

    def _choice(self, key: str, path: KeyPath, values: list[Any]) -> Choice | None:
        if not values:
            self._wrong(path, f"{key} has no values", f"write {key}: [...]")
            return None
        for index, value in enumerate(values):
            if any(type(value) is type(earlier) and value == earlier for earlier in values[:index]):
                self._wrong((*path, index), f"{key}: {value!r} is listed twice", "drop one of them")
        places = [{key: self.document.where((*self.at, *path, index), value=True)} for index in range(len(values))]
        return Choice(key, tuple({key: value} for value in values), tuple(places))

    def _pairs(self, values: Any) -> Choice | None:
        if not isinstance(values, list) or not values or not all(isinstance(v, dict) and v for v in values):
            help = "write `_: [{learning_rate: 1e-4, warmup_steps: 10}, {learning_rate: 2e-4, warmup_steps: 20}]`"
            self._wrong((PAIRS,), "`_` must be a list of mappings, whose keys vary together", help)
            return None
        places = []
        for index, option in enumerate(values):
            for key in option:
                self._own(key, (PAIRS, index, key))
            if option in values[:index]:
                self._wrong((PAIRS, index), "`_`: a combination is listed twice", "drop one of them")
            places.append({key: self.document.where((*self.at, PAIRS, index, key), value=True) for key in option})
        return Choice(PAIRS, tuple(values), tuple(places))
