"""The bonus is subtracted from the loss of any method."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tunesmith_entropybonus as bonus
from pydantic import ValidationError

from tunesmith import Term


def wrapped(entropy: torch.Tensor, coefficient: float, terms: dict[str, Term]) -> dict[str, Term]:
    """Return the terms of compute_loss around a method that returns `terms`."""
    run: Any = SimpleNamespace(settings=lambda model: model(entropy_bonus=coefficient))
    inner = bonus.compute_loss(run, SimpleNamespace(entropy=entropy))
    next(inner)
    with pytest.raises(StopIteration) as stop:
        inner.send(terms)
    return dict(stop.value.value)


def test_the_term_is_the_negative_coefficient_times_the_entropy() -> None:
    method = {"nll": Term(torch.tensor(3.0), "tokens")}
    terms = wrapped(torch.tensor([1.0, 2.0, 0.5]), 0.1, method)
    assert terms["nll"] is method["nll"]
    assert terms["entropy_bonus"].sum.item() == pytest.approx(-0.35)
    assert terms["entropy_bonus"].count == "tokens" and not terms["entropy_bonus"].metric


def test_more_entropy_lowers_the_loss() -> None:
    entropy = torch.tensor([1.0, 2.0], requires_grad=True)
    wrapped(entropy, 0.1, {})["entropy_bonus"].sum.backward()  # type: ignore[no-untyped-call]
    assert entropy.grad is not None and bool((entropy.grad < 0).all())


def test_the_plugin_needs_the_entropy() -> None:
    needs: Any = bonus.plugin.needs
    assert needs.entropy


@pytest.mark.parametrize("coefficient", [0.0, -1.0])
def test_a_coefficient_must_be_above_0(coefficient: float) -> None:
    with pytest.raises(ValidationError):
        bonus.EntropySettings(entropy_bonus=coefficient)
