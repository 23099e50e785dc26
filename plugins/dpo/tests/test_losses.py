"""Losses and weights equal their formulas, including those that TRL does not have or computes differently."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tunesmith_dpo.coupled import partners
from tunesmith_dpo.divergences import score
from tunesmith_dpo.losses import LOSSES
from tunesmith_dpo.margins import Margins, tail_weights
from tunesmith_dpo.options import OF_THE_DIFFERENCE, Options

from tests import one_step, rows, tiny
from tunesmith import Example, collate

BETA, NOISE, TAU = 0.5, 0.1, 0.2


def pair(c: float, r: float, long: int = 4, short: int = 2) -> Margins:
    chosen, rejected = torch.tensor([c], requires_grad=True), torch.tensor([r], requires_grad=True)
    partner_values = {name: torch.tensor([value]) for name, value in PARTNERS.items()}
    lengths = torch.tensor([float(long)]), torch.tensor([float(short)])
    return Margins(chosen, rejected, chosen, rejected, chosen - 3, rejected - 5, *lengths, partner_values)


PARTNERS = {"aot_reference": 1.5, "aot_rejected": -0.25, "aot_chosen": 0.75}


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def smoothed(x: float) -> float:
    return -(1 - NOISE) * log_sigmoid(x) - NOISE * log_sigmoid(-x)


def by_hand(c: float, r: float) -> dict[str, float]:
    """Return each loss by the formula of its paper, for answers of 4 and 2 tokens."""
    x = BETA * (c - r)
    q = 1 / (1 + math.exp(-x))
    m = 1 / (1 + math.exp(-x / TAU))
    return {
        "sigmoid": -log_sigmoid(x),
        "sigmoid_norm": -log_sigmoid(BETA * (c / 4 - r / 2)),
        "hinge": max(0.0, 1 - x),
        "ipo": (c / 4 - r / 2 - 1 / (2 * BETA)) ** 2,
        "exo_pair": q * math.log(q / (1 - NOISE)) + (1 - q) * math.log((1 - q) / NOISE),
        "nca_pair": -log_sigmoid(BETA * c) - 0.5 * log_sigmoid(-BETA * c) - 0.5 * log_sigmoid(-BETA * r),
        "robust": (-(1 - NOISE) * log_sigmoid(x) + NOISE * log_sigmoid(-x)) / (1 - 2 * NOISE),
        "bco_pair": -log_sigmoid(BETA * c) - log_sigmoid(-BETA * r),
        "sppo_hard": (c - 1 / (2 * BETA)) ** 2 + (r + 1 / (2 * BETA)) ** 2,
        "aot": smoothed(BETA * ((c - 3) - (r - 5) - 1.5)),
        "aot_unpaired": (smoothed(BETA * (c + 0.25)) + smoothed(BETA * (0.75 - r))) / 2,
        "apo_zero": 1 - math.exp(log_sigmoid(BETA * c)) + math.exp(log_sigmoid(BETA * r)),
        "apo_down": math.exp(log_sigmoid(BETA * c)) + 1 - math.exp(log_sigmoid(x)),
        "discopop": (1 - m) * -log_sigmoid(x) + m * math.exp(-x),
    }


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("c", "r"), [(1.2, -0.7), (-2.0, 0.4), (0.0, 0.0)])
def test_a_loss_equals_its_formula(name: str, c: float, r: float) -> None:
    loss = LOSSES[name](pair(c, r), Options(BETA, NOISE, TAU))
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(by_hand(c, r)[name], rel=1e-5)


@pytest.mark.parametrize("name", sorted(OF_THE_DIFFERENCE - {"ipo"}))
def test_the_chosen_answer_gains_if_policy_and_reference_agree(name: str) -> None:
    equal = pair(0.0, 0.0)
    LOSSES[name](equal, Options(BETA, NOISE, TAU)).sum().backward()  # type: ignore[no-untyped-call]
    assert equal.chosen.grad is not None and equal.rejected.grad is not None
    assert equal.chosen.grad.item() < 0 < equal.rejected.grad.item()


def test_a_partner_has_the_same_rank() -> None:
    matches = partners(torch.tensor([3.0, 1.0, 2.0, 9.0]), torch.tensor([10.0, 40.0, 20.0, 30.0]))
    assert matches.tolist() == [30.0, 10.0, 20.0, 40.0]


def test_aot_unpaired_has_the_gradient_of_sorting_both_sides() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = (torch.randn(9, generator=generator, requires_grad=True) for _ in range(2))
    difference = chosen.sort().values - rejected.sort().values
    sorted_loss = -torch.nn.functional.logsigmoid(BETA * difference).sum()
    expected = torch.autograd.grad(sorted_loss, [chosen, rejected])
    partner_values = {
        "aot_rejected": partners(chosen, rejected).detach(),
        "aot_chosen": partners(rejected, chosen).detach(),
    }
    ones = torch.ones(9)
    pairs = Margins(chosen, rejected, chosen, rejected, chosen, rejected, ones, ones, partner_values)
    loss = LOSSES["aot_unpaired"](pairs, Options(BETA)).sum()
    assert loss.item() == pytest.approx(sorted_loss.item(), rel=1e-6)
    for ours, theirs in zip(torch.autograd.grad(loss, [chosen, rejected]), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-7)


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"])
def test_a_score_is_0_at_a_ratio_of_1_and_increases_with_it(divergence: str) -> None:
    ratios = torch.linspace(-3, 3, 13)
    scores = score(ratios, divergence, 0.5)
    assert scores[6].item() == pytest.approx(0, abs=1e-6)
    assert bool((scores.diff() > 0).all())


def test_alpha_divergence_approaches_reverse_kl_and_does_not_overflow() -> None:
    ratios = torch.tensor([-2.0, 0.5])
    assert torch.allclose(score(ratios, "alpha_divergence", 1 + 1e-4), ratios, atol=1e-3)
    assert torch.equal(score(ratios, "alpha_divergence", 1.0), ratios)
    assert bool(score(torch.tensor([-1e4]), "alpha_divergence", 0.0).isfinite().all())


def test_tokens_beyond_the_length_of_the_shorter_answer_count_for_less() -> None:
    batch = collate([Example.branches([1], [[2, 3, 4], [5]]), Example.branches([], [[6, 7], [8, 9, 10]])])
    assert tail_weights(batch, 0.25).tolist() == [1, 0.25, 0.25, 1, 1, 1, 0.25]  # 6 and 8 have no token before them
    assert tail_weights(batch, None).tolist() == [1] * 7


def test_weights_of_pairs_do_not_change_sft(tmp_path: Path) -> None:
    """TRL multiplies the mean cross-entropy of the batch by the weight of each pair, so the loss of a pair depends on
    the others in its batch. Cross-entropy is a loss of tokens, so Tunesmith does not weight it."""
    keys = {"dpo_loss_type": ["sigmoid", "sft"]}
    run, policy = one_step.started(rows.config(tmp_path, "dpo", "plain", **keys))
    _, plain = one_step.loss_of(run, policy, [list(run.data.train)])
    run, policy = one_step.started(rows.config(tmp_path, "dpo", "weighted", dpo_use_weighting=True, **keys))
    _, weighted = one_step.loss_of(run, policy, [list(run.data.train)])
    assert weighted["sft"] == plain["sft"] and weighted["sigmoid"] < 0.9 * plain["sigmoid"]


def test_the_first_loss_is_log_2_and_rewards_are_0(tmp_path: Path) -> None:
    tiny.train(rows.config(tmp_path, "dpo", max_steps=1))
    line = tiny.metrics(tmp_path / "out")[0]
    assert line["loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert line["rewards/margins"] == line["rewards/chosen"] == line["rewards/accuracies"] == 0
