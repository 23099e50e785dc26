"""Loss, gradients and trajectory of ORPO equal those of TRL, and the formula where TRL computes another loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests import method_checks, rows, tiny

ALPHA = 0.7
METRICS = (
    "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected",
    "nll_loss", "log_odds_ratio", "log_odds_chosen",
)  # fmt: skip


def one_token_prompts() -> rows.Records:
    """Return pairs for which TRL's loss is the same, although its likelihood term includes the prompt.

    The first token of a text is not predicted, so a prompt of one token adds nothing to the likelihood.
    """
    return [{**row, "prompt": mark} for row, mark in zip(rows.pairs(), "?!:;,/", strict=True)]


def test_loss_and_gradients_equal_those_of_trl(tmp_path: Path) -> None:
    records = one_token_prompts()
    path = rows.config(tmp_path, "orpo", records=records, orpo_alpha=ALPHA)
    run, _, loss, gradients = method_checks.first_step(path)
    assert all(len(example.segments[0].tokens) == 1 for example in run.data.train)
    trainer = method_checks.trl_pair_trainer("ORPO", tmp_path, records, beta=ALPHA)
    expected, expected_gradients, _ = method_checks.trl_step(trainer)
    method_checks.check_step(loss, gradients, expected, expected_gradients)


def test_three_steps_end_with_the_weights_of_trl(tmp_path: Path) -> None:
    records = one_token_prompts()
    tiny.train(rows.config(tmp_path, "orpo", records=records, orpo_alpha=ALPHA))
    trainer = method_checks.trl_pair_trainer("ORPO", tmp_path, records, beta=ALPHA, disable_dropout=True)
    for ours, theirs in zip(tiny.metrics(tmp_path / "out"), method_checks.trl_log(trainer), strict=True):
        assert {k: ours[k] for k in METRICS} == pytest.approx({k: float(theirs[k]) for k in METRICS}, abs=1e-5)
    saved = tiny.weights(tmp_path / "out")
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(saved[name], parameter.detach(), atol=1e-5, rtol=1e-5)


def test_the_likelihood_is_of_the_chosen_answer_without_the_prompt(tmp_path: Path) -> None:
    """The formula by hand, for one pair at a time through transformers' forward; TRL differs only by the prompts."""
    records = rows.pairs()
    run, policy, ours, gradients = method_checks.first_step(rows.config(tmp_path, "orpo", orpo_alpha=ALPHA))
    answers, prompts, odds = [], [], []
    with policy.language_model.attending("sdpa"):
        for example in run.data.train:
            chosen, rejected = (_token_logps(policy, example, which) for which in (1, 2))
            start = len(example.segments[0].tokens) - 1
            answers.append(chosen[start:])
            prompts.append(chosen[:start])
            p, q = chosen[start:].mean().exp(), rejected[start:].mean().exp()
            odds.append(-F.logsigmoid(torch.log(p / (1 - p)) - torch.log(q / (1 - q))))
        odds_loss = ALPHA * torch.stack(odds).mean()
        loss = odds_loss - torch.cat(answers).mean()
        loss.backward()
    expected = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    method_checks.check_step(ours, gradients, loss.item(), expected)
    trl, _, metrics = method_checks.trl_step(method_checks.trl_pair_trainer("ORPO", tmp_path, records, beta=ALPHA))
    with_prompts = -torch.cat(answers + prompts).mean().item()
    assert metrics["nll_loss"] == pytest.approx(with_prompts, abs=1e-5) and abs(trl - ours) > 1e-3
    assert trl - metrics["nll_loss"] == pytest.approx(odds_loss.item(), abs=1e-5)


def _token_logps(policy: Any, example: Any, which: int) -> torch.Tensor:
    """Return the log-probability of each token of prompt and answer except the first."""
    tokens = torch.tensor(example.path_tokens(which))
    logits = policy.model(input_ids=tokens[None], use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1).gather(-1, tokens[1:, None])[:, 0]
