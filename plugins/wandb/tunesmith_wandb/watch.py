"""Count gradients and parameters into histograms, as `wandb.watch` does, where the tensors are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from tunesmith_wandb import WandbSettings

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith import Policy, Run

EVERY = 100
"""Steps between two histograms. Each takes a pass over all trained weights."""
BINS = 64
Bins = tuple[list[float], list[float]]


class Watch:
    """Histograms of the trained parameters of a model, and of their gradients before clipping."""

    def __init__(self, run: Run):
        self.run = run
        self.what = run.settings(WandbSettings).wandb_watch or "false"
        self.bins: dict[str, Bins] = {}
        self.policy: Policy | None = None
        self.handles: list[Any] = []

    def watch(self, policy: Policy) -> None:
        """Count gradients when they are accumulated: the last micro-batch of a step completes them."""
        if self.what == "false":
            return
        self.policy = policy
        if self.what in ("gradients", "all"):
            for name, parameter in policy.unwrapped.named_parameters():
                if parameter.requires_grad:
                    hook = parameter.register_post_accumulate_grad_hook(lambda p, name=name: self.count(name, p.grad))
                    self.handles.append(hook)

    def due(self, step: int) -> bool:
        return step == 1 or step % EVERY == 0

    def count(self, name: str, gradient: Tensor | None) -> None:
        if gradient is not None and self.due(self.run.step + 1):
            with contextlib.suppress(Exception):  # in the backward pass: nothing here may end it
                self.bins[f"gradients/{name}"] = histogram(gradient)

    def take(self) -> dict[str, Bins]:
        """Return the histograms of this step, by name."""
        if self.policy is not None and self.what in ("parameters", "all") and self.due(self.run.step):
            for name, parameter in self.policy.unwrapped.named_parameters():
                if parameter.requires_grad:
                    self.bins[f"parameters/{name}"] = histogram(parameter)
        bins, self.bins = self.bins, {}
        return bins

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def histogram(tensor: Tensor) -> Bins:
    """Return counts [64] and edges [65] of the finite values of a tensor, or of this process's part of it."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    values = local.detach().float().flatten()
    values = values[values.isfinite()]
    if not len(values):
        return [0.0], [0.0, 1.0]
    low, high = values.min().item(), values.max().item()
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(values, BINS, low, high)
    return counts.tolist(), torch.linspace(low, high, BINS + 1).tolist()
