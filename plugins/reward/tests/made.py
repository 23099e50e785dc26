"""What the tests of reward models share: runs on pairs of a tiny model, and scores by transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tunesmith import Example

NUMBER = 12
"""Pairs: all of them are one step."""
STEADY = {"max_grad_norm": 0, "lr_scheduler": "constant", "warmup_steps": 0, "weight_decay": 0.0}


def rows(number: int = NUMBER, margins: bool = False) -> list[dict[str, Any]]:
    """Pairs; with `margins`, each by how much its answers should differ."""
    return [row | ({"margin": i / 4} if margins else {}) for i, row in enumerate(tiny.rows("pair", number))]


def config(folder: Path, architecture: str = "llama", margins: bool = False, **keys: Any) -> Path:
    """A run of a reward model, all pairs a step."""
    model = folder / f"model-{architecture}"
    if not model.exists():
        tiny.model_folder(model, architecture)
    name = f"pairs{'-with-margins' * margins}.jsonl"
    data = folder / name
    if not data.exists():
        tiny.write_rows(data, rows(margins=margins))
    defaults = {
        "base_model": str(model),
        "reward_model": True,
        "datasets": [{"path": str(data), "type": "passthrough"}],
        "micro_batch_size": NUMBER,
        "sample_packing": False,
        "num_epochs": 3,
        "max_steps": 3,
    }
    return tiny.write_config(folder, **(defaults | STEADY | keys))


def classifier(folder: Path, architecture: str = "llama") -> Path:
    """A folder with a sequence classifier: a head of one label that a run goes on from."""
    from transformers import AutoModelForSequenceClassification

    tiny.model_folder(folder, architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
        model.score.weight.data.normal_(std=0.3)
    model.config.pad_token_id = tiny.tokenizer().pad_token_id
    model.save_pretrained(folder)
    return folder


def sequences(examples: list[Example]) -> list[list[int]]:
    """The tokens of every answer with its prompt."""
    return [example.path_tokens(i) for example in examples for i in range(1, len(example.segments))]


def scores(model: Any, texts: list[list[int]], pad: int | None) -> torch.Tensor:
    """What transformers scores: all in one padded batch, or one at a time where there is nothing to pad with."""
    model.eval()
    with torch.no_grad():
        if pad is None:
            return torch.cat([model(input_ids=torch.tensor([ids])).logits[:, 0] for ids in texts])
        width = max(map(len, texts))
        ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids in texts])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in texts])
        return model(input_ids=ids, attention_mask=mask).logits[:, 0]
