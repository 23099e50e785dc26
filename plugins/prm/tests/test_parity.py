"""Loss and gradients equal the formula, and those of transformers' token classifier on a padded batch without dropout.

TRL no longer has a trainer of process reward models. The one that it had used this loss on these labels, without
dropout.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification
from tunesmith_prm.loss import terms

from plugins.prm.tests.scoring import classifier, padded
from tests import rows, tiny
from tunesmith import build_policy, collate
from tunesmith.api import prepare


def test_the_loss_is_the_cross_entropy_of_two_labels() -> None:
    scores = torch.tensor([[0.0, 2.0], [1.0, -1.0], [0.5, 0.0]])
    result = terms(scores, torch.tensor([1.0, 0.0, 1.0]))
    by_hand = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2)) + math.log(1 + math.exp(0.5))
    assert result["steps"].sum.item() == pytest.approx(by_hand) and result["steps"].count == "tokens"
    assert result["accuracy"].sum.item() == 2 and result["accuracy"].metric and result["accuracy"].count == "tokens"


@pytest.mark.parametrize(
    ("architecture", "entry"),
    [
        *((name, {}) for name in ("llama", "qwen3", "mixtral", "gpt_neox")),
        ("llama", {"train_on_last_step_only": True}),
        ("llama", {"max_completion_length": 30}),
    ],
)
def test_loss_and_gradients_equal_those_of_a_padded_token_classifier(
    architecture: str, entry: dict[str, Any], tmp_path: Path
) -> None:
    folder = classifier(tmp_path / f"model-{architecture}", architecture)
    run = prepare(tiny.start(rows.config(tmp_path, "prm", architecture=architecture, entry=entry)))
    policy = build_policy(run)
    policy.model.train()  # the dropout of the class before its head is not applied
    examples = list(run.data.train)
    batch = collate(examples)
    terms_of_step = run.hooks.compute_loss(run, policy, policy(batch), batch)
    loss = terms_of_step["steps"].sum / batch.counts["tokens"]
    loss.backward()

    model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=2).eval()
    inputs = padded(examples)
    out = model(**inputs)
    out.loss.backward()
    assert loss.item() == pytest.approx(out.loss.item(), abs=1e-5)
    labeled = inputs["labels"] >= 0
    right = (out.logits.argmax(-1) == inputs["labels"])[labeled].float().mean()
    assert terms_of_step["accuracy"].sum.item() / batch.counts["tokens"] == pytest.approx(right.item())
    ours, theirs = dict(policy.model.named_parameters()), dict(model.named_parameters())
    assert ours.keys() == theirs.keys() and {"score.bias", "classifier.bias"} & ours.keys()
    largest = max(p.grad.abs().max().item() for p in theirs.values() if p.grad is not None)
    for name, p in theirs.items():
        if p.grad is not None:
            assert (ours[name].grad - p.grad).abs().max().item() <= 1e-5 * max(largest, 1.0), name


def test_three_steps_end_with_the_weights_of_a_plain_loop(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "model-llama")
    path = rows.config(tmp_path, "prm", learning_rate=1e-3)
    tiny.train(path)
    model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=2).eval()
    inputs = padded(list(prepare(tiny.start(path)).data.train))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for line in tiny.metrics(tmp_path / "out"):
        loss = model(**inputs).loss
        assert line["loss"] == pytest.approx(loss.item(), abs=1e-5)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, value in tiny.weights(tmp_path / "out").items():
        assert (value - model.get_parameter(name)).abs().max().item() <= 1e-5, name
