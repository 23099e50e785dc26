"""SimPO and CPO: preference optimization of pairs without a reference model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from tunesmith import Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, Run, Term


class SimpoSettings(Settings):
    """How pairs are compared, and the weight of the likelihood of the chosen answer."""

    rl_beta: PositiveFloat = 0.1
    """β: scale of the difference between chosen and rejected; with ipo, the target difference is 1/(2β)."""
    simpo_gamma: NonNegativeFloat = 0.5
    """γ: target margin between the rewards of the chosen and the rejected answer (rl: simpo)."""
    cpo_loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """Loss of a pair (rl: cpo)."""
    cpo_alpha: NonNegativeFloat | None = None
    """Weight of the negative log-likelihood of the chosen answer; if not set, 1 with rl: cpo and 0 with rl: simpo."""
    cpo_label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """ε: probability that the label of a pair is flipped (rl: simpo, and rl: cpo with sigmoid)."""


plugin = Plugin(
    settings=SimpoSettings,
    shared=("rl_beta",),
    answers={"rl": ("simpo", "cpo")},
    method=Method(rows=("pair",)),
    needs=Needs(logps=True),
    metrics=(
        "simpo",
        "cpo",
        "nll",
        "nll_loss",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
    ),
)


@hookimpl
def validate(run: Run) -> None:
    """Refuse keys of the other method, and warn if the margin is out of reach."""
    from tunesmith_simpo.checks import check

    check(run, run.settings(SimpoSettings))


@hookimpl
def prepare_step(batches: Sequence[Batch]) -> None:
    from tunesmith import count_chosen_tokens

    count_chosen_tokens(batches)


@hookimpl
def compute_loss(run: Run, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_simpo.loss import Loss

    return Loss.of(str(run.core.rl), run.settings(SimpoSettings)).terms(batch, out.logps)
