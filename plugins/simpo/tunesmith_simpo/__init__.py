"""SimPO and CPO: preference optimisation of pairs without a reference model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from tunesmith import Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, Run, Term


class SimpoSettings(Settings):
    """How pairs are compared, and how much the likelihood of the chosen answer counts."""

    rl_beta: PositiveFloat = 0.1
    """How strongly a difference between chosen and rejected counts; of ipo, how small the difference aimed at is."""
    simpo_gamma: NonNegativeFloat = 0.5
    """The margin that SimPO wants between the rewards of chosen and rejected (rl: simpo)."""
    cpo_loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """How CPO compares a pair (rl: cpo)."""
    cpo_alpha: NonNegativeFloat | None = None
    """Weight of the negative log-likelihood of the chosen answer; where not set, 1 with rl: cpo, 0 with rl: simpo."""
    cpo_label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs that are taken to be the wrong way round (rl: simpo, and rl: cpo with the sigmoid)."""


plugin = Plugin(
    settings=SimpoSettings,
    answers={"rl": ("simpo", "cpo")},
    method=Method(rows=("pair",)),
    needs=Needs(logps=True),
)


@hookimpl
def validate(run: Run) -> None:
    """Refuse keys of the other method, and say where a margin is out of reach."""
    from tunesmith_simpo.checks import check

    check(run, run.settings(SimpoSettings))


@hookimpl
def prepare_step(batches: Sequence[Batch]) -> None:
    """Count what the likelihood is divided by."""
    from tunesmith import chosen_tokens

    for batch in batches:
        batch.counts["chosen_tokens"] = chosen_tokens(batch)


@hookimpl
def compute_loss(run: Run, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_simpo.loss import Loss

    return Loss.of(str(run.core.rl), run.settings(SimpoSettings)).terms(batch, out.logps)
