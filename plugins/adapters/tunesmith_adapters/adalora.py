"""AdaLoRA beside its layers: ranks that move between layers during training, and a term that keeps them orthogonal.

Source: arXiv 2303.10512.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tunesmith import Run, Term

MEANS = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""Values that peft's allocator stores per parameter: importance, and running means of it and of its uncertainty."""


class Allocation:
    """Allocates ranks after each update of a run. A checkpoint contains what the next allocation depends on."""

    def __init__(self, run: Run):
        self.run = run
        self.wrapped: Any = None

    def follow(self, optimizer: Optimizer) -> None:
        """Allocate ranks after each step of an optimizer, which still has the gradients. Raise ConfigError.

        Called in build_optimizer: the number of steps is known, and the checkpoint is not restored yet.
        """
        run = self.run
        if run.abstract or "policy" not in run.models:  # `plan` only counts
            return
        self.wrapped = run.models["policy"].model._peft_wrapper
        config = self.wrapped.peft_config["default"]
        if config.tinit + config.tfinal >= run.total_steps:
            message = f"and adalora.tfinal leave no step to allocate ranks: the run has {run.total_steps} steps"
            raise run.config.error(("adalora", "tinit"), message, "make both smaller, or the run longer")
        config.total_step = run.total_steps
        self.wrapped.base_model.rankallocator.set_total_step(run.total_steps)
        run.register_state("adalora", self)
        optimizer.register_step_post_hook(lambda *_: self.allocate())

    def allocate(self) -> None:
        """Allocate ranks after the update of the current step. peft counts steps from 0."""
        self.wrapped.base_model.update_and_allocate(self.run.step)

    def term(self) -> dict[str, Term]:
        """Return the term of the loss that keeps singular vectors orthogonal: the mean of ||PP' - I|| over matrices.

        It does not depend on rows, so it counts once for each micro-batch.
        """
        if self.wrapped is None:
            return {}
        weight = self.wrapped.peft_config["default"].orth_reg_weight
        norms: list[Tensor] = []
        for name, parameter in self.wrapped.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                product = parameter @ parameter.T if ".lora_A." in name else parameter.T @ parameter
                norms.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)))
        return {"orthogonality": Term(weight * torch.stack(norms).mean(), "adalora")}

    def state_dict(self) -> dict[str, Any]:
        """Return the means of the allocator, and which ranks are left once that is final."""
        allocator = self.wrapped.base_model.rankallocator
        means = {name: dict(getattr(allocator, name)) for name in MEANS if hasattr(allocator, name)}
        return {"means": means, "ranks": self.wrapped.peft_config["default"].rank_pattern}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what state_dict returned."""
        allocator = self.wrapped.base_model.rankallocator
        devices = {name: p.device for name, p in self.wrapped.base_model.model.named_parameters()}
        for name, values in state["means"].items():
            setattr(allocator, name, {key: value.to(devices.get(key, value.device)) for key, value in values.items()})
        self.wrapped.peft_config["default"].rank_pattern = state["ranks"]
