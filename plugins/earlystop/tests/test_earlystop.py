"""Training stops after the configured number of evaluations without improvement."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_earlystop

from tunesmith import ConfigError, StepRecord


def run(
    metric: str = "eval_loss",
    greater: bool = False,
    val_set_size: float = 0.1,
    evaluated: bool = False,
    **settings: Any,
) -> Any:
    this: Any = SimpleNamespace(
        core=SimpleNamespace(
            metric_for_best_model=metric, greater_is_better=greater, val_set_size=val_set_size, test_datasets=[]
        ),
        settings=lambda model: model(**{"early_stopping_patience": 2, **settings}),
        config=SimpleNamespace(error=lambda key, message, help=None: ConfigError(f"{key} {message}", help=help)),
        hooks=SimpleNamespace(has=lambda hook: evaluated),
        states={},
        stopped=None,
        total_steps=100,
    )
    this.register_state = this.states.__setitem__
    this.stop = lambda reason: setattr(this, "stopped", this.stopped or reason)
    tunesmith_earlystop.configure(this)
    return this


def stops_at(this: Any, values: list[float]) -> int | None:
    """Return the number of the evaluation, counted from 1, at which the run is stopped, or None."""
    for number, value in enumerate(values, 1):
        tunesmith_earlystop.on_step(this, StepRecord(number, 0.1))  # steps without an evaluation do not count
        record = StepRecord(number, 0.1, evaluation={this.core.metric_for_best_model: value})
        tunesmith_earlystop.on_step(this, record)
        if this.stopped:
            return number
    return None


def test_training_stops_after_the_given_number_of_evaluations_without_improvement() -> None:
    this = run()
    assert stops_at(this, [3.0, 2.0, 2.5, 1.5, 1.6, 1.5, 1.0]) == 6
    assert "eval_loss did not improve on 1.5 in 2 evaluations" in this.stopped


def test_a_run_at_its_last_step_is_not_reported_as_stopped() -> None:
    this = run()
    this.total_steps = 3
    assert stops_at(this, [1.0, 1.0, 1.0]) is None


def test_a_greater_value_is_better_if_greater_is_better_is_set() -> None:
    assert stops_at(run("eval_accuracy", greater=True), [0.1, 0.2, 0.3, 0.3, 0.2]) == 5


def test_an_improvement_must_exceed_the_threshold_and_small_ones_add_up() -> None:
    assert stops_at(run(early_stopping_threshold=0.1), [1.0, 0.95, 0.91]) == 3
    assert stops_at(run(early_stopping_threshold=0.1), [1.0, 0.95, 0.89, 0.85, 0.78]) is None


def test_nan_is_not_an_improvement() -> None:
    assert stops_at(run(), [float("nan"), float("nan")]) == 2
    assert stops_at(run(), [float("nan"), 1.0, 0.9, float("nan"), float("nan")]) == 5


def test_a_resumed_run_stops_where_the_uninterrupted_one_would() -> None:
    first, second = run(), run()
    assert stops_at(first, [1.0, 1.1]) is None
    second.states["earlystop"].load_state_dict(json.loads(json.dumps(first.states["earlystop"].state_dict())))
    assert stops_at(second, [1.05, 0.5]) == 1


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones() -> None:
    this = run("eval_acuracy")
    with pytest.raises(ConfigError, match=r"eval_acuracy(.|\n)*eval_loss, eval_perplexity"):
        tunesmith_earlystop.on_step(this, StepRecord(1, 0.1, evaluation={"eval_loss": 1.0, "eval_perplexity": 2.0}))


def test_early_stopping_without_held_out_examples_is_refused() -> None:
    with pytest.raises(ConfigError, match="early_stopping_patience needs held-out"):
        tunesmith_earlystop.validate(run(val_set_size=0.0))
    with pytest.raises(ConfigError, match="eval_loss is not measured"):
        tunesmith_earlystop.validate(run(val_set_size=0.0, evaluated=True))
    tunesmith_earlystop.validate(run("eval_exact_match", val_set_size=0.0, evaluated=True))
    tunesmith_earlystop.validate(run())
