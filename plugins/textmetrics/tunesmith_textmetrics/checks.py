"""Check the settings against each other and against the entries that are held out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tunesmith import Reward, Run
from tunesmith.checks import holds_out
from tunesmith.config.config import Wrong
from tunesmith.plugins.rewards import RewardSource, resolve
from tunesmith_textmetrics import TextMetricSettings

CORRECT = "generation_metrics_correct"
PASS = re.compile(r"pass@(\d+)")


def ks(run: Run) -> list[int]:
    """Return the k of each pass@k."""
    names = run.settings(TextMetricSettings).generation_metrics or ()
    return [int(match[1]) for name in names if (match := PASS.fullmatch(name))]


def check(run: Run) -> None:
    """Raise ConfigError with all problems of the settings."""
    settings, pass_ks = run.settings(TextMetricSettings), ks(run)
    with run.config.checking() as wrong:
        if run.method.exports is not None:
            message = "has no effect: a model with a score head does not generate text"
            wrong("generation_metrics", message, "drop it; eval_accuracy evaluates such a model")
        if not holds_out(run):
            message = "needs held-out rows: it compares generated answers with theirs"
            wrong("generation_metrics", message, "write val_set_size: 0.05, or test_datasets: ...")
        names = settings.generation_metrics or []
        for name in {name for name in names if names.count(name) > 1}:
            wrong("generation_metrics", f"has {name} twice", "drop one")
        if settings.generation_metrics_extract is not None:
            try:
                re.compile(settings.generation_metrics_extract)
            except re.error as error:
                wrong("generation_metrics_extract", f"is not a regular expression: {error}", r"write answer is (\d+)")
        for key in ("samples", "temperature", "correct"):
            if f"generation_metrics_{key}" in settings.model_fields_set and not pass_ks:
                wrong(f"generation_metrics_{key}", "has no effect without pass@k", "drop it, or add pass@4")
        samples = settings.generation_metrics_samples
        if samples is not None and pass_ks and samples < max(pass_ks):
            message = f"is {samples}, too few for pass@{max(pass_ks)}"
            wrong("generation_metrics_samples", message, f"write {2 * max(pass_ks)}")
        _check_answers(run, wrong)
    if settings.generation_metrics_correct is not None:
        correct_source(run)


def _check_answers(run: Run, wrong: Wrong) -> None:
    """Report entries whose rows have no reference."""
    column = run.settings(TextMetricSettings).generation_metrics_answer
    for spec in run.config.test_datasets or run.config.datasets:
        key = (spec.group, spec.index)
        if column is not None and column not in spec.settings.keep:
            message = f"does not keep the column {column}, which generation_metrics_answer names"
            wrong((*key, "path"), message, f"write keep: [{column}] in the entry")
        elif column is None and spec.row_kind in ("prompt", "text", "stepwise"):
            message = f"is set, and the rows of {spec.group}[{spec.index}] have no answer to compare with"
            help = "write generation_metrics_answer: answer, and keep: [answer] in the entry"
            wrong("generation_metrics", message, help)


def correct_source(run: Run) -> RewardSource:
    """Return what decides if a completion is right. Raises ConfigError for a name that is not that of a function."""
    value = run.settings(TextMetricSettings).generation_metrics_correct
    options = dict(value) if isinstance(value, Mapping) else {"name": value}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise run.config.error(CORRECT, "names no function", "write {name: exact_match}")
    source = resolve(run, Reward(name, options=options, key=(CORRECT,)))
    if source.by_hook:
        raise run.config.error(CORRECT, f"is {name}, which is a model and not a function", "write ./check.py:score")
    return source
