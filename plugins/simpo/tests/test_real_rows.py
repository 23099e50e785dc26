"""On real pairs that were not trained on, the better answer comes to get the higher implicit reward."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.orpo.tests import pairs

# Means over tokens, without the likelihood. Summed over an answer, what random weights say is its length and little
# else, and the chosen answers of these rows are the longer ones: that takes a model that can write already.
METHODS = {
    "simpo": {"rl_beta": 2.0, "simpo_gamma": 1.0},
    "cpo": {"cpo_loss_type": "ipo", "rl_beta": 1.0, "cpo_alpha": 0.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("rl", METHODS)
def test_held_out_accuracy_rises(rl: str, test_data: Path, tmp_path: Path) -> None:
    pairs.check_held_out(test_data, tmp_path, rl, **METHODS[rl])
