"""On real pairs that were not trained on, the better answer comes to get the higher reward."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny

TRAINED, HELD = 1500, 500  # rows from the start and the end of the file, so that they share no question


def small_model(test_data: Path, folder: Path) -> Path:
    """Two layers of random weights with a real tokenizer's vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(test_data / "tokenizer-gpt2-chatml")
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=4, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_held_out_accuracy_rises(test_data: Path, tmp_path: Path) -> None:
    lines = (test_data / "gsm8k/preference.jsonl").read_text("utf-8").splitlines(keepends=True)
    entries = {}
    for name, part in (("train", itertools.islice(lines, TRAINED)), ("held", lines[-HELD:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
        entries[name] = [{"path": str(tmp_path / f"{name}.jsonl"), "type": "passthrough"}]
    path = tiny.write_config(
        tmp_path,
        base_model=str(small_model(test_data, tmp_path / "model")),
        reward_model=True,
        datasets=entries["train"],
        test_datasets=entries["held"],
        sequence_len=1024,
        learning_rate=1e-3,
    )
    tiny.train(path, "max_steps=1", "learning_rate=1e-12", f"output_dir={tmp_path / 'untrained'}")
    tiny.train(path)
    before, after = (tiny.metrics(tmp_path / name)[-1] for name in ("untrained", "out"))
    assert after["eval_accuracy"] > max(before["eval_accuracy"], 0.5) + 0.08
    assert after["eval_loss"] < before["eval_loss"] and after["eval_margin"] > before["eval_margin"]
