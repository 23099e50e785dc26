"""Loss, gradients and trajectories of SimPO and CPO are those of TRL's trainer, on the same model and rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plugins.orpo.tests import pairs
from tests import tiny

# our keys, and the same said to TRL
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "simpo": ("simpo", {}, {"loss_type": "simpo", "cpo_alpha": 0.0}),
    "simpo of the paper": (
        "simpo",
        {"rl_beta": 2.5, "simpo_gamma": 1.4},
        {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.5, "simpo_gamma": 1.4},
    ),
    "simpo with likelihood and smoothing": (
        "simpo",
        {"rl_beta": 2.0, "cpo_alpha": 0.5, "cpo_label_smoothing": 0.2},
        {"loss_type": "simpo", "beta": 2.0, "cpo_alpha": 0.5, "label_smoothing": 0.2},
    ),
    "cpo": ("cpo", {}, {}),
    "cpo with smoothing": ("cpo", {"cpo_label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    "cpo without likelihood": ("cpo", {"cpo_alpha": 0.0, "rl_beta": 0.3}, {"cpo_alpha": 0.0, "beta": 0.3}),
    "hinge": ("cpo", {"cpo_loss_type": "hinge", "rl_beta": 0.02}, {"loss_type": "hinge", "beta": 0.02}),
    "ipo": (
        "cpo",
        {"cpo_loss_type": "ipo", "rl_beta": 0.8, "cpo_alpha": 0.3},
        {"loss_type": "ipo", "beta": 0.8, "cpo_alpha": 0.3},
    ),
}
METRICS = (
    "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected",
)  # fmt: skip
cases = pytest.mark.parametrize(("rl", "keys", "options"), CASES.values(), ids=CASES)


@cases
def test_loss_and_gradients_are_those_of_trl(
    rl: str, keys: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    rows = tiny.rows("pair", pairs.NUMBER)
    run, policy, examples = pairs.policy_of(pairs.config(tmp_path, rl, rows, **keys))
    loss, theirs, _ = pairs.trl_gradients(pairs.trl_trainer("CPO", tmp_path, rows, **options))
    pairs.same(pairs.gradients(run, policy, [examples]), (loss, theirs))


@cases
def test_three_steps_end_where_those_of_trl_end(
    rl: str, keys: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    rows = tiny.rows("pair", pairs.NUMBER)
    tiny.train(pairs.config(tmp_path, rl, rows, **keys))
    trainer = pairs.trl_trainer("CPO", tmp_path, rows, **options)
    named = METRICS + (("nll_loss",) if trainer.cpo_alpha else ())  # TRL's is 0 where it is not trained on
    for ours, theirs in zip(tiny.metrics(tmp_path / "out"), pairs.logged(trainer), strict=True):
        assert {k: ours[k] for k in named} == pytest.approx({k: float(theirs[k]) for k in named}, rel=1e-5, abs=1e-5)
    saved = tiny.weights(tmp_path / "out")
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(saved[name], parameter.detach(), atol=1e-5, rtol=1e-5)
