"""The terms by numbers that were worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tunesmith_reward.loss import terms

from tunesmith import PluginError

SCORES = torch.tensor([2.0, 0.5, -1.0, 2.0])  # the first pair is told apart by 1.5, the second wrongly by -3


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def test_the_loss_is_that_of_bradley_and_terry() -> None:
    found = terms(SCORES, None, 0.0)
    assert found["bradley_terry"].sum.item() == pytest.approx(-log_sigmoid(1.5) - log_sigmoid(-3.0))
    assert found["bradley_terry"].count == "examples" and "centering" not in found


def test_a_margin_is_what_the_chosen_reward_has_to_exceed_the_other_by() -> None:
    found = terms(SCORES, torch.tensor([1.0, -0.5]), 0.0)
    assert found["bradley_terry"].sum.item() == pytest.approx(-log_sigmoid(0.5) - log_sigmoid(-2.5))
    assert found["margin"].sum.item() == pytest.approx(-1.5)  # what was reached, not what was asked for


def test_centering_draws_the_sum_of_a_pair_to_zero() -> None:
    found = terms(SCORES, None, 0.1)
    assert found["centering"].sum.item() == pytest.approx(0.1 * (2.5**2 + 1.0**2))
    assert found["centering"].count == "examples" and not found["centering"].metric


def test_accuracy_and_mean_are_those_of_pairs_and_of_answers() -> None:
    found = terms(SCORES, None, 0.0)
    assert found["accuracy"].sum.item() == 1 and found["accuracy"].count == "examples"
    assert found["mean_reward"].sum.item() == pytest.approx(3.5) and found["mean_reward"].count == "sequences"
    assert all(found[name].metric for name in ("accuracy", "margin", "mean_reward"))


def test_equal_rewards_are_no_success() -> None:
    assert terms(torch.tensor([1.0, 1.0]), None, 0.0)["accuracy"].sum.item() == 0


def test_answers_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(PluginError, match="trained on pairs"):
        terms(SCORES[:3], None, 0.0)
    with pytest.raises(PluginError, match="trained on pairs"):
        terms(SCORES, torch.tensor([1.0, 0.0, 0.0, 0.0]), 0.0)
