from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tunesmith_dpop
from tunesmith_dpop import dpop

from plugins.dpo.tests import made
from tests import tiny

OPTIONS: Any = SimpleNamespace(beta=0.1)


def pairs(chosen: list[float], rejected: list[float]) -> Any:
    """Log-ratios of pairs, as rl: dpo gives them."""
    sides = {"chosen": chosen, "rejected": rejected}
    return SimpleNamespace(**{name: torch.tensor(side, requires_grad=True) for name, side in sides.items()})


def test_it_is_dpo_where_the_chosen_answer_gained_and_costs_more_where_it_lost() -> None:
    loss = dpop(pairs([1.0, -1.0], [0.5, -1.5]), OPTIONS)
    assert loss.tolist() == pytest.approx(
        [math.log1p(math.exp(-0.1 * 0.5)), math.log1p(math.exp(-0.1 * (0.5 - 50 * 1.0)))]
    )


def test_a_chosen_answer_that_lost_is_pushed_up_harder_than_the_rejected_one_down() -> None:
    pair = pairs([-0.1], [-0.2])
    dpop(pair, OPTIONS).sum().backward()
    assert pair.chosen.grad.item() < -10 * pair.rejected.grad.item() < 0


def test_the_function_is_at_most_15_lines() -> None:
    assert len(inspect.getsource(tunesmith_dpop.dpop).splitlines()) <= 15


def test_it_trains_by_its_name_alone_or_with_another(tmp_path: Path) -> None:
    keys = {"dpo_loss_type": ["dpop", "sft"], "dpo_loss_weights": [1.0, 0.5], "max_steps": 2}
    tiny.train(made.config(tmp_path, **keys))
    first, second = tiny.metrics(tmp_path / "out")
    assert first["dpop"] == pytest.approx(math.log(2), abs=1e-6)  # nothing has moved yet
    assert second["loss"] == pytest.approx(second["dpop"] + second["sft"], rel=1e-6)
    notes = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["notes"]
    assert notes["dpo_loss_type dpop"] == "tunesmith-dpop 0.1.0"
