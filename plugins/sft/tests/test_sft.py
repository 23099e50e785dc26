"""The loss of supervised fine-tuning is the weighted negative log-likelihood of the trained tokens."""

import math

import torch
from tunesmith_sft import on_step
from tunesmith_sft.loss import cross_entropy

from tunesmith import StepRecord


def test_each_token_counts_by_its_weight_and_all_trained_tokens_divide() -> None:
    terms = cross_entropy(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([1.0, 0.5, 1.0]))
    assert terms["nll"].sum.item() == 6.0
    assert terms["nll"].count == "tokens" and not terms["nll"].metric


def test_perplexity_is_e_to_the_loss_of_a_token_and_leaves_other_terms_out() -> None:
    alone = StepRecord(1, 0.1, evaluation={"eval_loss": 2.0})
    wrapped = StepRecord(1, 0.1, evaluation={"eval_loss": 2.0, "eval_nll": 1.0, "eval_bonus": 1.0})
    huge = StepRecord(1, 0.1, evaluation={"eval_loss": 5000.0})
    for record in (alone, wrapped, huge):
        on_step(record)
    assert alone.evaluation and alone.evaluation["eval_perplexity"] == math.exp(2.0)
    assert wrapped.evaluation and wrapped.evaluation["eval_perplexity"] == math.exp(1.0)
    assert huge.evaluation and math.isfinite(huge.evaluation["eval_perplexity"])
