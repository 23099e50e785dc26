"""On real pairs that were not trained on, the better answer comes to get the higher implicit reward."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.orpo.tests import pairs


@pytest.mark.slow
def test_held_out_accuracy_rises(test_data: Path, tmp_path: Path) -> None:
    """The odds ratio is nearly all of the loss here: from random weights, the likelihood first teaches which words are
    common, and those are in both answers."""
    pairs.check_held_out(test_data, tmp_path, "orpo", orpo_alpha=100.0)
