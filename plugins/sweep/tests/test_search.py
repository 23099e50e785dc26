"""optuna's suggestions and verdicts depend on the seed and on results, not on kills or timing."""

from __future__ import annotations

from typing import Any

import pytest
from tunesmith_sweep.search import Search
from tunesmith_sweep.space import Choice, Range
from tunesmith_sweep.spec import Pruning, SweepKeys
from tunesmith_sweep.trial import FAILED, FINISHED, PRUNED, Trial

pytest.importorskip("optuna", reason="pip install optuna")
SPACE = (
    Range("learning_rate", "loguniform", 1e-5, 1e-1),
    Range("warmup", "int", 1, 10, 4),
    Choice("_", ({"a": 1, "b": [1]}, {"a": 2}), ({}, {})),
)
KEYS: dict[str, Any] = {"method": "optuna", "trials": 12, "seed": 5, "random_trials": 4}


def searching(trials: list[Trial], **keys: Any) -> Search:
    search = Search(SweepKeys(**(KEYS | keys)), SPACE, greater=False)
    search.replay(trials)
    return search


def loss_of(trial: Trial) -> float:
    return abs(trial.params["learning_rate"] - 1e-3) + trial.params["a"]


def train(search: Search, trial: Trial, **_: Any) -> None:
    for step in (1, 2, 3):
        if search.judge(trial, [(step, loss_of(trial) + 1 / step)]):
            trial.state = PRUNED
            break
    else:
        trial.state, trial.value, trial.step = FINISHED, loss_of(trial), 3
    search.tell(trial)


def sweep(kill_after: set[int], **keys: Any) -> list[Trial]:
    trials: list[Trial] = []
    search = searching(trials, **keys)
    for number in range(1, 13):
        trial = search.ask(number)
        trials.append(trial)
        if number in kill_after:  # before the trial had any result
            stored = [Trial(t.number, t.params, state=t.state, value=t.value, values=list(t.values)) for t in trials]
            trials[:] = stored
            search, trial = searching(trials, **keys), trials[-1]
        train(search, trial)
    return trials


@pytest.mark.parametrize(
    "pruning",
    [None, Pruning(first_trials=2), Pruning(method="successive_halving", first_steps=1, reduction_factor=2)],
)
def test_a_killed_search_suggests_and_ends_what_it_would_have(pruning: Pruning | None) -> None:
    once, killed = sweep(set(), pruning=pruning), sweep({1, 3, 4, 7, 11}, pruning=pruning)
    assert [(t.params, t.state, t.values) for t in once] == [(t.params, t.state, t.values) for t in killed]
    assert any(t.state == PRUNED for t in once) == (pruning is not None)


def test_suggestions_are_in_the_space_and_learn() -> None:
    trials = sweep(set())
    for trial in trials:
        assert 1e-5 <= trial.params["learning_rate"] <= 1e-1 and trial.params["warmup"] in (1, 5, 9)
        assert trial.params["a"] == 2 or trial.params["b"] == [1]
    assert sum(t.params["a"] == 1 for t in trials[6:]) > sum(t.params["a"] == 1 for t in trials[:4])
    assert [t.params for t in sweep(set(), seed=6)] != [t.params for t in trials]


def test_a_verdict_does_not_depend_on_how_often_evaluations_are_read() -> None:
    values = {"learning_rate": 1e-3, "warmup": 1, "a": 2}
    good = [Trial(n, values, state=FINISHED, value=1.0, values=[(1, 1.0), (2, 1.0)]) for n in (1, 2)]
    worse = Trial(3, {"learning_rate": 1e-2, "warmup": 1, "a": 2}, values=[])
    search = searching([*good, worse], pruning=Pruning(first_trials=2))
    assert search.judge(worse, [(1, 2.0), (2, 0.1), (3, 0.1)])
    assert worse.values == [(1, 2.0)]  # later, better values do not count: it would have ended
    again = searching([*good, Trial(3, worse.params, values=[(1, 2.0)])], pruning=Pruning(first_trials=2))
    assert again.judge(Trial(3, worse.params, values=[(1, 2.0)]), [])  # killed before the verdict was written


def test_a_failed_trial_that_starts_again_has_a_result() -> None:
    failed = Trial(1, {"learning_rate": 1e-3, "warmup": 1, "a": 2}, state=FAILED)
    search = Search(SweepKeys(**KEYS), SPACE, greater=False)
    search.replay([failed], retry_failed=True)
    failed.state, failed.value = FINISHED, 1.0
    search.tell(failed)
    assert search.study.best_value == 1.0
