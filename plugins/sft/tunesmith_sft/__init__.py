"""Supervised fine-tuning and pretraining: cross-entropy of the trained tokens.

This is the method of a run that does not set `rl:`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tunesmith import Method, Needs, Plugin, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, StepRecord, Term

plugin = Plugin(method=Method(rows=("conversation", "text")), needs=Needs(logps=True), metrics=("nll", "perplexity"))


@hookimpl
def compute_loss(out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_sft.loss import cross_entropy

    return cross_entropy(out.logps, batch.weight)


@hookimpl
def on_step(record: StepRecord) -> None:
    """Add the perplexity of an evaluation: e to the power of the mean loss per token."""
    if record.evaluation and "eval_loss" in record.evaluation:
        mean = record.evaluation.get("eval_nll", record.evaluation["eval_loss"])
        record.evaluation["eval_perplexity"] = math.exp(min(mean, 700.0))  # e^710 overflows
