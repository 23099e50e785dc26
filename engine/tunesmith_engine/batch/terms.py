"""The objects that hooks exchange with the training loop: loss terms, and the record of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tunesmith.errors import PluginError


@dataclass
class Term:
    """A part of the loss: a sum over the micro-batch, and what it is divided by.

    count is a number, or the name of a count of the batch: "tokens", "sequences", "examples", or one that the method
    added. Named counts are summed over the full optimizer step and all processes before the division. With `metric`,
    the term is logged but not trained on.
    """

    sum: Tensor
    count: str | float
    metric: bool = False


Table = Sequence[Mapping[str, str | float]]
"""Rows of texts and numbers, each by column."""


@dataclass(frozen=True)
class LogRecord:
    """The record of a step for loggers: plain Python values, which can't be changed.

    metrics are empty if the step is not logged (`logging_steps`) but evaluated. evaluation is None if there was none.
    """

    step: int
    epoch: float
    metrics: Mapping[str, float]
    evaluation: Mapping[str, float] | None = None
    histograms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)

    def scalars(self) -> dict[str, float]:
        """Return all numbers: step, epoch, metrics, and the results of an evaluation."""
        return {"step": self.step, "epoch": self.epoch, **self.metrics, **(self.evaluation or {})}


@dataclass
class StepRecord:
    """The record of an optimizer step, which on_step may add to.

    metrics are scalar tensors (loss, grad_norm, the method's terms) or numbers (learning_rate, tokens, ...), already
    averaged over micro-batches and processes. evaluation contains the results of an evaluation after this step, if
    there was one. log is True if the step is to be logged (`logging_steps`). histograms are numbers by name, as a list
    or tensor; tables are rows of texts and numbers by name. The main process writes its own.
    """

    step: int
    epoch: float
    metrics: dict[str, Tensor | float] = field(default_factory=dict)
    evaluation: dict[str, float] | None = None
    log: bool = True
    histograms: dict[str, Tensor | Sequence[float]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)

    def for_loggers(self) -> LogRecord:
        """Return a copy in plain Python values. Reads metrics from the device only if the step is logged.

        Raises PluginError for a metric that is not one number, and for a histogram or a table of another type.
        """
        return LogRecord(
            self.step,
            round(self.epoch, 6),
            MappingProxyType({name: _number(name, value) for name, value in self.metrics.items()} if self.log else {}),
            None if self.evaluation is None else MappingProxyType(dict(self.evaluation)),
            MappingProxyType({name: _numbers(name, values) for name, values in self.histograms.items()}),
            MappingProxyType({name: _rows(name, rows) for name, rows in self.tables.items()}),
        )


def _number(name: str, value: Any) -> float:
    try:
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, int | float):
            return number
    except (RuntimeError, ValueError):  # a tensor or an array with several elements
        pass
    raise PluginError(f"metric {name!r} is not one number: {_shown(value)}", help="add it to record.histograms")


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        return tuple(map(float, torch.as_tensor(values).flatten().tolist()))
    except (RuntimeError, TypeError, ValueError) as error:
        raise PluginError(f"histogram {name!r} is not a list of numbers: {_shown(values)}") from error


def _rows(name: str, rows: Any) -> tuple[Mapping[str, str | float], ...]:
    if isinstance(rows, Sequence) and all(
        isinstance(row, Mapping) and all(isinstance(cell, str | int | float) for cell in row.values()) for row in rows
    ):
        return tuple(MappingProxyType(dict(row)) for row in rows)
    help = "write a list with a dictionary of column -> text or number for each row"
    raise PluginError(f"table {name!r} is not a list of rows: {_shown(rows)}", help=help)


def _shown(value: Any) -> str:
    return f"{type(value).__name__} of shape {list(value.shape)}" if hasattr(value, "shape") else repr(value)[:60]
