"""The loss of supervised fine-tuning is the weighted negative log-likelihood of the trained tokens."""

import math

import torch
from tunesmith_sft import on_step
from tunesmith_sft.loss import cross_entropy

from tunesmith import StepRecord


def test_tokens_are_weighted_and_divided_by_all_trained_tokens() -> None:
    terms = cross_entropy(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([1.0, 0.5, 1.0]))
    assert terms["nll"].sum.item() == 6.0
    assert terms["nll"].count == "tokens" and not terms["nll"].metric


def test_perplexity_is_e_to_the_loss_per_token_without_other_terms() -> None:
    alone = StepRecord(1, 0.1, evaluation={"eval_loss": 2.0})
    wrapped = StepRecord(1, 0.1, evaluation={"eval_loss": 2.0, "eval_nll": 1.0, "eval_bonus": 1.0})
    huge = StepRecord(1, 0.1, evaluation={"eval_loss": 5000.0})
    for record in (alone, wrapped, huge):
        on_step(record)
    assert alone.evaluation and alone.evaluation["eval_perplexity"] == math.exp(2.0)
    assert wrapped.evaluation and wrapped.evaluation["eval_perplexity"] == math.exp(1.0)
    assert huge.evaluation and math.isfinite(huge.evaluation["eval_perplexity"])
