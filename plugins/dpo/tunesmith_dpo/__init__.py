"""Direct preference optimization of pairs (DPO, arXiv 2305.18290) and the losses of its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from tunesmith import Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, Policy, Run, Term

REFERENCE = "dpo_reference"
"""The name of the moving reference among the states of a run."""


class DPOSettings(Settings):
    """Keys of DPO, under the names that other fine-tuning tools use."""

    rl_beta: PositiveFloat = 0.1
    """β: how strongly the policy is kept close to the reference; the τ of ipo."""
    dpo_loss_type: list[str] | str = ["sigmoid"]
    """One loss, or several that are added up: sigmoid, sigmoid_norm, hinge, ipo, exo_pair, nca_pair, robust, bco_pair,
    sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sft, and the losses that other plugins offer."""
    dpo_loss_weights: list[PositiveFloat] | None = None
    """Factor of each loss of dpo_loss_type; 1 for each if not set."""
    dpo_label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """ε: probability that the label of a pair is flipped (robust, exo_pair, aot, aot_unpaired)."""
    dpo_discopop_tau: PositiveFloat = 0.05
    """Temperature of the transition between the two parts of discopop."""
    dpo_use_weighting: bool = False
    """Weight each pair by how likely the policy is to write its answers (WPO, arXiv 2406.11827)."""
    ld_alpha: float | None = Field(None, ge=0, le=1)
    """Weight of the tokens of the longer answer beyond the length of the shorter one (LD-DPO, arXiv 2409.06411)."""
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = "reverse_kl"
    """Divergence that keeps the policy close to the reference (f-DPO, arXiv 2309.16240)."""
    f_alpha_divergence_coef: float = 0.5
    """α of alpha_divergence; 1 is reverse_kl."""
    sync_ref_model: bool = False
    """Let the reference follow the policy (TR-DPO, arXiv 2404.09656); not with an adapter."""
    ref_model_mixup_alpha: float = Field(0.6, gt=0, le=1)
    """Share of the policy's weights in the reference after each synchronization."""
    ref_model_sync_steps: PositiveInt = 512
    """Optimizer steps between two synchronizations."""


def _needs(run: Run) -> Needs:
    weighted = run.settings(DPOSettings).dpo_use_weighting
    return Needs(logps=True, reference=True, hidden=(-1,) if weighted else ())


plugin = Plugin(
    settings=DPOSettings,
    shared=("rl_beta",),
    answers={"rl": ("dpo", "ipo")},
    method=Method(rows=("pair",)),
    needs=_needs,
)


@hookimpl
def validate(run: Run) -> None:
    """Refuse unknown losses and keys that have no effect."""
    from tunesmith_dpo.checks import check

    check(run)


@hookimpl
def configure(run: Run) -> None:
    settings = run.settings(DPOSettings)
    if settings.sync_ref_model:
        from tunesmith import MovingReference

        reference = MovingReference(settings.ref_model_mixup_alpha, settings.ref_model_sync_steps)
        run.register_state(REFERENCE, reference)


@hookimpl
def prepare_step(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Add the reference's log-probabilities and, for losses that compare pairs with each other, their partners."""
    from tunesmith_dpo.step import prepare

    prepare(run, policy, batches)


@hookimpl
def compute_loss(run: Run, policy: Policy, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_dpo.step import terms

    return terms(run, policy, out, batch)


@hookimpl
def on_start(run: Run, policy: Policy) -> None:
    reference: Any = run.states.get(REFERENCE)
    if reference is not None:
        reference.attach(policy)


@hookimpl
def on_step(run: Run) -> None:
    reference: Any = run.states.get(REFERENCE)
    if reference is not None:
        reference.follow(run)
