"""A reference that follows the policy (TR-DPO, arXiv 2404.09656): π_ref ← α π + (1 − α) π_ref."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from tunesmith import PluginError, Policy, Run
from tunesmith_dpo import DPOSettings

STATE = "dpo_reference"


class SynchronisedReference:
    """The weights of the reference, as a state of the run: they are in no other place than its checkpoints."""

    def __init__(self) -> None:
        self.policy: Policy | None = None
        self.saved: dict[str, Tensor] | None = None

    def attach(self, policy: Policy) -> None:
        """From now on the reference is there; weights of a checkpoint that came before it are put into it."""
        self.policy = policy
        if self.saved is not None:
            self.load_state_dict({"weights": self.saved})

    def state_dict(self) -> dict[str, Any]:
        """Its weights by name, whole, on the main process. On all processes."""
        assert self.policy is not None
        with self.policy.reference() as reference:
            return {"weights": reference.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take its weights back, or keep them until it is there."""
        self.saved = state["weights"]
        if self.policy is None:
            return
        weights = {f"module.{name}": value for name, value in state["weights"].items()}
        with self.policy.reference() as reference:
            root: Any = reference.module
            set_model_state_dict(root, weights, options=StateDictOptions(full_state_dict=True))
        self.saved = None


def register(run: Run) -> None:
    """Let the reference join the checkpoints."""
    run.register_state(STATE, SynchronisedReference())


def attach(run: Run, policy: Policy) -> None:
    state: Any = run.states.get(STATE)
    if state is not None:
        state.attach(policy)


def follow(run: Run, policy: Policy) -> None:
    """After every ref_model_sync_steps optimizer steps, move the reference towards the policy."""
    settings = run.settings(DPOSettings)
    if settings.sync_ref_model and run.step % settings.ref_model_sync_steps == 0:
        with policy.reference() as reference:
            mix(policy, reference, settings.ref_model_mixup_alpha)


@torch.no_grad()
def mix(policy: Policy, reference: Policy, alpha: float) -> None:
    """Move each weight of the reference by a share of its distance to the policy's."""
    policy.reshard()
    reference.reshard()
    own = dict(policy.model.named_parameters())
    held = dict(reference.model.named_parameters())
    if other := sorted(own.keys() ^ held.keys()):
        message = f"sync_ref_model: policy and reference have other weights than each other: {', '.join(other[:3])}"
        raise PluginError(message, help="drop sync_ref_model, or the plugin that changed the policy's layers")
    for name, weight in held.items():
        weight.mul_(1 - alpha).add_(own[name].to(weight.dtype), alpha=alpha)
