"""The record that loggers get: plain values, read from the device once and only if the step is logged."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from tests.contract.fakes import error_of
from tunesmith import LogRecord, StepRecord


class Counted:
    """A metric that counts how often it is read."""

    reads = 0

    def item(self) -> float:
        self.reads += 1
        return 2.5


def test_values_are_plain_and_read_once() -> None:
    metric: Any = Counted()
    metrics = {"loss": torch.tensor(0.1), "count": torch.tensor(3), "np": np.float32(0.5), "tokens": 8, "m": metric}
    record = StepRecord(3, 1 / 3, metrics, {"eval_loss": 2.0}).for_loggers()
    numbers = record.scalars()
    assert {name: type(value) for name, value in numbers.items()} == {
        "step": int, "epoch": float, "loss": float, "count": int, "np": float, "tokens": int, "m": float,
        "eval_loss": float,
    }  # fmt: skip
    assert numbers["loss"] == torch.tensor(0.1).item() and numbers["epoch"] == 0.333333
    assert record.scalars() == numbers and metric.reads == 1


def test_metrics_of_a_step_that_is_not_logged_are_not_read() -> None:
    metric: Any = Counted()
    record = StepRecord(3, 0.1, {"loss": metric}, {"eval_loss": 2.0}, log=False).for_loggers()
    assert record.metrics == {} and record.evaluation == {"eval_loss": 2.0} and metric.reads == 0


def test_record_of_loggers_cannot_be_changed_and_does_not_follow_later_changes() -> None:
    step = StepRecord(1, 0.1, {"loss": 1.0}, {"eval_loss": 2.0})
    step.histograms["h"], step.tables["t"] = [1.0], [{"text": "a"}]
    record: Any = step.for_loggers()
    step.metrics["loss"], step.tables["t"][0]["text"] = 9.0, "b"  # type: ignore[index]
    assert record.metrics["loss"] == 1.0 and record.tables["t"] == ({"text": "a"},) and record.histograms["h"] == (1.0,)
    for change in (
        lambda: record.metrics.update(loss=1.0),
        lambda: record.evaluation.update(eval_loss=1.0),
        lambda: record.tables["t"][0].update(text=""),
        lambda: record.histograms["h"].append(1.0),
    ):
        with pytest.raises(AttributeError):
            change()
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.step = 2


@pytest.mark.parametrize("values", [torch.tensor([[1.0], [2.0]], dtype=torch.bfloat16), np.array([1, 2]), (1, 2.0)])
def test_histogram_may_be_a_tensor_an_array_or_a_list(values: Any) -> None:
    record = StepRecord(1, 0.1, histograms={"rewards": values}).for_loggers()
    assert record.histograms["rewards"] == (1.0, 2.0)
    assert all(type(value) is float for value in record.histograms["rewards"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("metrics", torch.ones(2), "metric 'x' is not one number: Tensor of shape [2]"),
        ("metrics", "high", "metric 'x' is not one number: 'high'"),
        ("histograms", ["a"], "histogram 'x' is not a list of numbers: ['a']"),
        ("tables", {"text": "a"}, "table 'x' is not a list of rows: {'text': 'a'}"),
        ("tables", [{"tokens": [1]}], "table 'x' is not a list of rows: [{'tokens': [1]}]"),
    ],
)
def test_value_of_another_type_is_named(field: str, value: Any, message: str) -> None:
    record = StepRecord(1, 0.1)
    getattr(record, field)["x"] = value
    assert message in str(error_of(record.for_loggers))


def test_default_record_has_no_evaluation() -> None:
    assert LogRecord(1, 0.1, {"loss": 1.0}).scalars() == {"step": 1, "epoch": 0.1, "loss": 1.0}
