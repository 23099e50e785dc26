"""The term of textmetrics is its formula, and the plugin passes the conformance checks."""

from __future__ import annotations

import pytest
import torch
from tunesmith_textmetrics.term import penalty

from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance

test_conformance = conformance({"textmetrics": Setup(keys={"textmetrics_weight": 0.1})})


def test_the_term_is_its_formula() -> None:
    term = penalty(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 0.5]), 0.1)
    assert term.sum.item() == pytest.approx(0.1 * (1.0 + 0.5 * 4.0))
    assert term.count == "tokens" and not term.metric
