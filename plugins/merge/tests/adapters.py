"""Tiny base models and adapters with random weights, and peft's own merge to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM
from tunesmith_merge.model import quiet

IDS = torch.arange(3, 19)[None]


def load(folder: Path, auto: Any = AutoModelForCausalLM, rows: int | None = None, **options: Any) -> Any:
    """Return the model of a folder in float32, with its embeddings grown to `rows`."""
    with quiet():
        model = auto.from_pretrained(folder, dtype=torch.float32, **options)
        if rows:
            model.resize_token_embeddings(rows, mean_resizing=False)
    return model.eval()


def write_adapter(base: Path, folder: Path, config: Any, auto: Any = AutoModelForCausalLM, **options: Any) -> Path:
    """Write an adapter for a base model, all of whose weights are random, as after training; return its folder."""
    torch.manual_seed(1)
    with quiet():
        model = get_peft_model(load(base, auto, **options), config)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                scale = 0.1 if "magnitude" not in name else 0.0
                parameter.data += scale * torch.randn_like(parameter)
        model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def unmerged(base: Path, adapter: Path, auto: Any = AutoModelForCausalLM, **options: Any) -> Any:
    """Return peft's model of a base model and an adapter."""
    with quiet():
        return PeftModel.from_pretrained(load(base, auto, **options), adapter).eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def assert_same(
    merged: Path, base: Path, adapter: Path, auto: Any = AutoModelForCausalLM, weights: bool = True, **options: Any
) -> Any:
    """Check a merged model: logits of the unmerged model to 1e-5, and peft's merge_and_unload to 1e-6 if `weights`."""
    with_adapter = unmerged(base, adapter, auto, **options)
    expected = logits(with_adapter)
    model = load(merged, auto)
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    with quiet(), with_adapter.disable_adapter():
        without = logits(with_adapter)
    assert (expected - without).abs().max() > 1e-2  # the adapter has an effect
    if not weights:
        return model
    with quiet():
        theirs = dict(with_adapter.merge_and_unload().named_parameters(remove_duplicate=False))
    ours = dict(model.named_parameters(remove_duplicate=False))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-6, atol=1e-6, msg=name)
    return model
