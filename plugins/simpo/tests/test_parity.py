"""Loss, gradients and trajectories of SimPO and CPO equal those of TRL's trainer on the same model and rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import method_checks, rows, tiny

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # id -> rl, keys of Tunesmith, options of TRL
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
def test_loss_and_gradients_equal_those_of_trl(
    rl: str, keys: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    _, _, loss, gradients = method_checks.first_step(rows.config(tmp_path, rl, **keys))
    trainer = method_checks.trl_pair_trainer("CPO", tmp_path, rows.pairs(), **options)
    expected, expected_gradients, _ = method_checks.trl_step(trainer)
    method_checks.check_step(loss, gradients, expected, expected_gradients)


@cases
def test_three_steps_end_with_the_weights_of_trl(
    rl: str, keys: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    tiny.train(rows.config(tmp_path, rl, **keys))
    trainer = method_checks.trl_pair_trainer("CPO", tmp_path, rows.pairs(), **options)
    names = METRICS + (("nll_loss",) if trainer.cpo_alpha else ())  # TRL logs 0 if it is not trained on
    for ours, theirs in zip(tiny.metrics(tmp_path / "out"), method_checks.trl_log(trainer), strict=True):
        assert {k: ours[k] for k in names} == pytest.approx({k: float(theirs[k]) for k in names}, rel=1e-5, abs=1e-5)
    saved = tiny.weights(tmp_path / "out")
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(saved[name], parameter.detach(), atol=1e-5, rtol=1e-5)
