"""On real rows with a real tokenizer, the held-out loss falls, and transformers and peft load the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny

SOURCES = {
    "messages": ("gsm8k/messages.jsonl", "chat_template"),
    "multiturn": ("gsm8k/multiturn.jsonl", "chat_template"),
    "alpaca": ("gsm8k/alpaca.jsonl", "alpaca"),
    "shakespeare": ("text/shakespeare.jsonl", "completion"),
}
CASES = [(source, adapter) for source in SOURCES for adapter in (None, "lora")]


@pytest.fixture(scope="module")
def base(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small Llama with random weights and the tokenizer of the test data."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = tiny.config("llama", vocab_size=50259, hidden_size=64, intermediate_size=128, max_position_embeddings=1024)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(test_data / "tokenizer-gpt2-chatml").save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("source", "adapter"), CASES)
def test_held_out_loss_falls_and_the_result_loads(
    source: str, adapter: str | None, base: Path, test_data: Path, tmp_path: Path
) -> None:
    path, kind = SOURCES[source]
    keys: dict[str, Any] = {"lora_r": 16, "lora_alpha": 64} if adapter else {}
    config = tiny.write_config(
        tmp_path, base_model=str(base), datasets=[{"path": str(test_data / path), "type": kind}], adapter=adapter,
        val_set_size=8, sequence_len=512, micro_batch_size=1, max_steps=13, eval_steps=12,
        learning_rate=5e-3, warmup_steps=0, **keys,
    )  # fmt: skip
    result = tiny.train(config)
    evaluations = [line["eval_loss"] for line in tiny.metrics(tmp_path / "out") if "eval_loss" in line]
    untrained = 10.825  # ln(50259), the loss of a uniform guess; random weights are slightly worse
    assert evaluations[-1] < untrained - 0.05
    loaded = load(tmp_path / "out", base, adapter)
    tokens = torch.arange(20)[None]
    with torch.no_grad(), result.policy.language_model.attending("sdpa"):
        expected = result.policy.model.eval()(input_ids=tokens).logits
        assert torch.allclose(loaded(input_ids=tokens).logits, expected, atol=1e-5)


def load(folder: Path, base: Path, adapter: str | None) -> Any:
    """Load the result with transformers and peft, without Tunesmith."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoTokenizer.from_pretrained(folder).chat_template
    if adapter is None:
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
