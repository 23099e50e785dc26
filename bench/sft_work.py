"""Prepare the same supervised task for all competitors: a folder with a model, its tokenizer, rows and options."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests import tiny

TEMPLATE = (  # both Tunesmith and TRL train on the generation blocks: what the assistant says
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Work:
    """The task: train a Llama of `hidden` x `layers` on `rows` conversations for one epoch, packed."""

    hidden: int
    layers: int
    vocabulary: int
    rows: int
    sequence_len: int = 2048
    packs_per_step: int = 2
    learning_rate: float = 1e-3
    seed: int = 7

    @property
    def name(self) -> str:
        return f"{self.hidden} x {self.layers}, vocabulary {self.vocabulary:,}, packs of {self.sequence_len:,} tokens"


def conversations(number: int) -> list[dict[str, Any]]:
    """Return rows of messages.jsonl if TUNESMITH_TEST_DATA is set, otherwise generated ones."""
    data = os.environ.get("TUNESMITH_TEST_DATA")
    if not data:
        return tiny.rows("conversation", number)
    with (Path(data) / "gsm8k/messages.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(number), strict=False)]


def tokenizer(vocabulary: int) -> Any:
    """Return a byte-level BPE with at most 4,096 entries, trained on the rows.

    For more than 50,000 entries, return the GPT-2 tokenizer if TUNESMITH_TEST_DATA is set.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    data = os.environ.get("TUNESMITH_TEST_DATA")
    if vocabulary > 50_000 and data:
        result: Any = AutoTokenizer.from_pretrained(f"{data}/tokenizer-gpt2-chatml")
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=min(vocabulary, 4096), special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator((m["content"] for row in conversations(3000) for m in row["messages"]), trainer)
        result = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    result.chat_template = TEMPLATE
    return result


def make(folder: Path, work: Work) -> None:
    """Write model, tokenizer, rows, run.yaml (for Tunesmith) and work.json (for the others) to a folder."""
    heads = work.hidden // 64
    tiny.model_folder(
        folder / "model", "llama", hidden_size=work.hidden, intermediate_size=work.hidden * 8 // 3 // 8 * 8,
        num_hidden_layers=work.layers, num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=64,
        vocab_size=work.vocabulary, max_position_embeddings=8192, tie_word_embeddings=True, initializer_range=0.005,
    )  # fmt: skip
    tokenizer(work.vocabulary).save_pretrained(folder / "model")
    data = tiny.write_rows(folder / "data.jsonl", conversations(work.rows))
    tiny.write_config(
        folder, base_model=str(folder / "model"), datasets=[{"path": str(data), "type": "chat_template"}],
        sequence_len=work.sequence_len, micro_batch_size=1, gradient_accumulation_steps=work.packs_per_step,
        learning_rate=work.learning_rate, lr_scheduler="constant", optimizer="adamw_torch_fused", seed=work.seed,
    )  # fmt: skip
    (folder / "work.json").write_text(json.dumps(asdict(work)), encoding="utf-8")
