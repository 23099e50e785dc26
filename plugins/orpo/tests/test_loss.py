"""The terms equal numbers computed by hand, extreme odds are finite, and invalid pairs and keys are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_orpo.loss import log_odds, orpo

from tests import rows, tiny
from tunesmith import ConfigError, DataError, Example, PluginError, chosen_tokens, collate, segment


def batch_of(*answers: list[int]) -> Any:
    return collate([Example.branches([1, 2], answers)])


def test_the_terms_equal_those_of_the_paper() -> None:
    """Probabilities 1/2 and 1/8 of the chosen tokens have the geometric mean 1/4; the rejected answer has 1/2."""
    batch = batch_of([3, 4], [5])
    terms = orpo(batch, torch.tensor([0.5, 0.125, 0.5]).log(), 0.3)
    ratio = math.log((1 / 3) / (1 + 1 / 3))  # odds of 1/3 to odds of 1
    assert terms["nll_loss"].sum.item() == pytest.approx(math.log(16)) and terms["nll_loss"].count == "chosen_tokens"
    assert terms["odds_ratio_loss"].sum.item() == pytest.approx(-0.3 * ratio)
    assert terms["odds_ratio_loss"].count == "examples" and chosen_tokens(batch) == 2
    assert terms["log_odds_ratio"].sum.item() == pytest.approx(ratio)
    assert terms["log_odds_chosen"].sum.item() == pytest.approx(math.log(1 / 3))
    assert terms["rewards/margins"].sum.item() == pytest.approx(0.3 * math.log(0.5))
    assert terms["rewards/accuracies"].sum.item() == 0.0
    assert [name for name, term in terms.items() if not term.metric] == ["nll_loss", "odds_ratio_loss"]


@pytest.mark.parametrize("logp", [0.0, -1e-8, -1e-3, -0.7, -20.0, -500.0])
def test_odds_and_their_gradient_are_finite_for_extreme_probabilities(logp: float) -> None:
    value = torch.tensor(logp, requires_grad=True)
    odds = log_odds(value)
    odds.backward()
    assert odds.isfinite() and value.grad is not None and value.grad.isfinite()
    if -100 < logp < -1e-4:
        assert odds.item() == pytest.approx(logp - math.log(-math.expm1(logp)), abs=1e-5)


def test_an_answer_without_trained_tokens_is_refused_by_row_and_side() -> None:
    trained, masked = segment([3, 4], 1.0, fork=2), segment([5], 0.0, fork=2)
    batch = collate([Example([segment([1, 2]), trained, masked], origin=(0, 6))])
    with pytest.raises(DataError, match="row 7 of data entry 0: the rejected answer has no trained token"):
        chosen_tokens(batch)
    with pytest.raises(DataError, match="the chosen answer has no trained token"):
        chosen_tokens(collate([Example([segment([1, 2]), masked, trained])]))


@pytest.mark.parametrize("answers", [1, 3])
def test_an_example_that_is_not_a_pair_is_refused(answers: int) -> None:
    with pytest.raises(PluginError, match=f"a pair must have two answers, got an example with {answers}"):
        chosen_tokens(batch_of(*[[3, 4]] * answers))


@pytest.mark.parametrize("keys", [{"orpo_alpha": 0.0}, {"orpo_alpha": -1.0}, {"orpo_alpha": "0.1"}, {"rl_beta": 0.1}])
def test_a_weight_out_of_range_and_the_key_of_another_method_are_refused(keys: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(rows.config(tmp_path, "orpo", **keys))
    (problem,) = caught.value.problems
    assert next(iter(keys)) in problem.message and "out.yaml:" in (problem.where or "")
