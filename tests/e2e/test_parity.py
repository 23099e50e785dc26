"""Neither packing, nor accumulation, nor the number of processes changes what is learned: float32, to 1e-5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_engine.model.build import build_policy

from tests import tiny
from tunesmith import Example, Needs, collate
from tunesmith.api import prepare, verify

ARCHITECTURES = (*tiny.ARCHITECTURES, "lfm2")  # its convolutions read a row from start to end
NUMBER = 12
WAYS = {  # the same 12 examples in each step
    "unpacked": {"sample_packing": False, "micro_batch_size": NUMBER},
    "packed": {"sample_packing": True, "micro_batch_size": NUMBER},
    "accumulated": {"sample_packing": False, "micro_batch_size": 3, "gradient_accumulation_steps": 4},
    "uneven": {"sample_packing": False, "micro_batch_size": 5, "gradient_accumulation_steps": 3},
}


def config(folder: Path, architecture: str, name: str, **keys: Any) -> Path:
    steps = {"num_epochs": 3, "max_steps": 3, "max_grad_norm": 0, "lr_scheduler": "constant", "warmup_steps": 0}
    path = tiny.sft_config(folder, architecture, NUMBER, **steps, **keys, output_dir=str(folder / name))
    return path.rename(folder / f"{name}.yaml")


def same(ours: Path, theirs: Path) -> None:
    """Losses, gradient norms and final weights of two runs agree."""
    for one, other in zip(tiny.metrics(ours), tiny.metrics(theirs), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_accumulated_and_uneven_are_one_batch(architecture: str, tmp_path: Path) -> None:
    for name, keys in WAYS.items():
        tiny.train(config(tmp_path, architecture, name, **keys))
    for name in WAYS:
        same(tmp_path / name, tmp_path / "unpacked")


def test_two_processes_are_one(tmp_path: Path) -> None:
    """All architectures in one launch: 2 gloo processes with 2 or 3 micro-batches each, of which one may be a dummy."""
    pairs = []
    for architecture in ARCHITECTURES:
        folder = tmp_path / architecture
        folder.mkdir()
        tiny.train(config(folder, architecture, "one", **WAYS["unpacked"]))
        split = {"sample_packing": False, "micro_batch_size": 3, "gradient_accumulation_steps": 2}
        uneven = {"sample_packing": False, "micro_batch_size": 5, "gradient_accumulation_steps": 2}
        pairs += [config(folder, architecture, "two", **split), config(folder, architecture, "uneven", **uneven)]
    tiny.torchrun(2, *pairs)
    for architecture in ARCHITECTURES:
        for name in ("two", "uneven"):
            same(tmp_path / architecture / name, tmp_path / architecture / "one")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_those_of_transformers_own_loss(architecture: str, tmp_path: Path) -> None:
    """One packed batch against the library's forward with labels, one example at a time."""
    run = prepare(tiny.start(tiny.sft_config(tmp_path, architecture, NUMBER)))
    policy = build_policy(run)
    examples: list[Example] = list(run.data.train)
    batch = collate(examples, share=run.shares_prompts)
    loss = -(policy(batch).logps * batch.weight).sum() / len(batch.target_ids)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad()
    total = 0.0
    with policy.language_model.attending("sdpa"):
        for example in examples:
            tokens = torch.tensor(example.path_tokens(1))[None]
            labels = torch.where(torch.from_numpy(example.segments[1].weights)[None] > 0, tokens, -100)
            share = (
                policy.model(input_ids=tokens, labels=labels, use_cache=False).loss
                * example.trained_tokens
                / len(batch.target_ids)
            )
            share.backward()
            total += share.item()
    assert loss.item() == pytest.approx(total, abs=1e-5)
    for name, parameter in policy.model.named_parameters():
        if name in ours:
            assert torch.allclose(ours[name], parameter.grad, atol=1e-5), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_example_does_not_see_its_neighbour(architecture: str, tmp_path: Path) -> None:
    """Another neighbour in the row, of the same length: not a bit of this one's log-probabilities changes."""
    run = prepare(tiny.start(tiny.sft_config(tmp_path, architecture, NUMBER)))
    policy = build_policy(run)
    policy.model.eval()
    first, mine = run.data.train[0], run.data.train[1]
    other = Example.text((first.segments[1].tokens + 1) % 300, first.segments[1].weights)
    count = mine.trained_tokens
    with torch.no_grad():
        before, after = (
            policy(collate([neighbour, mine]), Needs(logps=True)).logps[-count:] for neighbour in (first, other)
        )
    assert torch.equal(before, after)


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_verify_says_so(architecture: str, adapter: str | None, tmp_path: Path) -> None:
    rows = verify(prepare(tiny.start(tiny.sft_config(tmp_path, architecture, NUMBER, adapter=adapter))))
    shares = architecture != "lfm2"  # or there is nothing to compare repeated prompts with
    assert len(rows) == 4 + shares + bool(adapter) and all(row["ok"] for row in rows)
