"""Measure the tasks of a run with its policy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from tunesmith import DataError, Policy, Run, TunesmithError
from tunesmith.checks import check_metric
from tunesmith_lmeval import LMEvalSettings
from tunesmith_lmeval.tasks import Tasks, metric_name, quiet


def trains(run: Run) -> bool:
    """Return True in a run that trains, and False in one that only evaluates."""
    return run.total_steps > 0 or run.purpose == "train"


def is_due(run: Run) -> bool:
    """Return True if an evaluation measures the tasks."""
    return not trains(run) or run.settings(LMEvalSettings).lm_eval_every == "evaluation"


def names(run: Run) -> Sequence[str] | None:
    """Return the names of what evaluations measure; None before the tasks are loaded."""
    return run.owned(Tasks).names if is_due(run) else ()


def load_early(run: Run) -> None:
    """Load the tasks before training, so that a mistake in one does not end it. Raises ConfigError or DataError."""
    if run.settings(LMEvalSettings).lm_eval_every != "never":
        run.owned(Tasks).load()
        run.progress("")
        check_metric(run)


def measure(run: Run, policy: Policy) -> dict[str, float]:
    """Return what the tasks measure, by name. Call it on all processes."""
    from lm_eval import evaluate

    from tunesmith_lmeval.model import EngineLM

    settings, tasks = run.settings(LMEvalSettings), run.owned(Tasks)
    loaded = tasks.load()
    try:
        with quiet():
            results: Any = evaluate(
                lm=EngineLM(policy),
                task_dict=loaded,
                limit=settings.lm_eval_limit,
                log_samples=False,
                bootstrap_iters=0,
                apply_chat_template=settings.lm_eval_chat_template,
                fewshot_as_multiturn=settings.lm_eval_chat_template,
            )
    except TunesmithError:
        raise
    except Exception as error:  # the code of a task, over rows that anyone has written
        message = f"a task failed: {type(error).__name__}: {error}"
        help = "tasks that run the code of a model are not supported" if "unsafe" in str(error) else None
        raise DataError(message, where=run.config.place("lm_eval_tasks"), help=help, code="task") from error
    values = {
        metric_name(task, key): float(value)
        for task, own in {**results["results"], **results.get("groups", {})}.items()
        for key, value in own.items()
        if "," in key and "_stderr," not in key and isinstance(value, int | float)
    }
    tasks.names = tuple(values)  # a metric that no document has is not measured
    return values


def measure_final(run: Run, policy: Policy) -> None:
    """Measure the final model of a run with lm_eval_every: end, and add the result to run.json."""
    if run.settings(LMEvalSettings).lm_eval_every != "end" or run.interrupted:
        return
    started = time.time()
    values = {f"eval_{name}": value for name, value in measure(run, policy).items()}
    run.progress("")
    seconds = round(time.time() - started, 3)
    run.evaluations.append({"time": started, "seconds": seconds, "model": str(run.output_dir), "metrics": values})
    run.note("lm-eval", ", ".join(f"{name.removeprefix('eval_')} {value:.4g}" for name, value in values.items()))
