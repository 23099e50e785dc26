"""Choose values with optuna, and decide which trials end early.

sweep.json is the only state: the study is in memory, and is replayed from the trials in it. The sampler is seeded for
each trial by the sweep's seed and the trial's number, so a sweep that was killed suggests what it would have suggested.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tunesmith import EnvironmentProblem
from tunesmith_sweep.space import Choice, Parameter
from tunesmith_sweep.spec import SweepKeys
from tunesmith_sweep.trial import FAILED, FINISHED, PRUNED, Trial


def library() -> Any:
    """Import and return optuna. Raises EnvironmentProblem if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        help = 'pip install "tunesmith-sweep[optuna]"'
        raise EnvironmentProblem(f"method: optuna needs optuna: {error}", help=help, code="package") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Search:
    """A study of optuna over the parameters of a sweep."""

    def __init__(self, keys: SweepKeys, parameters: Sequence[Parameter], greater: bool):
        self.keys, self.parameters = keys, parameters
        self.optuna = library()
        direction = "maximize" if greater else "minimize"
        self.study = self.optuna.create_study(direction=direction, pruner=self._pruner())
        self.space = {parameter.name: self._distribution(parameter) for parameter in parameters}
        self.live: dict[int, Any] = {}
        self.ending: set[int] = set()
        """Numbers of trials that end early."""

    def _pruner(self) -> Any:
        pruners, pruning = self.optuna.pruners, self.keys.pruning
        if pruning is None:
            return pruners.NopPruner()
        if pruning.method == "median":
            return pruners.MedianPruner(n_startup_trials=pruning.first_trials, n_warmup_steps=pruning.first_steps)
        least = pruning.first_steps or "auto"
        return pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=pruning.reduction_factor)

    def _distribution(self, parameter: Parameter) -> Any:
        distributions = self.optuna.distributions
        if isinstance(parameter, Choice):  # by index: an option may be a list or several keys
            return distributions.CategoricalDistribution(tuple(range(len(parameter.options))))
        if parameter.kind == "int":
            # optuna wants a range that the step divides
            high = int(parameter.high) - (int(parameter.high) - int(parameter.low)) % parameter.step
            return distributions.IntDistribution(int(parameter.low), high, step=parameter.step)
        return distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.kind == "loguniform")

    def replay(self, trials: Sequence[Trial], retry_failed: bool = False) -> None:
        """Repeat what happened to the trials of an earlier start, in the order of their numbers.

        retry_failed: failed trials start again, so they stay open.
        """
        for trial in trials:
            self.study.enqueue_trial(self._internal(trial))
            self.live[trial.number] = self.study.ask(self.space)
            for step, value in trial.values:
                self._report(trial, step, value)
            if trial.state != FAILED or not retry_failed:
                self.tell(trial)

    def _internal(self, trial: Trial) -> dict[str, Any]:
        """Return the values of a trial as optuna has them."""
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            if isinstance(parameter, Choice):
                of_trial = {key: trial.params[key] for key in parameter.keys if key in trial.params}
                values[parameter.name] = parameter.options.index(of_trial)
            else:
                values[parameter.name] = trial.params[parameter.name]
        return values

    def ask(self, number: int) -> Trial:
        """Return the next trial."""
        seed = random.Random(f"{self.keys.seed} {number}").randrange(2**32)
        samplers = self.optuna.samplers
        self.study.sampler = samplers.TPESampler(seed=seed, n_startup_trials=self.keys.random_trials)
        suggested = self.study.ask(self.space)
        params: dict[str, Any] = {}
        for parameter in self.parameters:
            value = suggested.params[parameter.name]
            params |= parameter.options[value] if isinstance(parameter, Choice) else {parameter.name: value}
        self.live[number] = suggested
        return Trial(number, params)

    def judge(self, trial: Trial, values: Sequence[tuple[int, float]]) -> bool:
        """Report new evaluations of a trial, and return True if it should end at the last one of `trial.values`.

        They are judged one after the other, so the verdict does not depend on how often this is called.
        """
        if trial.number in self.ending:
            return True
        for step, value in values:
            if trial.values and step <= trial.values[-1][0]:
                continue
            trial.values.append((step, value))
            if self._report(trial, step, value):
                return True
        return False

    def _report(self, trial: Trial, step: int, value: float) -> bool:
        live = self.live[trial.number]
        live.report(value, step)
        if self.keys.pruning is not None and live.should_prune():
            self.ending.add(trial.number)
            return True
        return False

    def tell(self, trial: Trial) -> None:
        """Report how a trial ended. One that did not end stays open."""
        states, live = self.optuna.trial.TrialState, self.live[trial.number]
        if trial.state == FINISHED:
            self.study.tell(live, trial.value)
        elif trial.state == PRUNED:
            self.study.tell(live, state=states.PRUNED)
        elif trial.state == FAILED:
            self.study.tell(live, state=states.FAIL)
