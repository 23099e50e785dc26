"""Packing, accumulation and the number of processes do not change training: float32 results agree to 1e-5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_engine.model.build import build_policy

from tests import tiny
from tunesmith import Example, Needs, collate
from tunesmith.api import prepare, verify

ARCHITECTURES = (*tiny.ARCHITECTURES, "lfm2")  # its convolutions would read across the examples of a pack
NUMBER = 12
WAYS = {  # every step uses the same 12 examples
    "unpacked": {"sample_packing": False, "micro_batch_size": NUMBER},
    "packed": {"sample_packing": True, "micro_batch_size": NUMBER},
    "accumulated": {"sample_packing": False, "micro_batch_size": 3, "gradient_accumulation_steps": 4},
    "uneven": {"sample_packing": False, "micro_batch_size": 5, "gradient_accumulation_steps": 3},
}


def config(folder: Path, architecture: str, name: str, **keys: Any) -> Path:
    steps = {"num_epochs": 3, "max_steps": 3, "max_grad_norm": 0, "lr_scheduler": "constant", "warmup_steps": 0}
    path = tiny.sft_config(folder, architecture, NUMBER, **steps, **keys, output_dir=str(folder / name))
    return path.rename(folder / f"{name}.yaml")


def assert_same_metrics(folder: Path, reference: Path) -> None:
    """Check that two runs have the same losses and gradient norms in every step."""
    for line, expected in zip(tiny.metrics(folder), tiny.metrics(reference), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_accumulated_and_uneven_equal_one_batch(architecture: str, tmp_path: Path) -> None:
    for name, keys in WAYS.items():
        tiny.train(config(tmp_path, architecture, name, **keys))
    for name in WAYS:
        assert_same_metrics(tmp_path / name, tmp_path / "unpacked")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """One launch trains all architectures on 2 gloo processes with 2 or 3 micro-batches each, including a dummy one."""
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
            assert_same_metrics(tmp_path / architecture / name, tmp_path / architecture / "one")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_equal_those_of_the_transformers_loss(architecture: str, tmp_path: Path) -> None:
    """The test compares a packed batch with the forward pass of the library with labels, one example at a time."""
    run = prepare(tiny.start(tiny.sft_config(tmp_path, architecture, NUMBER)))
    policy = build_policy(run)
    examples: list[Example] = list(run.data.train)
    batch = collate(examples, share=run.shares_prompts)
    loss = -(policy(batch).logps * batch.weight).sum() / len(batch.target_ids)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
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
        if name in gradients:
            assert torch.allclose(gradients[name], parameter.grad, atol=1e-5), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_example_is_independent_of_its_neighbor(architecture: str, tmp_path: Path) -> None:
    """With another neighbor of the same length in the pack, the log-probabilities are equal bit for bit."""
    run = prepare(tiny.start(tiny.sft_config(tmp_path, architecture, NUMBER)))
    policy = build_policy(run)
    policy.model.eval()
    first, example = run.data.train[0], run.data.train[1]
    other = Example.text((first.segments[1].tokens + 1) % 300, first.segments[1].weights)
    count = example.trained_tokens
    with torch.no_grad():
        before, after = (
            policy(collate([neighbor, example]), Needs(logps=True)).logps[-count:] for neighbor in (first, other)
        )
    assert torch.equal(before, after)


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_verify_passes(architecture: str, adapter: str | None, tmp_path: Path) -> None:
    rows = verify(prepare(tiny.start(tiny.sft_config(tmp_path, architecture, NUMBER, adapter=adapter))))
    shares = architecture != "lfm2"  # without shared prompts, one comparison is not made
    assert len(rows) == 6 + 2 * shares + bool(adapter) and all(row["ok"] for row in rows)
