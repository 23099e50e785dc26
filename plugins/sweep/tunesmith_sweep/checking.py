"""Check the configs of all trials before the first one starts, and report their problems together."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tunesmith import Config, ConfigError, Problem, Run, TunesmithError, start
from tunesmith.api import load
from tunesmith.checks import declared_metrics, holds_out
from tunesmith.config.config import digest
from tunesmith.config.yamlfile import read
from tunesmith.engine import engine
from tunesmith.errors import SafetyError
from tunesmith.redact import clean, redact
from tunesmith.spelling import suggestion
from tunesmith_sweep.spec import Spec
from tunesmith_sweep.trial import Trial

OF_A_KEY = re.compile(r"config \((.*)\)$")
"""The place of a key that is passed by name."""
CONFIG = "trial.yaml"
DATA = ("datasets", "test_datasets", "pretraining_dataset")
LOSSES = ("loss", "perplexity", "nll")


@dataclasses.dataclass
class Base:
    """The config that all trials share: its file, the overrides of the command line, and the keys that a sweep sets."""

    path: Path
    overrides: tuple[str, ...]
    shared: dict[str, Any]

    def config(self, trial: Trial, output_dir: Path) -> Config:
        """Load the config of a trial, with the problems of all checks in its error."""
        return load(self.path, self.overrides, **self.keys(trial, output_dir))

    def keys(self, trial: Trial, output_dir: Path) -> dict[str, Any]:
        """Return the keys that a trial has on top of the file and the overrides."""
        folder = str(output_dir / trial.name)
        return {**self.shared, **trial.params, "output_dir": folder, "resume_from_checkpoint": "auto"}


def write_config(base: Base, trial: Trial, output_dir: Path) -> None:
    """Write the config of a trial, with its values and those that all trials share, as trial.yaml into its folder.

    Raises the errors of its checks. Paths of code are relative to the folder of the base config, as they are there.
    """
    config, folder = base.config(trial, output_dir), output_dir / trial.name
    words = [f"{key}={json.dumps(value)}" for key, value in base.keys(trial, output_dir).items()]
    command = shlex.join(["tunesmith", "train", str(base.path), *base.overrides, *words])
    values = yaml.safe_dump(clean(config.document.values), sort_keys=False, allow_unicode=True)
    with engine("runtime.atomic").writing(CONFIG, folder, "make room, and check its permissions"):
        folder.mkdir(parents=True, exist_ok=True)
        text = f"# The config of trial {trial.number}. To train it again:\n# {redact(command)}\n{values}"
        engine("runtime.atomic").write_text(folder / CONFIG, text)


def digests(base: Base) -> dict[str, str]:
    """Return a hash of each key of the base config, with the overrides, to see which changed since a sweep began."""
    values = read(base.path, base.overrides).values
    return {key: digest(value) for key, value in values.items() if key not in ("output_dir", "resume_from_checkpoint")}


def check_all(spec: Spec, base: Base, trials: Sequence[Trial], output_dir: Path) -> Run:
    """Check the config of each trial, and return the run of the first, which is not trained.

    Raises one error with the problems of all; each is listed once. The first rows of the data are read once, unless a
    trial changes the data.
    """
    trials_of: dict[Problem, list[Trial]] = {}
    kinds: list[type[TunesmithError]] = []
    first: Run | None = None
    for trial in trials:
        changes_data = any(key.partition(".")[0] in DATA for key in trial.params)
        try:
            run = start(base.config(trial, output_dir), check_rows=changes_data or first is None)
            first = first or run
        except TunesmithError as error:
            kinds.append(type(error))
            for problem in error.problems:
                trials_of.setdefault(_placed(problem, spec, trial), []).append(trial)
    if trials_of:
        kind = SafetyError if SafetyError in kinds else kinds[0]
        raise kind([_counted(one, trials_of[one], trials) for one in sorted(trials_of, key=_line)])
    assert first is not None  # a sweep has a trial
    return first


def _line(problem: Problem) -> tuple[str, list[int]]:
    file, *numbers = (problem.where or "").split(":")
    return file, [int(number) for number in numbers if number.isdecimal()]


def _placed(problem: Problem, spec: Spec, trial: Trial) -> Problem:
    """Return a problem with the value of a swept key at its place in the sweep file."""
    match = OF_A_KEY.match(problem.where or "")
    if match is None:
        return problem
    key = next((k for k in trial.params if match[1] == k or match[1].startswith(f"{k}.")), None)
    where = spec.place(key, trial.params[key]) if key else None
    if where is None and "output_dir" in match[1]:  # the name of the folder is that of the trial
        where = spec.document.where(("output_dir",), value=True)
    return dataclasses.replace(problem, where=where or problem.where)


def _counted(problem: Problem, where: list[Trial], trials: Sequence[Trial]) -> Problem:
    """Return a problem with the number of trials that have it, unless all do."""
    if len(where) == len(trials):
        return problem
    message = f"{problem.message} (in {len(where)} of {len(trials)} trials; the first is {where[0].number:04d})"
    return dataclasses.replace(problem, message=message)


def choose_metric(spec: Spec, run: Run) -> tuple[str, bool]:
    """Return the metric that trials are compared by, and True if more of it is better.

    Raises ConfigError for a metric that is not measured, or whose direction is unknown.
    """
    core, keys = run.core, spec.keys
    evaluates = holds_out(run) or run.hooks.has("evaluate")
    metric = keys.metric or (core.metric_for_best_model if evaluates else "loss")
    if "jsonl" not in run.hooks.by_name:
        message = "trials are compared by metrics.jsonl, which the plugin jsonl writes, and it is not active"
        raise ConfigError(message, where=run.config.place("plugins"), help="drop -jsonl from plugins")
    if metric.startswith("eval_"):
        known = {*declared_metrics(run, "evaluate")} | ({"eval_loss", *declared_metrics(run)} if evaluates else set())
        method = [run.hooks.by_name[call.plugin].declaration for call in run.hooks.calls("compute_loss")]
        closed = all(declaration.metrics is not None for declaration in method)
        if not evaluates:
            help = "write val_set_size: 0.05 into the config, or metric: loss into the sweep file"
            raise spec.error("metric", f"is {metric}, but the config evaluates nothing", help, "unknown-value")
        if closed and metric not in known:
            help = suggestion(metric, known, "docs/sweeps.md")
            raise spec.error("metric", f"is {metric}, which is not measured", help, "unknown-value")
    if keys.pruning and not metric.startswith("eval_") and metric != "loss":
        raise spec.error("pruning", f"needs an evaluation, and {metric} is none", "write metric: eval_loss")
    if keys.direction is not None:
        return metric, keys.direction == "maximize"
    if metric == core.metric_for_best_model:
        return metric, core.greater_is_better
    if metric.removeprefix("eval_") in LOSSES or metric.endswith("_loss"):
        return metric, False
    message = f"is {metric}, and it is unknown whether more of it is better"
    raise spec.error("metric", message, "write direction: maximize, or direction: minimize", "missing-key")
