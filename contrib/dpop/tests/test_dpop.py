"""DPO-Positive penalizes a chosen answer that becomes less likely, and is found by its name."""

from __future__ import annotations

import inspect
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tunesmith_dpop
from tunesmith_dpop import dpop

from tests import rows, tiny
from tests.repo.source import ROOT

OPTIONS: Any = SimpleNamespace(beta=0.1)


def pairs(chosen: list[float], rejected: list[float]) -> Any:
    """Return the log-ratios of pairs, as `rl: dpo` passes them."""
    sides = {"chosen": chosen, "rejected": rejected}
    return SimpleNamespace(**{name: torch.tensor(side, requires_grad=True) for name, side in sides.items()})


def test_the_loss_is_that_of_dpo_unless_the_chosen_answer_became_less_likely() -> None:
    loss = dpop(pairs([1.0, -1.0], [0.5, -1.5]), OPTIONS)
    assert loss.tolist() == pytest.approx(
        [math.log1p(math.exp(-0.1 * 0.5)), math.log1p(math.exp(-0.1 * (0.5 - 50 * 1.0)))]
    )


def test_a_chosen_answer_that_became_less_likely_has_the_larger_gradient() -> None:
    pair = pairs([-0.1], [-0.2])
    dpop(pair, OPTIONS).sum().backward()
    assert pair.chosen.grad.item() < -10 * pair.rejected.grad.item() < 0


def test_the_function_is_at_most_15_lines() -> None:
    assert len(inspect.getsource(tunesmith_dpop.dpop).splitlines()) <= 15


def test_the_code_in_the_docs_is_that_of_the_package() -> None:
    page = (ROOT / "docs" / "write-a-plugin.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n# tunesmith_dpop/__init__.py\n(.*?)^```$", page, re.M | re.S)
    page_globals: dict[str, Any] = {}
    exec(compile(code, "write-a-plugin.md", "exec"), page_globals)  # a page of this repository
    assert code.count("\n", code.index("def dpop")) <= 15
    generator = torch.Generator().manual_seed(3)
    sides = torch.randn(2, 64, generator=generator).tolist()
    assert page_globals["dpop"](pairs(*sides), OPTIONS).equal(dpop(pairs(*sides), OPTIONS))
    assert page_globals["plugin"] == tunesmith_dpop.plugin


def test_the_loss_is_found_by_its_name_and_can_be_added_to_another(tmp_path: Path) -> None:
    keys = {"dpo_loss_type": ["dpop", "sft"], "dpo_loss_weights": [1.0, 0.5], "max_steps": 2}
    tiny.train(rows.config(tmp_path, "dpo", **keys))
    first, second = tiny.metrics(tmp_path / "out")
    assert first["dpop"] == pytest.approx(math.log(2), abs=1e-6)  # the policy is still the reference
    assert second["loss"] == pytest.approx(second["dpop"] + second["sft"], rel=1e-6)
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert record["notes"]["dpo_loss_type dpop"] == "tunesmith-dpop 0.1.0"
    offer = {
        "kind": "dpo_losses",
        "name": "dpop",
        "plugin": "dpop",
        "distribution": "tunesmith-dpop",
        "version": "0.1.0",
    }
    assert record["offers"] == [offer] and "dpop" not in {plugin["name"] for plugin in record["plugins"]}
