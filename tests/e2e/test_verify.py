"""`verify` reports a model that breaks a promise of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F

from tests import tiny
from tunesmith import NumericalError
from tunesmith.api import prepare, verify


def test_leak_between_examples_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with its own attention would apply plain causal attention to the pack."""

    def leaking(q: Any, k: Any, v: Any, tree_mask: Any, **options: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])

    monkeypatch.setattr("tunesmith_hf.attention.attend_slices", leaking)
    with pytest.raises(NumericalError, match=r"packed = plain forward.*shared = repeated") as error:
        verify(prepare(tiny.start(tiny.sft_config(tmp_path))))
    assert error.value.exit_code == 7


def test_wrong_head_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test adds a scaling of the logits that is unknown to the engine."""
    monkeypatch.setattr("tunesmith_hf.model.HFLanguageModel.logits", lambda self, h: 2.0 * self.module.lm_head(h))
    with pytest.raises(NumericalError, match="packed = plain forward"):
        verify(prepare(tiny.start(tiny.sft_config(tmp_path))))
