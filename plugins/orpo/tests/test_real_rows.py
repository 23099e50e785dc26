"""After ORPO on real pairs, the better answer has the higher implicit reward in held-out pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import method_checks


@pytest.mark.slow
def test_held_out_accuracy_rises(test_data: Path, tmp_path: Path) -> None:
    """The odds ratio is most of the loss here: from random weights, the likelihood first teaches which words are
    common, and these are in both answers."""
    method_checks.check_held_out(test_data, tmp_path, rl="orpo", orpo_alpha=100.0)
