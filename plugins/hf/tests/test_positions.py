"""A sequence beyond the table of positions of a model is an error with its reason, not an index out of range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from tunesmith_hf.model import positions_of

from tests import tiny
from tunesmith import Example, ModelError, PluginError, Request, build_policy, collate
from tunesmith.api import prepare

KINDS: dict[str, tuple[dict[str, Any], int | None]] = {
    "GPT2Config": ({"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}, 32),
    "OPTConfig": ({"hidden_size": 16, "ffn_dim": 16, "word_embed_proj_dim": 16, "num_hidden_layers": 1,
                   "num_attention_heads": 2, "max_position_embeddings": 32}, 32),
    "LlamaConfig": ({"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                     "num_key_value_heads": 2, "max_position_embeddings": 32}, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_only_models_with_a_table_have_a_limit(kind: str) -> None:
    sizes, limit = KINDS[kind]
    config = getattr(transformers, kind)(vocab_size=32, bos_token_id=1, eos_token_id=1, pad_token_id=1, **sizes)
    assert positions_of(transformers.AutoModelForCausalLM.from_config(config), config) == limit


def test_generation_and_training_beyond_the_table_are_refused(tmp_path: Path) -> None:
    sizes, _ = KINDS["GPT2Config"]
    config = transformers.GPT2Config(vocab_size=320, bos_token_id=1, eos_token_id=2, **sizes)
    config.save_pretrained(tmp_path / "model-llama")
    tiny.tokenizer().save_pretrained(tmp_path / "model-llama")
    cut = {"excess_length_strategy": "truncate"}
    run = prepare(tiny.start(tiny.sft_config(tmp_path, reinit_weights=True, sequence_len=32, number=4, **cut)))
    policy = build_policy(run)
    assert len(policy.generate([Request(list(range(28)), max_new_tokens=4)])[0][0].tokens) <= 4
    with pytest.raises(PluginError, match="a prompt of 28 tokens and up to 5 new ones are more than the 32 positions"):
        policy.generate([Request(list(range(28)), max_new_tokens=5)])
    policy(collate([Example.text(list(range(32))), Example.text(list(range(32)))]))
    with pytest.raises(ModelError, match="a sequence has 33 tokens, but the model has 32 positions") as caught:
        policy(collate([Example.text(list(range(33)))]))
    assert caught.value.problems[0].help == "write sequence_len: 32"
