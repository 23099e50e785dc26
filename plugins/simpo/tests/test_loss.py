"""The terms equal numbers computed by hand, and keys without effect are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_simpo import SimpoSettings
from tunesmith_simpo.loss import Loss

from tests import rows, tiny
from tunesmith import ConfigError, DataError, Example, collate, segment

SIGMOID = {x: -math.log(1 / (1 + math.exp(-x))) for x in (-0.9, 0.1, -0.1, 0.4)}


def terms(method: str, **keys: Any) -> dict[str, Any]:
    """Return the terms of a pair. The chosen answer has log-probabilities -1 and -3, the rejected one -1."""
    batch = collate([Example.branches([1, 2], [[3, 4], [5]])])
    return Loss.of(method, SimpoSettings(**keys)).terms(batch, torch.tensor([-1.0, -3.0, -1.0]))


@pytest.mark.parametrize(
    ("method", "keys", "loss"),
    [
        ("simpo", {"rl_beta": 0.4}, SIGMOID[-0.9]),  # 0.4 * (-2 - -1) - 0.5
        ("simpo", {"simpo_gamma": 0.0}, SIGMOID[-0.1]),
        ("simpo", {"simpo_gamma": 0.0, "cpo_label_smoothing": 0.2}, 0.8 * SIGMOID[-0.1] + 0.2 * SIGMOID[0.1]),
        ("cpo", {"rl_beta": 0.3}, -math.log(1 / (1 + math.exp(0.9)))),  # 0.3 * (-4 - -1)
        ("cpo", {"cpo_loss_type": "hinge"}, 1.3),
        ("cpo", {"cpo_loss_type": "ipo", "rl_beta": 0.5}, 4.0),  # (-2 - -1 - 1)^2
    ],
)
def test_the_loss_of_a_pair_equals_its_formula(method: str, keys: dict[str, Any], loss: float) -> None:
    term = terms(method, **keys)[method]
    assert term.sum.item() == pytest.approx(loss) and term.count == "examples" and not term.metric


def test_the_likelihood_is_trained_with_cpo_and_only_logged_with_simpo() -> None:
    assert terms("cpo")["nll"].sum.item() == 4.0 and terms("cpo")["nll"].count == "chosen_tokens"
    assert "nll" not in terms("simpo") and "nll" not in terms("cpo", cpo_alpha=0.0)
    assert terms("simpo", cpo_alpha=0.25)["nll"].sum.item() == 1.0
    for method in ("simpo", "cpo"):
        measured = terms(method)["nll_loss"]
        assert measured.metric and measured.sum.item() == 4.0 and measured.count == "chosen_tokens"


def test_rewards_are_the_values_that_the_loss_compares() -> None:
    """Means over tokens with simpo, sums over the answer with cpo."""
    assert terms("simpo")["rewards/margins"].sum.item() == pytest.approx(0.1 * (-2 + 1))
    assert terms("cpo")["rewards/margins"].sum.item() == pytest.approx(0.1 * (-4 + 1))
    assert terms("cpo")["logps/chosen"].sum.item() == -4 and terms("cpo")["rewards/accuracies"].sum.item() == 0


def test_an_answer_without_trained_tokens_is_refused(tmp_path: Path) -> None:
    run = tiny.start(rows.config(tmp_path, "simpo"))
    masked = Example([segment([1, 2]), segment([3], 1.0, fork=2), segment([4], 0.0, fork=2)], origin=(0, 2))
    with pytest.raises(DataError, match="row 3 of data entry 0: the rejected answer has no trained token"):
        run.hooks.prepare_step(run, None, [collate([masked])])


@pytest.mark.parametrize(
    ("rl", "keys", "message"),
    [
        ("simpo", {"cpo_loss_type": "sigmoid"}, "cpo_loss_type has no effect with rl: simpo"),
        ("cpo", {"simpo_gamma": 0.5}, "simpo_gamma has no effect with rl: cpo"),
        ("cpo", {"cpo_loss_type": "hinge", "cpo_label_smoothing": 0.1}, "no effect with cpo_loss_type: hinge"),
        ("cpo", {"cpo_loss_type": "ipo", "cpo_label_smoothing": 0.1}, "no effect with cpo_loss_type: ipo"),
        (None, {"plugins": ["simpo"]}, "plugins has simpo, which has two methods"),
        ("cpo", {"cpo_loss_type": "hige"}, "cpo_loss_type"),
        ("cpo", {"cpo_label_smoothing": 0.5}, "cpo_label_smoothing"),
        ("cpo", {"cpo_label_smoothing": -0.1}, "cpo_label_smoothing"),
        ("cpo", {"cpo_alpha": -1.0}, "cpo_alpha"),
        ("simpo", {"simpo_gamma": -0.5}, "simpo_gamma"),
        ("simpo", {"rl_beta": 0.0}, "rl_beta"),
        ("simpo", {"orpo_alpha": 0.1}, "orpo_alpha belongs to orpo"),
    ],
)
def test_a_key_without_effect_or_out_of_range_is_one_error(
    rl: str | None, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(rows.config(tmp_path, "simpo", **(keys | {"rl": rl})))
    (problem,) = caught.value.problems
    assert message in problem.message and "out.yaml:" in (problem.where or "")


def test_two_keys_without_effect_are_reported_together(tmp_path: Path) -> None:
    keys = {"simpo_gamma": 1.0, "cpo_loss_type": "hinge", "cpo_label_smoothing": 0.1}
    with pytest.raises(ConfigError) as caught:
        tiny.start(rows.config(tmp_path, "cpo", **keys))
    assert len(caught.value.problems) == 2


def test_a_margin_out_of_reach_is_a_warning(tmp_path: Path) -> None:
    far = tiny.start(rows.config(tmp_path, "simpo"))
    near = tiny.start(rows.config(tmp_path, "simpo", rl_beta=2.0))
    assert any("simpo_gamma / rl_beta is a margin of 5 nats per token" in str(note) for note in far.notes.values())
    assert not any("nats per token" in str(note) for note in near.notes.values())
