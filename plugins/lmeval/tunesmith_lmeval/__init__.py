"""Evaluate on the tasks of lm-eval, the language model evaluation harness, during training and after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from tunesmith import PathText, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Example, Policy, Run


class LMEvalSettings(Settings):
    """Settings of tasks of lm-eval."""

    lm_eval_tasks: list[PathText] | None = Field(None, min_length=1)
    """Tasks, groups and tags by name (arc_easy), and paths of your own task files (./tasks/capitals.yaml). The plugin
    is active if it is set."""
    lm_eval_every: Literal["evaluation", "end", "never"] = "end"
    """When training measures them: at each evaluation, so that metric_for_best_model may name them (eval_TASK/METRIC);
    once with the final model; or never, which leaves them to `tunesmith evaluate`."""
    lm_eval_limit: PositiveInt | None = None
    """Use so many documents of each task, for a quick look."""
    lm_eval_num_fewshot: NonNegativeInt | None = None
    """Number of examples in a prompt, for tasks that do not set it to 0 themselves. Default: that of the task."""
    lm_eval_include_path: PathText | None = None
    """A folder of task files, whose names lm_eval_tasks may use."""
    lm_eval_code: list[PathText] = []
    """Python files that your own task files may call with `!function`. Calls of other files are refused."""
    lm_eval_chat_template: bool = False
    """Write prompts as messages of a user, with the chat template of the model."""


def _names(run: Run) -> Sequence[str] | None:
    from tunesmith_lmeval.measuring import names

    return names(run)


plugin = Plugin(
    settings=LMEvalSettings,
    switches=("lm_eval_tasks",),
    metrics=_names,
    on_resume=dict.fromkeys(LMEvalSettings.model_fields, "free"),
)


@hookimpl
def validate(run: Run) -> None:
    """Check that the files exist and call no code but what the YAML names."""
    from tunesmith_lmeval.files import check

    check(run)


@hookimpl
def on_start(run: Run) -> None:
    """Load the tasks before the first step, and check that one measures metric_for_best_model."""
    from tunesmith_lmeval.measuring import load_early

    load_early(run)


@hookimpl
def evaluate(run: Run, policy: Policy, examples: Sequence[Example]) -> dict[str, float]:
    from tunesmith_lmeval.measuring import is_due, measure

    return measure(run, policy) if is_due(run) else {}


@hookimpl
def on_end(run: Run, policy: Policy) -> None:
    """Measure the final model, unless evaluations do, and add the result to run.json."""
    from tunesmith_lmeval.measuring import measure_final

    measure_final(run, policy)
