"""ORPO's loss, gradients and trajectory are those of TRL, and of the formula where TRL does otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from plugins.orpo.tests import pairs
from tests import tiny

ALPHA = 0.7
METRICS = (
    "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected",
    "nll_loss", "log_odds_ratio", "log_odds_chosen",
)  # fmt: skip


def one_token_prompts() -> list[dict[str, Any]]:
    """TRL's likelihood term covers the prompt too. Nothing predicts the first token of a text, so that of a prompt of
    one token is the answer's alone, and TRL's trainer is comparable as it is."""
    return [{**row, "prompt": mark} for row, mark in zip(tiny.rows("pair", pairs.NUMBER), "?!:;,/", strict=True)]


def test_loss_and_gradients_are_those_of_trl(tmp_path: Path) -> None:
    rows = one_token_prompts()
    run, policy, examples = pairs.policy_of(pairs.config(tmp_path, "orpo", rows, orpo_alpha=ALPHA))
    assert all(len(example.segments[0].tokens) == 1 for example in examples)
    loss, theirs, _ = pairs.trl_gradients(pairs.trl_trainer("ORPO", tmp_path, rows, beta=ALPHA))
    pairs.same(pairs.gradients(run, policy, [examples]), (loss, theirs))


def test_three_steps_end_where_those_of_trl_end(tmp_path: Path) -> None:
    rows = one_token_prompts()
    tiny.train(pairs.config(tmp_path, "orpo", rows, orpo_alpha=ALPHA))
    trainer = pairs.trl_trainer("ORPO", tmp_path, rows, beta=ALPHA, disable_dropout=True)
    for ours, theirs in zip(tiny.metrics(tmp_path / "out"), pairs.logged(trainer), strict=True):
        assert {k: ours[k] for k in METRICS} == pytest.approx({k: float(theirs[k]) for k in METRICS}, abs=1e-5)
    saved = tiny.weights(tmp_path / "out")
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(saved[name], parameter.detach(), atol=1e-5, rtol=1e-5)


def test_the_likelihood_is_of_the_chosen_answer_and_not_of_the_prompt(tmp_path: Path) -> None:
    """The formula by hand, a pair at a time through transformers' own forward; TRL's differs by the prompts alone."""
    rows = tiny.rows("pair", pairs.NUMBER)
    run, policy, examples = pairs.policy_of(pairs.config(tmp_path, "orpo", rows, orpo_alpha=ALPHA))
    ours = pairs.gradients(run, policy, [examples])
    policy.model.zero_grad()
    answers, prompts, odds = [], [], []
    with policy.language_model.attending("sdpa"):
        for example in examples:
            chosen, rejected = (_by_hand(policy, example, which) for which in (1, 2))
            start = len(example.segments[0].tokens) - 1
            answers.append(chosen[start:])
            prompts.append(chosen[:start])
            p, q = chosen[start:].mean().exp(), rejected[start:].mean().exp()
            odds.append(-F.logsigmoid(torch.log(p / (1 - p)) - torch.log(q / (1 - q))))
        odds_loss = ALPHA * torch.stack(odds).mean()
        loss = odds_loss - torch.cat(answers).mean()
        loss.backward()
    grads = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    pairs.same(ours, (loss.item(), grads))
    trl, _, metrics = pairs.trl_gradients(pairs.trl_trainer("ORPO", tmp_path, rows, beta=ALPHA))
    with_prompts = -torch.cat(answers + prompts).mean().item()
    assert metrics["nll_loss"] == pytest.approx(with_prompts, abs=1e-5) and abs(trl - ours[0]) > 1e-3
    assert trl - metrics["nll_loss"] == pytest.approx(odds_loss.item(), abs=1e-5)


def _by_hand(policy: Any, example: Any, which: int) -> torch.Tensor:
    """Log-probability of each token of prompt and answer but the first."""
    tokens = torch.tensor(example.path_tokens(which))
    logits = policy.model(input_ids=tokens[None], use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1).gather(-1, tokens[1:, None])[:, 0]
