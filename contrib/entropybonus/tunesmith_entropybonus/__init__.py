"""Entropy bonus: lower the loss of predictions with high entropy."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pydantic import PositiveFloat

from tunesmith import Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Output, Run, Term


class EntropySettings(Settings):
    entropy_bonus: PositiveFloat = 0.01
    """Factor of the mean entropy per trained token, in nats, which is subtracted from the loss."""


plugin = Plugin(settings=EntropySettings, needs=Needs(entropy=True))


@hookimpl(wrapper=True)
def compute_loss(run: Run, out: Output) -> Generator[None, dict[str, Term], dict[str, Term]]:
    """Add a term to those of any method: -coefficient * entropy [N], divided by the number of trained tokens."""
    from tunesmith import Term

    terms = yield
    bonus = -run.settings(EntropySettings).entropy_bonus * out.entropy.sum()
    return {**terms, "entropy_bonus": Term(bonus, "tokens")}
