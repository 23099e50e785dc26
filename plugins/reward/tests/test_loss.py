"""The terms equal numbers that were computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tunesmith_reward.loss import terms

from tunesmith import PluginError

SCORES = torch.tensor([2.0, 0.5, -1.0, 2.0])  # gaps of 1.5 in the first pair and -3 in the second


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def test_the_loss_is_that_of_the_bradley_terry_model() -> None:
    losses = terms(SCORES, None, 0.0)
    assert losses["bradley_terry"].sum.item() == pytest.approx(-log_sigmoid(1.5) - log_sigmoid(-3.0))
    assert losses["bradley_terry"].count == "examples" and "centering" not in losses


def test_the_chosen_reward_must_exceed_the_other_by_the_margin() -> None:
    losses = terms(SCORES, torch.tensor([1.0, -0.5]), 0.0)
    assert losses["bradley_terry"].sum.item() == pytest.approx(-log_sigmoid(0.5) - log_sigmoid(-2.5))
    assert losses["margin"].sum.item() == pytest.approx(-1.5)  # the gap between rewards, not the margin of the rows


def test_centering_penalizes_the_squared_sum_of_a_pair() -> None:
    losses = terms(SCORES, None, 0.1)
    assert losses["centering"].sum.item() == pytest.approx(0.1 * (2.5**2 + 1.0**2))
    assert losses["centering"].count == "examples" and not losses["centering"].metric


def test_accuracy_is_per_pair_and_mean_reward_per_answer() -> None:
    losses = terms(SCORES, None, 0.0)
    assert losses["accuracy"].sum.item() == 1 and losses["accuracy"].count == "examples"
    assert losses["mean_reward"].sum.item() == pytest.approx(3.5) and losses["mean_reward"].count == "sequences"
    assert all(losses[name].metric for name in ("accuracy", "margin", "mean_reward"))


def test_equal_rewards_are_not_accurate() -> None:
    assert terms(torch.tensor([1.0, 1.0]), None, 0.0)["accuracy"].sum.item() == 0


def test_answers_that_are_not_pairs_are_refused() -> None:
    with pytest.raises(PluginError, match="trained on pairs: expected an even number of answers, got 3"):
        terms(SCORES[:3], None, 0.0)
    with pytest.raises(PluginError, match="trained on pairs: expected 8 answers for its margins, got 4"):
        terms(SCORES, torch.tensor([1.0, 0.0, 0.0, 0.0]), 0.0)
