"""Freeze parameters, and rows of parameters, so that neither a gradient nor weight decay changes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tunesmith import Run
from tunesmith.spelling import nearest
from tunesmith_freeze import FreezeSettings
from tunesmith_freeze.patterns import KEY, LAYERS, Pattern, parse


class FrozenRows:
    """The rows of trained parameters of a run that stay as they are."""

    def __init__(self, run: Run):
        self.rows: list[tuple[nn.Parameter, Tensor]] = []
        self.kept: list[Tensor] = []

    def add(self, parameter: nn.Parameter, trained: Tensor) -> None:
        """Freeze the rows of a parameter that are not in the mask `trained` [rows]: their gradient is 0."""
        frozen = torch.nonzero(~trained).flatten()
        self.rows.append((parameter, frozen))
        parameter.register_hook(lambda gradient: gradient.index_fill(0, frozen.to(gradient.device), 0))

    def follow(self, optimizer: Optimizer) -> None:
        """Restore frozen rows after each step: weight decay and orthogonalized updates do not need a gradient."""
        if self.rows:
            optimizer.register_step_pre_hook(lambda *_: self.keep())
            optimizer.register_step_post_hook(lambda *_: self.restore())

    def keep(self) -> None:
        """Copy the frozen rows."""
        self.kept = [p.detach().index_select(0, rows.to(p.device)) for p, rows in self.rows]

    @torch.no_grad()
    def restore(self) -> None:
        """Write the frozen rows back."""
        for (parameter, rows), values in zip(self.rows, self.kept, strict=True):
            parameter.index_copy_(0, rows.to(parameter.device), values)
        self.kept = []


def freeze(run: Run, model: nn.Module, settings: FreezeSettings) -> None:
    """Leave only the selected parameters trained. Raise ConfigError for an expression that matches none."""
    selected: dict[int, list[Pattern]] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for index, text in enumerate(settings.unfrozen_parameters or ()):
        pattern = parse(text)
        matches = [name for name in parameters if pattern.expression.match(name)]
        if not matches:
            close = nearest(text, parameters) or next(iter(parameters))
            raise run.config.error(
                (KEY, index), f"does not match any parameter: {text}", f"the model has, for example, {close}"
            )
        for name in matches:
            selected.setdefault(id(parameters[name]), []).append(pattern)
    if settings.freeze_trainable_layers is not None:
        for parameter in layers(run, model, settings.freeze_trainable_layers).parameters():
            selected.setdefault(id(parameter), []).append(parse(""))
    trained = 0
    for name, parameter in model.named_parameters():
        patterns = selected.get(id(parameter), [])
        parameter.requires_grad_(bool(patterns))
        trained += bool(patterns)
        if patterns and not any(pattern.complete for pattern in patterns):
            freeze_rows(run, name, parameter, patterns)
    run.note("trained parameters", f"{trained} of {len(dict(model.named_parameters()))}; the others are frozen")


def freeze_rows(run: Run, name: str, parameter: nn.Parameter, patterns: list[Pattern]) -> None:
    """Freeze the rows of a parameter outside of the ranges of its patterns. Raise ConfigError."""
    if run.world.sharded:
        message = f"selects rows of {name}, which fsdp_config divides by rows among processes"
        raise run.config.error(KEY, message, "drop the rows in brackets, or fsdp_config")
    mask = torch.zeros(len(parameter), dtype=torch.bool)
    for pattern in patterns:
        if max((pattern.start or 0) + 1, pattern.end or 0) > len(parameter):
            written = f"[{'' if pattern.start is None else pattern.start}:{pattern.end or ''}]"
            message = f"selects rows {written} of {name}, which has {len(parameter)} rows"
            raise run.config.error(KEY, message, "write a range of its rows")
        mask[slice(pattern.start, pattern.end)] = True
    if not run.abstract:
        run.owned(FrozenRows).add(parameter, mask)


def layers(run: Run, model: Any, number: int) -> nn.Module:
    """Return the last `number` layers of a model, or the first if it is negative. Raise ConfigError."""
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    stack = next((module for module in stacks if len(module) == depth), stacks[0] if stacks else nn.ModuleList())
    if abs(number) > len(stack):
        message = f"is {number}, but the model has {len(stack)} layers"
        raise run.config.error(LAYERS, message, "write a smaller number, or name parameters in unfrozen_parameters")
    return nn.ModuleList(list(stack)[-number:] if number > 0 else list(stack)[:-number])
