"""However the pairs of a step are laid out, split or dealt to processes, these methods learn the same: to 1e-5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugins.orpo.tests import pairs

METHODS: dict[str, dict[str, Any]] = {
    "simpo": {"rl_beta": 2.0, "simpo_gamma": 1.0},
    "cpo": {"rl_beta": 0.05, "cpo_loss_type": "hinge"},
}


@pytest.mark.parametrize("rl", METHODS)
@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("architecture", pairs.ARCHITECTURES)
def test_shared_repeated_unpacked_and_accumulated_are_one(
    architecture: str, adapter: str | None, rl: str, tmp_path: Path
) -> None:
    pairs.check_layouts(pairs.config(tmp_path, rl, architecture=architecture, adapter=adapter, **METHODS[rl]))


def test_two_processes_packed_and_uneven_are_one(tmp_path: Path) -> None:
    pairs.check_processes(tmp_path, METHODS)
