"""After SimPO or CPO on real pairs, the better answer has the higher implicit reward in held-out pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import method_checks

# Both use means over tokens and no likelihood. Log-probabilities by random weights, summed over an answer, mostly
# measure its length, and the chosen answers of these rows are longer: sums need a model that can write already.
METHODS = {
    "simpo": {"rl_beta": 2.0, "simpo_gamma": 1.0},
    "cpo": {"cpo_loss_type": "ipo", "rl_beta": 1.0, "cpo_alpha": 0.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("rl", METHODS)
def test_held_out_accuracy_rises(rl: str, test_data: Path, tmp_path: Path) -> None:
    method_checks.check_held_out(test_data, tmp_path, rl=rl, **METHODS[rl])
