"""Let the reference follow the policy (TR-DPO, arXiv 2404.09656): π_ref ← α π + (1 − α) π_ref."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tunesmith.errors import PluginError
from tunesmith.run import Run
from tunesmith_engine.model.parallelism import full_shape
from tunesmith_engine.model.policy import Policy


class MovingReference:
    """A reference that moves toward the policy. Its weights are a state of the run, saved only in its checkpoints.

    Register it in configure by `run.register_state(name, MovingReference(alpha, steps))`, call `attach` in on_start and
    `follow` in on_step.

    Args:
        alpha: share of the policy's weights in the reference after each move.
        steps: optimizer steps between two moves.
    """

    def __init__(self, alpha: float, steps: int):
        self.alpha, self.steps = alpha, steps
        self.policy: Policy | None = None
        self.saved: dict[str, Tensor] | None = None

    def attach(self, policy: Policy) -> None:
        """Set the policy whose reference this is, and load weights that a checkpoint restored before."""
        self.policy = policy
        if self.saved is not None:
            self.load_state_dict({"weights": self.saved})

    def follow(self, run: Run) -> None:
        """Move the reference if the step is due."""
        assert self.policy is not None
        if run.step % self.steps == 0:
            with self.policy.reference() as reference:
                mix(self.policy, reference, self.alpha)

    def state_dict(self) -> dict[str, Any]:
        """Return the full weights by name on the main process. Call it on all processes."""
        assert self.policy is not None
        with self.policy.reference() as reference:
            return {"weights": reference.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the weights into the reference, or keep them until there is one."""
        self.saved = state["weights"]
        if self.policy is None:
            return
        weights = {f"module.{name}": value for name, value in state["weights"].items()}
        with self.policy.reference() as reference:
            reference.run.parallelism.load_model_state(reference.module, weights)
        self.saved = None


@torch.no_grad()
def mix(policy: Policy, reference: Policy, alpha: float) -> None:
    """Move each weight of the reference toward the policy's, by the share `alpha` of the distance.

    Raises PluginError if policy and reference have parameters of different names.
    """
    policy.reshard()
    reference.reshard()
    policy_weights = dict(policy.model.named_parameters())
    reference_weights = dict(reference.model.named_parameters())
    if different := sorted(policy_weights.keys() ^ reference_weights.keys()):
        message = f"sync_ref_model: policy and reference have different parameters: {', '.join(different[:3])}"
        raise PluginError(message, help="drop sync_ref_model, or the plugin that changed the policy's layers")
    if any(full_shape(weight) != weight.shape for weight in reference_weights.values()):
        message = "sync_ref_model needs weights that are complete on each process"
        raise PluginError(message, help="drop sync_ref_model, or shard with fsdp_config")
    for name, weight in reference_weights.items():
        weight.mul_(1 - alpha).add_(policy_weights[name].to(weight.dtype), alpha=alpha)
