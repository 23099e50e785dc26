"""Compute one optimizer step of a method: loss, terms and gradients of a policy that differs from its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tunesmith import Policy, Run, build_policy, collate
from tunesmith.api import prepare

TRL: dict[str, Any] = {
    "max_length": None, "gradient_checkpointing": False, "bf16": False, "use_cpu": True, "report_to": [],
    "save_strategy": "no", "logging_steps": 1, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0, "max_steps": 4, "disable_tqdm": True,
}  # fmt: skip
"""Options of TRL's trainers for a run of four steps that logs each step."""


def perturb(model: Any, seed: int = 1, size: float = 0.1) -> None:
    """Add noise to the trained weights, so that the policy differs from its reference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def started(path: Path, seed: int = 1) -> tuple[Run, Policy]:
    """Prepare a run and build its policy, in evaluation mode and moved away from the reference."""
    run = prepare(tiny.start(path))
    policy = build_policy(run)
    policy.model.eval()
    perturb(policy.model, seed)
    return run, policy


def loss_of(run: Run, policy: Policy, groups: list[list[Any]], share: bool = True) -> tuple[float, dict[str, float]]:
    """Return the loss of one step over micro-batches and the mean of each term by name; accumulate the gradients.

    Each group of examples is one micro-batch.
    """
    batches = [collate(group, share=share) for group in groups]
    with torch.no_grad():
        run.hooks.prepare_step(run, policy, batches)
    counts = {name: sum(batch.counts[name] for batch in batches) for name in batches[0].counts}
    means: dict[str, float] = {}
    total = 0.0
    for batch in batches:
        for name, term in run.hooks.compute_loss(run, policy, policy(batch), batch).items():
            mean = term.sum / counts[str(term.count)]
            means[name] = means.get(name, 0.0) + mean.item()
            if not term.metric:
                mean.backward(retain_graph=True)  # type: ignore[no-untyped-call]
                total += mean.item()
    return total, means


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Return the gradients by parameter name and reset them in the model."""
    copies = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return copies


def largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], scaled: bool = False) -> float:
    """Return the largest absolute difference between two sets of gradients.

    With `scaled`, divide it by the largest gradient if that is above 1: gradients of squared sums reach the tens.
    """
    assert ours.keys() == theirs.keys() and ours
    largest = max(float(gradient.abs().max()) for gradient in theirs.values()) if scaled else 1.0
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours) / max(largest, 1.0)
