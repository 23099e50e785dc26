"""Checks of optimizers and schedules: their state is complete."""

from __future__ import annotations

import copy
from typing import Any

from tunesmith.testing import losses, running
from tunesmith.testing.checks import check
from tunesmith.testing.subject import Subject


def _cases(subject: Subject) -> list[tuple[str, dict[str, Any], str]]:
    """Return a case for each value that the plugin answers, without the kit's constant learning rate."""
    return [(name, {"lr_scheduler": None, **way}, kind) for name, way, kind in losses.cases(subject)]


@check("optimizer")
def state_round_trip(subject: Subject) -> None:
    """Check that state_dict() of the optimizer and the schedule, loaded into new ones, gives the same updates."""
    for name, way, kind in _cases(subject):
        finals = []
        for restored in (False, True):
            run, policy = running.built(subject.write(f"{name}-state", kind, way))
            optimizer = run.hooks.build_optimizer(run, policy.model)
            scheduler = run.hooks.build_scheduler(run, optimizer, 6)
            for step in range(6):
                if restored and step == 3:
                    states = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
                    optimizer = run.hooks.build_optimizer(run, policy.model)
                    scheduler = run.hooks.build_scheduler(run, optimizer, 6)
                    optimizer.load_state_dict(states[0])
                    scheduler.load_state_dict(states[1])
                _update(policy.model, optimizer, scheduler, step)
            finals.append({n: p.detach().clone() for n, p in policy.model.named_parameters()})
        change = "keep everything that an update reads in the state of a parameter or in a param_group"
        running.require_equal(finals[1], finals[0], f"{way}: a restored optimizer updates differently", change)


def _update(model: Any, optimizer: Any, scheduler: Any, step: int) -> None:
    """Take a step on gradients that depend on its number."""
    import torch

    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) if parameter.requires_grad else None
    optimizer.step()
    scheduler.step()


@check("optimizer")
def resumed_optimizer(subject: Subject) -> None:
    """Check that a run that is interrupted and resumed ends with the same weights, bit for bit, for each value."""
    for case in _cases(subject):
        losses.require_resumed(subject, case)
