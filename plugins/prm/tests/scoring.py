"""Token classifiers of transformers, and padded batches of solutions with the label of each step."""

from __future__ import annotations

from pathlib import Path

import torch

from tests import tiny
from tunesmith import Example


def classifier(folder: Path, architecture: str = "llama") -> Path:
    """Write a tiny token classifier with a head of two labels to a folder, and return the folder."""
    from transformers import AutoModelForTokenClassification

    tiny.model_folder(folder, architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=2)
        head = model.score if hasattr(model, "score") else model.classifier
        head.weight.data.normal_(std=0.3)
        head.bias.data.normal_(std=0.3)
    model.save_pretrained(folder)
    return folder


def padded(examples: list[Example], pad: int = 0) -> dict[str, torch.Tensor]:
    """Return a padded batch for a plain training loop: the label of a step at its separator, -100 elsewhere."""
    tokens = [example.path_tokens(1) for example in examples]
    width = max(map(len, tokens))
    ids, labels = torch.full((len(tokens), width), pad), torch.full((len(tokens), width), -100)
    mask = torch.zeros_like(ids)
    for row, (example, own) in enumerate(zip(examples, tokens, strict=True)):
        steps = example.segments[1]
        ids[row, : len(own)], mask[row, : len(own)] = torch.tensor(own), 1
        for place in steps.columns["score_at"].nonzero()[0]:
            labels[row, len(own) - len(steps.tokens) + place] = int(steps.columns["label"][place])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
