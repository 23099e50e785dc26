"""A plugin's scorer replaces or surrounds the engine's: here the z-loss, whose log Z comes from a scorer of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from tunesmith import ChunkedScorer, HeadWeights, OutputHead, ScoreRequest, build_policy, collate
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


GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_bfloat16_products_are_accumulated_in_float32(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks, compared with float64 on the same 16-bit factors. Rounded logits were off by 0.08 here."""
    monkeypatch.setattr("tunesmith_engine.model.scoring.CHUNK", 32 * 1000)
    torch.manual_seed(0)
    hidden, targets = torch.randn(512, 64, device=device), torch.randint(1000, (512,), device=device)
    layer = torch.nn.Linear(64, 1000, device=device)
    torch.nn.init.normal_(layer.weight, std=5 / 8)
    scale, cap = 0.5, 20.0
    exact = [t.detach().bfloat16().double().requires_grad_() for t in (hidden, layer.weight)]
    logits = torch.tanh((exact[0] @ exact[1].T + layer.bias.double()) * scale / cap) * cap
    expected = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    gradients = torch.autograd.grad(-expected.mean(), exact)
    states = hidden.clone().requires_grad_()
    head = OutputHead(layer, lambda: HeadWeights(layer.weight, layer.bias, scale, cap))
    with torch.autocast(device, torch.bfloat16):
        logps = ChunkedScorer(head)(states, targets, ScoreRequest())["logps"]
    assert logps.dtype == torch.float32 and (logps - expected).abs().max() < 1e-4
    for actual, gradient, most in zip(
        torch.autograd.grad(-logps.mean(), [states, layer.weight]), gradients, (5e-3, 2e-3), strict=True
    ):
        assert (actual - gradient).norm() < most * gradient.norm()


def test_float32_scores_are_those_of_the_head_itself() -> None:
    layer, hidden, targets = torch.nn.Linear(8, 50), torch.randn(20, 8), torch.randint(50, (20,))
    head = OutputHead(layer, lambda: HeadWeights(layer.weight, layer.bias))
    expected = layer(hidden).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert torch.equal(ChunkedScorer(head)(hidden, targets, ScoreRequest())["logps"], expected)
