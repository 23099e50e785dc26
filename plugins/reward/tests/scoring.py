"""Sequence classifiers of transformers, and the scores that they give to answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tunesmith import Example


def classifier(folder: Path, architecture: str = "llama") -> Path:
    """Write a tiny sequence classifier with a head of one label to a folder, and return the folder."""
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
    """Return the tokens of each answer with its prompt."""
    return [example.path_tokens(i) for example in examples for i in range(1, len(example.segments))]


def scores(model: Any, texts: list[list[int]], pad: int | None) -> torch.Tensor:
    """Return the scores of a classifier [S], in one padded batch, or one answer at a time without a pad token."""
    model.eval()
    with torch.no_grad():
        if pad is None:
            return torch.cat([model(input_ids=torch.tensor([ids])).logits[:, 0] for ids in texts])
        width = max(map(len, texts))
        ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids in texts])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in texts])
        return model(input_ids=ids, attention_mask=mask).logits[:, 0]
