"""SimPO and CPO learn the same, to 1e-5, for any layout of pairs, micro-batches and number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import method_checks, one_step, rows

METHODS: dict[str, dict[str, Any]] = {
    "simpo": {"rl_beta": 2.0, "simpo_gamma": 1.0},
    "cpo": {"rl_beta": 0.05, "cpo_loss_type": "hinge"},
}


@pytest.mark.parametrize("rl", METHODS)
@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt_neox"])
def test_layouts_and_micro_batches_give_the_same_step(
    architecture: str, adapter: str | None, rl: str, tmp_path: Path
) -> None:
    path = rows.config(tmp_path, rl, architecture=architecture, adapter=adapter, **METHODS[rl])
    method_checks.check_layouts(*one_step.started(path))
