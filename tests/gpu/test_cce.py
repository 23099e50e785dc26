"""On a GPU, the kernels of cut-cross-entropy equal the chunked path and need no more memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith import build_policy, collate
from tunesmith.api import prepare

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]


def step(path: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Run one forward and backward pass.

    Return the log-probabilities, the gradients by name, and the peak memory above the model in bytes.
    """
    run = prepare(tiny.start(path))
    with run.alive():
        policy: Any = build_policy(run)
        batch = collate([run.data.train[i] for i in range(len(run.data.train))]).to(run.device)
        policy(batch).logps.sum().backward()  # compiles
        policy.model.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        logps = policy(batch).logps
        (-logps.mean()).backward()
        torch.cuda.synchronize()
        gradients = {name: p.grad.float() for name, p in policy.model.named_parameters()}
        return logps.detach().float(), gradients, torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("filtered", [True, False])
def test_bfloat16_kernels_equal_chunks_without_more_memory(filtered: bool, tmp_path: Path) -> None:
    pytest.importorskip("cut_cross_entropy")
    keys = {"vocab_size": 32000, "hidden_size": 256, "head_dim": 64, "intermediate_size": 512}
    model = tiny.model_folder(tmp_path / "wide", "llama", **keys)
    plain: dict[str, Any] = {"base_model": str(model), "device": "cuda", "bf16": True, "number": 60}
    kernels = {"cut_cross_entropy": True, "cut_cross_entropy_filter": filtered}
    logps, gradients, memory = step(tiny.sft_config(tmp_path, **plain, **kernels))
    chunked_logps, chunked_gradients, chunked_memory = step(tiny.sft_config(tmp_path, **plain))
    assert torch.allclose(logps, chunked_logps, atol=0.1) and (logps - chunked_logps).abs().mean() < 0.02
    assert gradients.keys() == chunked_gradients.keys()
    for name, gradient in chunked_gradients.items():
        assert (gradients[name] - gradient).norm() <= 0.05 * gradient.norm(), name
    assert memory <= chunked_memory, (memory, chunked_memory)
