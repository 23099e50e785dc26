"""On a GPU, the flex and variable-length backends equal attention with a full mask, and a run trains with them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tunesmith_hf.kernels import attend_flex, attend_varlen

from tests import tiny
from tunesmith import Example, collate

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("forked", [False, True])
def test_backend_equals_full_mask(window: int | None, forked: bool) -> None:
    texts = [Example.text(list(range(1, n))) for n in (40, 90, 7)]
    pairs = [Example.branches(list(range(1, n)), [[1, 2, 3], [4, 5]]) for n in (40, 90, 7)]
    tree_mask = collate(pairs if forked else texts).to("cuda").tree_mask
    q = torch.randn(1, 4, tree_mask.length, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    k, v = (torch.randn(1, 2, tree_mask.length, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    mask = tree_mask.visible(window)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    (expected_gradient,) = torch.autograd.grad(expected.float().sum(), q)
    for attend in (attend_flex,) if forked else (attend_flex, attend_varlen):
        output = attend(q, k, v, tree_mask, window=window)
        assert torch.allclose(output.float(), expected.float(), atol=2e-2)
        (gradient,) = torch.autograd.grad(output.float().sum(), q)
        assert torch.allclose(gradient.float(), expected_gradient.float(), atol=5e-2)


@pytest.mark.parametrize("backend", ["auto", "flex", "slices"])
def test_run_trains(backend: str, tmp_path: Path) -> None:
    keys = {"hidden_size": 256, "head_dim": 64, "intermediate_size": 512}
    tiny.model_folder(tmp_path / "model-llama", "llama", **keys)
    tiny.train(tiny.sft_config(tmp_path, device="cuda", attn_implementation=backend))
    assert all(math.isfinite(line["loss"]) for line in tiny.metrics(tmp_path / "out"))
