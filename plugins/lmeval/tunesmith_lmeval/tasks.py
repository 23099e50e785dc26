"""Load the tasks of a run with lm-eval."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import ConfigError, DataError, Run, TunesmithError
from tunesmith.spelling import nearest
from tunesmith_lmeval import LMEvalSettings
from tunesmith_lmeval.files import check_code, is_path, read

SEED = 1234
"""The seed of few-shot examples in lm-eval."""


@dataclass
class Tasks:
    """The tasks that a run has loaded, and the names of what they measured, without the prefix eval_."""

    run: Run
    loaded: Any = None
    names: tuple[str, ...] | None = None

    def load(self) -> Any:
        """Return the tasks as lm-eval keeps them. Raises ConfigError or DataError for one that can't be loaded."""
        if self.loaded is None:
            self.run.progress("loading tasks of lm-eval")
            self.loaded = load(self.run)
            self.names = tuple(metric_names(self.loaded))
        return self.loaded


def load(run: Run) -> Any:
    """Load the tasks with the number of few-shot examples of the run."""
    from lm_eval.tasks import TaskManager

    settings = run.settings(LMEvalSettings)
    tasks = settings.lm_eval_tasks or []
    with quiet():
        # The index of the tasks that come with lm-eval takes seconds to read.
        named = [task for task in tasks if not is_path(task)]
        manager = TaskManager(include_path=settings.lm_eval_include_path, include_defaults=bool(named))
        check_code(run, reached(run, manager, named))
        for number, task in enumerate(tasks):
            if not is_path(task) and task not in manager.all_tasks:
                close = nearest(task, manager.all_tasks)
                help = f"did you mean {close!r}?" if close else "lm-eval ls tasks lists them; or name ./task.yaml"
                raise run.config.error(("lm_eval_tasks", number), f"unknown task: {task}", help, "unknown-value")
        try:
            loaded = manager.load(tasks)
        except TunesmithError:
            raise
        except Exception as error:  # the files of a task and its dataset may fail in any way
            raise unloadable(run, error) from error
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        wanted = settings.lm_eval_num_fewshot
        if own != 0 and (wanted is not None or own is None):  # a task that sets 0 has no few-shot examples
            task.set_config(key="num_fewshot", value=wanted or 0)
        task.set_fewshot_seed(seed=SEED)
    return loaded


def unloadable(run: Run, error: Exception) -> TunesmithError:
    """Return the error for tasks that lm-eval can't load."""
    message = f"the tasks can't be loaded: {type(error).__name__}: {error}"
    where = run.config.place("lm_eval_tasks")
    if isinstance(error, OSError):
        help = "the datasets of most tasks are on the hub: fetch them where there is a network"
        return DataError(message, where=where, help=help, code="task")
    return ConfigError(message, where=where, help="fix the file of the task", code="task")


def reached(run: Run, manager: Any, names: list[str]) -> list[Path]:
    """Return the files of the user that define named tasks, also those of groups and tags."""
    import lm_eval

    package, index = Path(lm_eval.__file__).parent.resolve(), manager.task_index
    files: dict[Path, None] = {}
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        entry = index.get(name)
        if entry is None or name in seen:
            continue
        seen.add(name)
        waiting += [other for other, one in index.items() if name in (one.tags or ())]
        path = Path(entry.yaml_path).resolve() if entry.yaml_path else None
        if path is not None and not path.is_relative_to(package):
            files[path] = None
            waiting += _members(read(run, path))
    return list(files)


def _members(content: dict[str, Any]) -> list[str]:
    members = content.get("task")
    names = members if isinstance(members, list) else [members]
    return [str(one.get("task", one.get("group")) if isinstance(one, dict) else one) for one in names if one]


def metric_names(loaded: Any) -> Iterator[str]:
    """Yield the names of everything that tasks and groups measure: TASK/METRIC, and /FILTER for a named filter."""
    for name, task in loaded["tasks"].items():
        filters = [ensemble.name for ensemble in getattr(task, "_filters", ())] or ["none"]
        for metric in task.aggregation():
            for filter_name in filters:
                yield metric_name(name, f"{metric},{filter_name}")
    for name, group in loaded.get("groups", {}).items():
        for one in getattr(group, "aggregate_metric_list", None) or ():
            filters = one.filter_list if isinstance(one.filter_list, list) else [one.filter_list]
            for filter_name in filters:
                yield metric_name(name, f"{one.metric},{filter_name}")


def metric_name(task: str, key: str) -> str:
    """Return the name of a metric: `acc,none` of arc_easy is arc_easy/acc."""
    metric, _, filter_name = key.partition(",")
    return f"{task}/{metric}" if filter_name in ("", "none") else f"{task}/{metric}/{filter_name}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval from logging what it is about to do, and from drawing progress bars. Its errors are raised."""
    import datasets
    from lm_eval.api import task

    logger, bars, bar = logging.getLogger("lm_eval"), datasets.is_progress_bar_enabled(), task.tqdm
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    task.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        logger.setLevel(level)
        task.tqdm = bar
        if bars:
            datasets.enable_progress_bars()
