"""Check task files without lm-eval: they exist, and what they call is in files that the YAML names.

A task file is code that the user names: its templates are expressions of Jinja. With `!function`, it also calls
functions in other files, which are not read by naming the task file. So the YAML names these files too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tunesmith import ConfigError, Problem, Run, SafetyError
from tunesmith_lmeval import LMEvalSettings

YAML = (".yaml", ".yml")
NAMES_THEM = "read the file, then name it: lm_eval_code: [{path}]"


class Function(str):
    """The text after `!function`, such as utils.process_docs."""


class Loader(yaml.SafeLoader):
    """A loader that keeps `!function` as text instead of importing it."""


Loader.add_constructor("!function", lambda loader, node: Function(loader.construct_scalar(node)))


def is_path(task: str) -> bool:
    """Return True if a task is named by the path of its file."""
    return task.lower().endswith(YAML)


def check(run: Run) -> None:
    """Raise ConfigError for files that are missing, and SafetyError for code that the YAML does not name."""
    settings = run.settings(LMEvalSettings)
    with run.config.checking() as wrong:
        if run.method.exports is not None:
            message = "has no effect: a model with a score head does not predict tokens"
            wrong("lm_eval_tasks", message, "drop it; eval_accuracy and the reward metrics evaluate such a model")
        for number, task in enumerate(settings.lm_eval_tasks or ()):
            key = ("lm_eval_tasks", number)
            if is_path(task) and not Path(task).is_file():
                wrong(key, f"{task}: no such file", "write the path of a task file, relative to the working folder")
        if (folder := settings.lm_eval_include_path) and not Path(folder).is_dir():
            wrong("lm_eval_include_path", f"{folder}: no such folder", "write the folder of your task files")
        for number, file in enumerate(settings.lm_eval_code):
            if not Path(file).is_file():
                wrong(("lm_eval_code", number), f"{file}: no such file", "write the path of a Python file")
        if settings.lm_eval_every != "evaluation" and _names_a_task(run):
            message = f"names a task, but tasks are measured with lm_eval_every: {settings.lm_eval_every}"
            wrong("metric_for_best_model", message, "write lm_eval_every: evaluation")
    paths = [Path(task) for task in settings.lm_eval_tasks or () if is_path(task)]
    check_code(run, paths)


def _names_a_task(run: Run) -> bool:
    task = run.core.metric_for_best_model.removeprefix("eval_").partition("/")[0]
    tasks = run.settings(LMEvalSettings).lm_eval_tasks or ()
    return task in {Path(name).stem if is_path(name) else name for name in tasks}


def check_code(run: Run, paths: Iterable[Path]) -> None:
    """Raise SafetyError if a task file, or one that it includes, calls code that lm_eval_code does not name."""
    allowed = {Path(file).resolve() for file in run.settings(LMEvalSettings).lm_eval_code}
    problems = []
    for path in dict.fromkeys(file for root in paths for file in included(run, root)):
        for function in functions(read(run, path)):
            module = function.rpartition(".")[0]
            file = path.parent / f"{module.replace('.', '/')}.py"
            if not module or not file.is_file():
                message = f"{path} calls {function}, which is not in a file next to it"
                help = f"write the function to a file next to {path.name}: !function utils.name"
            elif file.resolve() in allowed:
                continue
            else:
                message = f"{path} calls {function}, and {file} is not in lm_eval_code"
                help = NAMES_THEM.format(path=file)
            problems.append(Problem(message, run.config.place("lm_eval_tasks"), "task-code", help))
    if problems:
        raise SafetyError(problems)


def included(run: Run, path: Path) -> list[Path]:
    """Return a task file and those that it includes, directly or not."""
    files, waiting = [], [path.resolve()]
    while waiting:
        file = waiting.pop()
        if file in files:
            continue
        files.append(file)
        includes = read(run, file).get("include") or []
        waiting += [(file.parent / name).resolve() for name in ([includes] if isinstance(includes, str) else includes)]
    return files


def read(run: Run, path: Path) -> dict[str, Any]:
    """Return the content of a task file, with functions as texts. Raises ConfigError for one that can't be read."""
    where = run.config.place("lm_eval_tasks")
    try:
        loader = Loader(path.read_text("utf-8"))
        content = loader.get_single_data()
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} can't be read: {error}", where=where, code="task") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must be a mapping with the keys of a task", where=where, code="task")
    return content


def functions(node: Any) -> Iterator[str]:
    """Yield each `!function` in a task file."""
    if isinstance(node, Function):
        yield str(node)
    elif isinstance(node, dict | list):
        for item in node.values() if isinstance(node, dict) else node:
            yield from functions(item)
