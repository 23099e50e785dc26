"""Generate answers of held-out rows, and compare them with their references: exact match, ROUGE, BLEU, chrF, pass@k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Example, Policy, Run

Metric = Annotated[str, Field(pattern=r"^(exact_match|rouge_1|rouge_2|rouge_l|bleu|chrf|pass@[1-9]\d{0,3})$")]


class TextMetricSettings(Settings):
    """Settings of metrics of generated answers."""

    generation_metrics: list[Metric] | None = Field(None, min_length=1)
    """Names of metrics: exact_match, rouge_1, rouge_2, rouge_l, bleu, chrf, and pass@k for any k, such as pass@4. They
    are logged as eval_exact_match and so on, at each evaluation."""
    generation_metrics_max_new_tokens: PositiveInt = 256
    """Longest generated answer in tokens."""
    generation_metrics_rows: PositiveInt | None = None
    """Use so many held-out examples, the first ones. Default: all of them."""
    generation_metrics_answer: str | None = None
    """Column with the reference: a text, a number, or a list of alternatives. List it in `keep` of the entry. Default:
    the answer of the row, which a chosen answer is too."""
    generation_metrics_extract: str | None = None
    """Regular expression that finds the answer in a completion, for exact_match and pass@k: the first group of the last
    match, or the match if there is no group. A completion without a match is wrong."""
    generation_metrics_normalize: bool = True
    """Compare answers without regard to case, whitespace and punctuation at the ends, for exact_match and pass@k."""
    generation_metrics_samples: PositiveInt | None = None
    """Completions of each prompt for pass@k. More samples than k make the estimate more precise. Default: twice the
    largest k."""
    generation_metrics_temperature: PositiveFloat = 1.0
    """Sampling temperature for pass@k. The other metrics take the likeliest tokens."""
    generation_metrics_correct: str | dict[str, Any] | None = None
    """What decides for pass@k if a completion is right, instead of exact match: a reward by name, or a function of a
    file (./check.py:score), or one with options: {name: exact_match, extract: boxed}. Right is a score above 0.5."""


def _names(run: Run) -> Sequence[str]:
    return tuple(run.settings(TextMetricSettings).generation_metrics or ())


plugin = Plugin(
    settings=TextMetricSettings,
    switches=("generation_metrics",),
    metrics=_names,
    on_resume=dict.fromkeys(TextMetricSettings.model_fields, "free"),
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_textmetrics.checks import check

    check(run)


@hookimpl
def evaluate(run: Run, policy: Policy, examples: Sequence[Example]) -> dict[str, float]:
    from tunesmith_textmetrics.measuring import measure

    return measure(run, policy, examples)
