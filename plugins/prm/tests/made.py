"""What the tests of process reward models share: runs on labelled steps of a tiny model, and transformers' own loss."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tunesmith import Example

NUMBER = 12
"""Solutions: all of them are one step of training."""
STEADY = {"max_grad_norm": 0, "lr_scheduler": "constant", "warmup_steps": 0, "weight_decay": 0.0}


def rows(number: int = NUMBER, seed: int = 0) -> list[dict[str, Any]]:
    """Solutions of one to four steps; a step that speaks of a dog is wrong."""
    r = random.Random(seed)
    made = []
    for _ in range(number):
        steps = [tiny.sentence(r, 2, 8) for _ in range(r.randint(1, 4))]
        labels = ["dog" not in step for step in steps]
        made.append({"prompt": tiny.sentence(r), "completions": steps, "labels": labels})
    return made


def config(folder: Path, architecture: str = "llama", entry: Any = None, **keys: Any) -> Path:
    """A run of a process reward model, all solutions a step."""
    model = folder / f"model-{architecture}"
    if not model.exists():
        tiny.model_folder(model, architecture)
    data = folder / "steps.jsonl"
    if not data.exists():
        tiny.write_rows(data, rows())
    defaults = {
        "base_model": str(model),
        "process_reward_model": True,
        "datasets": [{"path": str(data), "type": "stepwise_supervised", **(entry or {})}],
        "micro_batch_size": NUMBER,
        "sample_packing": False,
        "num_epochs": 3,
        "max_steps": 3,
    }
    return tiny.write_config(folder, **(defaults | STEADY | keys))


def classifier(folder: Path, architecture: str = "llama") -> Path:
    """A folder with a token classifier: a head of two labels that a run goes on from."""
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
    """A padded batch as a plain loop would make it: the label of a step at its separator, -100 elsewhere."""
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
