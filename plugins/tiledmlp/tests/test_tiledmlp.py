"""Tiled MLPs compute the same results in less memory, with adapters, copies and other patches."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tunesmith_tiledmlp
from torch import Tensor, nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from tunesmith import PluginError
from tunesmith.plugins.patches import Patches

INTERMEDIATE = 48


def run(shards: int | None = None) -> Any:
    settings = {"tiled_mlp": True, "tiled_mlp_num_shards": shards}
    return SimpleNamespace(settings=lambda model: model(**settings), patches=Patches())


def llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=INTERMEDIATE, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


def neox() -> Any:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=32, hidden_size=16, intermediate_size=INTERMEDIATE, num_hidden_layers=2, num_attention_heads=2
    )
    return GPTNeoXForCausalLM(config)


class Wrapped(nn.Module):
    """A linear layer with a low-rank update, as in an adapter."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.a = nn.Linear(base.in_features, 2, bias=False)
        self.b = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Any:
        return self.base(x) + self.b(self.a(x))


def wrap(model: Any) -> Any:
    torch.manual_seed(1)
    model.requires_grad_(False)
    for layer in model.model.layers:
        layer.mlp.up_proj = Wrapped(layer.mlp.up_proj)
    return model


IDS = torch.arange(74).reshape(2, 37) % 32


def results(model: Any) -> list[Tensor]:
    """Return the logits and all gradients."""
    logits = model(IDS).logits
    logits.square().mean().backward()
    return [logits.detach(), *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("make", [llama, neox, lambda: wrap(llama())], ids=["llama", "neox", "adapter"])
@pytest.mark.parametrize("shards", [None, 1, 5, 100])
def test_outputs_and_gradients_are_unchanged(make: Any, shards: int | None) -> None:
    tiled = tunesmith_tiledmlp.patch_model(run(shards), "policy", make())
    torch.testing.assert_close(results(tiled), results(make()), atol=1e-6, rtol=0)


def test_adapters_can_be_added_afterwards() -> None:
    tiled = wrap(tunesmith_tiledmlp.patch_model(run(4), "policy", llama()))
    torch.testing.assert_close(results(tiled), results(wrap(llama())), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("shards", "longest"), [(None, 13), (10, 4)])  # 37 tokens, hidden size 16: 3 chunks
def test_intermediate_activations_exist_for_one_chunk_only(shards: int | None, longest: int) -> None:
    model: Any = tunesmith_tiledmlp.patch_model(run(shards), "policy", llama())
    chunk_lengths: list[int] = []
    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: chunk_lengths.append(inputs[0].shape[-2]))
    saved_sizes: list[int] = []

    def save(tensor: Tensor) -> Tensor:
        saved_sizes.append(tensor.shape[-1] if tensor.ndim == 3 else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        model(IDS).logits.sum()
    assert max(chunk_lengths) == longest
    assert saved_sizes and INTERMEDIATE not in saved_sizes


def test_copy_uses_its_own_weights() -> None:
    model: Any = tunesmith_tiledmlp.patch_model(run(), "policy", llama())
    model_copy = copy.deepcopy(model)
    before = model_copy(IDS).logits
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.zero_()
    assert torch.equal(model_copy(IDS).logits, before)
    assert not torch.equal(model(IDS).logits, before)


def test_patch_is_recorded_exclusive_and_can_be_undone() -> None:
    this, model = run(), llama()
    tunesmith_tiledmlp.patch_model(this, "policy", model)
    assert [(p.target, p.applied) for p in this.patches.entries] == [("LlamaMLP.forward", 2)]
    with pytest.raises(PluginError, match="patched by both"):
        tunesmith_tiledmlp.patch_model(this, "policy", model)
    this.patches.undo()
    assert all("forward" not in vars(layer.mlp) for layer in model.model.layers)


def test_model_without_mlps_is_an_error() -> None:
    with pytest.raises(PluginError, match="matched nothing"):
        tunesmith_tiledmlp.patch_model(run(), "policy", nn.Linear(2, 2))


def test_mlp_that_is_not_a_function_of_each_token_is_refused() -> None:
    class RoutingMLP(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x, x.mean()

    class ResidualMLP(nn.Module):
        def forward(self, x: Tensor, residual: Tensor) -> Any:
            return x + residual

    x = torch.ones(4, 2)
    with pytest.raises(PluginError, match="RoutingMLP"):
        tunesmith_tiledmlp.patch_model(run(), "policy", RoutingMLP())(x)
    with pytest.raises(PluginError, match="ResidualMLP"):
        tunesmith_tiledmlp.patch_model(run(), "policy", ResidualMLP())(x, x)
