"""The numbers of `head()` give the same logits as the model, and `head()` is None if they can't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests import tiny
from tunesmith import build_policy
from tunesmith.api import prepare

SIZES = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("Llama", {}),
    "multiplied": ("Cohere", {"logit_scale": 0.3, "eos_token_id": 2}),
    "divided": ("Granite", {"logits_scaling": 6.0}),
    "capped": ("Gemma2", {"final_logit_softcapping": 2.0, "sliding_window": 8}),
    "bias": ("Phi", {"partial_rotary_factor": 0.5}),
}


def language_model_of(folder: Path, kind: str = "plain") -> Any:
    name, changes = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **changes)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    for parameter in model.parameters():  # larger than usual, so that a cap or a bias shows
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / "model-llama")
    tiny.tokenizer().save_pretrained(folder / "model-llama")
    return build_policy(prepare(tiny.start(tiny.sft_config(folder)))).language_model


@pytest.mark.parametrize("kind", KINDS)
def test_head_numbers_logits_and_model_agree(kind: str, tmp_path: Path) -> None:
    language_model = language_model_of(tmp_path, kind)
    tokens = torch.arange(5, 30)
    head = language_model.head()
    with torch.no_grad(), language_model.attending("eager"):
        hidden = language_model.module.base_model(input_ids=tokens[None]).last_hidden_state[0]
        numbers = nn.functional.linear(hidden, head.weight, head.bias) * head.scale
        numbers = torch.tanh(numbers / head.softcap) * head.softcap if head.softcap else numbers
        expected = language_model.plain_logits(tokens)
        torch.testing.assert_close(language_model.logits(hidden), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(numbers, expected, atol=1e-5, rtol=1e-5)
    assert (head.bias is not None) == (kind == "bias") and (head.softcap is not None) == (kind == "capped")
    assert (head.scale != 1) == (kind in ("multiplied", "divided"))


def test_wrapped_or_patched_head_gives_none(tmp_path: Path) -> None:
    """A kernel that reads the weight would skip an adapter's wrapper, a replaced forward or a hook."""
    language_model = language_model_of(tmp_path)
    linear = language_model.module.lm_head
    assert language_model.head().weight is linear.weight

    class Wrapped(nn.Linear):
        """A subclass, as an adapter's layer is."""

    language_model.module.lm_head = Wrapped(32, 320)
    assert language_model.head() is None
    language_model.module.lm_head = linear
    linear.forward = lambda x: 2 * nn.Linear.forward(linear, x)
    assert language_model.head() is None
    del linear.forward
    hook = linear.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert language_model.head() is None
    hook.remove()
    assert language_model.head() is not None
