"""A plugin's scorer replaces or surrounds the engine's: here the z-loss, whose log Z comes from a scorer of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from tunesmith import ChunkedScorer, Head, OutputHead, ScoreRequest, build_policy, collate
from tunesmith.api import prepare

ZLOSS = Path(__file__).parent / "plugins/zloss.py"


def test_scorer_of_a_plugin_gives_equal_gradients_packed_and_unpacked(tmp_path: Path) -> None:
    assert len(ZLOSS.read_text().splitlines()) <= 40
    run = prepare(tiny.start(tiny.sft_config(tmp_path, plugins=[str(ZLOSS)])))
    policy = build_policy(run)
    examples = [run.data.train[index] for index in range(4)]
    sums, gradients = [], []
    for groups in ([examples], [[example] for example in examples]):
        policy.model.zero_grad(set_to_none=True)
        total = 0.0
        for group in groups:
            batch = collate(group)
            terms = run.hooks.compute_loss(run, policy, policy(batch), batch)
            torch.stack([terms["nll"].sum, terms["z"].sum]).sum().backward()
            total += float(terms["z"].sum.detach())
        sums.append(total)
        gradients.append(torch.cat([p.grad.flatten() for p in policy.model.parameters()]))
    assert sums[0] > 0 and sums[0] == pytest.approx(sums[1], rel=1e-5)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-5 * gradients[1].abs().max()


def test_scorer_of_a_plugin_trains_and_logs_its_term(tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, plugins=[str(ZLOSS)], max_steps=3))
    lines = tiny.metrics(tmp_path / "out")
    assert all(line["loss"] == pytest.approx(line["nll"] + line["z"]) and line["z"] > 0 for line in lines)


def test_float32_scores_are_those_of_the_head_itself() -> None:
    layer, hidden, targets = torch.nn.Linear(8, 50), torch.randn(20, 8), torch.randint(50, (20,))
    head = OutputHead(layer, lambda: Head(layer.weight, layer.bias))
    expected = layer(hidden).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert torch.equal(ChunkedScorer(head)(hidden, targets, ScoreRequest())["logps"], expected)
