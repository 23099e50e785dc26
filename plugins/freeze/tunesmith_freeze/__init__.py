"""Train only some parameters of the model: those that match expressions, rows of them, or the last layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.optim import Optimizer

    from tunesmith import Run


class FreezeSettings(Settings):
    """Keys that choose what is trained. Everything else stays as it is in base_model."""

    unfrozen_parameters: list[str] | None = None
    """Parameters to train: regular expressions that match the beginnings of their names. Rows of a matrix follow in
    brackets: ^model.embed_tokens.weight$[32000:32010]."""
    freeze_trainable_layers: int | None = None
    """Train only the last n layers, or with a negative number the first. unfrozen_parameters adds to them."""


plugin = Plugin(settings=FreezeSettings, switches=("unfrozen_parameters", "freeze_trainable_layers"))


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_freeze.patterns import check

    check(run, run.settings(FreezeSettings))


@hookimpl(tryfirst=True)
def patch_model(run: Run, name: str, model: nn.Module) -> nn.Module:
    from tunesmith_freeze.parameters import freeze

    if name == "policy":
        freeze(run, model, run.settings(FreezeSettings))
    return model


@hookimpl(wrapper=True)
def build_optimizer(run: Run) -> Iterator[Optimizer]:
    from tunesmith_freeze.parameters import FrozenRows

    optimizer: Any = yield  # type: ignore[misc]
    run.owned(FrozenRows).follow(optimizer)
    return optimizer
